from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.stores import Rooms
from zsky_box import charged


@pytest.fixture
def rooms(tmp_path: Path) -> Generator[Rooms]:
    opened = Rooms(tmp_path)
    yield opened
    opened.close()


def test_a_page_far_back_reads_no_job_before_it(rooms: Rooms) -> None:
    attempts = [rooms.running() for _ in range(3)]
    for attempt in attempts:
        rooms.complete(attempt)
    asked: list[str] = []
    with rooms.store.snapshot() as rows:
        jobs, _ = charged.page(rows, rooms.owner.account.id, None)
        rooms.store.reader().set_trace_callback(asked.append)
        older, more = charged.page(rows, rooms.owner.account.id, jobs[0].seq)
        rooms.store.reader().set_trace_callback(None)
        plan = rows.all(f"EXPLAIN QUERY PLAN {asked[0]}")
    assert [job.id for job in jobs] == [attempt.job_id for attempt in reversed(attempts)]
    assert ([job.id for job in older], more) == ([job.id for job in jobs[1:]], None)
    assert [row["detail"] for row in plan] == [
        "SEARCH job USING INDEX job_by_account (account_id=? AND test=? AND seq<?)"
    ]
