"""The truth about jobs. Every change is a conditional update whose row count is checked, in one transaction with its
money; whoever holds an older token changes nothing. After COMMIT the scheduler is woken and the feed is told.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from zsky_box import ledger, webhooks
from zsky_box import timings as timings_kept
from zsky_box.assets import Assets, stem
from zsky_box.catalog import Catalog
from zsky_box.clock import SECOND_US, Clock, rfc3339
from zsky_box.db import Row, Store, Tx
from zsky_box.dispatch import Waiting
from zsky_box.errors import ErrorCode, JobFailure
from zsky_box.estimates import Timing
from zsky_box.events import Done, Phase
from zsky_box.jobs import rows
from zsky_box.jobs.progress import Progress
from zsky_box.jobs.queue import Queue
from zsky_box.jobs.rows import News
from zsky_box.manifest import FULL
from zsky_box.observer import Nobody, Observer
from zsky_box.pauses import Pauses
from zsky_box.requests import Work
from zsky_box.schemas import Receipt
from zsky_box.terms import Terms
from zsky_box.uploads import Uploads

log = logging.getLogger(__name__)

SWEEP_BATCH: Final = 1_000
DECISIONS_MAX: Final = 16
"""The first decision about a job and the newest are kept."""


class Attempt(Struct, frozen=True, kw_only=True):
    """A claimed job: `token` fences everything that is done in its name."""

    job_id: str
    token: int
    work: Work
    test: bool
    out_dir: str
    stem: str
    deadline_in_seconds: float | None
    reference_path: str = ""


class JobBook:
    """All that happens to jobs once they are accepted."""

    def __init__(
        self,
        store: Store,
        assets: Assets,
        uploads: Uploads,
        catalog: Catalog,
        news: News,
        terms: Terms,
        clock: Clock,
        pauses: Pauses,
        *,
        observer: Observer | None = None,
    ) -> None:
        self._pauses = pauses
        self._store = store
        self._assets = assets
        self._uploads = uploads
        self._catalog = catalog
        self._news = news
        self._terms = terms
        self._clock = clock
        self._observer = observer or Nobody()
        self._progress = Progress(store, news)
        self._queue = Queue(store, clock)
        self._unended: dict[str, tuple[int, ErrorCode, str]] = {}

    # Claim, progress, end: what the scheduler calls

    def heads(self, *, test: bool, per_flow: int) -> list[list[Waiting]]:
        """The oldest queued jobs of each account, model and priority, after those whose start deadline is near."""
        return self._queue.heads(test=test, per_flow=per_flow)

    def claim(self, job_id: str, device: str, why: str = "") -> Attempt | None:
        """Queued to running, raising the token; None when somebody else was faster or the job is gone.

        `why` goes on the job's record of decisions.
        """
        row = self._store.write(lambda tx: self._claim(tx, job_id, device, why))
        if row is None:
            return None
        try:
            work, deadline = rows.submission_of(row).work, row["deadline_at"]
            work = msgspec.structs.replace(work, wordmarked=row["wordmarked"])
            reference = str(self._uploads.path(work.reference, self._clock())) if work.reference else ""
            folder = self._assets.begin(job_id, row["token"])
        except msgspec.DecodeError:
            log.exception("job %s cannot be read", job_id)
            self._fail_claimed(job_id, row["token"], "internal_error", "What was asked for cannot be read any more.")
            return None
        except JobFailure as failure:
            self._fail_claimed(job_id, row["token"], failure.error_code, failure.message)
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
            reference_path=reference,
        )

    def _fail_claimed(self, job_id: str, token: int, code: ErrorCode, message: str) -> None:
        """No worker has this attempt, so nobody else will end it: it is kept until the store takes its end."""
        self._unended[job_id] = (token, code, message)
        self._end_unended()

    def _end_unended(self) -> None:
        for job_id, (token, code, message) in list(self._unended.items()):
            self.fail(job_id, token, code, message)
            del self._unended[job_id]

    def _claim(self, tx: Tx, job_id: str, device: str, why: str) -> Row | None:
        now = self._clock()
        decision = msgspec.json.encode({"at": rfc3339(now), "device": device, "why": why}).decode()
        changed = tx.execute(
            "UPDATE job SET status = 'running', phase = 'loading', token = token + 1, attempts = attempts + 1,"
            " started_at = ?, device = ?, work_begun = 0, start_deadline_at = NULL,"
            " decisions = json_insert("
            " iif(json_array_length(decisions) < ?, decisions, json_remove(decisions, '$[1]')), '$[#]', json(?))"
            " WHERE id = ? AND status = 'queued'"
            " AND (start_deadline_at IS NULL OR start_deadline_at > ?) AND (deadline_at IS NULL OR deadline_at > ?)",
            (now, device, DECISIONS_MAX, decision, job_id, now, now),
        )
        if changed.rowcount != 1:
            return None
        row = rows.get(tx, job_id)
        self._news.tell(tx, rows.channel(row), job_id, {"status": "running", "phase": "loading"})
        if row["attempts"] == 1:
            model, test, waited = row["model"], bool(row["test"]), (now - row["created_at"]) / SECOND_US
            tx.after_commit.append(lambda: self._observer.started(model, waited, test=test))
        return row

    def progress(self, job_id: str, token: int, phase: Phase, step: int, steps: int) -> None:
        """Note how far an attempt is, without waiting."""
        self._progress.note(job_id, token, phase, step, steps)

    def preview(self, job_id: str, token: int, jpeg: bytes) -> None:
        """Show how a running attempt looks by now."""
        row = self._store.one(
            "SELECT account_id, test FROM job WHERE id = ? AND token = ? AND status = 'running'", (job_id, token)
        )
        if row is not None:
            self._news.show(rows.channel(row), job_id, jpeg)

    def complete(self, done: Done, device_name: str, versions: dict[str, str], recipe: str = "") -> None:
        """The files first, durably in place; then one transaction: the job's end, its posts, its rows."""
        results = frozenset(file.ordinal for file in done.files if file.kind == "result")
        if not results:
            raise JobFailure("internal_error", "The worker reported no result.")
        receipt = self._receipt(done, device_name, versions, recipe)
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
            notes.append("Images that failed are not charged.")
        tx.execute(
            "UPDATE job SET status = 'completed', phase = 'encoding', progress = 1, finished_at = ?, receipt = ?,"
            " notes = ?, error = NULL WHERE id = ?",
            (now, msgspec.json.encode(receipt).decode(), msgspec.json.encode(notes).decode(), done.job_id),
        )
        self._assets.record(tx, done.job_id, folder, done.files, now)
        ledger.resolve(tx, done.job_id, results, actor="box", now=now, terms=self._terms)
        webhooks.stage(tx, row["account_id"], "job.completed", done.job_id, now, test=bool(row["test"]))
        self._news.tell(tx, rows.channel(row), done.job_id, {"status": "completed", "progress": 1.0})
        self._tell_end(tx, row, "completed", "")
        return True

    def _receipt(self, done: Done, device_name: str, versions: dict[str, str], recipe_name: str) -> Receipt:
        row = self._store.one("SELECT model, test FROM job WHERE id = ?", (done.job_id,))
        spec = None if row is None else self._catalog.specs.get(row["model"])
        installed = None if spec is None else self._catalog.installed(spec)
        if spec is None or installed is None:
            raise JobFailure("internal_error", "The model was removed while the job ran.")
        check = self._catalog.output_check
        if check is not None and row is not None and not row["test"] and check.name not in done.checked:
            raise JobFailure("internal_error", f"The output check {check.name} did not look at the result.")
        recipe = next((recipe for recipe in spec.ways if recipe.name == recipe_name), spec.ways[0])
        variant = installed.variant(recipe)
        return Receipt(
            model=spec.name,
            revision=installed.revision,
            weights_sha256=(variant and variant.weights_sha256) or installed.weights_sha256,
            quantisation=installed.quantisation if recipe.variant == FULL else recipe.variant,
            device=device_name,
            versions=versions,
            licence=spec.licence.name,
            commercial_use=spec.licence.commercial_use,
            recipe=recipe.name,
            checks=[self._named(name) for name in done.checked],
        )

    def _named(self, check: str) -> str:
        """A check that ran, with its revision where that is known: NAME@REVISION."""
        spec = self._catalog.specs.get(check)
        installed = None if spec is None else self._catalog.installed(spec)
        return f"{check}@{installed.revision}" if installed is not None and installed.revision else check

    def fail(self, job_id: str, token: int, code: ErrorCode, message: str) -> bool:
        """End an attempt's job without a result; False when it is not this attempt's any more."""
        ended = self._store.write(lambda tx: self._fail(tx, job_id, token, code, message))
        self._discard(job_id, token)
        return ended

    def _fail(self, tx: Tx, job_id: str, token: int | None, code: ErrorCode, message: str) -> bool:
        now = self._clock()
        row = rows.get(tx, job_id)
        # Back in the queue, a job still has the token of the attempt that it was taken from.
        open_still = row["status"] in ("queued", "running") if token is None else row["status"] == "running"
        if not open_still or token not in (None, row["token"]):
            return False
        if code == "cancelled" and row["error"]:
            message = row["error"]  # why the owner cancelled it while it ran
        tx.execute(
            "UPDATE job SET status = 'failed', error_code = ?, error = ?, finished_at = ? WHERE id = ?",
            (code, message, now, job_id),
        )
        # After a safety block, or a cancel once a step was stored, the card's work is charged; nothing else is.
        began = row["status"] == "running" and bool(row["work_begun"])
        charged = code == "safety_blocked" or (code == "cancelled" and began)
        ledger.resolve(tx, job_id, None if charged else frozenset(), actor="box", now=now, terms=self._terms)
        webhooks.stage(tx, row["account_id"], "job.failed", job_id, now, test=bool(row["test"]))
        self._news.tell(tx, rows.channel(row), job_id, {"status": "failed", "error_code": code, "error": message})
        self._tell_end(tx, row, "failed", code)
        return True

    def _tell_end(self, tx: Tx, row: Row, status: str, code: str) -> None:
        model, test = row["model"], bool(row["test"])
        tx.after_commit.append(lambda: self._observer.ended(model, status, code, test=test))

    def fail_queued(self, tx: Tx, job_id: str, code: ErrorCode, message: str) -> bool:
        """End a job that nobody runs, within a write."""
        return self._fail(tx, job_id, None, code, message)

    def retry(
        self, job_id: str, token: int, code: ErrorCode, message: str, *, attempts_max: int, recipe_floor: int = 0
    ) -> bool:
        """Back to the queue after a fault of the box, unless that was the last attempt or it was to be cancelled.

        From then on it runs by its model's recipes from `recipe_floor` on.
        """
        retried = self._store.write(
            lambda tx: self._retry(tx, job_id, token, code, message, attempts_max, recipe_floor)
        )
        self._discard(job_id, token)
        return retried

    def _retry(
        self,
        tx: Tx,
        job_id: str,
        token: int,
        code: ErrorCode,
        message: str,
        attempts_max: int,
        recipe_floor: int = 0,
    ) -> bool:
        row = rows.get(tx, job_id)
        if row["status"] != "running" or row["token"] != token:
            return False
        if row["cancel_requested"]:
            self._fail(tx, job_id, token, "cancelled", "The job was cancelled.")
            return False
        if row["attempts"] >= attempts_max:
            self._fail(tx, job_id, token, code, message)
            return False
        tx.execute(
            "UPDATE job SET status = 'queued', phase = 'waiting', started_at = NULL, work_begun = 0, device = NULL,"
            " recipe_floor = max(recipe_floor, ?) WHERE id = ?",
            (recipe_floor, job_id),
        )
        self._news.tell(tx, rows.channel(row), job_id, {"status": "queued", "phase": "waiting"}, ring=True)
        return True

    def release(self, job_id: str, token: int) -> None:
        """The service stops before the attempt is done: it goes back to the queue and does not count."""

        def work(tx: Tx) -> None:
            tx.execute(
                "UPDATE job SET attempts = attempts - 1 WHERE id = ? AND token = ? AND status = 'running'",
                (job_id, token),
            )
            self._retry(tx, job_id, token, "internal_error", "The box was stopped.", self._terms.settings.attempts_max)

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
                    self._terms.settings.attempts_max,
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
        # All are queued before the first is waited for, so that they share their COMMITs.
        writes = [self._store.submit(lambda tx, job_id=row["id"]: self._expire(tx, job_id, now)) for row in late]
        for write in writes:
            write.result()
        return len(late)

    def _expire(self, tx: Tx, job_id: str, now: int) -> None:
        row = rows.get(tx, job_id)
        missed = min((at for at in (row["start_deadline_at"], row["deadline_at"]) if at is not None), default=now + 1)
        if row["status"] == "queued" and missed <= now:
            message = f"The job had not begun by its deadline, {rfc3339(missed)}."
            self._fail(tx, job_id, None, "deadline_exceeded", message)

    def miss(self, job_id: str) -> None:
        """End a queued job whose start deadline no device will be free in time for: early, and free."""
        message = "No device will be free by the job's start deadline."
        self._store.write(lambda tx: self._fail_if_queued(tx, job_id, message))

    def _fail_if_queued(self, tx: Tx, job_id: str, message: str) -> None:
        row = rows.get(tx, job_id)
        if row["status"] == "queued" and row["start_deadline_at"] is not None:
            self._fail(tx, job_id, None, "deadline_exceeded", message)

    # What the scheduler heeds and learns

    def paused(self) -> dict[str, bool]:
        """The devices that take no jobs now, and whether their memory is to be free besides."""
        return self._pauses.now()

    def is_quiet(self) -> bool:
        """Whether these are quiet hours."""
        return self._pauses.is_quiet()

    def timed(self, timings: Sequence[Timing]) -> None:
        """Keep how long things took, without waiting."""
        if timings:
            self._store.submit(lambda tx: timings_kept.keep(tx, timings, self._clock()))

    def measured(self, card: str, flops: float) -> None:
        """Keep what a card was measured to do, without waiting."""
        self._store.submit(lambda tx: timings_kept.keep_card(tx, card, flops, self._clock()))

    def open_ids(self, limit: int) -> list[str]:
        """Jobs that are not ended, for the sweep that rings again."""
        rows = self._store.all(
            "SELECT id FROM job WHERE status IN ('queued', 'running') ORDER BY seq LIMIT ?", (limit,)
        )
        return [row["id"] for row in rows]
