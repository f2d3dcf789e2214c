"""What a kill at any point leaves, and what the next start makes of it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.stores import Killed, Rooms, made
from zsky_box import db, ledger
from zsky_box.assets import Assets
from zsky_box.db import Store
from zsky_box.errors import Refusal
from zsky_box.jobs.book import Attempt

# After a crash


def test_what_was_queued_stays_queued_and_what_had_ended_stays_ended(rooms: Rooms) -> None:
    queued, done, failed = rooms.new_job(), rooms.running(), rooms.running()
    rooms.complete(done)
    rooms.end(failed)
    assert rooms.restart() == 0
    statuses = [rooms.view(job_id).status for job_id in (queued, done.job_id, failed.job_id)]
    assert statuses == ["queued", "completed", "failed"]


@pytest.mark.parametrize("begun", [False, True])
def test_what_ran_is_queued_again_and_its_half_made_files_are_gone(rooms: Rooms, begun: bool) -> None:
    attempt = rooms.running()
    if begun:
        rooms.step(attempt)
    made(attempt)
    assert rooms.restart() == 1
    view = rooms.view(attempt.job_id)
    assert (view.status, view.charge.state) == ("queued", "reserved")
    assert not Path(attempt.out_dir).exists()
    assert not rooms.end(attempt)
    rooms.complete(rooms.claimed(attempt.job_id))


def test_what_ran_at_every_crash_is_given_up_after_its_attempts(rooms: Rooms) -> None:
    job_id = rooms.new_job()
    for _ in range(rooms.settings.attempts_max):
        rooms.claimed(job_id)
        rooms.restart()
    view = rooms.view(job_id)
    assert (view.error_code, view.charge.state) == ("internal_error", "voided")
    assert view.error == "The box stopped while the job ran, too many times."


@pytest.mark.parametrize(("begun", "state"), [(False, "voided"), (True, "posted")])
def test_what_was_to_be_cancelled_is_cancelled_after_the_crash(rooms: Rooms, begun: bool, state: str) -> None:
    attempt = rooms.running()
    if begun:
        rooms.step(attempt)
    rooms.cancel(attempt.job_id)
    rooms.restart()
    view = rooms.view(attempt.job_id)
    assert (view.error_code, view.charge.state) == ("cancelled", state)


def test_a_result_moved_into_place_but_not_recorded_is_made_again(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = rooms.running()

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(Store, "write", killed)
        with pytest.raises(Killed):
            rooms.complete(attempt)
    assert len(list((rooms.assets.root / attempt.job_id / "1").iterdir())) == 2
    rooms.restart()
    assert not (rooms.assets.root / attempt.job_id).exists()
    rooms.complete(rooms.claimed(attempt.job_id))


@pytest.mark.parametrize("ending", ["fail", "retry"])
def test_files_of_an_attempt_that_ended_without_them_are_gone_after_the_crash(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    attempt = rooms.running()
    rooms.assets.adopt(attempt.job_id, attempt.token, made(attempt).files)

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(Assets, "discard", killed)
        with pytest.raises(Killed):
            rooms.end(attempt) if ending == "fail" else rooms.retry(attempt)
    assert (rooms.assets.root / attempt.job_id).exists()
    rooms.restart()
    assert not (rooms.assets.root / attempt.job_id).exists()
    assert rooms.view(attempt.job_id).status == ("failed" if ending == "fail" else "queued")


@pytest.mark.parametrize("written", [True, False])
def test_a_commit_of_unknown_outcome_is_sorted_out_by_the_next_start(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    attempt = rooms.running()

    class Breaking:
        """A disk that fails at COMMIT, before or after the transaction is on it."""

        def __init__(self, real: sqlite3.Connection) -> None:
            self.real = real

        def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
            if sql != "COMMIT":
                return self.real.execute(sql, parameters)
            if written:
                self.real.execute(sql)
            raise sqlite3.OperationalError("disk I/O error")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    monkeypatch.setattr(rooms.store, "_writer", Breaking(rooms.store._writer))  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(Refusal) as refused:
        rooms.complete(attempt)
    assert refused.value.code == db.storage_error().code
    rooms.restart()
    assert rooms.view(attempt.job_id).status == ("completed" if written else "queued")


def test_open_jobs_are_named_for_the_sweep_and_ended_ones_are_not(rooms: Rooms) -> None:
    queued, running, ended = rooms.new_job(), rooms.running(), rooms.running()
    rooms.end(ended)
    assert rooms.book.open_ids(10) == [queued, running.job_id]
    assert rooms.book.open_ids(1) == [queued]


# Money over the month's end, and everything at once


def test_a_job_voided_in_the_next_month_gives_its_units_to_that_month(rooms: Rooms) -> None:
    rooms.clock.set("2026-11-30T23:59:59Z")
    attempt = rooms.running(n=5)
    rooms.clock.set("2026-12-01T00:00:01Z")
    rooms.end(attempt)
    assert rooms.left() == 45


def test_a_storm_of_submits_takes_exactly_the_allowance(rooms: Rooms) -> None:
    async def storm() -> Counter[str]:
        submission = rooms.reader.submission(rooms.owner, job_id)
        submits = (rooms.desk.submit(rooms.owner, submission, None) for _ in range(256))
        answers = await asyncio.gather(*submits, return_exceptions=True)
        return Counter(answer.code if isinstance(answer, Refusal) else type(answer).__name__ for answer in answers)

    job_id = rooms.new_job()
    rooms.cancel(job_id)
    assert asyncio.run(storm()) == {"Answer": 40, "allowance_exhausted": 216}
    assert rooms.left() == 0


def test_the_feed_is_told_of_every_change_in_order(rooms: Rooms) -> None:
    async def listen() -> list[tuple[str, str]]:
        owner = rooms.owner.account.id
        listener, _ = rooms.feed.listen((owner, False), None, "")
        attempt = await asyncio.to_thread(rooms.running)
        await asyncio.to_thread(rooms.step, attempt)
        await asyncio.to_thread(rooms.complete, attempt)
        await asyncio.sleep(0)
        events = [listener.queue.get_nowait() for _ in range(listener.queue.qsize())]
        return [(event.kind, event.data["status"]) for event in events if event is not None]

    assert asyncio.run(listen()) == [
        ("status", "queued"),
        ("status", "running"),
        ("progress", "running"),
        ("status", "completed"),
    ]


def test_ledger_ids_of_a_charge_are_rows_that_name_the_job(rooms: Rooms) -> None:
    attempt: Attempt = rooms.running(n=2)
    rooms.complete(attempt, 0)
    named = ledger.charges(rooms.store, [attempt.job_id])[attempt.job_id].ledger_ids
    rows = rooms.store.all("SELECT id FROM transfer WHERE job_id = ? ORDER BY id", (attempt.job_id,))
    assert list(named) == [row["id"] for row in rows]
    assert len(named) == 4
