"""A box's rooms, the people who use it, and a model of their money beside it; what is done is in the other modules.

Whoever drives a world (Hypothesis, or a seeded simulation) calls `check_step` after each thing done and `check_all`
as often as it can afford.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from tests.always_true import check_always_true
from tests.machine.model import AccountModel, Figures, MoneyModel, Payer, State, Unit
from tests.machine.months import ZoneSince, month_of
from tests.machine.plan_model import PlanModel
from tests.stores import PEPPER, START_US, Rooms, add_account
from zsky_box import accounts, keys
from zsky_box.accounts import Plan
from zsky_box.errors import Refusal
from zsky_box.jobs.book import Attempt
from zsky_box.keys import Caller
from zsky_box.periods import EVER_US

T = TypeVar("T")
RECENT = 5
EDGES: dict[str, Any] = {
    "included_images": 3,
    "included_videos": 1,
    "free_images": 2,
    "free_videos": 1,
    "image_usd": "0.60",
    "video_usd": "2.10",
    "queue_open_per_account_max": 6,
    "queue_open_max": 12,
    "test_queue_open_max": 2,
}
"""Small figures, so that their edges are met within a few steps."""


class Person(Struct):
    """One account, and the secrets of its keys: each line's newest."""

    account_id: str
    secrets: list[str]


class Known(Struct):
    """What is remembered of a job, to see that it is never taken back."""

    id: str
    test: bool
    who: int
    progress: float = 0.0
    end: tuple[Any, ...] | None = None


def or_refusal(work: Callable[[], T]) -> T | Refusal:
    """What `work` returns, or with what it is refused."""
    try:
        return work()
    except Refusal as refusal:
        return refusal


class World:
    """Three people: the owner, one on the plan `max`, one on `free`; each with two lines of keys and a body."""

    def __init__(self, folder: Path, zone: str = "UTC", is_dead: Callable[[], bool] = lambda: False) -> None:
        self.rooms = Rooms(folder, timezone=zone, **EDGES)
        self.known: dict[str, Known] = {}
        self.attempts: deque[Attempt] = deque(maxlen=RECENT)
        self.answers: dict[tuple[str, bool, str], tuple[bytes, bytes]] = {}
        self.model = MoneyModel(_figures(self.rooms), [ZoneSince(EVER_US, "", zone)])
        self.people = [self._person(self.rooms.owner.account.id, "max"), self._new("mia", "max")]
        self.people.append(self._new("fay", "free"))
        self.tester = self.rooms.tester
        self.is_dead = is_dead
        self.disk_may_fail = False
        self.unsure: list[Callable[[], None]] = []  # what is to be found out once the box is up again

    def _new(self, name: str, plan: Plan) -> Person:
        return self._person(add_account(self.rooms.store, name, plan).id, plan)

    def _person(self, account_id: str, plan: Plan) -> Person:
        begun = month_of(START_US, self.model.zones)
        self.model.accounts[account_id] = AccountModel(account_id, PlanModel(plan, begun))
        return Person(account_id, [self.issue(account_id) for _ in range(2)])

    def issue(self, account_id: str) -> str:
        """The secret of a new key."""
        now = self.rooms.clock()
        issued = self.rooms.store.write(lambda tx: keys.issue(tx, PEPPER, account_id, now=now, actor=account_id))
        return issued[1]

    # Who asks

    def caller(self, who: int, line: int | None = 0, *, test: bool = False) -> Caller:
        """Through a line of keys, or in person (None), as each request finds it."""
        if test:
            return self.tester
        person = self.people[who]
        if line is not None:
            return keys.verify(self.rooms.store, PEPPER, person.secrets[line], self.rooms.clock())
        owner = keys.caller_of_owner(self.rooms.store)
        assert owner is not None
        key = msgspec.structs.replace(owner.key, account_id=person.account_id)
        return Caller(accounts.get(self.rooms.store, person.account_id), key, in_person=True)

    def payer(self, caller: Caller) -> Payer:
        """The same to the model."""
        return Payer(caller.account.id, caller.key.budget_id, caller.key.cap_micros, caller.in_person)

    @property
    def at_us(self) -> int:
        """The ledger's time: the clock's, or that of the last entry where it is later."""
        return max(self.rooms.clock(), self._last_us())

    @property
    def is_clock_behind(self) -> bool:
        return self.rooms.clock() < self._last_us() - 600_000_000

    def _last_us(self) -> int:
        row = self.rooms.store.one("SELECT clock_at FROM box")
        assert row is not None
        return int(row["clock_at"])

    def money(self, who: int) -> AccountModel:
        """The model of a person's money."""
        return self.model.accounts[self.people[who].account_id]

    # What refusals and latecomers leave as it is

    def state(self) -> tuple[Any, ...]:
        """Everything that a refusal or a late worker must not change."""
        store = self.rooms.store
        rows = [tuple(row) for sql in _STATE for row in store.all(sql)]
        return rows, sorted(path.name for path in self.rooms.assets.root.glob("job_*/*/*"))

    @contextmanager
    def nothing_changes(self) -> Generator[None]:
        """Fails when something did."""
        before = self.state()
        yield
        assert self.state() == before

    def ask(self, work: Callable[[], T]) -> T | Refusal:
        """What is returned or the refusal, which has changed nothing; where the disk failed, it may have."""
        before = self.state()
        told = or_refusal(work)
        if isinstance(told, Refusal) and not self.is_dead():
            assert self.state() == before
        return told

    def find_out(self) -> None:
        """What the disk has hidden shows once the box is up again, or says that nothing was done."""
        unsure, self.unsure = self.unsure, []
        for look in unsure:
            look()

    # What must always be true

    def check_step(self) -> None:
        """The ends of jobs have moved the money that they call for, and each account stands where the model says."""
        self.follow_ends()
        at = self.at_us
        for person in self.people:
            account = accounts.get(self.rooms.store, person.account_id)
            told = msgspec.to_builtins(self.rooms.overage(account))
            del told["period"]
            assert _in_micros(told) == self.model.view(person.account_id, at)
            fees = self.rooms.store.all(
                "SELECT period, sum(amount_micros) AS fee FROM plan_fee WHERE account_id = ? GROUP BY period",
                (person.account_id,),
            )
            assert {row["period"]: row["fee"] for row in fees} == dict(self.money(self.people.index(person)).plan.fees)

    def check_all(self) -> None:
        """Every rule of the ledger, over all of it, and all that clients were told."""
        check_always_true(self.rooms)
        for job in self.known.values():
            self._check_told(job)

    def follow_ends(self) -> None:
        """The model learns from the jobs' ends alone what must have become of their money."""
        held = {job_id for job_id, units in self.model.jobs.items() if any(unit.state == "held" for unit in units)}
        for job_id in sorted(held):
            row = self.rooms.row(job_id)
            if row["status"] == "completed":
                kept = {
                    asset["ordinal"]
                    for asset in self.rooms.store.all(
                        "SELECT ordinal FROM asset WHERE job_id = ? AND kind = 'result'", (job_id,)
                    )
                }
                self.model.resolve(row["account_id"], job_id, kept, self.at_us)
            elif row["status"] == "failed":
                began = row["error_code"] == "cancelled" and row["work_begun"]
                charged = row["error_code"] == "safety_blocked" or began
                self.model.resolve(row["account_id"], job_id, None if charged else set(), self.at_us)

    def _check_told(self, job: Known) -> None:
        caller = self.caller(job.who, None, test=job.test)
        view = self.rooms.view(job.id, caller)
        assert view.progress >= job.progress
        job.progress = view.progress
        end = (view.status, view.error_code, view.finished_at)
        assert job.end in (None, end)
        if view.status in ("completed", "failed"):
            job.end = end
        if not job.test:
            charge = view.charge
            told = (charge.state, charge.included_units, charge.wallet_units, charge.amount_usd)
            assert (*told[:3], _micros(told[3])) == _charge(self.model.jobs[job.id])


def _charge(units: list[Unit]) -> tuple[str, int, int, int]:
    """What a client reads of a job's charge."""
    states = {unit.state for unit in units}
    state, counted = next(known for known in _STATES if known[1] in states)
    kept = [unit for unit in units if counted == "held" or unit.state == counted == "posted"]
    wallet = [unit.amount for unit in kept if unit.source == "wallet"]
    return state, len(kept) - len(wallet), len(wallet), sum(wallet)


def _figures(rooms: Rooms) -> Figures:
    settings = rooms.settings
    included = {
        ("max", "image"): settings.included_images,
        ("max", "video"): settings.included_videos,
        ("free", "image"): settings.free_images,
        ("free", "video"): settings.free_videos,
    }
    return Figures(included, {"image": _micros(settings.image_usd), "video": _micros(settings.video_usd)})


def _micros(amount_usd: str) -> int:
    return int(Decimal(amount_usd) * 1_000_000)


def _in_micros(told: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _in_micros(value) if isinstance(value, dict) else _micros(value) if name.endswith("_usd") else value
        for name, value in told.items()
    }


# What a client is told, by the first of these that any unit is in.
_STATES: tuple[tuple[str, State], ...] = (
    ("reserved", "held"),
    ("posted", "posted"),
    ("refunded", "refunded"),
    ("voided", "voided"),
)
_JOBS = (
    "SELECT count(*), sum(token), sum(attempts), sum(work_begun), sum(cancel_requested), sum(finished_at),"
    " sum(status = 'queued'), sum(status = 'running'), sum(progress), sum(removed_at) FROM job"
)
_STATE = (
    _JOBS,
    "SELECT count(*), max(id) FROM transfer",
    "SELECT count(*), max(id) FROM audit",
    "SELECT count(*) FROM idempotency",
    "SELECT count(*) FROM plan_fee",
    "SELECT count(*), sum(at) FROM alert",
    "SELECT * FROM balance",
    "SELECT * FROM spend",
    "SELECT * FROM account",
    "SELECT * FROM box",
    'SELECT * FROM "grant"',
)
