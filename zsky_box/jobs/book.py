"""The truth about jobs. Every change is a conditional update whose row count is checked, in one transaction with its
money; whoever holds an older token changes nothing. After COMMIT the scheduler is woken and the feed is told.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from zsky_box import ids, ledger
from zsky_box.assets import Assets, stem
from zsky_box.catalog import Catalog
from zsky_box.clock import SECOND_US, Clock, rfc3339
from zsky_box.db import Row, Store, Tx
from zsky_box.errors import ErrorCode, JobFailure, Refusal, not_found
from zsky_box.events import Done, Phase
from zsky_box.feed import Feed
from zsky_box.keys import Caller
from zsky_box.pricing import price_micros
from zsky_box.requests import Submission, Work
from zsky_box.schemas import JobAccepted, Receipt
from zsky_box.settings import Settings

log = logging.getLogger(__name__)

INTERACTIVE: Final = 0
BATCH: Final = 1
SWEEP_BATCH: Final = 1_000

# Where each phase lies within a job's progress.
_SPANS: Final[dict[Phase, tuple[float, float]]] = {
    "waiting": (0.0, 0.0),
    "loading": (0.0, 0.05),
    "denoising": (0.05, 0.80),
    "decoding": (0.80, 0.95),
    "encoding": (0.95, 0.99),
}


class OpenJob(Struct, frozen=True, kw_only=True):
    """A queued job as the scheduler sees it."""

    id: str
    account_id: str
    model: str
    type: str
    test: bool


class Attempt(Struct, frozen=True, kw_only=True):
    """A claimed job: `token` fences everything that is done in its name."""

    job_id: str
    token: int
    work: Work
    test: bool
    out_dir: str
    stem: str
    deadline_in_seconds: float | None


class Idempotency(Struct, frozen=True):
    """A client's key, and the digest of what it was sent with."""

    key: str
    request: bytes


class Accepted(Struct, frozen=True):
    """The stored answer of a submit; `replayed` when the same key had made it before."""

    status: int
    body: bytes
    replayed: bool


class _Note(Struct, frozen=True):
    """Progress that waits to be written."""

    token: int
    phase: Phase
    value: float
    begun: bool


class JobBook:
    """All that happens to jobs."""

    def __init__(
        self,
        store: Store,
        assets: Assets,
        catalog: Catalog,
        feed: Feed,
        settings: Settings,
        clock: Clock,
        wake: Callable[[str | None], None],
    ) -> None:
        self._store = store
        self._assets = assets
        self._catalog = catalog
        self._feed = feed
        self._settings = settings
        self._clock = clock
        self._wake = wake
        self._notes: dict[str, _Note] = {}
        self._noted: set[str] = set()  # jobs with a write on its way that will take their note
        self._notes_lock = threading.Lock()
        self._unended: dict[str, tuple[int, ErrorCode, str]] = {}
        self.draining = False

    # Submit

    async def submit(self, caller: Caller, submission: Submission, idempotency: Idempotency | None) -> Accepted:
        """Reserve the money and queue the job, all or nothing; the answer is given once it is durable."""
        if self.draining:
            raise Refusal(503, "draining", "The box is stopping; retry in a moment.", headers={"Retry-After": "10"})
        self._check_space()
        return await self._store.write_async(lambda tx: self._submit(tx, caller, submission, idempotency))

    async def replay(self, caller: Caller, idempotency: Idempotency | None) -> Accepted | None:
        """The stored answer to a key that was used before: asked first, since no later refusal may stand before it."""
        if idempotency is None:
            return None
        return await self._store.read(lambda: self._replay(self._store, caller, idempotency))

    def _check_space(self) -> None:
        try:
            free = self._assets.free_bytes()
        except OSError as error:
            log.error("the outputs' folder cannot be reached: %s", error)
            raise _no_storage("The outputs' disk cannot be reached; connect it again.") from error
        if free < self._settings.free_space_floor_bytes:
            raise _no_storage("The outputs' disk has too little space left; remove results or add space.")

    def _submit(self, tx: Tx, caller: Caller, submission: Submission, idempotency: Idempotency | None) -> Accepted:
        now, work, test = self._clock(), submission.work, caller.key.test
        if idempotency is not None:
            replay = self._replay(tx, caller, idempotency)
            if replay is not None:
                return replay
        self._check_room(tx, caller)
        job_id = ids.new("job")
        if not test:
            ledger.reserve(tx, caller.account, work.type, work.n, job_id, now, self._settings)
        self._insert(tx, caller, submission, job_id, now)
        body = msgspec.json.encode(_accepted(job_id, submission, test=test, now=now))
        if idempotency is not None:
            tx.execute(
                "INSERT INTO idempotency (account_id, test, key, request, status, body, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (caller.account.id, int(test), idempotency.key, idempotency.request, 202, body, now),
            )
        self._after(tx, (caller.account.id, test), job_id, {"status": "queued"}, ring=True)
        return Accepted(202, body, replayed=False)

    def _replay(self, rows: Tx | Store, caller: Caller, idempotency: Idempotency) -> Accepted | None:
        row = rows.one(
            "SELECT * FROM idempotency WHERE account_id = ? AND test = ? AND key = ?",
            (caller.account.id, int(caller.key.test), idempotency.key),
        )
        if row is None:
            return None
        if bytes(row["request"]) != idempotency.request:
            raise Refusal(
                409, "idempotency_conflict", "This Idempotency-Key was used with another request; use a fresh one."
            )
        return Accepted(row["status"], bytes(row["body"]), replayed=True)

    def _check_room(self, tx: Tx, caller: Caller) -> None:
        """The queue is bounded: in all, and per account; test jobs are counted apart."""
        test = int(caller.key.test)
        # One walk over one index: what counts here is the length of the queue.
        open_jobs = tx.all(
            "SELECT count(*) AS everyone, count(*) FILTER (WHERE account_id = ? AND test = ?) AS mine"
            " FROM job INDEXED BY job_open_by_account WHERE status IN ('queued', 'running')",
            (caller.account.id, test),
        )[0]
        own_max = self._settings.test_queue_open_max if test else self._settings.queue_open_per_account_max
        if open_jobs["mine"] >= own_max:
            raise _queue_full(f"You have {open_jobs['mine']} open jobs, the most an account may have")
        if open_jobs["everyone"] >= self._settings.queue_open_max:
            raise _queue_full("The box's queue is full")

    def _insert(self, tx: Tx, caller: Caller, submission: Submission, job_id: str, now: int) -> None:
        work = submission.work

        def after(seconds: float | None) -> int | None:
            return None if seconds is None else now + round(seconds * SECOND_US)

        tx.execute(
            "INSERT INTO job (id, account_id, key_id, test, type, model, request, prompt, priority, n, status, phase,"
            " price_micros, metadata, notes, created_at, start_deadline_at, deadline_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', 'waiting', ?, ?, ?, ?, ?, ?)",
            (
                job_id,
                caller.account.id,
                caller.key.id,
                int(caller.key.test),
                work.type,
                work.model,
                msgspec.json.encode(submission).decode(),
                work.prompt,
                BATCH if submission.batch else INTERACTIVE,
                work.n,
                0 if caller.key.test else price_micros(work.type, self._settings),
                msgspec.json.encode(submission.metadata).decode(),
                msgspec.json.encode(submission.notes).decode(),
                now,
                after(submission.start_deadline_seconds),
                after(submission.deadline_seconds),
            ),
        )

    # Claim, progress, end: what the scheduler calls

    def queued(self, *, test: bool, limit: int) -> list[OpenJob]:
        """The next queued jobs, first come first served within their priority."""
        rows = self._store.all(
            "SELECT id, account_id, model, type FROM job INDEXED BY job_open"
            " WHERE status IN ('queued', 'running') AND test = ? AND status = 'queued'"
            " ORDER BY priority, seq LIMIT ?",
            (int(test), limit),
        )
        return [
            OpenJob(id=row["id"], account_id=row["account_id"], model=row["model"], type=row["type"], test=test)
            for row in rows
        ]

    def claim(self, job_id: str, device: str) -> Attempt | None:
        """Queued to running, raising the token; None when somebody else was faster or the job is gone."""
        row = self._store.write(lambda tx: self._claim(tx, job_id, device))
        if row is None:
            return None
        try:
            work, deadline = submission_of(row).work, row["deadline_at"]
            folder = self._assets.begin(job_id, row["token"])
        except msgspec.DecodeError:
            log.exception("job %s cannot be read", job_id)
            self._fail_claimed(job_id, row["token"], "internal_error", "What was asked for cannot be read any more.")
            return None
        except OSError as error:
            told = f"The outputs' disk cannot be written ({error.strerror})."
            self._fail_claimed(job_id, row["token"], "storage_full", told)
            return None
        return Attempt(
            job_id=job_id,
            token=row["token"],
            work=work,
            test=bool(row["test"]),
            out_dir=str(folder),
            stem=stem(work.prompt, work.seed),
            deadline_in_seconds=None if deadline is None else (deadline - self._clock()) / SECOND_US,
        )

    def _fail_claimed(self, job_id: str, token: int, code: ErrorCode, message: str) -> None:
        """No worker has this attempt, so nobody else will end it: it is kept until the store takes its end."""
        self._unended[job_id] = (token, code, message)
        self._end_unended()

    def _end_unended(self) -> None:
        for job_id, (token, code, message) in list(self._unended.items()):
            self.fail(job_id, token, code, message)
            del self._unended[job_id]

    def _claim(self, tx: Tx, job_id: str, device: str) -> Row | None:
        now = self._clock()
        changed = tx.execute(
            "UPDATE job SET status = 'running', phase = 'loading', token = token + 1, attempts = attempts + 1,"
            " started_at = ?, device = ?, work_begun = 0, start_deadline_at = NULL WHERE id = ? AND status = 'queued'"
            " AND (start_deadline_at IS NULL OR start_deadline_at > ?) AND (deadline_at IS NULL OR deadline_at > ?)",
            (now, device, job_id, now, now),
        )
        if changed.rowcount != 1:
            return None
        row = _row(tx, job_id)
        self._after(tx, _channel(row), job_id, {"status": "running", "phase": "loading"})
        return row

    def progress(self, job_id: str, token: int, phase: Phase, step: int, steps: int) -> None:
        """Note how far an attempt is; several notes in a row become one write, the last one.

        Work has begun, and a cancel is charged, once the first denoising step is stored.
        """
        low, high = _SPANS[phase]
        value = low + (high - low) * (min(step, steps) / steps if steps > 0 else 0.0)
        begun = phase == "denoising" and step >= 1
        with self._notes_lock:
            before = self._notes.get(job_id)
            if before is not None and before.token > token:
                return  # an older attempt must not hide what a newer one has told
            if before is not None and before.token == token:
                begun, value = begun or before.begun, max(value, before.value)
            self._notes[job_id] = _Note(token, phase, value, begun)
            waiting = job_id in self._noted
            self._noted.add(job_id)
        if not waiting:
            written = self._store.submit(lambda tx: self._progress(tx, job_id))
            written.add_done_callback(lambda done: self._noted_in_vain(job_id, done))

    def _noted_in_vain(self, job_id: str, done: Future[None]) -> None:
        """A write that the store refused must not keep the next note waiting for it."""
        if done.exception() is not None:
            with self._notes_lock:
                self._noted.discard(job_id)

    def _progress(self, tx: Tx, job_id: str) -> None:
        with self._notes_lock:
            self._noted.discard(job_id)
            note = self._notes.pop(job_id, None)
        if note is None:
            return
        changed = tx.execute(
            "UPDATE job SET phase = ?, progress = max(progress, ?), work_begun = max(work_begun, ?)"
            " WHERE id = ? AND token = ? AND status = 'running'",
            (note.phase, note.value, int(note.begun), job_id, note.token),
        )
        if changed.rowcount == 1:
            row = _row(tx, job_id)
            data = {"phase": note.phase, "progress": round(row["progress"], 4), "status": "running"}
            self._after(tx, _channel(row), job_id, data, kind="progress")

    def complete(self, done: Done, device_name: str, versions: dict[str, str]) -> None:
        """The files first, durably in place; then one transaction: the job's end, its posts, its rows."""
        results = frozenset(file.ordinal for file in done.files if file.kind == "result")
        if not results:
            raise JobFailure("internal_error", "The worker reported no result.")
        receipt = self._receipt(done.job_id, device_name, versions)
        folder = self._assets.adopt(done.job_id, done.token, done.files)
        if not self._store.write(lambda tx: self._complete(tx, done, receipt, folder, results)):
            self._discard(done.job_id, done.token)

    def _complete(self, tx: Tx, done: Done, receipt: Receipt, folder: str, results: frozenset[int]) -> bool:
        now = self._clock()
        row = tx.one("SELECT * FROM job WHERE id = ? AND token = ? AND status = 'running'", (done.job_id, done.token))
        if row is None:
            return False
        notes = [*msgspec.json.decode(row["notes"]), *done.notes]
        if len(results) < row["n"]:
            notes.append(f"{row['n'] - len(results)} of {row['n']} images failed and are not charged.")
        tx.execute(
            "UPDATE job SET status = 'completed', phase = 'encoding', progress = 1, finished_at = ?, receipt = ?,"
            " notes = ? WHERE id = ?",
            (now, msgspec.json.encode(receipt).decode(), msgspec.json.encode(notes).decode(), done.job_id),
        )
        self._assets.record(tx, done.job_id, folder, done.files, now)
        ledger.resolve(tx, done.job_id, results, actor="box", now=now, settings=self._settings)
        self._after(tx, _channel(row), done.job_id, {"status": "completed", "progress": 1.0})
        return True

    def _receipt(self, job_id: str, device_name: str, versions: dict[str, str]) -> Receipt:
        row = self._store.one("SELECT model FROM job WHERE id = ?", (job_id,))
        spec = None if row is None else self._catalog.specs.get(row["model"])
        installed = None if spec is None else self._catalog.installed(spec)
        if spec is None or installed is None:
            raise JobFailure("internal_error", "The model was removed while the job ran.")
        return Receipt(
            model=spec.name,
            revision=installed.revision,
            weights_sha256=installed.weights_sha256,
            quantisation=installed.quantisation,
            device=device_name,
            versions=versions,
            licence=spec.licence.name,
            commercial_use=spec.licence.commercial_use,
        )

    def fail(self, job_id: str, token: int, code: ErrorCode, message: str) -> bool:
        """End an attempt's job without a result; False when it is not this attempt's any more."""
        ended = self._store.write(lambda tx: self._fail(tx, job_id, token, code, message))
        self._discard(job_id, token)
        return ended

    def _fail(self, tx: Tx, job_id: str, token: int | None, code: ErrorCode, message: str) -> bool:
        now = self._clock()
        row = _row(tx, job_id)
        # Back in the queue, a job still has the token of the attempt that it was taken from.
        open_still = row["status"] in ("queued", "running") if token is None else row["status"] == "running"
        if not open_still or token not in (None, row["token"]):
            return False
        tx.execute(
            "UPDATE job SET status = 'failed', error_code = ?, error = ?, finished_at = ? WHERE id = ?",
            (code, message, now, job_id),
        )
        # After a safety block, or a cancel once a step was stored, the card's work is charged; nothing else is.
        began = row["status"] == "running" and bool(row["work_begun"])
        charged = code == "safety_blocked" or (code == "cancelled" and began)
        ledger.resolve(tx, job_id, None if charged else frozenset(), actor="box", now=now, settings=self._settings)
        self._after(tx, _channel(row), job_id, {"status": "failed", "error_code": code, "error": message})
        return True

    def retry(self, job_id: str, token: int, code: ErrorCode, message: str, *, attempts_max: int) -> bool:
        """Back to the queue after a fault of the box, unless that was the last attempt or it was to be cancelled."""
        retried = self._store.write(lambda tx: self._retry(tx, job_id, token, code, message, attempts_max))
        self._discard(job_id, token)
        return retried

    def _retry(self, tx: Tx, job_id: str, token: int, code: ErrorCode, message: str, attempts_max: int) -> bool:
        row = _row(tx, job_id)
        if row["status"] != "running" or row["token"] != token:
            return False
        if row["cancel_requested"]:
            self._fail(tx, job_id, token, "cancelled", "The job was cancelled.")
            return False
        if row["attempts"] >= attempts_max:
            self._fail(tx, job_id, token, code, message)
            return False
        tx.execute(
            "UPDATE job SET status = 'queued', phase = 'waiting', started_at = NULL, work_begun = 0, device = NULL"
            " WHERE id = ?",
            (job_id,),
        )
        self._after(tx, _channel(row), job_id, {"status": "queued", "phase": "waiting"}, ring=True)
        return True

    def release(self, job_id: str, token: int) -> None:
        """The service stops before the attempt is done: it goes back to the queue and does not count."""

        def work(tx: Tx) -> None:
            tx.execute(
                "UPDATE job SET attempts = attempts - 1 WHERE id = ? AND token = ? AND status = 'running'",
                (job_id, token),
            )
            self._retry(tx, job_id, token, "internal_error", "The box was stopped.", self._settings.attempts_max)

        self._store.write(work)
        self._discard(job_id, token)

    def _discard(self, job_id: str, token: int) -> None:
        """Remove an attempt's files, unless they are the job's result: an end may be told twice, in any order."""
        row = self._store.one("SELECT 1 FROM job WHERE id = ? AND token = ? AND status = 'completed'", (job_id, token))
        if row is None:
            self._assets.discard(job_id, token)

    def cancel_requested(self, job_ids: list[str]) -> set[str]:
        """Which of these running jobs their owners want stopped."""
        marks = ",".join("?" * len(job_ids))
        rows = self._store.all(
            f"SELECT id FROM job WHERE cancel_requested = 1 AND id IN ({marks})",  # noqa: S608
            tuple(job_ids),
        )
        return {row["id"] for row in rows}

    # What clients call

    async def cancel(self, caller: Caller, job_id: str) -> None:
        """Queued: ended at once, free. Running: marked, and the worker stops within two steps. Ended: 409."""
        await self._store.write_async(lambda tx: self._cancel(tx, caller, job_id))

    def _cancel(self, tx: Tx, caller: Caller, job_id: str) -> None:
        row = _owned(tx, caller, job_id)
        if row["status"] == "queued":
            self._fail(tx, job_id, None, "cancelled", "The job was cancelled before it began.")
        elif row["status"] == "running":
            tx.execute("UPDATE job SET cancel_requested = 1 WHERE id = ?", (job_id,))
            tx.after_commit.append(lambda: self._wake(None))
        else:
            raise Refusal(409, "job_finished", f"The job is {row['status']} already; it cannot be cancelled.")

    async def delete(self, caller: Caller, job_id: str) -> None:
        """Remove the files of an ended job, on record; the job and its charge stay readable."""
        await self._store.write_async(lambda tx: self._delete(tx, caller, job_id))
        await self._store.read(lambda: self._assets.purge(self._clock()))

    def _delete(self, tx: Tx, caller: Caller, job_id: str) -> None:
        row = _owned(tx, caller, job_id)
        if row["status"] in ("queued", "running"):
            raise Refusal(409, "job_open", "The job is still open; cancel it first.")
        if row["removed_at"] is None:
            now = self._clock()
            tx.execute("UPDATE job SET removed_at = ? WHERE id = ?", (now, job_id))
            self._assets.mark_removed(tx, job_id, now)

    # Start and sweeps

    def recover(self) -> int:
        """At start, before anything runs: running jobs go back to the queue or, out of attempts, are voided.

        Then no file is left without a charge; returns how many jobs were running.
        """
        rows = self._store.all("SELECT id, token FROM job WHERE status = 'running'")
        for row in rows:
            self._assets.discard(row["id"])
            self._store.write(
                lambda tx, row=row: self._retry(
                    tx,
                    row["id"],
                    row["token"],
                    "internal_error",
                    "The box stopped while the job ran, too many times.",
                    self._settings.attempts_max,
                )
            )
        self._assets.remove_unrecorded()
        return len(rows)

    def expire(self) -> int:
        """Void the queued jobs whose deadline has passed; running ones are the scheduler's to stop."""
        self._end_unended()
        now = self._clock()
        late = self._store.all(
            "SELECT id FROM job INDEXED BY job_with_deadline"
            " WHERE status IN ('queued', 'running') AND (deadline_at IS NOT NULL OR start_deadline_at IS NOT NULL)"
            " AND status = 'queued' AND (deadline_at <= :now OR start_deadline_at <= :now) LIMIT :limit",
            {"now": now, "limit": SWEEP_BATCH},
        )
        for row in late:
            self._store.write(lambda tx, job_id=row["id"]: self._expire(tx, job_id, now))
        return len(late)

    def _expire(self, tx: Tx, job_id: str, now: int) -> None:
        row = _row(tx, job_id)
        missed = min((at for at in (row["start_deadline_at"], row["deadline_at"]) if at is not None), default=now + 1)
        if row["status"] == "queued" and missed <= now:
            message = f"The job had not begun by its deadline, {rfc3339(missed)}."
            self._fail(tx, job_id, None, "deadline_exceeded", message)

    def open_ids(self, limit: int) -> list[str]:
        """Jobs that are not ended, for the sweep that rings again."""
        rows = self._store.all(
            "SELECT id FROM job WHERE status IN ('queued', 'running') ORDER BY seq LIMIT ?", (limit,)
        )
        return [row["id"] for row in rows]

    def forget_idempotency(self) -> None:
        """Drop keys that are older than they are kept."""
        before = self._clock() - self._settings.idempotency_days * 86_400 * SECOND_US
        self._store.write(lambda tx: tx.execute("DELETE FROM idempotency WHERE created_at < ?", (before,)))

    def _after(
        self,
        tx: Tx,
        channel: tuple[str, bool],
        job_id: str,
        data: dict[str, Any],
        *,
        kind: Literal["status", "progress"] = "status",
        ring: bool = False,
    ) -> None:
        tx.after_commit.append(lambda: self._feed.publish(channel, kind, job_id, {"job_id": job_id, **data}))
        if ring:
            tx.after_commit.append(lambda: self._wake(job_id))


def submission_of(row: Row) -> Submission:
    """What was asked for, as it was stored."""
    return msgspec.json.decode(row["request"], type=Submission)


def _accepted(job_id: str, submission: Submission, *, test: bool, now: int) -> JobAccepted:
    work = submission.work
    return JobAccepted(
        job_id=job_id,
        status="queued",
        type=work.type,
        model=work.model,
        seed=work.seed,
        n=work.n,
        width=work.width,
        height=work.height,
        duration=work.duration_seconds or None,
        fps=work.fps or None,
        created_at=rfc3339(now),
        test=test,
        notes=list(submission.notes),
    )


def _row(tx: Tx, job_id: str) -> Row:
    row = tx.one("SELECT * FROM job WHERE id = ?", (job_id,))
    if row is None:
        raise not_found("job")
    return row


def _owned(tx: Tx, caller: Caller, job_id: str) -> Row:
    row = tx.one(
        "SELECT * FROM job WHERE id = ? AND account_id = ? AND test = ?",
        (job_id, caller.account.id, int(caller.key.test)),
    )
    if row is None:
        raise not_found("job")
    return row


def _channel(row: Row) -> tuple[str, bool]:
    return row["account_id"], bool(row["test"])


def _no_storage(detail: str) -> Refusal:
    return Refusal(503, "storage_full", detail, headers={"Retry-After": "300"})


def _queue_full(reason: str) -> Refusal:
    return Refusal(429, "queue_full", f"{reason}; retry when some have ended.", headers={"Retry-After": "10"})
