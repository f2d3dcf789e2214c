"""NVIDIA's driver with cards that a test can break: as much of pynvml as the box asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml


@dataclass
class FakeCard:
    """`gone` takes it out of the driver's count, `error` is what every question about it raises."""

    uuid: str
    used_bytes: int = 3 * 2**30
    gone: bool = False
    error: int | None = None
    uncorrected: int | None = 0
    xids: list[int] = field(default_factory=list[int])
    tells_events: bool = True


class FakeNvml:
    """So many cards, or no driver at all (`installed` is False)."""

    def __init__(self, count: int, *, installed: bool = True) -> None:
        self.cards = [FakeCard(f"GPU-{number}") for number in range(count)]
        self.installed = installed
        self.opened = 0
        self.event_sets = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.installed:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.opened -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeCard:  # noqa: N802
        there = [card for card in self._asked() if not card.gone]
        if index >= len(there):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return self._well(there[index])

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeCard:  # noqa: N802
        for card in self._asked():
            if card.uuid == uuid and not card.gone:
                return self._well(card)
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetUUID(self, handle: FakeCard) -> str:  # noqa: N802
        return handle.uuid

    def nvmlDeviceGetMemoryInfo(self, handle: FakeCard) -> Any:  # noqa: N802
        return SimpleNamespace(total=80 * 2**30, used=self._well(handle).used_bytes)

    def nvmlDeviceGetUtilizationRates(self, handle: FakeCard) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=97, memory=40) if self._well(handle) else None

    def nvmlDeviceGetTemperature(self, handle: FakeCard, sensor: int) -> int:  # noqa: N802
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return 61 if self._well(handle) else 0

    def nvmlDeviceGetPowerUsage(self, handle: FakeCard) -> int:  # noqa: N802
        del handle
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetTotalEccErrors(self, handle: FakeCard, error: int, counter: int) -> int:  # noqa: N802
        assert (error, counter) == (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)
        if self._well(handle).uncorrected is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return handle.uncorrected or 0

    def nvmlEventSetCreate(self) -> list[FakeCard]:  # noqa: N802
        self.event_sets += 1
        return []

    def nvmlDeviceRegisterEvents(self, handle: FakeCard, kinds: int, events: list[FakeCard]) -> None:  # noqa: N802
        assert kinds == pynvml.nvmlEventTypeXidCriticalError
        if not handle.tells_events:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        events.append(self._well(handle))

    def nvmlEventSetWait_v2(self, events: list[FakeCard], timeout_ms: int) -> Any:  # noqa: N802
        assert timeout_ms == 0
        if not events:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        for card in events:
            if card.xids:
                return SimpleNamespace(eventData=card.xids.pop(0))
        raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)

    def nvmlEventSetFree(self, events: list[FakeCard]) -> None:  # noqa: N802
        del events
        self.event_sets -= 1

    def _asked(self) -> list[FakeCard]:
        if not self.opened:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
        return self.cards

    def _well(self, card: FakeCard) -> FakeCard:
        self._asked()
        if card.error is not None:
            raise pynvml.NVMLError(card.error)
        return card
