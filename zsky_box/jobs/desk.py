"""What clients do with jobs: quote, submit, cancel, delete.

A submit is one transaction: answer, money and job, or nothing. A quote tells what one would come to, and does nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from zsky_box import accounts, idempotency, ids, ledger, prompt_words, timeline
from zsky_box.assets import Assets
from zsky_box.clock import SECOND_US, Clock, rfc3339
from zsky_box.db import Rows, Store, Tx
from zsky_box.errors import Refusal
from zsky_box.idempotency import Answer, Idempotency
from zsky_box.jobs import rows
from zsky_box.jobs.book import JobBook
from zsky_box.jobs.rows import BATCH, INTERACTIVE, News
from zsky_box.keys import Caller
from zsky_box.ledger import Alert, Payer
from zsky_box.manifest import JobType
from zsky_box.policy import PromptPolicy
from zsky_box.requests import TEST_PROMPTS, Submission, Work
from zsky_box.schemas import JobAccepted
from zsky_box.terms import Terms
from zsky_box.uploads import Offered, Uploads

log = logging.getLogger(__name__)


class Quote(Struct, frozen=True):
    """What a submit would take now, and what it would be refused with, if at all."""

    included_units: int
    wallet_units: int
    amount_micros: int
    refusal: Refusal | None


class Desk:
    """Takes what clients bring; `draining` says that no further jobs are taken."""

    def __init__(
        self,
        store: Store,
        assets: Assets,
        uploads: Uploads,
        book: JobBook,
        news: News,
        terms: Terms,
        clock: Clock,
        expected_seconds: Callable[[Work], float],
    ) -> None:
        self._expected_seconds = expected_seconds
        self._store = store
        self._assets = assets
        self._uploads = uploads
        self._book = book
        self._news = news
        self._terms = terms
        self._clock = clock
        self._policy = PromptPolicy(terms.settings.blocked_terms)
        self.draining = False

    async def submit(
        self, caller: Caller, submission: Submission, key: Idempotency | None, picture: Offered | None = None
    ) -> Answer:
        """Reserve the money and queue the job, all or nothing; the answer is given once it is durable.

        `picture` came with the request itself: it is recorded with the job.
        """
        self._check_open()
        self._check_prompt(caller, submission.work.prompt)
        return await idempotency.once(
            self._store, caller, key, self._clock, lambda tx, now: self._submit(tx, caller, submission, picture, now)
        )

    def quote(self, caller: Caller, kind: JobType, units: int, prompt: str) -> Quote:
        """What a submit of so many units would take, and the refusal that it would meet now, in its order.

        Reads only; for a thread that reads.
        """
        now = self._clock()
        with self._store.snapshot() as rows:
            refusal = self._refusal(rows, caller, prompt, now)
            if caller.key.test:
                return Quote(0, 0, 0, refusal)
            account, at = accounts.get(rows, caller.account.id), timeline.present(rows, now)
            found = ledger.assess(rows, account, payer_of(rows, caller), kind, units, at, self._terms)
        return Quote(found.included_units, found.wallet_units, found.amount_micros, refusal or found.refusal)

    def _refusal(self, rows: Rows, caller: Caller, prompt: str, now: int) -> Refusal | None:
        """What stands before the money."""
        try:
            self._check_open()
            self._check_prompt(caller, prompt)
            check_room(rows, caller, self._terms)
            if not caller.key.test:
                timeline.check(rows, now)
        except Refusal as refusal:
            return refusal
        return None

    def _check_open(self) -> None:
        """Raise 503 `draining` or `storage_full` while no job is taken."""
        if self.draining:
            raise Refusal(503, "draining", "The box is stopping; retry in a moment.", headers={"Retry-After": "10"})
        self._check_space()

    def _check_prompt(self, caller: Caller, prompt: str) -> None:
        """Raise PromptBlocked: here, where every way to a job comes by, whoever asks."""
        if caller.key.test and prompt.strip() in TEST_PROMPTS:
            return
        if refusal := self._policy.refusal(prompt):
            raise refusal

    async def replay(self, caller: Caller, key: Idempotency | None) -> Answer | None:
        """The kept answer to a key that was used before: asked first, since no later refusal may stand before it."""
        if key is None:
            return None
        return await self._store.read(lambda: idempotency.replay(self._store, caller, key))

    def _check_space(self) -> None:
        try:
            free = self._assets.free_bytes()
        except OSError as error:
            log.error("the outputs' folder cannot be reached: %s", error)
            raise _no_storage("The outputs' disk cannot be reached; connect it again.") from error
        if free < self._terms.settings.free_space_floor_bytes:
            raise _no_storage("The outputs' disk has too little space left; remove results or add space.")

    def _submit(self, tx: Tx, caller: Caller, submission: Submission, picture: Offered | None, now: int) -> Answer:
        check_room(tx, caller, self._terms)
        submission = self._with_reference(tx, caller, submission, picture, now)
        work, test = submission.work, caller.key.test
        job_id, wordmarked = ids.new("job"), 0
        if not test:
            held = ledger.reserve(tx, payer_of(tx, caller), work.type, work.n, job_id, now, self._terms)
            wordmarked = held.wordmarked
            tell_alerts(self._news, tx, caller.account.id, held.alerts)
        self._insert(tx, caller, submission, job_id, wordmarked, now)
        body = msgspec.json.encode(_accepted(job_id, submission, test=test, now=now))
        self._news.tell(tx, (caller.account.id, test), job_id, {"status": "queued"}, ring=True)
        return Answer(202, body, {"Location": f"/v1/jobs/{job_id}"})

    def _with_reference(
        self, tx: Tx, caller: Caller, submission: Submission, picture: Offered | None, now: int
    ) -> Submission:
        """The submission with the upload that it begins with taken; raises 422 where that is not there any more."""
        if picture is not None:
            upload_id = self._uploads.take_offered(tx, caller, picture, now)
            return replace(submission, work=replace(submission.work, reference=upload_id))
        if submission.work.reference:
            self._uploads.take(tx, caller, submission.work.reference, now)
        return submission

    def _insert(self, tx: Tx, caller: Caller, submission: Submission, job_id: str, wordmarked: int, now: int) -> None:
        work = submission.work

        def after(seconds: float | None) -> int | None:
            return None if seconds is None else now + round(seconds * SECOND_US)

        tx.execute(
            "INSERT INTO job (id, account_id, key_id, test, type, model, request, prompt, priority, n, status, phase,"
            " price_micros, metadata, notes, created_at, start_deadline_at, deadline_at, wordmarked,"
            " upload_id, expected_seconds)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', 'waiting', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                0 if caller.key.test else self._terms.price_micros(work.type),
                msgspec.json.encode(submission.metadata).decode(),
                msgspec.json.encode(submission.notes).decode(),
                now,
                after(submission.start_deadline_seconds),
                after(submission.deadline_seconds),
                wordmarked,
                work.reference or None,
                self._expected_seconds(work),
            ),
        )
        prompt_words.keep(tx, job_id, work.prompt)

    async def cancel(self, caller: Caller, job_id: str) -> None:
        """Queued: ended at once, free. Running: marked, and the worker stops within two steps. Ended: 409."""
        await self._store.write_async(lambda tx: self._cancel(tx, caller, job_id))

    def _cancel(self, tx: Tx, caller: Caller, job_id: str) -> None:
        row = rows.owned(tx, caller, job_id)
        if row["status"] == "queued":
            self._book.fail_queued(tx, job_id, "cancelled", "The job was cancelled before it began.")
        elif row["status"] == "running":
            tx.execute("UPDATE job SET cancel_requested = 1 WHERE id = ?", (job_id,))
            self._news.wake(tx)
        else:
            raise Refusal(409, "job_finished", f"The job is {row['status']} already; it cannot be cancelled.")

    async def delete(self, caller: Caller, job_id: str) -> None:
        """Remove the files of an ended job, on record; the job and its charge stay readable."""
        await self._store.write_async(lambda tx: self._delete(tx, caller, job_id))
        await self._store.read(lambda: self._assets.purge(self._clock()))

    async def delete_all(self, caller: Caller, job_ids: Sequence[str]) -> None:
        """The same of several, all or none; how many is the caller's to bound.

        Their links end at once; the files go with the next `purge`.
        """

        def work(tx: Tx) -> None:
            for job_id in job_ids:
                self._delete(tx, caller, job_id)

        await self._store.write_async(work)

    async def purge(self) -> None:
        """Unlink what was removed, some files at a time; what cannot go, or is left when the box stops, goes later."""
        while not self.draining and await self._store.read(lambda: self._assets.purge(self._clock())):
            pass

    def _delete(self, tx: Tx, caller: Caller, job_id: str) -> None:
        row = rows.owned(tx, caller, job_id)
        if row["status"] in ("queued", "running"):
            raise Refusal(409, "job_open", "The job is still open; cancel it first.")
        if row["removed_at"] is None:
            now = self._clock()
            tx.execute("UPDATE job SET removed_at = ? WHERE id = ?", (now, job_id))
            self._assets.mark_removed(tx, job_id, now)


def tell_alerts(news: News, tx: Tx, account_id: str, alerts: tuple[Alert, ...]) -> None:
    """What the ledger wants an account to hear of, on its feed once the write is durable."""
    for alert in alerts:
        news.tell_account(tx, account_id, {"alert": alert.kind, "percent": alert.percent})


def payer_of(store: Rows, caller: Caller) -> Payer:
    """Whose money a caller's jobs take; the key's cap is the one in force now, not when the request came in."""
    row = store.one("SELECT cap_micros FROM api_key WHERE id = ?", (caller.key.id,))
    cap_micros = None if row is None else row["cap_micros"]
    return Payer(caller.account.id, caller.key.budget_id, cap_micros, caller.in_person)


def check_room(store: Rows, caller: Caller, terms: Terms) -> None:
    """The queue is bounded, in all and per account, test jobs apart; raises 429 `queue_full`."""
    test, settings = int(caller.key.test), terms.settings
    open_jobs = store.all(
        "SELECT coalesce(sum(n), 0) AS everyone, coalesce(sum(n) FILTER (WHERE account_id = ?), 0) AS mine"
        " FROM open_jobs WHERE test = ?",
        (caller.account.id, test),
    )[0]
    own_max = settings.test_queue_open_max if test else settings.queue_open_per_account_max
    if open_jobs["mine"] >= own_max:
        raise _queue_full(f"You have {open_jobs['mine']} open jobs, the most an account may have")
    if open_jobs["everyone"] >= settings.queue_open_max:
        raise _queue_full("The box's queue is full")


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


def _no_storage(detail: str) -> Refusal:
    return Refusal(503, "storage_full", detail, headers={"Retry-After": "300"})


def _queue_full(reason: str) -> Refusal:
    return Refusal(429, "queue_full", f"{reason}; retry when some have ended.", headers={"Retry-After": "10"})
