from __future__ import annotations

import asyncio

import pytest

from tests.stores import Rooms, add_account, caller_for
from zsky_box.jobs import lineup
from zsky_box.jobs.lineup import Filters
from zsky_box.jobs.rows import PROMPT_SHOWN
from zsky_box.turns import Standing


def ids(rooms: Rooms, start: int = 0, **filters: str) -> list[str]:
    return [job.id for job in rooms.lineup.page(Filters(**filters), start, test=False).shown]


def test_it_is_the_order_of_the_turns_over_all_accounts(rooms: Rooms) -> None:
    bob = caller_for(rooms.store, add_account(rooms.store, "bob"))
    mine = [rooms.new_job() for _ in range(3)]
    batch, theirs = rooms.new_job(priority="batch"), rooms.new_job(bob)
    rooms.new_job(rooms.tester)
    rooms.standing = Standing(accounts={rooms.owner.account.id: 0.0, bob.account.id: 1.5})
    assert ids(rooms) == [mine[0], mine[1], theirs, mine[2], batch]
    asyncio.run(rooms.keeper.move(mine[2], "front", actor="ann"))
    assert ids(rooms)[0] == mine[2]


def test_a_job_is_told_with_whose_it_is_where_it_stands_and_why_it_waits(rooms: Rooms) -> None:
    bob = caller_for(rooms.store, add_account(rooms.store, "bob"))
    rooms.new_job()
    job_id = rooms.new_job(bob, prompt=f"a  fox\n{'x' * 300}", priority="batch")
    line = rooms.lineup.page(Filters(), 0, test=False)
    job = line.shown[1]
    assert (line.waiting, line.matching, job.id, job.account, job.position) == (2, 2, job_id, "bob", 2)
    assert (job.priority, job.type, job.why) == ("batch", "image", f"{job_id} waits")
    assert job.prompt.startswith("a fox x")
    assert len(job.prompt) == PROMPT_SHOWN


def test_filters_leave_the_position_that_a_job_has_in_the_whole_line(rooms: Rooms) -> None:
    bob = caller_for(rooms.store, add_account(rooms.store, "bob"))
    rooms.new_job()
    theirs, video = rooms.new_job(bob), rooms.new_job(type="video", prompt="Grüße vom See")
    batch = rooms.new_job(priority="batch")
    assert ids(rooms, account_id=bob.account.id) == [theirs]
    assert ids(rooms, type="video") == ids(rooms, text="GRÜSSE") == [video]
    assert ids(rooms, priority="batch") == [batch]
    assert ids(rooms, model="none") == []
    (job,) = rooms.lineup.page(Filters(priority="batch"), 0, test=False).shown
    assert job.position == 4
    assert rooms.lineup.models(test=False) == ["leader"]


def test_pages_follow_one_another(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineup, "PAGE", 2)
    jobs = [rooms.new_job() for _ in range(5)]
    assert [ids(rooms, start) for start in (0, 2, 4, 6)] == [jobs[:2], jobs[2:4], jobs[4:], []]


def test_what_runs_is_told_apart(rooms: Rooms) -> None:
    attempt = rooms.running()
    rooms.step(attempt, 4)
    (job,) = rooms.lineup.running(test=False)
    assert (job.id, job.position, job.phase, job.device, job.why) == (attempt.job_id, 0, "denoising", "cpu", None)
    assert 0 < job.progress < 1
    assert ids(rooms) == []
    assert rooms.lineup.running(test=True) == []
    rooms.complete(attempt)


def test_an_empty_queue_is_an_empty_line(rooms: Rooms) -> None:
    line = rooms.lineup.page(Filters(), 0, test=False)
    assert (line.waiting, line.matching, line.shown) == (0, 0, [])
