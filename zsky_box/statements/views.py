"""Statements as clients read them; money as decimal strings of US dollars, times in RFC 3339, UTC."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from zsky_box.manifest import JobType


class MonthView(Struct, kw_only=True):
    """`[start, end)` in the box's zone; `key` is YYYY-MM."""

    key: str
    start: str
    end: str


class PlanLineView(Struct, kw_only=True):
    """A fee of the plan, or one taken back."""

    description: str
    amount_usd: str


class IncludedView(Struct, kw_only=True):
    """Units that the plan gave, those used, and those that open jobs hold."""

    granted: int
    used: int
    pending: int


class TypeTotalView(Struct, kw_only=True):
    """Units paid by the wallet, units paid back in this month, and what that comes to."""

    units: int
    refunded_units: int
    amount_usd: str


class WalletView(Struct, kw_only=True):
    """The month's movements: `opening_usd` + `credits_usd` - `overage_usd` = `closing_usd`."""

    opening_usd: str
    credits_usd: str
    overage_usd: str
    closing_usd: str


class LineView(Struct, kw_only=True):
    """One unit of a job: charged, or paid back. `pending_id` is the transfer that this one ends or takes back."""

    kind: Literal["overage", "refund"]
    ledger_id: int
    pending_id: int
    time: str
    job_id: str
    ordinal: int
    type: JobType
    model: str
    key_id: str
    amount_usd: str
    description: str
    metadata: dict[str, str]


class CreditView(Struct, kw_only=True):
    """Money put into the wallet, or taken out of it by a correction; not in the total."""

    kind: Literal["topup", "replenish", "correction"]
    ledger_id: int
    time: str
    actor: str
    amount_usd: str
    description: str


class StatementHead(Struct, kw_only=True):
    """Everything but the lines."""

    object: Literal["statement"] = "statement"
    account: str
    name: str
    period: MonthView
    timezone: str
    status: Literal["open", "closed"]
    closed_at: str | None
    plan: str
    plan_lines: list[PlanLineView]
    plan_fee_usd: str
    included: dict[JobType, IncludedView]
    overage: dict[JobType, TypeTotalView]
    overage_usd: str
    total_usd: str
    pending_usd: str
    wallet: WalletView


class StatementView(StatementHead, kw_only=True):
    """What an account owes for a month, each cent with the job that it was spent on."""

    lines: list[LineView]
    credits: list[CreditView]


class StatementItem(Struct, kw_only=True):
    """One statement of a list."""

    object: Literal["statement"] = "statement"
    period: MonthView
    status: Literal["open", "closed"]
    closed_at: str | None
    plan: str
    plan_fee_usd: str
    overage_usd: str
    total_usd: str


class StatementList(Struct, kw_only=True):
    """A page of statements, newest first."""

    object: Literal["list"] = "list"
    data: list[StatementItem]
    has_more: bool
    next_cursor: str | None
