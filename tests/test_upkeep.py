"""What is old is forgotten by a clock that runs, and not by one that has just jumped; what is removed goes for good."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.stores import Rooms
from zsky_box import sessions
from zsky_box.backups import Backups
from zsky_box.clock import DAY_US
from zsky_box.upkeep import Upkeep


@pytest.fixture
def rooms(tmp_path: Path) -> Generator[Rooms]:
    opened = Rooms(tmp_path, session_idle_days=7)
    yield opened
    opened.close()


@pytest.fixture
def upkeep(rooms: Rooms) -> Generator[Upkeep]:
    backups = Backups(rooms.folder, rooms.store, rooms.clock, 1)
    yield Upkeep(
        rooms.store,
        rooms.assets,
        rooms.uploads,
        backups,
        rooms.settings,
        rooms.clock,
        is_stopping=lambda: rooms.desk.draining,
    )
    backups.close()


def sign_in(rooms: Rooms) -> None:
    account_id, now = rooms.owner.account.id, rooms.clock()
    rooms.store.write(lambda tx: sessions.begin(tx, account_id, now=now, address="10.0.0.7", agent="Firefox"))


def open_sessions(rooms: Rooms) -> int:
    return len(rooms.store.all("SELECT id FROM session"))


def test_what_is_old_is_forgotten_once_the_clock_has_been_seen_to_run(rooms: Rooms, upkeep: Upkeep) -> None:
    sign_in(rooms)
    rooms.clock.now_us += 8 * DAY_US
    upkeep.tidy()
    assert open_sessions(rooms) == 1, "the clock may have been set wrong before the start"
    rooms.clock.now_us += DAY_US - 1
    upkeep.tidy()
    assert open_sessions(rooms) == 0


def test_a_clock_that_jumped_forgets_nothing(rooms: Rooms, upkeep: Upkeep) -> None:
    sign_in(rooms)
    upkeep.tidy()
    rooms.clock.now_us += 8 * DAY_US
    upkeep.tidy()
    assert open_sessions(rooms) == 1


def test_what_a_run_left_half_made_goes(rooms: Rooms, upkeep: Upkeep) -> None:
    half = rooms.folder / "uploads" / ".tmp" / "up_half.png"
    half.write_bytes(b"half a picture")
    upkeep.clear()
    assert not half.exists()


def test_however_many_files_a_run_left_to_unlink_they_go_within_an_hour(
    rooms: Rooms, upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zsky_box.assets._PURGE_BATCH", 2)
    attempts = [rooms.running() for _ in range(4)]
    for attempt in attempts:
        rooms.complete(attempt)
    asyncio.run(rooms.desk.delete_all(rooms.owner, [attempt.job_id for attempt in attempts]))
    upkeep.clear()
    assert list(rooms.assets.root.glob("job_*")), "a start does not wait for all of them"
    rooms.desk.draining = True
    upkeep.tidy()
    assert list(rooms.assets.root.glob("job_*")), "nor does a stop"
    rooms.desk.draining = False
    upkeep.tidy()
    assert list(rooms.assets.root.glob("job_*")) == []
