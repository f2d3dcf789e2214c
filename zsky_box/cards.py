"""The cards as NVIDIA's driver sees them: how they are used, and whether they are well, looked at every few seconds.

A card has a fault when the driver has lost it, when it counts new uncorrectable memory errors, or when it reports an
Xid that no program can have caused. It is well again after it has been without any for a while. Where there is no
driver, nothing is watched.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, cast

import pynvml
from msgspec import Struct

POLL_SECONDS: Final = 5.0
WELL_SECONDS: Final = 60.0
MISSES_MAX: Final = 3
"""So many looks in a row fail for a reason that says nothing of the card, and it counts as lost."""
EVENTS_MAX: Final = 16
STOP_SECONDS: Final = 2.0

_LOST: Final = (
    pynvml.NVML_ERROR_GPU_IS_LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED,
    pynvml.NVML_ERROR_NOT_FOUND,
    pynvml.NVML_ERROR_GPU_NOT_FOUND,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,  # of an index that no card has any more
)
_UNTOLD: Final = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_NO_PERMISSION,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NO_DATA,
)
# https://docs.nvidia.com/deploy/xid-errors: those that an application alone can bring about, and 63 and 94, which tell
# of an error that was contained.
_HARMLESS_XIDS: Final = frozenset({8, 13, 31, 32, 43, 45, 63, 68, 94, 109})

log = logging.getLogger(__name__)

T = TypeVar("T")


class Nvml(Protocol):
    """What is used of pynvml; all of it raises NVMLError."""

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlShutdown(self) -> None: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: N802
    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any: ...  # noqa: N802
    def nvmlDeviceGetUUID(self, handle: Any) -> str: ...  # noqa: N802
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...  # noqa: N802
    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int: ...  # noqa: N802
    def nvmlDeviceGetTotalEccErrors(self, handle: Any, error: int, counter: int) -> int: ...  # noqa: N802
    def nvmlEventSetCreate(self) -> Any: ...  # noqa: N802
    def nvmlDeviceRegisterEvents(self, handle: Any, kinds: int, events: Any) -> None: ...  # noqa: N802
    def nvmlEventSetWait_v2(self, events: Any, timeout_ms: int) -> Any: ...  # noqa: N802
    def nvmlEventSetFree(self, events: Any) -> None: ...  # noqa: N802


class Reading(Struct, frozen=True, kw_only=True):
    """A card at one moment; what it does not tell is None. `utilisation` is the share of time in which it worked."""

    device: str
    memory_total_bytes: int
    memory_used_bytes: int
    utilisation: float | None
    temperature_celsius: float | None
    power_watts: float | None


@dataclass
class _Card:
    device: str
    uuid: str = ""
    events: Any = None
    uncorrected: int | None = None
    misses: int = 0
    fault: str = ""
    well_since: float | None = None


class CardWatch:
    """Watches the cards among `devices` (`cuda:N`, counted as nvidia-smi does) from `start` to `stop`.

    `told(device, fault)` is called when a card has a fault, in a clause about it, and with an empty one when it is well
    again. `readings` may be asked from any thread.
    """

    def __init__(self, devices: list[str], told: Callable[[str, str], None], nvml: Nvml | None = None) -> None:
        self._cards = [_Card(device) for device in devices if device.startswith("cuda:")]
        self._told = told
        self._nvml = nvml or cast("Nvml", pynvml)
        self._readings: tuple[Reading, ...] = ()
        self._is_open = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="cards", daemon=True)

    def start(self) -> None:
        """Begin to watch, where there is anything to watch."""
        if self._cards and self._open():
            self._thread.start()

    def stop(self) -> None:
        """Watch no longer; a driver that does not answer is not waited for."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def readings(self) -> tuple[Reading, ...]:
        """The cards as they were at the last look; those that did not answer are not among them."""
        return self._readings

    def look(self, now: float) -> None:
        """One look at each card; `now` in monotonic seconds."""
        # What was lost is found again only by a driver that is asked anew.
        if not self._is_open or any(card.fault for card in self._cards):
            self._close()
            if not self._open():
                return
        readings: list[Reading] = []
        for card in self._cards:
            try:
                fault, reading = self._examine(card)
                card.misses = 0
                readings.append(reading)
            except pynvml.NVMLError as error:
                card.misses += 1
                is_lost = cast("Any", error).value in _LOST or card.misses >= MISSES_MAX
                fault = f"does not answer any more ({error})" if is_lost else card.fault
            self._judge(card, fault, now)
        self._readings = tuple(readings)

    def _watch(self) -> None:
        try:
            while True:
                self.look(time.monotonic())
                if self._stopped.wait(POLL_SECONDS):
                    return
        except Exception:
            log.exception("the cards are not watched any more")
        finally:
            self._close()

    def _open(self) -> bool:
        try:
            self._nvml.nvmlInit()
        except pynvml.NVMLError as error:
            log.warning("the cards cannot be watched: %s", error)
            return False
        self._is_open = True
        for card in self._cards:
            try:
                handle = self._handle(card)
                card.uuid = card.uuid or self._nvml.nvmlDeviceGetUUID(handle)
                card.events = self._events(handle)
            except pynvml.NVMLError as error:
                log.debug("%s tells no events: %s", card.device, error)
        return True

    def _events(self, handle: Any) -> Any:
        """The card's critical errors from now on. Raises NVMLError where it tells none: of an empty set none is asked,
        since what a driver answers then says nothing of the card."""
        events = self._nvml.nvmlEventSetCreate()
        try:
            self._nvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
        except pynvml.NVMLError:
            self._nvml.nvmlEventSetFree(events)
            raise
        return events

    def _close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        try:
            for card in self._cards:
                events, card.events = card.events, None
                if events is not None:
                    self._nvml.nvmlEventSetFree(events)
            self._nvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            log.debug("the driver could not be left: %s", error)

    def _handle(self, card: _Card) -> Any:
        """By its own id once that is known: where a card is gone, those behind it are counted anew."""
        if card.uuid:
            return self._nvml.nvmlDeviceGetHandleByUUID(card.uuid)
        return self._nvml.nvmlDeviceGetHandleByIndex(int(card.device.removeprefix("cuda:")))

    def _examine(self, card: _Card) -> tuple[str, Reading]:
        """What is wrong with the card, or nothing, and how it is used. Raises NVMLError where it does not answer."""
        nvml, handle = self._nvml, self._handle(card)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        rates = _untold_is_none(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        celsius = _untold_is_none(lambda: nvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
        milliwatts = _untold_is_none(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        reading = Reading(
            device=card.device,
            memory_total_bytes=int(memory.total),
            memory_used_bytes=int(memory.used),
            utilisation=None if rates is None else rates.gpu / 100,
            temperature_celsius=None if celsius is None else float(celsius),
            power_watts=None if milliwatts is None else milliwatts / 1000,
        )
        return self._memory_fault(card, handle) or self._xid_fault(card), reading

    def _memory_fault(self, card: _Card, handle: Any) -> str:
        count = _untold_is_none(
            lambda: self._nvml.nvmlDeviceGetTotalEccErrors(
                handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
            )
        )
        before, card.uncorrected = card.uncorrected, count
        if count is None or before is None or count <= before:
            return ""
        return f"counted {count - before} new uncorrectable memory errors"

    def _xid_fault(self, card: _Card) -> str:
        fault = ""
        for _ in range(EVENTS_MAX):
            if card.events is None:
                break
            try:
                xid = int(self._nvml.nvmlEventSetWait_v2(card.events, 0).eventData)
            except pynvml.NVMLError as error:
                if cast("Any", error).value == pynvml.NVML_ERROR_TIMEOUT:
                    break  # no more of them
                raise
            if xid in _HARMLESS_XIDS:
                log.warning("%s told of Xid %d, which a program can bring about", card.device, xid)
            else:
                fault = f"reported a critical error (Xid {xid})"
        return fault

    def _judge(self, card: _Card, fault: str, now: float) -> None:
        if fault:
            card.well_since = None
            if not card.fault:
                card.fault = fault
                self._told(card.device, fault)
        elif card.fault:
            if card.well_since is None:
                card.well_since = now
            if now - card.well_since >= WELL_SECONDS:
                card.fault, card.well_since = "", None
                self._told(card.device, "")


def _untold_is_none(ask: Callable[[], T]) -> T | None:
    """What a card answers, or None where it never does."""
    try:
        return ask()
    except pynvml.NVMLError as error:
        if cast("Any", error).value in _UNTOLD:
            return None
        raise
