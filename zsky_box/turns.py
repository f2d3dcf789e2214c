"""Whose turn it is among the jobs that wait: the one order that the dispatcher draws by and that the queue is shown in.

Interactive before batch; among accounts whoever has had least; within an account first what its start deadline or the
owner puts ahead, then its models in turn, and within a model the order of `turn`. Pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Generic, Literal, Protocol, TypeVar

from msgspec import Struct

BATCH_PATIENCE_SECONDS: Final = 3_600.0
URGENT_SECONDS: Final = 60.0

Moved = Literal[-1, 0, 1]
"""Ahead of its account's others, not moved, or behind those that were there when it was moved."""
_Key = tuple[bool, float, float, int, str]
_Line = tuple[bool, str]
"""Whether its jobs wait as batch jobs, and the account."""


class InLine(Protocol):
    """What decides the turn of a job."""

    @property
    def account_id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def batch(self) -> bool: ...
    @property
    def waited_seconds(self) -> float: ...
    @property
    def start_in_seconds(self) -> float | None: ...
    @property
    def turn(self) -> int: ...
    @property
    def moved(self) -> Moved: ...


J = TypeVar("J", bound=InLine)


class Standing(Struct, frozen=True, kw_only=True):
    """What the dispatcher remembers: the tags of the accounts, of each account's models, and how long a job of a model
    has last taken. `now` is the tag of an account that asks for something for the first time.
    """

    now: float = 0.0
    accounts: Mapping[str, float] = {}
    models: Mapping[str, Mapping[str, float]] = {}
    last_seconds: Mapping[str, float] = {}


def waits_as_batch(job: InLine) -> bool:
    """A batch job that has waited long counts as interactive."""
    return job.batch and job.waited_seconds < BATCH_PATIENCE_SECONDS


def is_urgent(job: InLine) -> bool:
    """Whether its start deadline is near."""
    return job.start_in_seconds is not None and job.start_in_seconds < URGENT_SECONDS


class Turns(Generic[J]):
    """The waiting jobs in the order of their turn. `flows` are those of each account, model and priority, in the order
    of `turn`; one whose start deadline is near may be a flow of its own.

    Each job counts as so many seconds of its account's and its model's time as the last of its model took.
    """

    def __init__(self, flows: Iterable[Sequence[J]], standing: Standing) -> None:
        self._standing = standing
        self._tags: dict[str, float] = {}
        self._numbers: dict[str, int] = {}
        self._models: dict[tuple[str, str], float] = {}
        self._lines: dict[_Line, list[list[J]]] = {}
        for flow in flows:
            self._place(list(reversed(flow)))
        self._heap = [self._key(line) for line in self._lines]
        heapq.heapify(self._heap)

    def next(self) -> J | None:
        """Whose turn it is, or None at the end."""
        line = self._first()
        return None if line is None else self._best(line)[-1]

    def take(self) -> None:
        """It has had its turn."""
        line = self._first()
        if line is None:
            return
        flow = self._best(line)
        job = flow.pop()
        seconds = self._standing.last_seconds.get(job.model, 1.0)
        self._tags[job.account_id] += seconds
        self._models[job.account_id, job.model] += seconds
        self._lines[line].remove(flow)
        if not self._lines[line]:
            del self._lines[line]
        self._place(flow)
        for late in (False, True):
            if (late, job.account_id) in self._lines:
                heapq.heappush(self._heap, self._key((late, job.account_id)))

    def drop(self, is_out: Callable[[J], bool]) -> None:
        """Leave out the flows whose next job is out, with all that is behind it."""
        kept = [flow for flows in self._lines.values() for flow in flows if not is_out(flow[-1])]
        self._lines = {}
        for flow in kept:
            self._place(flow)
        self._heap = [self._key(line) for line in self._lines]
        heapq.heapify(self._heap)

    def jobs(self) -> Iterator[J]:
        """All that are left."""
        return (job for flows in self._lines.values() for flow in flows for job in flow)

    def _place(self, flow: list[J]) -> None:
        """Under its next job's account and priority; its next job is its last."""
        if not flow:
            return
        head, standing = flow[-1], self._standing
        account, model = head.account_id, head.model
        self._numbers.setdefault(account, len(self._numbers))
        self._tags.setdefault(account, standing.accounts.get(account, standing.now))
        self._models.setdefault((account, model), standing.models.get(account, {}).get(model, 0.0))
        self._lines.setdefault((waits_as_batch(head), account), []).append(flow)

    def _key(self, line: _Line) -> _Key:
        """Which account comes next: of two that have had as much, the one that waits for longer."""
        late, account = line
        longest = max(flow[-1].waited_seconds for flow in self._lines[line])
        return late, self._tags[account], -longest, self._numbers[account], account

    def _first(self) -> _Line | None:
        while self._heap:
            entry = self._heap[0]
            line = entry[0], entry[-1]
            if line in self._lines and entry == self._key(line):
                return line
            heapq.heappop(self._heap)  # what has changed since has an entry of its own
        return None

    def _best(self, line: _Line) -> list[J]:
        """The account's flow whose next job comes next."""
        flows = self._lines[line]
        first = min(flow[-1].turn for flow in flows)

        def order(flow: list[J]) -> tuple[bool, bool, int, float, float]:
            head = flow[-1]
            # Behind all that were there: what comes later has a later turn.
            is_held_back = head.moved > 0 and head.turn > first
            ahead = head.turn if head.moved < 0 else 0
            tag = self._models[head.account_id, head.model]
            return is_held_back, not is_urgent(head), ahead, tag, -head.waited_seconds

        return min(flows, key=order)


def in_line(flows: Sequence[Sequence[J]], standing: Standing) -> Iterator[J]:
    """All of them in the order of their turn, as one card would take them."""
    turns = Turns(flows, standing)
    while (job := turns.next()) is not None:
        yield job
        turns.take()
