"""The queue as the scheduler reads it: the next jobs of each account, model and priority, the oldest ones unless the
owner has moved some."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from zsky_box.clock import SECOND_US, Clock
from zsky_box.db import Row, Store
from zsky_box.dispatch import Waiting
from zsky_box.jobs.rows import BATCH, INTERACTIVE, moved, submission_of
from zsky_box.requests import Work
from zsky_box.turns import URGENT_SECONDS

FLOWS_MAX: Final = 256
"""So many flows are looked at in one turn; where there are more, the next turn goes on behind them."""
URGENT_MAX: Final = 32
WORKS_MAX: Final = 4_096

_COLUMNS: Final = "id, account_id, model, priority, request, created_at, start_deadline_at, recipe_floor, seq, turn"

_UNREADABLE: Final = Work(
    type="image", model="", prompt="", negative_prompt="", seed=0, n=1, width=1, height=1, frames=0, fps=0
)

_Place = tuple[int, str, str]
"""Priority, account and model."""


class Queue:
    """Reads through the index `job_by_flow`: what a look costs depends on the flows, not on the jobs behind them."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._works: OrderedDict[str, Work] = OrderedDict()
        self._from: dict[tuple[bool, int], _Place] = {}

    def heads(self, *, test: bool, per_flow: int) -> list[list[Waiting]]:
        """The oldest `per_flow` jobs of each flow, after those whose start deadline is near, each for itself.

        With `per_flow` 0 it is the latter alone.
        """
        now = self._clock()
        urgent = self._urgent(test=test, now=now)
        names = {job.id for job in urgent}
        flows = [
            [job for job in self._flow(test, place, per_flow, now) if job.id not in names]
            for priority in ((INTERACTIVE, BATCH) if per_flow else ())
            for place in self._places(test, priority)
        ]
        return [[job] for job in urgent] + [flow for flow in flows if flow]

    def _places(self, test: bool, priority: int) -> list[_Place]:
        """The flows of a priority that have jobs, found one after the other by leaps through the index.

        Each priority goes round for itself, so that batch jobs are never looked at instead of interactive ones.
        """
        first = (priority, "", "")
        start = self._from.pop((test, priority), first)
        found = self._leap(test, start, FLOWS_MAX)
        if len(found) == FLOWS_MAX:
            self._from[test, priority] = found[-1]
        elif start != first:
            known = set(found)
            found += [place for place in self._leap(test, first, FLOWS_MAX - len(found)) if place not in known]
        return found

    def _leap(self, test: bool, place: _Place, limit: int) -> list[_Place]:
        """The flows behind a place, each found by one or two seeks: SQLite would read a whole flow to skip it."""
        found: list[_Place] = []
        priority, account, model = place
        while len(found) < limit:
            row = self._next(test, "priority = ? AND account_id = ? AND model > ?", (priority, account, model))
            row = row or self._next(test, "priority = ? AND account_id > ?", (priority, account))
            if row is None:
                break
            account, model = row["account_id"], row["model"]
            found.append((priority, account, model))
        return found

    def _next(self, test: bool, behind: str, values: tuple[int | str, ...]) -> Row | None:
        return self._store.one(
            "SELECT account_id, model FROM job INDEXED BY job_by_flow WHERE status = 'queued' AND test = ?"  # noqa: S608
            f" AND {behind} ORDER BY priority, account_id, model LIMIT 1",
            (int(test), *values),
        )

    def _flow(self, test: bool, place: _Place, limit: int, now: int) -> list[Waiting]:
        rows = self._store.all(
            f"SELECT {_COLUMNS} FROM job INDEXED BY job_by_flow WHERE status = 'queued' AND test = ?"  # noqa: S608
            " AND priority = ? AND account_id = ? AND model = ? ORDER BY turn LIMIT ?",
            (int(test), *place, limit),
        )
        return [self._waiting(row, now) for row in rows]

    def _urgent(self, *, test: bool, now: int) -> list[Waiting]:
        rows = self._store.all(
            f"SELECT {_COLUMNS} FROM job INDEXED BY job_by_start_deadline WHERE status = 'queued'"  # noqa: S608
            " AND start_deadline_at IS NOT NULL AND test = ? AND start_deadline_at <= ?"
            " ORDER BY start_deadline_at LIMIT ?",
            (int(test), now + round(URGENT_SECONDS * SECOND_US), URGENT_MAX),
        )
        return [self._waiting(row, now) for row in rows]

    def _waiting(self, row: Row, now: int) -> Waiting:
        due = row["start_deadline_at"]
        return Waiting(
            id=row["id"],
            account_id=row["account_id"],
            model=row["model"],
            batch=row["priority"] > 0,
            work=self._work(row),
            waited_seconds=max(0.0, (now - row["created_at"]) / SECOND_US),
            start_in_seconds=None if due is None else (due - now) / SECOND_US,
            recipe_floor=row["recipe_floor"],
            turn=row["turn"],
            moved=moved(row),
        )

    def _work(self, row: Row) -> Work:
        """Read once: the same heads are looked at many times before they start."""
        work = self._works.pop(row["id"], None) or _read(row)
        self._works[row["id"]] = work
        if len(self._works) > WORKS_MAX:
            self._works.popitem(last=False)
        return work


def _read(row: Row) -> Work:
    """What was asked for; where that cannot be read any more, a small work of the model, since a claim tells of it."""
    try:
        return submission_of(row).work
    except msgspec.DecodeError:
        return msgspec.structs.replace(_UNREADABLE, model=row["model"])
