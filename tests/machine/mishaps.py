"""What befalls a world: the clock jumps, the box stops, starts in another zone, or is killed in the middle."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from tests.machine.months import month_end_us
from tests.machine.workers import reported
from tests.machine.world import World
from tests.stores import Killed, made
from zsky_box.assets import Assets
from zsky_box.db import Store
from zsky_box.errors import JobFailure
from zsky_box.jobs.book import Attempt

KILLED_AT = {"write": (Store, "write"), "discard": (Assets, "discard"), "rename": (Path, "rename")}


def stop_and_start(world: World) -> None:
    """A start finds what is committed and on disk, and what was unsure is found out."""
    world.rooms.restart()
    world.model.start(world.rooms.settings.timezone, world.at_us)
    assert world.rooms.store.all("SELECT id FROM job WHERE status = 'running'") == []
    assert list((world.rooms.assets.root / ".tmp").iterdir()) == []
    world.find_out()


def start_in_another_zone(world: World, zone: str) -> None:
    """It counts from the next month on; one that was chosen before and has not begun gives way to it."""
    world.rooms.settings = msgspec.structs.replace(world.rooms.settings, timezone=zone)
    stop_and_start(world)


def jump(world: World, seconds: float) -> None:
    """The clock is moved, and the sweep ends what is too late."""
    world.rooms.clock.advance(seconds)
    world.rooms.book.expire()
    late = world.rooms.store.all(
        "SELECT id FROM job WHERE status = 'queued' AND deadline_at <= ?", (world.rooms.clock(),)
    )
    assert late == []


def jump_to_the_months_end(world: World, seconds_after: float) -> None:
    """To the very edge of a month, or beside it; never backwards."""
    end = month_end_us(world.at_us, world.model.zones)
    jump(world, max(0.0, (end - world.rooms.clock()) / 1_000_000 + seconds_after))


def kill_while_ending(world: World, attempt: Attempt, point: str, *, result: bool) -> None:
    """Before the files are moved, between that and the commit, or between the commit and the tidying up."""

    def killed(*_: object) -> None:
        raise Killed

    done = made(attempt) if Path(attempt.out_dir).is_dir() else reported(attempt)
    with pytest.MonkeyPatch.context() as dying, suppress(Killed, JobFailure):
        dying.setattr(*KILLED_AT[point], killed)
        if result:
            world.rooms.book.complete(done, "CPU", {})
        else:
            world.rooms.end(attempt)
    stop_and_start(world)
