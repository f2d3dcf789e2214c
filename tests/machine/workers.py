"""What workers do in a world, late ones and stale ones among them: those change nothing."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.machine.world import World
from tests.stores import made
from zsky_box.errors import JobFailure
from zsky_box.events import Done
from zsky_box.jobs.book import Attempt


def claim_all(world: World, *, test: bool) -> list[Attempt]:
    """Every queued job whose time has not run out."""
    claimed = [claim_one(world, job.id) for job in world.rooms.queued(test=test)[:10]]
    return [attempt for attempt in claimed if attempt is not None]


def claim_one(world: World, job_id: str) -> Attempt | None:
    """A claim raises the token, and hands the worker how many units bear the wordmark."""
    row, now = world.rooms.row(job_id), world.rooms.clock()
    late = row["deadline_at"] is not None and row["deadline_at"] <= now
    attempt = world.rooms.book.claim(job_id, "cpu")
    assert (attempt is None) == late or world.disk_may_fail
    if attempt is not None:
        assert (attempt.token, attempt.work.wordmarked) == (row["token"] + 1, row["wordmarked"])
        world.attempts.append(attempt)
    return attempt


def some_attempt(world: World, pick: int) -> Attempt | None:
    """A fresh one, or one of the last few, which may be over, taken again or still running."""
    if pick < 2 or not world.attempts:
        claim_all(world, test=pick == 1)
    if not world.attempts:
        claim_all(world, test=False)
    return world.attempts[-1 - pick % len(world.attempts)] if world.attempts else None


def is_current(world: World, attempt: Attempt) -> bool:
    """Whether the attempt is still its job's."""
    row = world.rooms.row(attempt.job_id)
    return row["status"] == "running" and row["token"] == attempt.token


def progress(world: World, attempt: Attempt, phase: Any, step: int) -> None:
    """A note, and wait until it is stored."""
    world.rooms.book.progress(attempt.job_id, attempt.token, phase, step, 8)
    world.rooms.store.write(lambda _: None)


def complete(world: World, attempt: Attempt, *, whole: bool, only: int) -> None:
    """With all results or with one."""
    current = is_current(world, attempt)
    if not Path(attempt.out_dir).is_dir():
        if world.disk_may_fail:
            return
        with world.nothing_changes(), suppress(JobFailure):
            world.rooms.book.complete(reported(attempt), "CPU", {})
        return
    done = made(attempt) if whole else made(attempt, only % attempt.work.n)
    if current:
        world.rooms.book.complete(done, "CPU", {})
        assert world.rooms.row(attempt.job_id)["status"] == "completed"
    else:
        with world.nothing_changes():
            world.rooms.book.complete(done, "CPU", {})


def reported(attempt: Attempt) -> Done:
    """What a worker would say that does not know that its folder is gone."""
    Path(attempt.out_dir).mkdir(parents=True)
    try:
        return made(attempt)
    finally:
        shutil.rmtree(attempt.out_dir)


def fail(world: World, attempt: Attempt, code: Any) -> None:
    """End a job without a result."""
    if is_current(world, attempt):
        assert world.rooms.end(attempt, code)
    else:
        with world.nothing_changes():
            assert not world.rooms.end(attempt, code)


def retry(world: World, attempt: Attempt, attempts_max: int) -> None:
    """Back to the queue, or the end."""
    if is_current(world, attempt):
        world.rooms.retry(attempt, attempts_max)
        assert world.rooms.row(attempt.job_id)["status"] in ("queued", "failed")
    else:
        with world.nothing_changes():
            assert not world.rooms.retry(attempt, attempts_max)


def release(world: World, attempt: Attempt) -> None:
    """The service stops before the attempt is done."""
    if is_current(world, attempt):
        world.rooms.book.release(attempt.job_id, attempt.token)
    else:
        with world.nothing_changes():
            world.rooms.book.release(attempt.job_id, attempt.token)
