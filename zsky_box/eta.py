"""When a job will be done, and how many start before it: read off the queue's lengths, without playing it through.

Under fair shares a job starts once its own model's earlier jobs have had their time, and each other model of its
account, and each other account, as much as that (or all that they want, if it is less). That is spread over the devices
by when each is free. Interactive jobs come before batch jobs. Where the model would drive out one that others wait for,
it starts no sooner than the box changes models again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from zsky_box.db import Row, Rows, Store
from zsky_box.dispatch import CHANGE_FACTOR, Left, Outlook, Way
from zsky_box.placement import is_room
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


class Chance(Struct, frozen=True, kw_only=True):
    """One device that can do a job: the seconds until it is free, to load the model unless it is there, and to do it.

    `in_the_way` is what it would have to let go of first, with the seconds to load each of that again.
    """

    free_in_seconds: float
    load_seconds: float
    work_seconds: float
    in_the_way: Mapping[str, float] = {}


class Eta:
    """Asked by those who read jobs, from any thread that reads."""

    def __init__(
        self,
        store: Store,
        ways: InstalledWays,
        outlook: Callable[[bool], Sequence[Outlook]],
        left: Callable[[str], Left | None],
        host_total_bytes: int,
        fresh_seconds: float = FRESH_SECONDS,
    ) -> None:
        self._fresh_seconds = fresh_seconds
        self._store = store
        self._ways = ways
        self._outlook = outlook
        self._left = left
        self._host_total_bytes = host_total_bytes
        self._lock = threading.Lock()
        self._flows: dict[bool, tuple[float, list[Flow]]] = {}

    def expected_seconds(self, work: Work) -> float:
        """For how long a job of this work is expected to have a device: the quickest that can do it."""
        ways = [self._way(work, view) for view in self._outlook(False)]  # noqa: FBT003
        return min((way.run_seconds for way in ways if way is not None), default=0.0)

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
            " WHERE status = 'queued' AND test = ? AND priority = ? AND account_id = ? AND model = ? AND turn < ?",
            (int(test), *own, row["turn"]),
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
        views = [view for view in self._outlook(test) if not view.paused]
        now = time.monotonic()
        chances = [_chance(work.model, way, view, now) for view in views if (way := self._way(work, view)) is not None]
        since_change_seconds = now - max((view.changed_at for view in views), default=now)
        return placed(self._waiting(test), own, count, seconds, chances, since_change_seconds)

    def _way(self, work: Work, view: Outlook) -> Way | None:
        """The quickest of those for which the device has room, if it may and can do the work at all."""
        if work.model in view.excluded:
            return None
        ways = self._ways.for_work(work.model, work, view.card, view.name)
        able = [way for way in ways if is_room(view.card, way.needs, (), self._host_total_bytes)]
        return min(able, key=lambda way: way.run_seconds, default=None)

    def _waiting(self, test: bool) -> list[Flow]:
        now = time.monotonic()
        with self._lock:
            kept = self._flows.get(test)
            if kept is None or now - kept[0] > self._fresh_seconds:
                kept = self._flows[test] = now, _read(self._store, test=test)
            return kept[1]


def placed(
    flows: Sequence[Flow],
    own: tuple[int, str, str],
    count: int,
    seconds: float,
    chances: Sequence[Chance],
    since_change_seconds: float,
) -> Place:
    """Where a job stands; see `ahead`. The box has last driven out a model that was wanted so long ago."""
    ahead_count, ahead_seconds = ahead(flows, own, count, seconds)
    if not chances:
        return Place(1 + ahead_count, None)
    wanted = {flow.model for flow in flows if flow.priority <= own[0]}
    changes = [
        sum(again for model, again in chance.in_the_way.items() if model in wanted)
        + (chance.load_seconds if wanted & chance.in_the_way.keys() else 0.0)
        for chance in chances
    ]
    start = filled([chance.free_in_seconds for chance in chances], ahead_seconds)
    start = max(start, CHANGE_FACTOR * min(changes) - since_change_seconds)
    best = min(chance.load_seconds + chance.work_seconds for chance in chances)
    return Place(1 + ahead_count, round(max(start + best, LEAST_SECONDS), 1))


def _chance(model: str, way: Way, view: Outlook, now: float) -> Chance:
    is_here = model in view.held
    is_room_left = way.needs.held_bytes + way.needs.working_bytes <= view.room_bytes
    return Chance(
        free_in_seconds=max(0.0, view.free_at - now),
        load_seconds=0.0 if is_here else way.load_seconds,
        work_seconds=way.run_seconds + way.tail_seconds,
        in_the_way={} if is_here or is_room_left else view.held,
    )


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
