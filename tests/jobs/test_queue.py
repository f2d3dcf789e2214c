from __future__ import annotations

import pytest

from tests.stores import Rooms, add_account, caller_for
from zsky_box.db import Row
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


def test_batch_jobs_are_never_looked_at_instead_of_interactive_ones(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "FLOWS_MAX", 2)
    people = [caller_for(rooms.store, add_account(rooms.store, name)) for name in "abcde"]
    for caller in people:
        rooms.new_job(caller)
        rooms.new_job(caller, priority="batch")
    seen: set[str] = set()
    for _ in range(4):
        heads = rooms.book.heads(test=False, per_flow=1)
        assert [flow[0].batch for flow in heads] == [False, False, True, True]
        seen |= {flow[0].id for flow in heads}
    assert len(seen) == 10


def test_asked_for_no_heads_it_tells_the_near_start_deadlines_alone(rooms: Rooms) -> None:
    rooms.new_job()
    late = rooms.new_job(start_deadline=30)
    assert [[job.id for job in flow] for flow in rooms.book.heads(test=False, per_flow=0)] == [[late]]


def test_a_job_that_cannot_be_read_any_more_is_told_by_its_claim_and_holds_up_nobody(rooms: Rooms) -> None:
    broken, sound = rooms.new_job(), rooms.new_job()
    rooms.store.write(lambda tx: tx.execute("UPDATE job SET request = '{}' WHERE id = ?", (broken,)))
    assert [job.id for job in rooms.queued(test=False)] == [broken, sound]
    assert rooms.book.claim(broken, "cpu") is None
    row = rooms.row(broken)
    assert (row["status"], row["error_code"]) == ("failed", "internal_error")


def test_no_look_reads_the_jobs_behind_the_heads(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every statement of a look seeks in an index of what waits, and sorts nothing."""
    rooms.new_job()
    asked: list[tuple[str, tuple[object, ...]]] = []
    one, every = rooms.store.one, rooms.store.all

    def one_noted(sql: str, values: tuple[object, ...] = ()) -> Row | None:
        asked.append((sql, values))
        return one(sql, values)

    def all_noted(sql: str, values: tuple[object, ...] = ()) -> list[Row]:
        asked.append((sql, values))
        return every(sql, values)

    monkeypatch.setattr(rooms.store, "one", one_noted)
    monkeypatch.setattr(rooms.store, "all", all_noted)
    rooms.book.heads(test=False, per_flow=3)
    assert len(asked) >= 4
    for sql, values in asked:
        for row in every(f"EXPLAIN QUERY PLAN {sql}", values):
            assert row["detail"].startswith("SEARCH job USING"), row["detail"]
            assert "INDEX job_by_flow" in row["detail"] or "INDEX job_by_start_deadline" in row["detail"]
