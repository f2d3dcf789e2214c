"""Everybody's open jobs as the owner sees them: what runs, and what waits, in the order of the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, islice
from typing import Final, Literal

import msgspec
from msgspec import Struct

from zsky_box.accounts import ACCOUNTS_MAX
from zsky_box.clock import SECOND_US, Clock
from zsky_box.db import Row, Store
from zsky_box.errors import not_found
from zsky_box.eta import Eta
from zsky_box.jobs.rows import BATCH, moved, prompt_shown, submission_of
from zsky_box.manifest import JobType
from zsky_box.turns import Moved, Standing, in_line, is_urgent

PAGE: Final = 100
LINE_MAX: Final = 20_000
"""So many of the oldest waiting jobs are put in order; a queue is seldom a tenth of it."""
RUNNING_MAX: Final = 100

_FULL: Final = "SELECT job.*, account.name AS account FROM job JOIN account ON account.id = job.account_id"


class Filters(Struct, frozen=True, kw_only=True):
    """What the list is narrowed to; `text` is looked for in prompts, whatever its case."""

    account_id: str = ""
    model: str = ""
    type: str = ""
    priority: str = ""
    text: str = ""


class Standby(Struct, frozen=True, kw_only=True):
    """A job that waits, with all that decides its turn."""

    id: str
    account_id: str
    model: str
    type: JobType
    batch: bool
    waited_seconds: float
    start_in_seconds: float | None
    turn: int
    moved: Moved
    prompt: str


class OpenJob(Struct, frozen=True, kw_only=True):
    """A job as the owner sees it. `position` is that in the whole line (1 is next), 0 for one that runs; `why` says
    why it was passed over, where its turn has come; times are microseconds, and the prompt is cut short.
    """

    id: str
    account_id: str
    account: str
    type: JobType
    model: str
    prompt: str
    n: int
    priority: Literal["interactive", "batch"]
    created_at: int
    position: int
    eta_seconds: float | None
    why: str | None
    moved: Moved
    status: Literal["queued", "running"]
    phase: str
    progress: float
    device: str
    work_begun: bool
    cancel_requested: bool


class Line(Struct, frozen=True, kw_only=True):
    """A page of those that wait: how many there are, how many of them match, and `shown` from `start` on."""

    waiting: int
    matching: int
    start: int
    shown: list[OpenJob]


class Lineup:
    """Reads the line; for threads that read. `standing` and `reason` are the scheduler's."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        eta: Eta,
        standing: Callable[[bool], Standing],
        reason: Callable[[str, bool], str | None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._eta = eta
        self._standing = standing
        self._reason = reason

    def running(self, *, test: bool) -> list[OpenJob]:
        """The jobs that run, the longest first."""
        found = self._store.all(
            f"{_FULL} WHERE job.status = 'running' AND test = ? ORDER BY started_at LIMIT ?",
            (int(test), RUNNING_MAX),
        )
        return [self._open(row, 0) for row in found]

    def page(self, filters: Filters, start: int, *, test: bool) -> Line:
        """At most `PAGE` of the matching jobs, from the one with the index `start` on."""
        waiting = self._waiting(test=test, with_prompts=bool(filters.text))
        line = in_line(_flows(waiting), self._standing(test))
        if filters == Filters():  # nobody behind the page need be put in order
            line = islice(line, start + PAGE)
        wanted = filters.text.casefold()
        found = [
            (position, job.id)
            for position, job in enumerate(line, start=1)
            if filters.account_id in ("", job.account_id)
            and filters.model in ("", job.model)
            and filters.type in ("", job.type)
            and filters.priority in ("", "batch" if job.batch else "interactive")
            and (not wanted or wanted in job.prompt.casefold())
        ]
        matching = len(waiting) if filters == Filters() else len(found)
        chosen = found[start : start + PAGE]
        marks = ",".join("?" * len(chosen))
        read = self._store.all(
            f"{_FULL} WHERE job.id IN ({marks}) AND job.status = 'queued'",
            tuple(job_id for _, job_id in chosen),
        )
        rows = {row["id"]: row for row in read}
        shown = [self._open(rows[job_id], position) for position, job_id in chosen if job_id in rows]
        return Line(waiting=len(waiting), matching=matching, start=start, shown=shown)

    def one(self, job_id: str) -> OpenJob:
        """An open job, its position left out. Raises 404 for what is not there, or has ended."""
        row = self._store.one(f"{_FULL} WHERE job.id = ? AND job.status IN ('queued', 'running')", (job_id,))
        if row is None:
            raise not_found("open job")
        return self._open(row, 0)

    def people(self, *, test: bool) -> list[tuple[str, str]]:
        """Those whose jobs wait: id and name, by name."""
        found = self._store.all(
            "SELECT id, name FROM account WHERE id IN (SELECT DISTINCT account_id FROM job INDEXED BY job_by_flow"
            " WHERE status = 'queued' AND test = ?) ORDER BY name LIMIT ?",
            (int(test), ACCOUNTS_MAX),
        )
        return [(row["id"], row["name"]) for row in found]

    def models(self, *, test: bool) -> list[str]:
        """Those that jobs wait for."""
        found = self._store.all(
            "SELECT DISTINCT model FROM job INDEXED BY job_by_flow WHERE status = 'queued' AND test = ?", (int(test),)
        )
        return sorted(row["model"] for row in found)

    def _waiting(self, *, test: bool, with_prompts: bool) -> list[Standby]:
        now, prompt = self._clock(), "prompt" if with_prompts else "''"  # prompts are long
        found = self._store.all(
            "SELECT id, seq, turn, account_id, model, type, priority, created_at, start_deadline_at,"  # noqa: S608 - ours
            f" {prompt} AS prompt FROM job WHERE status = 'queued' AND test = ?"
            " ORDER BY priority, account_id, model, turn LIMIT ?",
            (int(test), LINE_MAX),
        )
        return [_standby(row, now) for row in found]

    def _open(self, row: Row, position: int) -> OpenJob:
        return OpenJob(
            id=row["id"],
            account_id=row["account_id"],
            account=row["account"],
            type=row["type"],
            model=row["model"],
            prompt=prompt_shown(row),
            n=row["n"],
            priority="batch" if row["priority"] == BATCH else "interactive",
            created_at=row["created_at"],
            position=position,
            eta_seconds=self._eta_of(row),
            why=self._reason(row["id"], bool(row["test"])) if position else None,
            moved=moved(row),
            status=row["status"],
            phase=row["phase"],
            progress=row["progress"],
            device=row["device"] or "",
            work_begun=bool(row["work_begun"]),
            cancel_requested=bool(row["cancel_requested"]),
        )

    def _eta_of(self, row: Row) -> float | None:
        if row["status"] == "running":
            return self._eta.running_seconds(row["id"], row["progress"])
        try:
            return self._eta.queued(row, submission_of(row).work).seconds
        except msgspec.DecodeError:  # what was asked for cannot be read any more; its start will tell
            return None


def _flows(waiting: Sequence[Standby]) -> list[list[Standby]]:
    """Those of an account, model and priority together; one whose start deadline is near waits behind none of its own,
    as in the scheduler's queue.
    """
    calm = (job for job in waiting if not is_urgent(job))
    flows = [list(flow) for _, flow in groupby(calm, key=lambda job: (job.batch, job.account_id, job.model))]
    return [[job] for job in waiting if is_urgent(job)] + flows


def _standby(row: Row, now: int) -> Standby:
    due = row["start_deadline_at"]
    return Standby(
        id=row["id"],
        account_id=row["account_id"],
        model=row["model"],
        type=row["type"],
        batch=row["priority"] == BATCH,
        waited_seconds=max(0.0, (now - row["created_at"]) / SECOND_US),
        start_in_seconds=None if due is None else (due - now) / SECOND_US,
        turn=row["turn"],
        moved=moved(row),
        prompt=row["prompt"],
    )
