from __future__ import annotations

from pathlib import Path

import pytest

from tests.doubles.driving import SPEC
from zsky_box import devices, inventory
from zsky_box.errors import SettingsError
from zsky_box.inventory import HOST_PART, models_by_device, take
from zsky_box.placement import GIB
from zsky_box.settings import Settings

HOST = 100 * GIB


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two cards of 24 and 80 GiB and 100 GiB of memory; returns the control group's limit, which is not there."""
    cards = tuple(
        devices.Card(
            device=f"cuda:{number}", name="a card", total_bytes=gib * GIB, capability=capability, uuid=f"G{number}"
        )
        for number, (gib, capability) in enumerate([(24, 8.6), (80, 9.0)])
    )
    monkeypatch.setattr(devices, "cards", lambda: cards)
    monkeypatch.setattr(devices, "card_count", lambda: len(cards))
    monkeypatch.setattr(devices, "host_memory_bytes", lambda: HOST)
    monkeypatch.setattr(inventory, "_CGROUP_LIMIT", tmp_path / "memory.max")
    return tmp_path / "memory.max"


def test_each_card_has_its_memory_less_the_reserve_for_whoever_sits_there() -> None:
    found = take(Settings(card_reserve_bytes=2 * GIB))
    assert found.devices == ["cuda:0", "cuda:1"]
    assert {name: card.total_bytes // GIB for name, card in found.cards.items()} == {"cuda:0": 22, "cuda:1": 78}
    assert found.cards["cuda:0"].capability == 8.6
    assert found.host_total_bytes == round(HOST_PART * HOST)


def test_a_reserve_larger_than_a_card_leaves_nothing_and_not_less() -> None:
    assert take(Settings(devices="0", card_reserve_bytes=25 * GIB)).cards["cuda:0"].total_bytes == 0


def test_a_card_that_the_driver_has_lost_has_room_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service starts all the same, and the others serve on."""
    there = devices.cards()[1:]
    monkeypatch.setattr(devices, "cards", lambda: there)
    assert [card.total_bytes // GIB for card in take(Settings()).cards.values()] == [0, 79]


def test_workers_on_the_processor_share_the_hosts_memory_under_names_of_their_own() -> None:
    found = take(Settings(devices="cpu,cpu", host_memory_max_bytes=7 * GIB))
    assert found.devices == ["cpu", "cpu"]
    assert {name: (card.device, card.total_bytes) for name, card in found.cards.items()} == {
        "cpu-1": ("cpu-1", 7 * GIB),
        "cpu-2": ("cpu-2", 7 * GIB),
    }
    assert all(card.is_cpu for card in found.cards.values())


@pytest.mark.parametrize(("limit", "expected"), [(str(10 * GIB), 10 * GIB), ("max", HOST), (str(200 * GIB), HOST)])
def test_a_container_counts_what_it_may_use(machine: Path, limit: str, expected: int) -> None:
    machine.write_text(f"{limit}\n")
    assert take(Settings(devices="cpu")).host_total_bytes == round(HOST_PART * expected)


def test_an_output_check_stays_on_each_card_beside_the_models() -> None:
    without, check = take(Settings()).cards, SPEC
    beside = take(Settings(), check).cards
    assert all(beside[name].total_bytes < card.total_bytes for name, card in without.items())


def test_a_card_that_is_not_there_is_named() -> None:
    with pytest.raises(SettingsError, match="cards 0 to 1"):
        take(Settings(devices="2"))


def test_pins_and_exclusions_are_read_by_device() -> None:
    found = models_by_device("pins", "cuda:0=a, cuda:1=b,cuda:0 = b", ["cuda:0", "cuda:1"], ["a", "b"])
    assert found == {"cuda:0": {"a", "b"}, "cuda:1": {"b"}}
    assert models_by_device("pins", " ", ["cpu"], []) == {}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("cuda:7=a", "a device among cpu"),
        ("a", "DEVICE=MODEL"),
        ("cpu=unknown", "no model 'unknown'"),
        ("=a", "DEVICE=MODEL"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(value: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        models_by_device("exclusions", value, ["cpu"], ["a"])
