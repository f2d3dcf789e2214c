"""What clients do in a world: submit and submit again, cancel, delete; each refusal is the one that the model tells."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.machine.model import Quote
from tests.machine.world import RECENT, Known, World, or_refusal
from tests.stores import job_id_of
from zsky_box import accounts, ledger
from zsky_box.errors import Refusal
from zsky_box.idempotency import Answer, Idempotency
from zsky_box.jobs.desk import payer_of
from zsky_box.keys import Caller


class Submit(msgspec.Struct, frozen=True, kw_only=True):
    """One submit: who, through which line (None: in person), what, and with which Idempotency-Key."""

    who: int = 0
    line: int | None = 0
    test: bool = False
    kind: Any = "image"
    n: int = 1
    key: str | None = None
    deadline: int | None = None

    @property
    def units(self) -> int:
        return self.n if self.kind == "image" else 1

    @property
    def request(self) -> bytes:
        return f"{self.kind} {self.units} {self.deadline}".encode()


def submit(world: World, asked: Submit) -> None:
    """A new job is what the model and the quote say, a repeated one is the first one's answer."""
    caller = world.caller(asked.who, asked.line, test=asked.test)
    slot = (caller.account.id, asked.test, asked.key or "")
    earlier = world.answers.get(slot) if asked.key else None
    expected = _expected(world, caller, asked)
    _check_quote(world, caller, asked)
    told = world.ask(lambda: _submit(world, caller, asked))
    if isinstance(told, Refusal):
        if told.code == "storage_error":
            _find_out(world, caller, asked)
        elif earlier is not None:
            assert (told.code, earlier[0] != asked.request) == ("idempotency_conflict", True)
        else:
            assert told.code == expected.code, (told, expected)
            assert told.status != 429 or int(told.headers["Retry-After"]) > 0
        return
    assert told.replayed == (earlier is not None)
    if earlier is not None:
        assert earlier == (asked.request, told.body)
        return
    assert expected.code is None, expected
    accepted(world, caller, asked, told)


def _submit(world: World, caller: Caller, asked: Submit) -> Answer:
    idempotency = None if asked.key is None else Idempotency(asked.key, asked.request)
    return world.rooms.submit(caller, idempotency, type=asked.kind, n=asked.units, deadline=asked.deadline)


def accepted(world: World, caller: Caller, asked: Submit, told: Answer) -> None:
    """Take the job into what is known and into the model."""
    job_id = job_id_of(told)
    if asked.key is not None:
        world.answers[caller.account.id, asked.test, asked.key] = (asked.request, told.body)
    world.known[job_id] = Known(job_id, asked.test, asked.who)
    row = world.rooms.row(job_id)
    if asked.test:
        assert row["wordmarked"] == 0
        return
    quote = world.model.reserve(world.payer(caller), asked.kind, asked.units, world.at_us, job_id)
    is_free = world.money(asked.who).plan.counts_in(world.model.month(world.at_us)) == "free"
    assert row["wordmarked"] == (quote.included if is_free else 0), (
        "the wordmark is on what a free plan's unit paid for"
    )


def _find_out(world: World, caller: Caller, asked: Submit) -> None:
    """The outcome is unknown to the client until the box is up again: a job is there, or none is."""

    def outcome() -> None:
        rows = world.rooms.store.all("SELECT id FROM job ORDER BY seq DESC LIMIT 1")
        new = [row["id"] for row in rows if row["id"] not in world.known]
        if new and asked.key is None:
            accepted(world, caller, asked, Answer(202, msgspec.json.encode({"job_id": new[0]})))
        elif new:
            told = _submit(world, caller, asked)
            assert told.replayed, "the job is there, and its key does not tell of it"
            assert job_id_of(told) == new[0]
            accepted(world, caller, asked, told)

    world.unsure.append(outcome)


def _expected(world: World, caller: Caller, asked: Submit) -> Quote:
    """Queue first, then the clock, then money in its order."""
    open_jobs = world.rooms.store.all(
        "SELECT account_id FROM job WHERE status IN ('queued', 'running') AND test = ?", (int(asked.test),)
    )
    mine = sum(row["account_id"] == caller.account.id for row in open_jobs)
    settings = world.rooms.settings
    most = settings.test_queue_open_max if asked.test else settings.queue_open_per_account_max
    if mine >= most or len(open_jobs) >= settings.queue_open_max:
        return Quote(0, 0, 0, "queue_full")
    if asked.test:
        return Quote(0, 0, 0, None)
    if world.is_clock_behind:
        return Quote(0, 0, 0, "clock_behind")
    return world.model.quote(world.payer(caller), asked.kind, asked.units, world.at_us)


def _check_quote(world: World, caller: Caller, asked: Submit) -> None:
    """What a quote says is what the model says, and so what a reserve then does; it changes nothing."""
    if asked.test:
        return
    rooms, at = world.rooms, world.at_us
    with rooms.store.snapshot() as rows:
        account = accounts.get(rows, caller.account.id)
        told = ledger.assess(rows, account, payer_of(rows, caller), asked.kind, asked.units, at, rooms.terms)
    quote = world.model.quote(world.payer(caller), asked.kind, asked.units, at)
    code = None if told.refusal is None else told.refusal.code
    assert Quote(told.included_units, told.wallet_units, told.amount_micros, code) == quote


def cancel(world: World, pick: int) -> None:
    """One of the last jobs; nobody else's."""
    job = recent(world, pick)
    stranger = world.caller((job.who + 1) % 3, None)
    if not world.disk_may_fail:
        with world.nothing_changes(), pytest.raises(Refusal, match="not_found"):
            world.rooms.cancel(job.id, stranger)
    before = world.rooms.row(job.id)["status"]
    told = world.ask(lambda: world.rooms.cancel(job.id, world.caller(job.who, test=job.test)))
    if told is None:
        assert world.rooms.row(job.id)["status"] == {"queued": "failed", "running": "running"}[before]
    elif told.code != "storage_error":
        assert (told.code, before in ("completed", "failed")) == ("job_finished", True)


def delete(world: World, pick: int) -> None:
    """The files go, the job stays readable."""
    job = recent(world, pick)
    before = world.rooms.row(job.id)["status"]
    caller = world.caller(job.who, test=job.test)
    told = or_refusal(lambda: world.rooms.delete(job.id, caller))
    if told is None:
        assert world.rooms.view(job.id, caller).removed_at is not None
    elif told.code != "storage_error":
        assert (told.code, before in ("queued", "running")) == ("job_open", True)


def recent(world: World, pick: int) -> Known:
    """One of the last jobs."""
    last = list(world.known.values())[-RECENT:]
    return last[pick % len(last)]
