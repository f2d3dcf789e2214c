"""How many jobs wait or run, and for what."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from zsky_box.db import Rows, Store
from zsky_box.jobs.rows import BATCH


class Waiting(Struct, frozen=True, kw_only=True):
    """So many queued jobs of one model and priority."""

    model: str
    priority: Literal["interactive", "batch"]
    test: bool
    jobs: int


class Line(Struct, frozen=True):
    """How many live jobs wait and run, and for how long the oldest of them has waited, in microseconds."""

    waiting: int
    running: int
    waited_us: int


def waiting(store: Store) -> list[Waiting]:
    """The queue, counted; it reads one index over the queued jobs alone."""
    rows = store.all(
        "SELECT model, priority, test, count(*) AS jobs FROM job INDEXED BY job_by_flow WHERE status = 'queued'"
        " GROUP BY test, priority, model"
    )
    return [
        Waiting(
            model=row["model"],
            priority="batch" if row["priority"] == BATCH else "interactive",
            test=bool(row["test"]),
            jobs=row["jobs"],
        )
        for row in rows
    ]


def open_of_model(rows: Rows | Store, model: str) -> int:
    """How many jobs of a model wait or run, everybody's."""
    found = rows.one("SELECT count(*) AS n FROM job WHERE model = ? AND status IN ('queued', 'running')", (model,))
    return 0 if found is None else int(found["n"])


def line(rows: Rows | Store, now: int) -> Line:
    """The live jobs that wait and run; `now` in microseconds."""
    row = rows.one(
        "SELECT count(*) FILTER (WHERE status = 'queued') AS waiting, count(*) FILTER (WHERE status = 'running') AS"
        " running, min(created_at) FILTER (WHERE status = 'queued') AS since FROM job INDEXED BY job_open"
        " WHERE test = 0 AND status IN ('queued', 'running')"
    )
    if row is None:
        return Line(0, 0, 0)
    return Line(row["waiting"], row["running"], 0 if row["since"] is None else max(0, now - row["since"]))
