"""What the money of a box should be: a small model, told from the rules of the ledger and not from the box's code.

It keeps no transfers and no balances that could be wrong together with the box's: only what each account has, what each
month has spent, and which units are held by which job.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Literal, NamedTuple

from msgspec import Struct, field

from tests.machine.months import ZoneSince, month_after, month_end_us, month_of
from tests.machine.plan_model import PlanModel

State = Literal["held", "posted", "voided", "refunded"]
KINDS = ("video", "image")


class Figures(NamedTuple):
    """What the owner's settings say; money in micros."""

    included: dict[tuple[str, str], int]
    price: dict[str, int]


class Quote(NamedTuple):
    """How a charge divides, and the code of the refusal that it meets, if any."""

    included: int
    wallet: int
    amount: int
    code: str | None


class Unit(Struct):
    """One unit that a job holds or has used."""

    source: Literal["included", "wallet"]
    kind: str
    period: str
    amount: int
    line: str
    state: State = "held"


class Units(Struct):
    """Included units of one kind and month: the plan's figure as granted, and what came back later."""

    planned: int = 0
    came_back: int = 0
    used: int = 0
    pending: int = 0


class Spent(Struct):
    """Micros of one scope and month."""

    pending: int = 0
    posted: int = 0
    refunded: int = 0

    @property
    def committed(self) -> int:
        return self.pending + self.posted - self.refunded


class AccountModel(Struct):
    """One account: what is in its wallet and not held, and what it may."""

    id: str
    plan: PlanModel
    wallet: int = 0
    overage: bool = False
    cap: int = 5_000_000
    ceiling: int | None = None
    rule: tuple[int, int, int] | None = None
    replenished: dict[str, int] = field(default_factory=dict[str, int])
    units: dict[tuple[str, str], Units] = field(default_factory=dict[tuple[str, str], Units])

    @property
    def limit(self) -> int:
        return self.cap if self.ceiling is None else min(self.cap, self.ceiling)

    def of(self, kind: str, period: str) -> Units:
        return self.units.setdefault((kind, period), Units())


class Payer(NamedTuple):
    """Whose money, through which line of keys, and how."""

    account_id: str
    line: str
    line_cap: int | None
    in_person: bool


class MoneyModel(Struct):
    """All accounts of a box. Every `at_us` is the ledger's time."""

    figures: Figures
    zones: list[ZoneSince]
    accounts: dict[str, AccountModel] = field(default_factory=dict[str, AccountModel])
    box_ceiling: int | None = None
    spent: dict[tuple[str, str], Spent] = field(default_factory=dict[tuple[str, str], Spent])
    jobs: dict[str, list[Unit]] = field(default_factory=dict[str, list[Unit]])

    def month(self, at_us: int) -> str:
        return month_of(at_us, self.zones)

    def _spent(self, scope: str, period: str) -> Spent:
        return self.spent.setdefault((scope, period), Spent())

    # A job's charge

    def quote(self, payer: Payer, kind: str, n: int, at_us: int) -> Quote:
        """Allowance first; used up and overage off; over a limit's room; wallet short."""
        account, period = self.accounts[payer.account_id], self.month(at_us)
        plan = account.plan.counts_in(period)
        has_units = payer.in_person or plan != "free"
        included = min(self._left(account, kind, period), n) if has_units else 0
        amount = (n - included) * self.figures.price[kind]
        if amount == 0:
            return Quote(included, 0, 0, None)
        fill = self._fill(account, amount, period)
        rooms = [(account.limit, account.id), (payer.line_cap, payer.line), (self.box_ceiling, "box")]
        if not has_units and account.wallet + fill == 0:
            code = "plan_without_api"
        elif not account.overage:
            code = "allowance_exhausted"
        elif any(cap is not None and self._spent(scope, period).committed + amount > cap for cap, scope in rooms):
            code = "cap_reached"
        else:
            code = "wallet_empty" if account.wallet + fill < amount else None
        return Quote(included, n - included, amount, code)

    def _left(self, account: AccountModel, kind: str, period: str) -> int:
        units = account.of(kind, period)
        planned = max(units.planned, self.figures.included[account.plan.counts_in(period), kind])
        return planned + units.came_back - units.used - units.pending

    def _fill(self, account: AccountModel, need: int, period: str) -> int:
        """Below this, add that, at most so much a month."""
        if account.rule is None or account.wallet - need >= account.rule[0]:
            return 0
        add, most = account.rule[1:]
        return add if account.replenished.get(period, 0) + add <= most else 0

    def reserve(self, payer: Payer, kind: str, n: int, at_us: int, job_id: str) -> Quote:
        """Take what was quoted; only where nothing refuses it."""
        account, period = self.accounts[payer.account_id], self.month(at_us)
        account.plan.roll(period)
        quote = self.quote(payer, kind, n, at_us)
        assert quote.code is None, quote
        plan, units = account.plan.counts_in(period), account.of(kind, period)
        if payer.in_person or plan != "free":
            units.planned = max(units.planned, self.figures.included[plan, kind])
        units.pending += quote.included
        if quote.wallet:
            self.replenish(account.id, at_us, need=quote.amount)
            account.wallet -= quote.amount
        price = self.figures.price[kind]
        self.jobs[job_id] = []
        for ordinal in range(n):
            wallet = ordinal >= quote.included
            unit = Unit("wallet" if wallet else "included", kind, period, price if wallet else 1, payer.line)
            self.jobs[job_id].append(unit)
            for spent in self._counters(account, unit):
                spent.pending += price
        return quote

    def _counters(self, account: AccountModel, unit: Unit) -> list[Spent]:
        if unit.source == "included":
            return []
        return [self._spent(scope, unit.period) for scope in (account.id, unit.line, "box")]

    def resolve(self, account_id: str, job_id: str, posted: set[int] | None, at_us: int) -> None:
        """Post these ordinals (None: all), void the others."""
        account, present = self.accounts[account_id], self.month(at_us)
        for ordinal, unit in enumerate(self.jobs[job_id]):
            if unit.state != "held":
                continue
            kept = posted is None or ordinal in posted
            unit.state = "posted" if kept else "voided"
            for spent in self._counters(account, unit):
                spent.pending -= unit.amount
                spent.posted += unit.amount if kept else 0
            if unit.source == "wallet":
                account.wallet += 0 if kept else unit.amount
                continue
            account.of(unit.kind, unit.period).pending -= 1
            account.of(unit.kind, unit.period).used += int(kept)
            if not kept and unit.period < present:
                account.of(unit.kind, present).came_back += 1

    def refund(self, account_id: str, job_id: str, ordinals: set[int] | None, at_us: int) -> int:
        """Pay back what was posted; how many units."""
        account, count = self.accounts[account_id], 0
        for ordinal, unit in enumerate(self.jobs[job_id]):
            if unit.state != "posted" or (ordinals is not None and ordinal not in ordinals):
                continue
            unit.state, count = "refunded", count + 1
            for spent in self._counters(account, unit):
                spent.refunded += unit.amount
            if unit.source == "wallet":
                account.wallet += unit.amount
            else:
                account.of(unit.kind, self.month(at_us)).came_back += 1
        return count

    # The wallet

    def replenish(self, account_id: str, at_us: int, *, need: int = 0) -> None:
        account, period = self.accounts[account_id], self.month(at_us)
        fill = self._fill(account, need, period)
        account.wallet += fill
        account.replenished[period] = account.replenished.get(period, 0) + fill

    # As a client reads it

    def view(self, account_id: str, at_us: int) -> dict[str, Any]:
        """What `GET /v1/me/overage` says, in micros."""
        account, period = self.accounts[account_id], self.month(at_us)
        spent = self._spent(account_id, period)
        plan = account.plan.counts_in(period)
        included: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for kind in KINDS:
            units = account.of(kind, period)
            granted = max(units.planned, self.figures.included[plan, kind]) + units.came_back
            left = granted - units.used - units.pending
            included[kind] = {"granted": granted, "used": units.used, "pending": units.pending, "left": left}
        return {
            "enabled": account.overage,
            "cap_usd": account.limit,
            "spend_usd": spent.posted - spent.refunded,
            "pending_usd": spent.pending,
            "remaining_usd": max(0, account.limit - spent.committed),
            "wallet_usd": account.wallet,
            "plan": plan,
            "prices": {"video_usd": self.figures.price["video"], "image_usd": self.figures.price["image"]},
            "included": dict(included),
        }

    def start(self, zone: str, at_us: int) -> None:
        """A start with this zone in the settings: it counts from the next month on, and none that was to come later."""
        end, month = month_end_us(at_us, self.zones), self.month(at_us)
        counting = max((known for known in self.zones if known.since_us <= end), key=lambda known: known.since_us)
        self.zones = [known for known in self.zones if known.since_us <= end]
        if counting.zone != zone:
            self.zones = [known for known in self.zones if known.since_us != end]
            self.zones.append(ZoneSince(end, month_after(month), zone))
