"""What the domain rooms' tests share: a fresh store, a clock of one's own, and a job book without a scheduler."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from zsky_box import accounts, keys, overage, requests
from zsky_box.accounts import Account, Plan
from zsky_box.assets import Assets
from zsky_box.catalog import Catalog
from zsky_box.clock import parse_rfc3339
from zsky_box.db import Row, Store
from zsky_box.decoder import Decoder
from zsky_box.dispatch import Outlook, Waiting
from zsky_box.estimates import Estimates
from zsky_box.eta import Eta
from zsky_box.events import Done, File
from zsky_box.feed import Feed
from zsky_box.idempotency import Answer, Idempotency
from zsky_box.jobs.book import Attempt, JobBook
from zsky_box.jobs.desk import Desk
from zsky_box.jobs.keeper import Keeper
from zsky_box.jobs.lineup import Lineup
from zsky_box.jobs.rows import News
from zsky_box.jobs.views import JobReader
from zsky_box.keys import Caller
from zsky_box.pauses import Pauses
from zsky_box.schemas import GenerateBody, JobView, OverageView
from zsky_box.settings import CHECKOUT, Settings
from zsky_box.terms import open_terms
from zsky_box.turns import Standing
from zsky_box.uploads import Uploads
from zsky_box.ways import InstalledWays

PEPPER = bytes(32)
SIGNING = bytes(range(32))
START_US = parse_rfc3339("2026-11-22T12:00:00Z")
BASE_URL = "http://box.test"


class Killed(BaseException):
    """Stands for the end of the process at a named point: nothing after it is done."""


class SetClock:
    """A clock that stands until it is moved."""

    def __init__(self, now_us: int = START_US) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us

    def advance(self, seconds: float) -> None:
        """Forwards, or backwards where negative."""
        self.now_us += round(seconds * 1_000_000)

    def set(self, text: str) -> None:
        """To an RFC 3339 time."""
        self.now_us = parse_rfc3339(text)


@contextmanager
def opened(folder: Path, **arguments: Any) -> Generator[Store]:
    """A store that is closed whatever the test does."""
    store = Store(folder, **arguments)
    try:
        yield store
    finally:
        store.close()


def tampering(store: Store, *statements: str) -> None:
    """Change a closed store's file behind the code's back, with nothing in it that would stop that."""
    tamper(store.path, *statements)


def tamper(path: Path, *statements: str) -> None:
    """The same of a store's file: its triggers dropped, its checks and references not looked at."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def add_account(store: Store, name: str, plan: Plan = "max", now: int = START_US) -> Account:
    """A member beside the owner."""
    return store.write(lambda tx: accounts.add_member(tx, name, plan, annual=False, now=now))


def caller_for(store: Store, account: Account, *, test: bool = False, now: int = START_US) -> Caller:
    """An account with a new key of all scopes."""
    key, _ = store.write(lambda tx: keys.issue(tx, PEPPER, account.id, now=now, actor="test", test=test))
    return Caller(account, key)


class Rooms:
    """Store, files, catalogue, feed and book over one data folder; `restart` opens them anew, as a start would."""

    def __init__(self, folder: Path, *, clock: SetClock | None = None, **settings: Any) -> None:
        self.folder = folder
        self.clock = clock or SetClock()
        self.settings = msgspec.structs.replace(Settings(free_space_floor_bytes=0), **settings)
        self.rung: list[str | None] = []
        self.on_open: Callable[[Store], None] = lambda _: None
        self._open()
        owner = accounts.owner(self.store) or self.store.write(
            lambda tx: accounts.create_owner(tx, "owner", self.clock())
        )
        self.owner = caller_for(self.store, owner)
        self.tester = caller_for(self.store, owner, test=True)

    def _open(self) -> None:
        self.store = Store(self.folder)
        self.on_open(self.store)
        self.catalog = Catalog([CHECKOUT / "models"], self.folder / "models")
        del self.catalog.specs["mini"]  # so that the film leader answers, whatever mini is worth by now
        self.assets = Assets(self.store, self.folder / "outputs", SIGNING, self.settings.result_url_hours)
        self.uploads = Uploads(
            self.store, self.folder / "uploads", Decoder(self.settings.upload_max_pixels), self.settings
        )
        self.feed = Feed(self.clock)
        self.terms = open_terms(self.store, self.settings, self.clock())
        news = News(self.feed, self.rung.append)
        pauses = Pauses(self.store, ["cpu"], self.settings.quiet_hours, self.settings.zone(), self.clock)
        self.book = JobBook(self.store, self.assets, self.uploads, self.catalog, news, self.terms, self.clock, pauses)
        self.desk = Desk(self.store, self.assets, self.uploads, self.book, news, self.terms, self.clock, lambda _: 1.0)
        self.keeper = Keeper(self.store, self.book, news, self.clock)
        self.standing = Standing()
        ways = InstalledWays(self.catalog, Estimates())
        self.outlook: list[Outlook] = []
        eta = Eta(self.store, ways, lambda _: self.outlook, lambda _: None, 1 << 50, fresh_seconds=-1.0)
        self.reader = JobReader(self.store, self.assets, self.clock, eta)
        self.lineup = Lineup(self.store, self.clock, eta, lambda _: self.standing, lambda job_id, _: f"{job_id} waits")

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def restart(self) -> int:
        """The start's order over what is committed and on disk; returns how many jobs had been running."""
        self.store.close()
        self._open()
        recovered = self.book.recover()
        self.assets.clear_temporary()
        self.assets.purge(self.clock())
        self.uploads.clear()
        return recovered

    # Clients

    def submit(self, caller: Caller | None = None, idempotency: Idempotency | None = None, **fields: Any) -> Answer:
        """Submit a body; an image unless `fields` say otherwise."""
        caller = caller or self.owner
        body = msgspec.structs.replace(GenerateBody(type="image", prompt="a quiet lake", seed=7), **fields)
        submission = requests.resolve(body, self.catalog, test=caller.key.test, require_real_model=False)
        return asyncio.run(self.desk.submit(caller, submission, idempotency))

    def new_job(self, caller: Caller | None = None, **fields: Any) -> str:
        """The id of a job just submitted."""
        return job_id_of(self.submit(caller, **fields))

    def queued(self, *, test: bool) -> list[Waiting]:
        """The jobs that wait, flow by flow."""
        return [job for flow in self.book.heads(test=test, per_flow=100) for job in flow]

    def cancel(self, job_id: str, caller: Caller | None = None) -> None:
        """As the client's request does."""
        asyncio.run(self.desk.cancel(caller or self.owner, job_id))

    def delete(self, job_id: str, caller: Caller | None = None) -> None:
        """As the client's request does."""
        asyncio.run(self.desk.delete(caller or self.owner, job_id))

    def view(self, job_id: str, caller: Caller | None = None) -> JobView:
        """The job as its client reads it."""
        return self.reader.one(caller or self.owner, job_id, BASE_URL)

    def row(self, job_id: str) -> Row:
        """The job as the store has it."""
        row = self.store.one("SELECT * FROM job WHERE id = ?", (job_id,))
        assert row is not None
        return row

    def charge_state(self, job_id: str) -> str:
        """Reserved, posted or voided, as the owner reads it."""
        return self.view(job_id).charge.state

    def left(self, kind: Any = "image") -> int:
        """Included units that a new job could still take."""
        return self.overage().included[kind].left

    def overage(self, account: Account | None = None) -> OverageView:
        """How things stand with an account's money (the owner's)."""
        chosen = account or self.owner.account
        with self.store.snapshot() as rows:
            return overage.view(rows, chosen.id, self.clock(), self.terms)

    # The scheduler's part

    def claimed(self, job_id: str) -> Attempt:
        """An attempt at a queued job."""
        attempt = self.book.claim(job_id, "cpu")
        assert attempt is not None
        return attempt

    def running(self, **fields: Any) -> Attempt:
        """An attempt at a job just submitted."""
        return self.claimed(self.new_job(**fields))

    def step(self, attempt: Attempt, step: int = 1) -> None:
        """Report a denoising step, and wait until it is stored."""
        self.book.progress(attempt.job_id, attempt.token, "denoising", step, 8)
        self.store.write(lambda _: None)

    def complete(self, attempt: Attempt, *ordinals: int) -> None:
        """Write the files of these results (all when none is named) and end the job with them."""
        self.book.complete(made(attempt, *ordinals), "CPU", {"torch": "2"})

    def end(self, attempt: Attempt, code: Any = "internal_error") -> bool:
        """End the job without a result."""
        return self.book.fail(attempt.job_id, attempt.token, code, "It did not work.")

    def retry(self, attempt: Attempt, attempts_max: int = 3) -> bool:
        """Send the job back to the queue after a fault."""
        return self.book.retry(
            attempt.job_id, attempt.token, "internal_error", "The worker died.", attempts_max=attempts_max
        )


def made(attempt: Attempt, *ordinals: int) -> Done:
    """What a child would leave in the attempt's folder and say of it."""
    chosen = ordinals or tuple(range(attempt.work.n))
    files: list[File] = []
    for ordinal in chosen:
        for kind, suffix in (("result", "png"), ("poster", "jpg")):
            content = f"{attempt.job_id} {attempt.token} {ordinal} {kind}".encode()
            name = f"{attempt.stem}-{ordinal}.{suffix}"
            (Path(attempt.out_dir) / name).write_bytes(content)
            files.append(a_file(content, ordinal=ordinal, kind=kind, name=name, seed=attempt.work.seed + ordinal))
    missing = tuple(ordinal for ordinal in range(attempt.work.n) if ordinal not in chosen)
    return Done(
        job_id=attempt.job_id,
        token=attempt.token,
        files=tuple(files),
        missing=missing,
        notes=(),
        versions={},
        seconds={},
    )


def a_file(content: bytes, **facts: Any) -> File:
    """The facts of a small file with this content."""
    file = File(
        ordinal=0,
        kind="result",
        name="lake.png",
        mime="image/png",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        width=64,
        height=36,
        seed=7,
    )
    return msgspec.structs.replace(file, **facts)


def job_id_of(accepted: Answer) -> str:
    """The id in the stored answer."""
    return msgspec.json.decode(accepted.body)["job_id"]
