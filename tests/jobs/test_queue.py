from __future__ import annotations

import pytest

from tests.stores import Rooms, add_account, caller_for
from zsky_box.jobs import queue


def test_each_account_model_and_priority_has_its_oldest_jobs(rooms: Rooms) -> None:
    bob = caller_for(rooms.store, add_account(rooms.store, "bob"))
    mine = [rooms.new_job() for _ in range(5)]
    batch = rooms.new_job(priority="batch")
    theirs = [rooms.new_job(bob) for _ in range(2)]
    rooms.new_job(rooms.tester)
    heads = rooms.book.heads(test=False, per_flow=3)
    found = {tuple(job.id for job in flow) for flow in heads}
    assert found == {tuple(mine[:3]), (batch,), tuple(theirs)}
    assert [flow[0].batch for flow in heads] == [False, False, True]


def test_a_near_start_deadline_stands_first_and_alone(rooms: Rooms) -> None:
    early, late = rooms.new_job(), rooms.new_job(start_deadline=30)
    rooms.new_job(start_deadline=3_000)
    heads = rooms.book.heads(test=False, per_flow=1)
    assert [[job.id for job in flow] for flow in heads] == [[late], [early]]
    assert heads[0][0].start_in_seconds == 30


def test_where_there_are_more_flows_than_are_looked_at_each_has_its_turn(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "FLOWS_MAX", 3)
    for name in "abcdefg":
        rooms.new_job(caller_for(rooms.store, add_account(rooms.store, name)))
    seen: set[str] = set()
    for _ in range(4):
        heads = rooms.book.heads(test=False, per_flow=1)
        assert len(heads) <= 3
        seen |= {flow[0].account_id for flow in heads}
    assert len(seen) == 7


def test_no_look_reads_the_jobs_behind_the_heads(rooms: Rooms) -> None:
    plan = rooms.store.all(
        "EXPLAIN QUERY PLAN SELECT id FROM job INDEXED BY job_by_flow WHERE status = 'queued' AND test = 0"
        " AND priority = 0 AND account_id = 'x' AND model = 'y' ORDER BY seq LIMIT 3"
    )
    assert all("SCAN" not in row["detail"] and "TEMP B-TREE" not in row["detail"] for row in plan)
