"""A state machine over jobs and money: clients, workers, the clock and crashes in any order, and after every step the
rules of the ledger that must always be true.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Struct

from tests.always_true import check_always_true
from tests.stores import PEPPER, Killed, Rooms, job_id_of, made
from zsky_box import keys, ledger
from zsky_box.assets import Assets
from zsky_box.db import Store
from zsky_box.errors import JobFailure, Refusal
from zsky_box.jobs.book import Attempt, Idempotency
from zsky_box.keys import Caller

ACCEPTABLE = {"allowance_exhausted", "queue_full", "clock_behind"}
CODES = st.sampled_from(
    ["internal_error", "gpu_timeout", "out_of_memory", "safety_blocked", "cancelled", "encode_failed"]
)
MINUTE, DAY = 60, 86_400
RECENT = 5
PICK = st.integers(0, RECENT - 1)
T = TypeVar("T")


def or_refusal(work: Callable[[], T]) -> T | Refusal:
    """What `work` returns, or with what it is refused."""
    try:
        return work()
    except Refusal as refusal:
        return refusal


class Known(Struct):
    """What the machine remembers of a job, to see that it is never taken back."""

    id: str
    test: bool
    progress: float = 0.0
    end: tuple[Any, ...] | None = None


def has_jobs(machine: MoneyMachine) -> bool:
    return bool(machine.known)


def has_work(machine: MoneyMachine) -> bool:
    return bool(machine.attempts or machine.rooms.book.queued(test=False, limit=1))


class MoneyMachine(RuleBasedStateMachine):
    """Small allowances and queues, so that their edges are met within a few steps."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.rooms = Rooms(
            self.folder, included_images=6, included_videos=2, queue_open_per_account_max=5, test_queue_open_max=2
        )
        self.known: dict[str, Known] = {}
        self.attempts: deque[Attempt] = deque(maxlen=RECENT)
        self.answers: dict[tuple[bool, str], tuple[bytes, bytes]] = {}

    def teardown(self) -> None:
        self.rooms.close()
        shutil.rmtree(self.folder)

    # Helpers

    def caller(self, test: bool) -> Caller:
        return self.rooms.tester if test else self.rooms.owner

    def state(self) -> tuple[Any, ...]:
        """Everything that a refusal or a late worker must leave as it is."""
        store = self.rooms.store
        jobs = [tuple(row) for row in store.all("SELECT * FROM job ORDER BY seq")]
        money = [row["n"] for table in ("transfer", "audit", "idempotency") for row in store.all(_COUNT[table])]
        results = sorted(path.name for path in self.rooms.assets.root.glob("job_*/*/*"))
        return jobs, money, results

    @contextmanager
    def nothing_changes(self) -> Generator[None]:
        before = self.state()
        yield
        assert self.state() == before

    def attempt(self, pick: int) -> Attempt:
        """A fresh one, or one of the last few, which may be over, taken again or still running."""
        if pick < 2 or not self.attempts:
            self.claim_all(test=pick == 1)
        if not self.attempts:
            self.claim_all(test=False)
        assume(self.attempts)
        return self.attempts[-1 - pick % len(self.attempts)]

    def is_current(self, attempt: Attempt) -> bool:
        row = self.rooms.row(attempt.job_id)
        return row["status"] == "running" and row["token"] == attempt.token

    # Clients

    @initialize(units=st.lists(st.integers(1, 3), min_size=2, max_size=4), step=st.booleans())
    def begin_late_in_the_month(self, units: list[int], step: bool) -> None:
        """Hypothesis leaves some rules out of each life: without these jobs, many would have none."""
        self.rooms.clock.set("2026-11-29T12:00:00Z")
        for n in units:
            self.submit(test=False, kind="image", n=n, key=None, deadline=None)
        if step:
            self.progress(0, "denoising", 1)

    @rule(
        test=st.sampled_from([False, False, False, True]),
        kind=st.sampled_from(["image", "image", "image", "video"]),
        n=st.integers(1, 4),
        key=st.sampled_from([None, None, None, None, "a", "b"]),
        deadline=st.sampled_from([None, None, MINUTE, DAY]),
    )
    def submit(self, test: bool, kind: str, n: int, key: str | None, deadline: int | None) -> None:
        request = f"{kind} {n} {deadline}".encode()
        idempotency = None if key is None else Idempotency(key, request)
        fields: dict[str, Any] = {"type": kind, "n": n if kind == "image" else 1, "deadline": deadline}
        earlier = None if key is None else self.answers.get((test, key))
        before = self.state()
        accepted = or_refusal(lambda: self.rooms.submit(self.caller(test), idempotency, **fields))
        if isinstance(accepted, Refusal):
            assert accepted.code == "idempotency_conflict" if earlier else accepted.code in ACCEPTABLE
            assert earlier is None or earlier[0] != request
            assert self.state() == before
            return
        assert accepted.replayed == (earlier is not None)
        if earlier is not None:
            assert (earlier[0], earlier[1]) == (request, accepted.body)
            assert self.state() == before
            return
        if key is not None:
            self.answers[test, key] = (request, accepted.body)
        job_id = job_id_of(accepted)
        self.known[job_id] = Known(job_id, test)

    @precondition(has_jobs)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        job_id = list(self.known)[-RECENT:][pick % min(RECENT, len(self.known))]
        stranger = self.caller(not self.known[job_id].test)
        with self.nothing_changes(), pytest.raises(Refusal, match="not_found"):
            self.rooms.cancel(job_id, stranger)
        before = self.rooms.row(job_id)["status"]
        refused = or_refusal(lambda: self.rooms.cancel(job_id, self.caller(self.known[job_id].test)))
        if refused is not None:
            assert (refused.code, before in ("completed", "failed")) == ("job_finished", True)
            return
        assert self.rooms.row(job_id)["status"] == {"queued": "failed", "running": "running"}[before]

    @precondition(has_jobs)
    @rule(pick=PICK)
    def delete(self, pick: int) -> None:
        job_id = list(self.known)[-RECENT:][pick % min(RECENT, len(self.known))]
        before = self.rooms.row(job_id)["status"]
        refused = or_refusal(lambda: self.rooms.delete(job_id, self.caller(self.known[job_id].test)))
        if refused is not None:
            assert (refused.code, before in ("queued", "running")) == ("job_open", True)
            return
        assert self.rooms.view(job_id, self.caller(self.known[job_id].test)).removed_at is not None

    @rule(overlap=st.sampled_from([0, MINUTE]))
    def rotate_the_key(self, overlap: int) -> None:
        old, now = self.rooms.owner, self.rooms.clock()
        new, _ = self.rooms.store.write(
            lambda tx: keys.rotate(
                tx, PEPPER, old.account.id, old.key.id, overlap_seconds=overlap, now=now, actor=old.account.id
            )
        )
        keys_left = keys.listed(self.rooms.store, old.account.id)
        assert sum(key.revoked_at is None for key in keys_left) >= 2
        self.rooms.owner = msgspec.structs.replace(old, key=new)
        self._revoke_all_but(new.id)

    def _revoke_all_but(self, kept: str) -> None:
        """Room for further rotations: an account has at most twenty usable keys."""
        owner, now = self.rooms.owner.account.id, self.rooms.clock()
        for key in keys.listed(self.rooms.store, owner):
            if key.id not in (kept, self.rooms.tester.key.id):
                self.rooms.store.write(lambda tx, key_id=key.id: keys.revoke(tx, owner, key_id, now=now, actor=owner))

    # Workers

    @rule(test=st.sampled_from([False, False, True]))
    def claim_all(self, test: bool) -> None:
        for job in self.rooms.book.queued(test=test, limit=10):
            self.claim_one(job.id)

    def claim_one(self, job_id: str) -> None:
        row, now = self.rooms.row(job_id), self.rooms.clock()
        late = row["deadline_at"] is not None and row["deadline_at"] <= now
        attempt = self.rooms.book.claim(job_id, "cpu")
        assert (attempt is None) == late
        if attempt is not None:
            assert attempt.token == row["token"] + 1
            self.attempts.append(attempt)

    @precondition(has_work)
    @rule(pick=PICK, phase=st.sampled_from(["loading", "denoising", "encoding"]), step=st.integers(0, 8))
    def progress(self, pick: int, phase: Any, step: int) -> None:
        attempt = self.attempt(pick)
        self.rooms.book.progress(attempt.job_id, attempt.token, phase, step, 8)
        self.rooms.store.write(lambda _: None)

    @precondition(has_work)
    @rule(pick=PICK, whole=st.booleans(), only=st.integers(0, 3))
    def complete(self, pick: int, whole: bool, only: int) -> None:
        attempt = self.attempt(pick)
        current = self.is_current(attempt)
        if not Path(attempt.out_dir).is_dir():
            with self.nothing_changes(), suppress(JobFailure):
                self.rooms.book.complete(self._reported(attempt), "CPU", {})
            return
        done = made(attempt) if whole else made(attempt, only % attempt.work.n)
        if current:
            self.rooms.book.complete(done, "CPU", {})
            assert self.rooms.row(attempt.job_id)["status"] == "completed"
        else:
            with self.nothing_changes():
                self.rooms.book.complete(done, "CPU", {})

    def _reported(self, attempt: Attempt) -> Any:
        """What a worker would say that does not know that its folder is gone."""
        Path(attempt.out_dir).mkdir(parents=True)
        try:
            return made(attempt)
        finally:
            shutil.rmtree(attempt.out_dir)

    @precondition(has_work)
    @rule(pick=PICK, code=CODES)
    def fail(self, pick: int, code: Any) -> None:
        attempt = self.attempt(pick)
        if self.is_current(attempt):
            assert self.rooms.end(attempt, code)
        else:
            with self.nothing_changes():
                assert not self.rooms.end(attempt, code)

    @precondition(has_work)
    @rule(pick=PICK, attempts_max=st.integers(1, 3))
    def retry(self, pick: int, attempts_max: int) -> None:
        attempt = self.attempt(pick)
        if self.is_current(attempt):
            self.rooms.retry(attempt, attempts_max)
            assert self.rooms.row(attempt.job_id)["status"] in ("queued", "failed")
        else:
            with self.nothing_changes():
                assert not self.rooms.retry(attempt, attempts_max)

    @precondition(has_work)
    @rule(pick=PICK)
    def release(self, pick: int) -> None:
        attempt = self.attempt(pick)
        if self.is_current(attempt):
            self.rooms.book.release(attempt.job_id, attempt.token)
        else:
            with self.nothing_changes():
                self.rooms.book.release(attempt.job_id, attempt.token)

    @precondition(has_work)
    @rule(
        pick=PICK,
        first=st.sampled_from(["complete", "fail", "retry"]),
        second=st.sampled_from(["fail", "retry"]),
    )
    def end_twice(self, pick: int, first: str, second: str) -> None:
        for ending in (first, second):
            if ending == "complete":
                self.complete(pick, whole=True, only=0)
            elif ending == "fail":
                self.fail(pick, "gpu_timeout")
            else:
                self.retry(pick, 3)

    # Time and crashes

    @precondition(has_work)
    @rule(pick=PICK, point=st.sampled_from(["write", "discard", "rename"]), result=st.booleans())
    def the_box_is_killed_while_it_ends_a_job(self, pick: int, point: str, result: bool) -> None:
        """Before the files are moved, between that and the commit, or between the commit and the tidying up."""
        attempt = self.attempt(pick)

        def killed(*_: object) -> None:
            raise Killed

        place = {"write": (Store, "write"), "discard": (Assets, "discard"), "rename": (Path, "rename")}[point]
        folder_is_there = Path(attempt.out_dir).is_dir()
        done = made(attempt) if folder_is_there else self._reported(attempt)
        with pytest.MonkeyPatch.context() as dying, suppress(Killed, JobFailure):
            dying.setattr(*place, killed)
            if result:
                self.rooms.book.complete(done, "CPU", {})
            else:
                self.rooms.end(attempt)
        self.the_box_stops_and_starts()

    @rule(seconds=st.sampled_from([1, MINUTE, DAY, 3 * DAY, -9 * MINUTE, -DAY]))
    def the_clock_jumps_and_the_late_expire(self, seconds: int) -> None:
        self.rooms.clock.advance(seconds)
        self.rooms.book.expire()
        late = self.rooms.store.all(
            "SELECT id FROM job WHERE status = 'queued' AND deadline_at <= ?", (self.rooms.clock(),)
        )
        assert late == []

    @rule()
    def the_box_stops_and_starts(self) -> None:
        self.rooms.restart()
        assert self.rooms.store.all("SELECT id FROM job WHERE status = 'running'") == []
        assert list((self.rooms.assets.root / ".tmp").iterdir()) == []

    # What must always be true

    @invariant()
    def every_rule_holds(self) -> None:
        check_always_true(self.rooms)

    @invariant()
    def nothing_that_was_told_is_taken_back(self) -> None:
        for job in self.known.values():
            view = self.rooms.view(job.id, self.caller(job.test))
            assert view.progress >= job.progress
            job.progress = view.progress
            end = (view.status, view.error_code, view.charge, view.finished_at)
            assert job.end in (None, end)
            if view.status in ("completed", "failed"):
                job.end = end

    @invariant()
    def what_is_left_is_never_more_than_was_granted(self) -> None:
        owner, now = self.rooms.owner.account, self.rooms.clock()
        for kind in ("image", "video"):
            units = ledger.allowance(self.rooms.store, owner, kind, now, self.rooms.settings)
            assert 0 <= units.left <= units.granted


_COUNT = {name: f"SELECT count(*) AS n FROM {name}" for name in ("transfer", "audit", "idempotency")}  # noqa: S608
_QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


@pytest.mark.timeout(600)  # to shrink what it has found
class TestMoneyMachine(MoneyMachine.TestCase):
    """Some lives, in every run of the tests."""

    settings = settings(max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=_QUIET)


@pytest.mark.campaign
@pytest.mark.timeout(3_600)
class TestMoneyMachineForLong(MoneyMachine.TestCase):
    """Many and longer lives."""

    settings = settings(max_examples=2_000, stateful_step_count=80, deadline=None, suppress_health_check=_QUIET)
