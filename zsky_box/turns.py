"""Whose turn it is among the jobs that wait: the one order that the dispatcher draws by and that the queue is shown in.

Interactive before batch; among accounts whoever has had least; within an account first what its start deadline or the
owner puts ahead, then its models in turn, and within a model the order of `turn`. Pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, Protocol, TypeVar

from msgspec import Struct

BATCH_PATIENCE_SECONDS: Final = 3_600.0
URGENT_SECONDS: Final = 60.0

Moved = Literal[-1, 0, 1]
"""Ahead of its account's others, not moved, or behind those that were there when it was moved."""
Order = tuple[bool, bool, int, float, float]


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


def least_turns(heads: Iterable[InLine]) -> Mapping[tuple[str, bool], int]:
    """Of each account and priority, the first turn among its heads: until it is over, what was moved behind waits."""
    least: dict[tuple[str, bool], int] = {}
    for head in heads:
        key = head.account_id, waits_as_batch(head)
        least[key] = min(least.get(key, head.turn), head.turn)
    return least


def within_account(head: InLine, model_tag: float, least_turn: int | None) -> Order:
    """The order of an account's heads of one priority; `least_turn` is the first turn among them, if it matters."""
    is_held_back = head.moved > 0 and least_turn is not None and head.turn > least_turn
    ahead = head.turn if head.moved < 0 else 0
    return is_held_back, not is_urgent(head), ahead, model_tag, -head.waited_seconds


def in_line(flows: Sequence[Sequence[J]], standing: Standing) -> Iterator[J]:
    """All jobs in the order of their turn, as if each ran for as long as the last of its model did, on one card.

    `flows` are the jobs of each account, model and priority in the order of `turn`.
    """
    # A flow's urgent jobs do not wait for the others of it, and its oldest batch jobs may count as interactive.
    parts: dict[tuple[bool, str, str, bool], list[J]] = {}
    for job in (job for flow in flows for job in flow):
        parts.setdefault((waits_as_batch(job), job.account_id, job.model, is_urgent(job)), []).append(job)
    lines: dict[tuple[bool, str], list[list[J]]] = {}
    for (late, account, _, _), part in parts.items():
        lines.setdefault((late, account), []).append(part[::-1])
    tags = {account: standing.accounts.get(account, standing.now) for _, account in lines}
    waiting = [(late, tags[account], account) for late, account in lines]
    heapq.heapify(waiting)
    models: dict[tuple[str, str], float] = {}
    while waiting:
        late, tag, account = heapq.heappop(waiting)
        if tag != tags[account]:  # its interactive jobs have had their time meanwhile
            heapq.heappush(waiting, (late, tags[account], account))
            continue
        rest = lines[late, account]
        job = _next(rest, models, standing.models.get(account, {}))
        yield job
        seconds = standing.last_seconds.get(job.model, 1.0)
        tags[account] += seconds
        models[account, job.model] += seconds
        if rest:
            heapq.heappush(waiting, (late, tags[account], account))


def _next(parts: list[list[J]], models: dict[tuple[str, str], float], known: Mapping[str, float]) -> J:
    """Take the next job of an account's parts, which are lists whose next job is their last."""
    heads = [part[-1] for part in parts]
    least = min(head.turn for head in heads)

    def order(place: int) -> Order:
        head = heads[place]
        tag = models.setdefault((head.account_id, head.model), known.get(head.model, 0.0))
        return within_account(head, tag, least)

    place = min(range(len(heads)), key=order)
    job = parts[place].pop()
    if not parts[place]:
        del parts[place]
    return job
