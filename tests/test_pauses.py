from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.stores import Rooms
from zsky_box import audit, pauses
from zsky_box.db import Tx
from zsky_box.errors import Refusal
from zsky_box.pauses import ALL, Pauses


@pytest.fixture
def rooms(tmp_path: Path) -> Generator[Rooms]:
    rooms = Rooms(tmp_path)
    yield rooms
    rooms.close()


def of(rooms: Rooms, hours: str = "", zone: str = "UTC") -> Pauses:
    return Pauses(rooms.store, ["cuda:0", "cuda:1"], hours, ZoneInfo(zone), rooms.clock)


def test_a_device_is_paused_until_it_is_resumed(rooms: Rooms) -> None:
    rooms.store.write(lambda tx: pauses.pause(tx, "cuda:1", 1, unload=False, actor="ann"))
    assert of(rooms).now() == {"cuda:1": False}
    rooms.store.write(lambda tx: pauses.pause(tx, "cuda:1", 2, unload=True, actor="ann"))
    rooms.store.write(lambda tx: pauses.pause(tx, "cuda:1", 3, unload=False, actor="ann"))
    assert of(rooms).now() == {"cuda:1": True}
    rooms.store.write(lambda tx: pauses.resume(tx, "cuda:1", 4, actor="ann"))
    assert of(rooms).now() == {}


def test_all_means_every_device_and_resuming_all_ends_every_pause(rooms: Rooms) -> None:
    rooms.store.write(lambda tx: pauses.pause(tx, ALL, 1, unload=False, actor="ann"))
    rooms.store.write(lambda tx: pauses.pause(tx, "cuda:0", 1, unload=True, actor="ann"))
    assert of(rooms).now() == {"cuda:0": True, "cuda:1": False}
    rooms.store.write(lambda tx: pauses.resume(tx, ALL, 4, actor="ann"))
    assert of(rooms).now() == {}


def test_one_of_all_that_are_paused_together_is_not_resumed_alone(rooms: Rooms) -> None:
    rooms.store.write(lambda tx: pauses.pause(tx, ALL, 1, unload=False, actor="ann"))
    with pytest.raises(Refusal, match="resume all of them"):
        rooms.store.write(lambda tx: pauses.resume(tx, "cuda:0", 4, actor="ann"))
    assert of(rooms).now() == {"cuda:0": False, "cuda:1": False}


def test_who_paused_and_resumed_what_is_on_record_once(rooms: Rooms) -> None:
    def asked(tx: Tx) -> None:
        for unload in (False, False, True, False):
            pauses.pause(tx, "cuda:1", 1, unload=unload, actor="ann")
        pauses.pause(tx, ALL, 2, unload=False, actor="bob")
        for _ in range(2):
            pauses.resume(tx, ALL, 3, actor="cleo")

    rooms.store.write(asked)
    rows = rooms.store.all("SELECT * FROM audit WHERE action GLOB 'device.*' ORDER BY id")
    assert [(row["at"], row["actor"], row["action"], row["subject"], row["after"]) for row in rows] == [
        (1, "ann", "device.paused", "cuda:1", '{"unloaded":false}'),
        (1, "ann", "device.paused", "cuda:1", '{"unloaded":true}'),
        (2, "bob", "device.paused", "all", '{"unloaded":false}'),
        (3, "cleo", "device.resumed", "all", "{}"),
        (3, "cleo", "device.resumed", "cuda:1", "{}"),
    ]
    assert audit.first_broken_row(rooms.store) is None


def test_quiet_hours_are_those_of_the_boxs_zone(rooms: Rooms) -> None:
    rooms.clock.set("2026-11-23T12:00:00Z")
    assert of(rooms, "mon 11:00-13:00").now() == {"cuda:0": True, "cuda:1": True}
    assert of(rooms, "mon 11:00-13:00", "Asia/Tokyo").now() == {}
    assert of(rooms, "mon 20:00-22:00", "Asia/Tokyo").is_quiet()
