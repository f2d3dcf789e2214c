"""Waiting and leaving: the queue, claims, cancels, deletes and deadlines."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.stores import Killed, Rooms, add_account, caller_for
from zsky_box.assets import Assets
from zsky_box.db import Tx, storage_error
from zsky_box.errors import Refusal
from zsky_box.jobs.book import DECISIONS_MAX

WAIT_SECONDS = 30.0


# Queue and claim


def test_jobs_are_taken_interactive_first_then_as_they_came(rooms: Rooms) -> None:
    batch = rooms.new_job(priority="batch")
    first, second = rooms.new_job(), rooms.new_job(type="video")
    rooms.new_job(rooms.tester)
    queued = rooms.queued(test=False)
    assert [job.id for job in queued] == [first, second, batch]
    assert [(job.model, job.work.type, job.batch) for job in queued][1:] == [
        ("leader", "video", False),
        ("leader", "image", True),
    ]
    assert [rooms.view(job_id).queue_position for job_id in (first, second, batch)] == [1, 2, 3]
    assert len(rooms.queued(test=True)) == 1


def test_a_claim_gives_the_work_a_folder_and_a_higher_token(rooms: Rooms) -> None:
    attempt = rooms.running(prompt="A Lake", deadline=60)
    assert (attempt.token, attempt.work.prompt, attempt.stem, attempt.test) == (1, "A Lake", "a-lake-7", False)
    assert attempt.deadline_in_seconds == 60
    assert list(Path(attempt.out_dir).iterdir()) == []
    rooms.retry(attempt)
    assert rooms.claimed(attempt.job_id).token == 2
    view = rooms.view(attempt.job_id)
    assert (view.status, view.phase, view.queue_position) == ("running", "loading", None)


def test_of_many_decisions_about_a_job_the_first_and_the_newest_are_kept(rooms: Rooms) -> None:
    job_id = rooms.new_job()
    for number in range(DECISIONS_MAX + 4):
        attempt = rooms.book.claim(job_id, f"gpu{number}", f"reason {number}")
        assert attempt is not None
        rooms.retry(attempt, attempts_max=100)
    decisions, waits = rooms.reader.decisions(rooms.owner, job_id)
    newest = range(5, DECISIONS_MAX + 4)
    assert [decision.why for decision in decisions] == ["reason 0", *(f"reason {number}" for number in newest)]
    assert [decision.device for decision in decisions][:2] == ["gpu0", "gpu5"]
    assert waits


def test_of_many_claimers_exactly_one_gets_the_job(rooms: Rooms) -> None:
    job_id = rooms.new_job()
    with ThreadPoolExecutor(8) as pool:
        claims = [pool.submit(rooms.book.claim, job_id, f"gpu{number}") for number in range(8)]
        assert Counter(claim.result(WAIT_SECONDS) is None for claim in claims) == {True: 7, False: 1}
    assert rooms.row(job_id)["attempts"] == 1


@pytest.mark.parametrize("ending", ["cancelled", "completed", "unknown"])
def test_what_is_not_queued_cannot_be_claimed(rooms: Rooms, ending: str) -> None:
    job_id = rooms.new_job()
    if ending == "cancelled":
        rooms.cancel(job_id)
    elif ending == "completed":
        rooms.complete(rooms.claimed(job_id))
    assert rooms.book.claim("job_unknown" if ending == "unknown" else job_id, "cpu") is None


def test_a_disk_that_takes_no_folder_ends_the_job_uncharged(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    job_id = rooms.new_job()
    with monkeypatch.context() as broken:
        broken.setattr(Assets, "begin", full)
        assert rooms.book.claim(job_id, "cpu") is None
    view = rooms.view(job_id)
    assert (view.status, view.error_code, view.charge.state) == ("failed", "storage_full", "voided")


# Cancel


def test_a_queued_job_is_cancelled_at_once_and_free(rooms: Rooms) -> None:
    job_id = rooms.new_job(n=3)
    rooms.cancel(job_id)
    view = rooms.view(job_id)
    assert (view.status, view.error_code, view.charge.state) == ("failed", "cancelled", "voided")
    assert rooms.left() == 40


@pytest.mark.parametrize(("begun", "state", "left"), [(False, "voided", 40), (True, "posted", 38)])
def test_a_running_job_is_charged_for_a_cancel_once_a_step_is_stored(
    rooms: Rooms, begun: bool, state: str, left: int
) -> None:
    attempt = rooms.running(n=2)
    if begun:
        rooms.step(attempt)
    rooms.rung.clear()
    rooms.cancel(attempt.job_id)
    assert rooms.rung == [None]
    assert rooms.book.cancel_requested([attempt.job_id, "job_other"]) == {attempt.job_id}
    view = rooms.view(attempt.job_id)
    assert (view.status, view.cancel_requested, view.charge.state) == ("running", True, "reserved")
    rooms.end(attempt, "cancelled")
    assert rooms.charge_state(attempt.job_id) == state
    assert rooms.left() == left


def test_a_job_that_was_begun_and_waits_for_a_retry_is_cancelled_free(rooms: Rooms) -> None:
    attempt = rooms.running()
    rooms.step(attempt)
    rooms.retry(attempt)
    rooms.cancel(attempt.job_id)
    assert rooms.charge_state(attempt.job_id) == "voided"


def test_a_result_that_comes_before_the_cancel_is_a_result(rooms: Rooms) -> None:
    attempt = rooms.running()
    rooms.cancel(attempt.job_id)
    rooms.complete(attempt)
    assert rooms.view(attempt.job_id).status == "completed"


@pytest.mark.parametrize("ended", ["completed", "failed"])
def test_an_ended_job_cannot_be_cancelled(rooms: Rooms, ended: str) -> None:
    attempt = rooms.running()
    if ended == "completed":
        rooms.complete(attempt)
    else:
        rooms.end(attempt)
    with pytest.raises(Refusal) as refused:
        rooms.cancel(attempt.job_id)
    assert (refused.value.status, refused.value.code) == (409, "job_finished")


def test_another_accounts_or_modes_job_is_not_there(rooms: Rooms) -> None:
    attempt = rooms.running()
    other = caller_for(rooms.store, add_account(rooms.store, "bob"))
    for stranger in (other, rooms.tester):
        for act in (rooms.cancel, rooms.delete):
            with pytest.raises(Refusal) as refused:
                act(attempt.job_id, stranger)
            assert (refused.value.status, refused.value.code) == (404, "not_found")
    assert not rooms.view(attempt.job_id).cancel_requested


# Delete


def test_a_deleted_job_keeps_its_charge_and_loses_its_files(rooms: Rooms) -> None:
    attempt = rooms.running()
    rooms.complete(attempt)
    rooms.clock.advance(60)
    rooms.delete(attempt.job_id)
    view = rooms.view(attempt.job_id)
    assert (view.status, view.charge.state, view.removed_at) == ("completed", "posted", "2026-11-22T12:01:00Z")
    assert not (rooms.assets.root / attempt.job_id).exists()
    rooms.clock.advance(60)
    rooms.delete(attempt.job_id)
    assert rooms.view(attempt.job_id).removed_at == "2026-11-22T12:01:00Z"


def test_an_open_job_cannot_be_deleted(rooms: Rooms) -> None:
    attempt, queued = rooms.running(), rooms.new_job()
    for job_id in (attempt.job_id, queued):
        with pytest.raises(Refusal) as refused:
            rooms.delete(job_id)
        assert (refused.value.status, refused.value.code) == (409, "job_open")


def test_a_failed_job_can_be_deleted(rooms: Rooms) -> None:
    attempt = rooms.running()
    rooms.end(attempt)
    rooms.delete(attempt.job_id)
    assert rooms.view(attempt.job_id).removed_at is not None


def test_a_delete_that_was_killed_before_the_unlink_is_finished_at_the_start(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = rooms.running()
    rooms.complete(attempt)

    def killed(*_: object) -> int:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(Assets, "purge", killed)
        with pytest.raises(Killed):
            rooms.delete(attempt.job_id)
    assert (rooms.assets.root / attempt.job_id).exists()
    rooms.restart()
    assert not (rooms.assets.root / attempt.job_id).exists()


# Deadlines


@pytest.mark.parametrize("field", ["start_deadline", "deadline"])
def test_a_job_that_has_not_begun_by_its_deadline_is_voided(rooms: Rooms, field: str) -> None:
    fields: dict[str, Any] = {field: 60}
    job_id = rooms.new_job(**fields)
    rooms.clock.advance(59.999)
    assert rooms.book.expire() == 0
    rooms.clock.advance(0.001)
    assert rooms.book.claim(job_id, "cpu") is None
    assert rooms.book.expire() == 1
    view = rooms.view(job_id)
    assert (view.error_code, view.charge.state) == ("deadline_exceeded", "voided")
    assert view.error == "The job had not begun by its deadline, 2026-11-22T12:01:00Z."
    assert rooms.book.expire() == 0


def test_a_hundred_jobs_that_are_late_at_once_do_not_hold_the_cards_up_for_a_hundred_commits(rooms: Rooms) -> None:
    late = [rooms.new_job(rooms.tester, start_deadline=60) for _ in range(100)]
    rooms.clock.advance(60)
    commits: list[str] = []
    written, held = threading.Event(), threading.Event()

    def hold(_: Tx) -> None:
        written.set()
        assert held.wait(WAIT_SECONDS)

    rooms.store.submit(hold)
    assert written.wait(WAIT_SECONDS)
    rooms.store._writer.set_trace_callback(  # pyright: ignore[reportPrivateUsage]
        lambda sql: commits.append(sql) if sql == "COMMIT" else None
    )
    with ThreadPoolExecutor(1) as scheduler:
        expired = scheduler.submit(rooms.book.expire)
        held.set()
        assert expired.result(WAIT_SECONDS) == 100
    assert len(commits) < 10
    assert {rooms.view(job_id, rooms.tester).error_code for job_id in late} == {"deadline_exceeded"}


def test_the_earlier_of_two_deadlines_counts(rooms: Rooms) -> None:
    job_id = rooms.new_job(start_deadline=60, deadline=30)
    rooms.clock.advance(30)
    rooms.book.expire()
    assert rooms.view(job_id).error == "The job had not begun by its deadline, 2026-11-22T12:00:30Z."


def test_a_running_job_is_left_to_the_scheduler_and_told_how_long_it_has(rooms: Rooms) -> None:
    job_id = rooms.new_job(deadline=60)
    rooms.clock.advance(45)
    assert rooms.claimed(job_id).deadline_in_seconds == 15
    rooms.clock.advance(60)
    assert rooms.book.expire() == 0
    assert rooms.view(job_id).status == "running"


def test_jobs_without_a_deadline_wait_for_ever(rooms: Rooms) -> None:
    job_id = rooms.new_job()
    rooms.clock.advance(365 * 86_400)
    assert rooms.book.expire() == 0
    assert rooms.view(job_id).status == "queued"


def test_a_claim_that_fails_while_the_store_refuses_is_ended_as_soon_as_it_can_be(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = rooms.new_job()

    def full(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    def refused(*_: object) -> bool:
        raise storage_error()

    with monkeypatch.context() as broken:
        broken.setattr(Assets, "begin", full)
        broken.setattr(rooms.book, "fail", refused)
        with pytest.raises(Refusal):
            rooms.book.claim(job_id, "cpu")
    assert rooms.view(job_id).status == "running"
    rooms.book.expire()
    view = rooms.view(job_id)
    assert (view.status, view.error_code, view.charge.state) == ("failed", "storage_full", "voided")
    rooms.book.expire()
