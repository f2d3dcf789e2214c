from __future__ import annotations

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
    else:
        assert devices.card_count() >= 1
