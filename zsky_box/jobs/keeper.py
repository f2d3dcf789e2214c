"""The owner's hand in everybody's queue: jobs moved, made batch or interactive, and cancelled, each on record.

Moving keeps what is fair: a job goes ahead of its own account's others, or behind them, and of nobody else's.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from zsky_box import audit, timeline
from zsky_box.clock import Clock
from zsky_box.db import Row, Store, Tx
from zsky_box.errors import Refusal
from zsky_box.jobs import rows
from zsky_box.jobs.book import JobBook
from zsky_box.jobs.rows import BATCH, INTERACTIVE, News

REASON_MAX: Final = 500
Where = Literal["front", "end", "interactive", "batch"]
"""Ahead of or behind the others of its account and priority; or with which priority it waits from now on."""


class Keeper:
    """Whoever keeps the queue in order, for all accounts."""

    def __init__(self, store: Store, book: JobBook, news: News, clock: Clock) -> None:
        self._store = store
        self._book = book
        self._news = news
        self._clock = clock

    async def move(self, job_id: str, where: Where, *, actor: str) -> None:
        """Give a waiting job another turn. Raises 404, and 409 `job_finished` for one that does not wait any more."""
        await self._store.write_async(lambda tx: self._move(tx, job_id, where, actor))

    def _move(self, tx: Tx, job_id: str, where: Where, actor: str) -> None:
        row = rows.get(tx, job_id)
        if row["status"] != "queued":
            raise Refusal(409, "job_finished", f"The job is {row['status']}, and waits no more.")
        before = {"turn": row["turn"], "priority": _priority(row["priority"])}
        turn, priority = row["turn"], row["priority"]
        match where:
            case "front":
                turn = self._edge(tx, row, "min") - 1
            case "end":
                turn = self._edge(tx, row, "max") + 1
            case "interactive":
                priority = INTERACTIVE
            case "batch":
                priority = BATCH
        if (turn, priority) == (row["turn"], row["priority"]):
            return
        tx.execute("UPDATE job SET turn = ?, priority = ? WHERE id = ?", (turn, priority, job_id))
        after = {"turn": turn, "priority": _priority(priority), "moved_to": where}
        self._record(tx, row, "job.moved", actor, before, after)
        self._news.wake(tx)

    def _edge(self, tx: Tx, row: Row, end: Literal["min", "max"]) -> int:
        found = tx.one(
            f"SELECT {end}(turn) AS turn FROM job WHERE status = 'queued' AND account_id = ? AND test = ?"  # noqa: S608
            " AND priority = ?",
            (row["account_id"], row["test"], row["priority"]),
        )
        return int(row["turn"] if found is None else found["turn"])

    async def cancel(self, job_id: str, reason: str, *, actor: str) -> None:
        """Cancel anybody's job: free while it waits, and afterwards charged as when its own people cancel it.

        Raises 422 without a reason, 404, and 409 `job_finished`.
        """
        if not 0 < len(reason.strip()) <= REASON_MAX:
            raise Refusal(422, "invalid_field", f"Say why, in at most {REASON_MAX} characters.", field="reason")
        await self._store.write_async(lambda tx: self._cancel(tx, job_id, reason.strip(), actor))

    def _cancel(self, tx: Tx, job_id: str, reason: str, actor: str) -> None:
        row = rows.get(tx, job_id)
        if row["status"] not in ("queued", "running"):
            raise Refusal(409, "job_finished", f"The job is {row['status']} already; it cannot be cancelled.")
        if row["cancel_requested"]:
            return  # it is being stopped: there is nothing more to do, or to put on record
        told = f"The owner of the box cancelled the job: {reason}"
        self._record(tx, row, "job.cancelled", actor, {"status": row["status"]}, {"reason": reason})
        if row["status"] == "queued":
            self._book.fail_queued(tx, job_id, "cancelled", told)
        else:
            tx.execute("UPDATE job SET cancel_requested = 1, error = ? WHERE id = ?", (told, job_id))
            self._news.wake(tx)

    def _record(self, tx: Tx, row: Row, action: str, actor: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        audit.append(
            tx,
            at=timeline.advance_anyhow(tx, self._clock()),
            account_id=row["account_id"],
            actor=actor,
            action=action,
            subject=row["id"],
            before=before,
            after=after,
        )


def _priority(number: int) -> str:
    return "batch" if number == BATCH else "interactive"
