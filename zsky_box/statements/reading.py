"""A statement's figures in one state of the store, and its lines in short pages that need no such state.

The lines of a month are the wallet's posts of its reserves, whenever they were posted, and the refunds made in it. What
fills the wallet is beside them, and not in the total.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

from msgspec import Struct

from zsky_box import accounts, plans, timeline
from zsky_box.accounts import Account
from zsky_box.db import Row, Rows
from zsky_box.errors import StoreError, not_found
from zsky_box.ledger import Allowance, allowance, spend, transfers
from zsky_box.manifest import JobType
from zsky_box.periods import Period, following
from zsky_box.statements import closing
from zsky_box.terms import KINDS, Terms

PAGE_LINES: Final = 500


class Pages(Protocol):
    """What pages are read from: the store, or one connection that reads it while the service is stopped."""

    def all(self, sql: str, parameters: dict[str, Any], /) -> list[Row]:
        """All rows of a bounded query."""
        ...


class Overage(Struct, frozen=True):
    """Units of one type beyond the included ones, those of them paid back in the month, and what remains."""

    units: int
    refunded_units: int
    amount_micros: int


class Wallet(Struct, frozen=True):
    """Micros in the wallet before the month's movements, what was put into it, and what that left."""

    opening: int
    credits: int
    closing: int


class Statement(Struct, frozen=True, kw_only=True):
    """Everything of a statement but its lines, which are those of the account and month up to `last_transfer_id`."""

    account: Account
    period: Period
    timezone: str
    closed_at: int | None
    plan: str
    plan_lines: list[tuple[str, int]]
    included: dict[JobType, Allowance]
    overage: dict[JobType, Overage]
    pending_micros: int
    wallet: Wallet
    last_transfer_id: int

    @property
    def plan_fee_micros(self) -> int:
        """What the plan's lines come to."""
        return sum(amount for _, amount in self.plan_lines)

    @property
    def overage_micros(self) -> int:
        """Posts less the refunds made in the month."""
        return sum(of.amount_micros for of in self.overage.values())


def statement(rows: Rows, account_id: str, key: str, now: int, terms: Terms) -> Statement:
    """The figures of a month.

    Raises ValueError for what is no month, 404 for one that has not begun or was over before the account existed,
    StoreError when a closed one does not add up any more.
    """
    account, period = accounts.get(rows, account_id), terms.calendar.period(key)
    present = timeline.present(rows, now)
    if period.start_us > present or key < closing.first_month(rows, account, terms):
        raise not_found("statement")
    closed = closing.closing_of(rows, account_id, key)
    if closed is not None:
        period = Period(key, closed["start_us"], closed["end_us"])
    newest = rows.one("SELECT coalesce(max(id), 0) AS id FROM transfer")
    up_to = closed or newest
    last_id = 0 if up_to is None else up_to["last_transfer_id" if closed else "id"]
    found = Statement(
        account=account,
        period=period,
        timezone=terms.calendar.zone_at(period.start_us).key,
        closed_at=None if closed is None else closed["at"],
        plan=closing.plan_of(rows, account_id, key) if closed is None else closed["plan"],
        plan_lines=plans.fees(rows, account_id, key),
        included={kind: _units(rows, account, kind, period, closed, present, terms) for kind in KINDS},
        overage=_overage(rows, account_id, key, last_id),
        pending_micros=spend.spend(rows, spend.account_scope(account_id), key).pending,
        wallet=_wallet(rows, account_id, key),
        last_transfer_id=last_id,
    )
    told = (found.plan_fee_micros, found.overage_micros)
    if closed is not None and told != (closed["plan_fee_micros"], closed["overage_micros"]):
        raise StoreError(f"the closed statement {account_id} {key} does not add up; run `zsky-box ledger verify`")
    return found


def line_pages(store: Pages, found: Statement) -> Iterator[list[Row]]:
    """The lines in the order they were entered, with their jobs; nothing is held between two pages."""
    return _pages(store, _LINES, found)


def lines_after(store: Pages, found: Statement, after: int, limit: int) -> list[Row]:
    """At most `limit` lines, of those entered after the transfer `after`."""
    return store.all(_LINES, _part(found, after, limit))


def credit_pages(store: Pages, found: Statement) -> Iterator[list[Row]]:
    """What was put into the wallet, or taken out of it by a correction, with who did it and why."""
    return _pages(store, _CREDITS, found)


def months(rows: Rows, account: Account, now: int, before: str | None, limit: int, terms: Terms) -> list[Month]:
    """The account's months, newest first, from the one before `before` on, and never one that has not begun."""
    first = closing.first_month(rows, account, terms)
    key = terms.calendar.period_at(timeline.present(rows, now)).key
    if before is not None:
        key = min(key, following(before, -1))
    found: list[Month] = []
    while key >= first and len(found) < limit:
        found.append(_month(rows, account, key, terms))
        key = following(key, -1)
    return found


class Month(Struct, frozen=True, kw_only=True):
    """The totals of one statement, in a list of them."""

    period: Period
    closed_at: int | None
    plan: str
    plan_fee_micros: int
    overage_micros: int


def signed_micros(row: Row) -> int:
    """What a transfer adds to what is owed (a post, a refund) or to the wallet (a top-up, a correction)."""
    is_outward = row["kind"] == "refund" or (row["kind"] == "correct" and row["credit"] == transfers.FUNDING)
    return -int(row["amount"]) if is_outward else int(row["amount"])


def _month(rows: Rows, account: Account, key: str, terms: Terms) -> Month:
    closed = closing.closing_of(rows, account.id, key)
    if closed is not None:
        return Month(
            period=Period(key, closed["start_us"], closed["end_us"]),
            closed_at=closed["at"],
            plan=closed["plan"],
            plan_fee_micros=closed["plan_fee_micros"],
            overage_micros=closed["overage_micros"],
        )
    return Month(
        period=terms.calendar.period(key),
        closed_at=None,
        plan=closing.plan_of(rows, account.id, key),
        plan_fee_micros=closing.fee_micros(rows, account.id, key),
        overage_micros=closing.overage_micros(rows, account.id, key),
    )


def _units(
    rows: Rows, account: Account, kind: JobType, period: Period, closed: Row | None, present: int, terms: Terms
) -> Allowance:
    """Of the current month what a job would find; of a past one what closing has put on record, or would."""
    if present < period.end_us:
        return allowance(rows, account, kind, period.key, terms.settings)
    found = closing.past_allowance(rows, account, kind, period.key, terms)
    granted = found.granted if closed is None else closing.included_of(closed)[kind]
    return Allowance(granted, found.used, found.pending)


def _overage(rows: Rows, account_id: str, period: str, last_id: int) -> dict[JobType, Overage]:
    totals: dict[JobType, Overage] = {kind: Overage(0, 0, 0) for kind in KINDS}
    for row in rows.all(_TOTALS, {"account": account_id, "period": period, "last": last_id}):
        totals[row["type"]] = Overage(row["posts"], row["refunds"], row["amount"])
    return totals


def _wallet(rows: Rows, account_id: str, period: str) -> Wallet:
    """The months' movements in order: those of the months before, then this one's."""
    scope = spend.account_scope(account_id)
    opening = -sum(
        row["posted"] for row in rows.all("SELECT posted FROM spend WHERE scope = ? AND period < ?", (scope, period))
    )
    added, back = 0, 0
    for row in rows.each(_BESIDE_POSTS, {"account": account_id, "period": period}):
        if row["period"] < period:
            opening += abs(row["amount"]) if row["kind"] == "refund" else signed_micros(row)
        elif row["kind"] == "refund":
            back += row["amount"]
        else:
            added += signed_micros(row)
    paid = spend.spend(rows, scope, period).posted - back
    return Wallet(opening, added, opening + added - paid)


def _pages(store: Pages, sql: str, found: Statement) -> Iterator[list[Row]]:
    after = 0
    while True:
        page = store.all(sql, _part(found, after, PAGE_LINES))
        if page:
            yield page
            after = page[-1]["id"]
        if len(page) < PAGE_LINES:
            return


def _part(found: Statement, after: int, limit: int) -> dict[str, Any]:
    return {
        "account": found.account.id,
        "period": found.period.key,
        "after": after,
        "last": found.last_transfer_id,
        "limit": limit,
    }


# Each condition of an index is repeated as it stands there, or SQLite does not use it.
_LINES: Final = (
    "SELECT t.*, j.type, j.model, j.metadata, j.key_id, a.after FROM transfer t INDEXED BY transfer_on_statement"
    " CROSS JOIN job j ON j.id = t.job_id LEFT JOIN audit a ON a.transfer_id = t.id AND t.kind = 'refund'"
    " WHERE t.account_id = :account AND t.period = :period AND t.ledger = 'usd' AND t.kind IN ('post', 'refund')"
    " AND t.id > :after AND t.id <= :last ORDER BY t.id LIMIT :limit"
)
_TOTALS: Final = (
    "SELECT j.type, count(*) FILTER (WHERE t.kind = 'post') AS posts, count(*) FILTER (WHERE t.kind = 'refund')"
    " AS refunds, sum(CASE t.kind WHEN 'post' THEN t.amount ELSE -t.amount END) AS amount"
    " FROM transfer t INDEXED BY transfer_on_statement CROSS JOIN job j ON j.id = t.job_id"
    " WHERE t.account_id = :account AND t.period = :period AND t.ledger = 'usd' AND t.kind IN ('post', 'refund')"
    " AND t.id <= :last GROUP BY j.type"
)
_CREDITS: Final = (
    "SELECT t.*, a.after FROM transfer t INDEXED BY transfer_beside_posts LEFT JOIN audit a ON a.transfer_id = t.id"
    " WHERE t.account_id = :account AND t.period = :period AND t.ledger = 'usd'"
    " AND t.kind IN ('topup', 'correct', 'refund') AND t.kind != 'refund' AND t.id > :after AND t.id <= :last"
    " ORDER BY t.id LIMIT :limit"
)
_BESIDE_POSTS: Final = (
    "SELECT kind, period, credit, amount FROM transfer INDEXED BY transfer_beside_posts"
    " WHERE account_id = :account AND period <= :period AND ledger = 'usd' AND kind IN ('topup', 'correct', 'refund')"
)
