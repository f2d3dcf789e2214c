from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from zsky_box import devices
from zsky_box.errors import SettingsError


@pytest.mark.parametrize(
    ("setting", "cards", "expected"),
    [
        ("auto", 0, ["cpu"]),
        ("auto", 2, ["cuda:0", "cuda:1"]),
        ("cpu", 2, ["cpu"]),
        ("cpu,cpu", 0, ["cpu", "cpu"]),
        ("0", 1, ["cuda:0"]),
        (" 1 , 0 ", 2, ["cuda:1", "cuda:0"]),
        ("0,cpu", 1, ["cuda:0", "cpu"]),
    ],
)
def test_devices_are_named_counted_or_the_processor(
    monkeypatch: pytest.MonkeyPatch, setting: str, cards: int, expected: list[str]
) -> None:
    monkeypatch.setattr(devices, "card_count", lambda: cards)
    assert devices.chosen(setting) == expected


@pytest.mark.parametrize(
    ("setting", "cards", "told"),
    [("0", 0, "no NVIDIA card"), ("1", 1, "card 0 only"), ("0,7", 2, "cards 0 to 1"), ("0,0", 1, "named twice")],
)
def test_a_card_that_is_not_there_or_named_twice_is_refused(
    monkeypatch: pytest.MonkeyPatch, setting: str, cards: int, told: str
) -> None:
    monkeypatch.setattr(devices, "card_count", lambda: cards)
    with pytest.raises(SettingsError, match=told):
        devices.chosen(setting)


def test_a_machine_without_a_driver_has_no_cards_and_no_version() -> None:
    if devices.driver_version() is None:
        assert devices.card_count() == 0
        assert devices.cards() == ()
    else:
        assert devices.card_count() >= 1


class Driver:
    """Two cards, as NVML tells of them; its own names are in camel case, after `nvml`."""

    def init(self) -> None: ...

    def shutdown(self) -> None: ...

    def device_get_count(self) -> int:
        return 2

    def device_get_handle_by_index(self, number: int) -> int:
        return number

    def device_get_name(self, handle: int) -> str:
        return f"Card {handle}"

    def device_get_cuda_compute_capability(self, handle: int) -> tuple[int, int]:
        return (8, 9) if handle else (12, 0)

    def device_get_memory_info(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=(handle + 1) * 2**30)


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has this driver."""
    driver = Driver()
    for name in vars(Driver):
        if not name.startswith("_"):
            camel = "".join(word.capitalize() for word in name.split("_"))
            monkeypatch.setattr(f"pynvml.nvml{camel}", getattr(driver, name))
    monkeypatch.setattr("pynvml.nvmlDeviceGetUUID", "GPU-{}".format)


@pytest.mark.usefixtures("driven")
def test_cards_are_told_with_their_memory_and_capability() -> None:
    assert devices.cards() == (
        devices.Card(device="cuda:0", name="Card 0", total_bytes=2**30, capability=12.0, uuid="GPU-0"),
        devices.Card(device="cuda:1", name="Card 1", total_bytes=2**31, capability=8.9, uuid="GPU-1"),
    )
    assert devices.host_memory_bytes() > 2**28


@pytest.mark.usefixtures("driven")
def test_a_card_that_the_driver_has_lost_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(number: int) -> int:
        if number == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return number

    monkeypatch.setattr("pynvml.nvmlDeviceGetHandleByIndex", handle)
    assert [card.device for card in devices.cards()] == ["cuda:1"]
