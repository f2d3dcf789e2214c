from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.stores import Rooms, add_account, caller_for
from zsky_box.errors import Refusal
from zsky_box.jobs.keeper import Where


def move(rooms: Rooms, job_id: str, where: Where) -> None:
    asyncio.run(rooms.keeper.move(job_id, where, actor="acc_owner"))


def cancel(rooms: Rooms, job_id: str, reason: str = "the card is needed") -> None:
    asyncio.run(rooms.keeper.cancel(job_id, reason, actor="acc_owner"))


def waiting(rooms: Rooms) -> list[str]:
    return [job.id for job in rooms.queued(test=False)]


def recorded(rooms: Rooms) -> tuple[str, str, str, dict[str, Any], dict[str, Any]]:
    row = rooms.store.all("SELECT * FROM audit WHERE action LIKE 'job.%' ORDER BY id DESC LIMIT 1")[0]
    return row["action"], row["actor"], row["subject"], json.loads(row["before"]), json.loads(row["after"])


def test_a_job_goes_to_the_front_and_to_the_end_of_its_accounts_line(rooms: Rooms) -> None:
    first, second, third = (rooms.new_job() for _ in range(3))
    move(rooms, third, "front")
    assert waiting(rooms) == [third, first, second]
    move(rooms, first, "end")
    assert waiting(rooms) == [third, second, first]
    assert [job.moved for job in rooms.queued(test=False)] == [-1, 0, 1]
    assert rooms.rung[-1] is None  # the scheduler looks anew


def test_what_comes_later_stands_behind_what_was_moved_to_the_end(rooms: Rooms) -> None:
    first, second = rooms.new_job(), rooms.new_job()
    for _ in range(5):
        move(rooms, first, "end")
    assert waiting(rooms) == [second, first]
    assert [*waiting(rooms), rooms.new_job()] == waiting(rooms)


def test_the_move_is_on_the_accounts_record(rooms: Rooms) -> None:
    job_id = rooms.new_job()
    move(rooms, job_id, "batch")
    action, actor, subject, before, after = recorded(rooms)
    assert (action, actor, subject) == ("job.moved", "acc_owner", job_id)
    assert (before["priority"], after["priority"], after["moved_to"]) == ("interactive", "batch", "batch")
    assert [job.batch for job in rooms.queued(test=False)] == [True]
    move(rooms, job_id, "interactive")
    assert [job.batch for job in rooms.queued(test=False)] == [False]


def test_what_changes_nothing_is_not_recorded(rooms: Rooms) -> None:
    job_id = rooms.new_job()
    move(rooms, job_id, "interactive")
    assert rooms.store.all("SELECT 1 FROM audit WHERE action = 'job.moved'") == []


def test_nobody_elses_turn_is_touched(rooms: Rooms) -> None:
    bob = caller_for(rooms.store, add_account(rooms.store, "bob"))
    theirs, mine = rooms.new_job(bob), rooms.new_job()
    tests = rooms.new_job(rooms.tester)
    turns = [rooms.row(job_id)["turn"] for job_id in (theirs, tests)]
    move(rooms, mine, "front")
    move(rooms, mine, "end")
    assert [rooms.row(job_id)["turn"] for job_id in (theirs, tests)] == turns


@pytest.mark.parametrize("where", ["front", "end", "batch"])
def test_a_job_that_does_not_wait_any_more_is_not_moved(rooms: Rooms, where: Where) -> None:
    attempt = rooms.running()
    with pytest.raises(Refusal, match="job_finished"):
        move(rooms, attempt.job_id, where)
    with pytest.raises(Refusal, match="not_found"):
        move(rooms, "job_no", where)
    rooms.complete(attempt)


def test_cancelled_while_it_waits_it_is_free_and_its_people_are_told_why(rooms: Rooms) -> None:
    bob = caller_for(rooms.store, add_account(rooms.store, "bob"))
    job_id = rooms.new_job(bob)
    cancel(rooms, job_id)
    view = rooms.view(job_id, bob)
    assert (view.status, view.error_code, view.charge.state) == ("failed", "cancelled", "voided")
    assert view.error == "The owner of the box cancelled the job: the card is needed"
    action, actor, subject, before, after = recorded(rooms)
    assert (action, actor, subject, before) == ("job.cancelled", "acc_owner", job_id, {"status": "queued"})
    assert after == {"reason": "the card is needed"}


@pytest.mark.parametrize(("begun", "state"), [(False, "voided"), (True, "posted")])
def test_cancelled_while_it_runs_it_is_charged_as_when_its_people_cancel_it(
    rooms: Rooms, begun: bool, state: str
) -> None:
    attempt = rooms.running()
    if begun:
        rooms.step(attempt)
    cancel(rooms, attempt.job_id)
    assert rooms.book.cancel_requested([attempt.job_id]) == {attempt.job_id}
    cancel(rooms, attempt.job_id, "a second click")
    assert recorded(rooms)[-1] == {"reason": "the card is needed"}
    rooms.end(attempt, "cancelled")
    assert rooms.charge_state(attempt.job_id) == state
    assert rooms.view(attempt.job_id).error == "The owner of the box cancelled the job: the card is needed"


def test_of_a_cancel_that_came_too_late_nothing_is_left(rooms: Rooms) -> None:
    attempt = rooms.running()
    cancel(rooms, attempt.job_id)
    rooms.complete(attempt)
    assert rooms.view(attempt.job_id).status == "completed"
    assert rooms.row(attempt.job_id)["error"] is None


def test_a_cancel_says_why_and_comes_in_time(rooms: Rooms) -> None:
    job_id = rooms.new_job()
    for reason in ("", "  ", "x" * 501):
        with pytest.raises(Refusal, match="Say why"):
            cancel(rooms, job_id, reason)
    cancel(rooms, job_id)
    with pytest.raises(Refusal, match="job_finished"):
        cancel(rooms, job_id)
    with pytest.raises(Refusal, match="not_found"):
        cancel(rooms, "job_no")
    assert len(rooms.store.all("SELECT 1 FROM audit WHERE action = 'job.cancelled'")) == 1
