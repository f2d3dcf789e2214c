"""When a job will be done, and how many start before it: read off the queue's lengths, without playing it through.

Under fair shares a job starts once its own model's earlier jobs have had their time, and each other model of its
account, and each other account, as much as that (or all that they want, if it is less). That is spread over the devices
by when each is free. Interactive jobs come before batch jobs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from zsky_box.db import Row, Rows, Store
from zsky_box.dispatch import PATIENCE_FACTOR, Left, Outlook
from zsky_box.requests import Work
from zsky_box.ways import InstalledWays

FRESH_SECONDS: Final = 0.5
"""For so long the queue's lengths are taken as they were: clients poll more often than that matters."""
LEAST_SECONDS: Final = 0.1


class Place(Struct, frozen=True):
    """A queued job's position (1 is next) and the seconds until it is done; None while all devices are paused."""

    position: int
    seconds: float | None


class Flow(Struct, frozen=True):
    """The jobs of an account, a model and a priority that wait."""

    account_id: str
    model: str
    priority: int
    count: int
    seconds: float


class Eta:
    """Asked by those who read jobs, from any thread that reads."""

    def __init__(
        self,
        store: Store,
        ways: InstalledWays,
        outlook: Callable[[bool], Sequence[Outlook]],
        left: Callable[[str], Left | None],
        fresh_seconds: float = FRESH_SECONDS,
    ) -> None:
        self._fresh_seconds = fresh_seconds
        self._store = store
        self._ways = ways
        self._outlook = outlook
        self._left = left
        self._lock = threading.Lock()
        self._flows: dict[bool, tuple[float, list[Flow]]] = {}

    def expected_seconds(self, work: Work) -> float:
        """For how long a job of this work is expected to have a device: the quickest that can do it."""
        ways = [
            way
            for view in self._outlook(False)  # noqa: FBT003
            for way in self._ways.for_work(work.model, work, view.card, view.name)[:1]
        ]
        return min((way.run_seconds for way in ways), default=0.0)

    def running_seconds(self, job_id: str, progress: float) -> float | None:
        """Until a running job is done: as expected, and once that is over, as its progress has it."""
        left = self._left(job_id)
        if left is None:
            return None
        if left.left_seconds > 0:
            return round(max(left.left_seconds, LEAST_SECONDS), 1)
        by_progress = left.elapsed_seconds * (1 - progress) / max(progress, 0.05)
        return round(max(by_progress, LEAST_SECONDS), 1)

    def queued(self, row: Row, work: Work) -> Place:
        """Where a queued job stands."""
        test, own = bool(row["test"]), (row["priority"], row["account_id"], row["model"])
        ahead = self._store.one(
            "SELECT count(*) AS n, coalesce(sum(expected_seconds), 0) AS seconds FROM job INDEXED BY job_by_flow"
            " WHERE status = 'queued' AND test = ? AND priority = ? AND account_id = ? AND model = ? AND seq < ?",
            (int(test), *own, row["seq"]),
        )
        count, seconds = (0, 0.0) if ahead is None else (int(ahead["n"]), float(ahead["seconds"]))
        return self._place(work, test=test, own=own, count=count, seconds=seconds)

    def new(self, work: Work, account_id: str, *, batch: bool, test: bool) -> Place:
        """Where a job would stand that came now."""
        own = (int(batch), account_id, work.model)
        mine = [flow for flow in self._waiting(test) if (flow.priority, flow.account_id, flow.model) == own]
        count, seconds = (mine[0].count, mine[0].seconds) if mine else (0, 0.0)
        return self._place(work, test=test, own=own, count=count, seconds=seconds)

    def _place(self, work: Work, *, test: bool, own: tuple[int, str, str], count: int, seconds: float) -> Place:
        ahead_count, ahead_seconds = ahead(self._waiting(test), own, count, seconds)
        outlook = [view for view in self._outlook(test) if not view.paused]
        now = time.monotonic()
        ways = [
            (way, view) for view in outlook for way in self._ways.for_work(work.model, work, view.card, view.name)[:1]
        ]
        if not ways:
            return Place(1 + ahead_count, None)
        start = filled([max(0.0, view.free_at - now) for _, view in ways], ahead_seconds)
        swaps = [
            0.0
            if work.model in view.resident or way.needs.held_bytes + way.needs.working_bytes <= view.room_bytes
            else way.load_seconds + view.reload_seconds
            for way, view in ways
        ]
        start = max(start, patience_seconds(min(swaps), count))
        best = min(
            way.run_seconds + way.tail_seconds + (0.0 if work.model in view.resident else way.load_seconds)
            for way, view in ways
        )
        return Place(1 + ahead_count, round(max(start + best, LEAST_SECONDS), 1))

    def _waiting(self, test: bool) -> list[Flow]:
        now = time.monotonic()
        with self._lock:
            kept = self._flows.get(test)
            if kept is None or now - kept[0] > self._fresh_seconds:
                kept = self._flows[test] = now, _read(self._store, test=test)
            return kept[1]


def ahead(flows: Sequence[Flow], own: tuple[int, str, str], count: int, seconds: float) -> tuple[int, float]:
    """How many jobs start before one that has so much of its own flow before it, and how long they take.

    `own` is its priority, account and model; `flows` are all that wait.
    """
    priority, account, model = own
    first = [flow for flow in flows if flow.priority < priority]
    beside = [flow for flow in flows if flow.priority == priority and (flow.account_id, flow.model) != (account, model)]
    total_count = count + sum(flow.count for flow in first)
    total_seconds = seconds + sum(flow.seconds for flow in first)
    mine = seconds
    for flow in (flow for flow in beside if flow.account_id == account):
        mine += min(flow.seconds, seconds)
        total_count += _part(flow, seconds)
    total_seconds += mine - seconds
    others: dict[str, list[Flow]] = {}
    for flow in beside:
        if flow.account_id != account:
            others.setdefault(flow.account_id, []).append(flow)
    for theirs in others.values():
        wanted = sum(flow.seconds for flow in theirs)
        share = min(1.0, mine / wanted) if wanted > 0 else 1.0
        total_seconds += wanted * share
        total_count += sum(_part(flow, flow.seconds * share) for flow in theirs)
    return total_count, total_seconds


def patience_seconds(swap_seconds: float, count: int) -> float:
    """For how long a model's jobs wait until a card that others want changes to it, `count` of them being there before.

    Those have waited for part of it: for half, on the average.
    """
    return PATIENCE_FACTOR * swap_seconds * (0.5 if count else 1.0)


def _read(rows: Store | Rows, *, test: bool) -> list[Flow]:
    found = rows.all(
        "SELECT account_id, model, priority, count(*) AS n, sum(expected_seconds) AS seconds"
        " FROM job INDEXED BY job_by_flow WHERE status = 'queued' AND test = ? GROUP BY priority, account_id, model",
        (int(test),),
    )
    return [Flow(row["account_id"], row["model"], row["priority"], row["n"], row["seconds"]) for row in found]


def _part(flow: Flow, seconds: float) -> int:
    """How many of a flow's jobs so many seconds are."""
    return flow.count if seconds >= flow.seconds else int(flow.count * seconds / flow.seconds)


def filled(free_in_seconds: Sequence[float], work_seconds: float) -> float:
    """When the next device is free once so much work was given to whichever was free first."""
    ordered = sorted(free_in_seconds)
    level, left = ordered[0], work_seconds
    for number, following in enumerate([*ordered[1:], float("inf")], start=1):
        room = (following - level) * number
        if left <= room:
            return level + left / number
        left -= room
        level = following
    return level
