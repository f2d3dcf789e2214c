"""An account that spends, over a store, a clock and terms of its own; whatever it did, the books agree at its close."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.stores import SetClock, opened
from zsky_box import accounts, audit, ids, ledger, overage, plans
from zsky_box.accounts import Account, Plan, Replenish
from zsky_box.db import Row, Store, Tx
from zsky_box.errors import Refusal
from zsky_box.ledger import Allowance, Assessment, Charge, Held, Payer, spend
from zsky_box.ledger.alerts import Alert
from zsky_box.ledger.spend import Spend
from zsky_box.manifest import JobType
from zsky_box.pricing import micros
from zsky_box.schemas import OverageView
from zsky_box.settings import Settings
from zsky_box.terms import Terms

KEY = "key_1"
# In the order in which a failed comparison reads best.
TABLES = (
    "transfer",
    "balance",
    "spend",
    '"grant"',
    "audit",
    "alert",
    "plan_fee",
    "account",
    "box",
    "job",
    "idempotency",
    "outbox",
)


class Money:
    """Ann, who is on the plan max with 10 images and 3 videos a month; what she does goes through the key KEY."""

    def __init__(self, store: Store, **settings: Any) -> None:
        self.store, self.clock = store, SetClock()
        self.terms = Terms.of(msgspec.structs.replace(Settings(included_images=10, included_videos=3), **settings))
        self.id = self.add("ann")
        self.told: list[Alert] = []

    def set(self, **settings: Any) -> None:
        """Other settings, as after a restart with them."""
        changed = msgspec.structs.replace(self.terms.settings, **settings)
        self.terms = Terms.of(changed)

    def add(self, name: str, plan: Plan = "max", *, annual: bool = False) -> str:
        """The id of a further account that begins now."""
        now = self.clock()
        return self.store.write(lambda tx: accounts.add_member(tx, name, plan, annual=annual, now=now)).id

    # What the account and its owner set

    def spending(self, wallet_usd: str = "5.00", cap_usd: str = "1000.00") -> None:
        """Money in the wallet, overage on, and a cap."""
        if wallet_usd != "0.00":
            self.topup(wallet_usd)
        self.cap(cap_usd)
        self.toggle(enabled=True)

    def topup(self, usd: str) -> int:
        now, amount = self.clock(), micros(usd)
        return self.store.write(lambda tx: overage.topup(tx, self.id, amount, actor="owner", now=now, terms=self.terms))

    def correct(self, usd: str, why: str = "entered twice") -> int:
        now, amount = self.clock(), micros(usd)
        return self.store.write(
            lambda tx: overage.correct(tx, self.id, amount, actor="owner", now=now, terms=self.terms, why=why)
        )

    def toggle(self, enabled: bool | None = None) -> tuple[Alert, ...]:
        now = self.clock()
        return self.store.write(
            lambda tx: overage.toggle(tx, self.id, enabled, actor=self.id, now=now, terms=self.terms)
        )

    def cap(self, usd: str) -> tuple[Alert, ...]:
        now, cap = self.clock(), micros(usd)
        return self.store.write(lambda tx: overage.set_cap(tx, self.id, cap, actor=self.id, now=now, terms=self.terms))

    def ceiling(self, usd: str | None) -> None:
        now, ceiling = self.clock(), None if usd is None else micros(usd)
        self.store.write(lambda tx: overage.set_ceiling(tx, self.id, ceiling, actor="owner", now=now, terms=self.terms))

    def box_ceiling(self, usd: str | None) -> None:
        now, ceiling = self.clock(), None if usd is None else micros(usd)
        self.store.write(lambda tx: overage.set_box_ceiling(tx, ceiling, actor="owner", now=now))

    def rule(self, below_usd: str, add_usd: str, month_usd: str) -> None:
        """Have the wallet filled by itself."""
        now, rule = self.clock(), Replenish(micros(below_usd), micros(add_usd), micros(month_usd))
        self.store.write(lambda tx: overage.set_rule(tx, self.id, rule, actor="owner", now=now, terms=self.terms))

    def choose(self, plan: Plan, *, annual: bool = False) -> Account:
        """Another plan, as the account itself chooses it."""
        at = self.clock()

        def work(tx: Tx) -> Account:
            account, period = accounts.get(tx, self.id), self.terms.calendar.period_at(at).key
            return plans.choose(tx, account, plan, annual=annual, period=period, at=at, actor=self.id, terms=self.terms)

        return self.store.write(work)

    # Jobs

    def hold(self, units: int = 1, kind: JobType = "image", job_id: str = "job_x", **payer: Any) -> Held:
        """Reserve for a job; `payer` names what is unlike Ann's through KEY."""
        whose = msgspec.structs.replace(Payer(self.id, KEY), **payer)
        now = self.clock()
        held = self.store.write(lambda tx: ledger.reserve(tx, whose, kind, units, job_id, now, self.terms))
        self.told += held.alerts
        return held

    def reserve(self, units: int = 1, kind: JobType = "image", **payer: Any) -> str:
        """A job's id, its units held."""
        job_id = ids.new("job")
        self.hold(units, kind, job_id, **payer)
        return job_id

    def refusal(self, units: int = 1, kind: JobType = "image", **payer: Any) -> Refusal:
        """How a reserve is refused, which changes nothing at all."""
        before = self.everything()
        with pytest.raises(Refusal) as refused:
            self.reserve(units, kind, **payer)
        assert self.everything() == before
        return refused.value

    def assess(self, units: int = 1, kind: JobType = "image", **payer: Any) -> Assessment:
        """What such a reserve would be."""
        whose = msgspec.structs.replace(Payer(self.id, KEY), **payer)
        with self.store.snapshot() as rows:
            account = accounts.get(rows, whose.account_id)
            return ledger.assess(rows, account, whose, kind, units, self.clock(), self.terms)

    def resolve(self, job_id: str, posted: frozenset[int] | None) -> None:
        """Post these ordinals and void the others."""
        now = self.clock()
        self.store.write(lambda tx: ledger.resolve(tx, job_id, posted, actor="box", now=now, terms=self.terms))

    def post(self, job_id: str) -> None:
        self.resolve(job_id, None)

    def void(self, job_id: str) -> None:
        self.resolve(job_id, frozenset())

    def paid(self, units: int = 1, kind: JobType = "image", **payer: Any) -> str:
        """A job that was reserved and posted."""
        job_id = self.reserve(units, kind, **payer)
        self.post(job_id)
        return job_id

    def refund(self, job_id: str, *ordinals: int) -> int:
        """Pay back these ordinals, all where none is named; how many units were paid back."""
        now, chosen = self.clock(), frozenset(ordinals) or None
        return self.store.write(
            lambda tx: ledger.refund(tx, job_id, chosen, actor="owner", why="a bad day", now=now, terms=self.terms)
        )

    # How things stand

    @property
    def account(self) -> Account:
        with self.store.snapshot() as rows:
            return accounts.get(rows, self.id)

    @property
    def period(self) -> str:
        return self.terms.calendar.period_at(self.clock()).key

    def view(self) -> OverageView:
        with self.store.snapshot() as rows:
            return overage.view(rows, self.id, self.clock(), self.terms)

    def stands(self) -> tuple[str, str, str, str]:
        """Spent, pending, remaining and in the wallet, in dollars."""
        view = self.view()
        return view.spend_usd, view.pending_usd, view.remaining_usd, view.wallet_usd

    def allowance(self, kind: JobType = "image") -> Allowance:
        with self.store.snapshot() as rows:
            return ledger.allowance(rows, accounts.get(rows, self.id), kind, self.period, self.terms.settings)

    def spent(self, scope: str, period: str | None = None) -> Spend:
        with self.store.snapshot() as rows:
            return spend.spend(rows, scope, period or self.period)

    def charge(self, job_id: str) -> Charge:
        return ledger.charges(self.store, [job_id])[job_id]

    def transfers(self, *kinds: str) -> list[Row]:
        """The transfers of these kinds, of all where none is named."""
        return [
            row for row in self.store.all("SELECT * FROM transfer ORDER BY id") if not kinds or row["kind"] in kinds
        ]

    def fees(self, period: str | None = None) -> list[tuple[str, int]]:
        """The plan's lines of a statement."""
        with self.store.snapshot() as rows:
            return plans.fees(rows, self.id, period or self.period)

    def audited(self, action: str) -> list[Row]:
        """The audit rows of this action, or of a room's where it ends with a dot."""
        rows = self.store.all("SELECT * FROM audit ORDER BY id")
        return [
            row for row in rows if row["action"] == action or (action[-1] == "." and row["action"].startswith(action))
        ]

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that a refusal must leave as it is."""
        return everything(self.store)


def everything(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table that a movement could touch."""
    return {table: [tuple(row) for row in store.all(f"SELECT * FROM {table}")] for table in TABLES}  # noqa: S608


@contextmanager
def open_money(folder: Path, **settings: Any) -> Generator[Money]:
    """Ann and her store; when the test is done, all that must always be true is."""
    with opened(folder) as store:
        money = Money(store, **settings)
        yield money
        check_books(store)


def check_books(store: Store) -> None:
    """Balances and counters are what the transfers say, each of which has exactly one audit row."""
    assert ledger.first_wrong_balance(store) is None
    assert audit.first_broken_row(store) is None
    rows = store.all("SELECT * FROM transfer")
    audited = store.all("SELECT * FROM audit WHERE transfer_id IS NOT NULL ORDER BY transfer_id")
    assert [row["transfer_id"] for row in audited] == [row["id"] for row in rows]
    assert [row["action"] for row in audited] == [f"ledger.{row['kind']}" for row in rows]
    kept = {
        (row["scope"], row["period"]): [row["pending"], row["posted"], row["refunded"], row["replenished"]]
        for row in store.all("SELECT * FROM spend")
    }
    assert {key: values for key, values in kept.items() if any(values)} == {
        key: values for key, values in _counted(rows).items() if any(values)
    }


def _counted(rows: list[Row]) -> dict[tuple[str, str], list[int]]:
    """Pending, posted, refunded and replenished of each scope and period, from the transfers alone."""
    by_id = {row["id"]: row for row in rows}
    counted: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if row["ledger"] != "usd":
            continue
        if row["kind"] == "topup" and row["actor"] == "replenish":
            counted.setdefault((f"account:{row['account_id']}", row["period"]), [0, 0, 0, 0])[3] += row["amount"]
        if row["kind"] not in _COUNTS:
            continue
        first = row
        while first["pending_id"] is not None:
            first = by_id[first["pending_id"]]
        for scope in (f"account:{row['account_id']}", f"key:{row['budget_id']}", "box"):
            values = counted.setdefault((scope, first["period"]), [0, 0, 0, 0])
            for place, sign in _COUNTS[row["kind"]]:
                values[place] += sign * row["amount"]
    return counted


_COUNTS = {"reserve": [(0, 1)], "post": [(0, -1), (1, 1)], "void": [(0, -1)], "refund": [(2, 1)]}
