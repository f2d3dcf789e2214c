"""When a statement is closed: its month is over and nothing of it is pending. From then on it never changes.

Months close in order, from the account's first. Whether anything is pending is asked of the counters that stand beside
the transfers, by their keys: a closing holds up no other write, however many lines its month has.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from zsky_box import audit, plans, timeline
from zsky_box.accounts import Account, Plan
from zsky_box.db import Row, Rows, Tx
from zsky_box.ledger import Allowance, allowance, spend, transfers
from zsky_box.manifest import JobType
from zsky_box.periods import Period, following
from zsky_box.plans import MONTHS_OF_YEAR, TAKEN_BACK
from zsky_box.pricing import usd
from zsky_box.terms import KINDS, Terms

MONTHS_PER_CALL: Final = 24


def close_due(tx: Tx, account: Account, now: int, terms: Terms) -> list[str]:
    """Close the months that are due, the oldest first, at most `MONTHS_PER_CALL`; their keys.

    Nothing can fall into a closed month any more: the ledger's clock is beyond its end.
    """
    closed: list[str] = []
    while len(closed) < MONTHS_PER_CALL and (period := _next_due(tx, account, now, terms)):
        at = timeline.advance_anyhow(tx, now)
        account = plans.roll(tx, account, period.key, at, terms)
        _close(tx, account, period, at, terms)
        closed.append(period.key)
    return closed


def is_due(rows: Rows, account: Account, now: int, terms: Terms) -> bool:
    """Whether `close_due` has something to close."""
    return _next_due(rows, account, now, terms) is not None


def reopen_after(tx: Tx, now: int) -> int:
    """The owner accepts a clock that was set back: what it says has not ended yet is open again; how many."""
    early = tx.all("SELECT * FROM closing WHERE voided_at IS NULL AND end_us > ? ORDER BY id", (now,))
    for row in early:
        tx.execute("UPDATE closing SET voided_at = ? WHERE id = ?", (now, row["id"]))
        _audit(tx, "statement.reopened", row["account_id"], row["period"], now, {"why": "the clock was set back"})
    return len(early)


def closing_of(rows: Rows, account_id: str, period: str) -> Row | None:
    """The row that closes a statement, None while it is open."""
    return rows.one(
        "SELECT * FROM closing WHERE account_id = ? AND period = ? AND voided_at IS NULL", (account_id, period)
    )


def first_month(rows: Rows, account: Account, terms: Terms) -> str:
    """The key of the first month that an account has a statement of."""
    # A clock that was wrong when the account began, and was put right, leaves fees and transfers of earlier months.
    moved = rows.one("SELECT min(period) AS period FROM transfer WHERE account_id = ?", (account.id,))
    charged = rows.one(
        "SELECT period FROM plan_fee WHERE account_id = ? GROUP BY period, annual"
        " HAVING sum(CASE WHEN description LIKE ? THEN -1 ELSE 1 END) > 0 ORDER BY period LIMIT 1",
        (account.id, f"{TAKEN_BACK}%"),
    )
    known = [row["period"] for row in (moved, charged) if row is not None and row["period"] is not None]
    return min([terms.calendar.period_at(account.created_at).key, *known])


def plan_of(rows: Rows, account_id: str, period: str) -> Plan:
    """The plan that counted in a month, by the fee that was charged for it."""
    paid = rows.one(
        "SELECT 1 FROM plan_fee WHERE account_id = :account AND period BETWEEN :first AND :period"
        " AND (annual = 1 OR period = :period) GROUP BY period, annual"
        # A fee that was taken back is two rows, or four where it was charged again and taken back again.
        " HAVING sum(CASE WHEN description LIKE :back THEN -1 ELSE 1 END) > 0 LIMIT 1",
        {
            "account": account_id,
            "period": period,
            "first": following(period, 1 - MONTHS_OF_YEAR),
            "back": f"{TAKEN_BACK}%",
        },
    )
    return "free" if paid is None else "max"


def past_allowance(rows: Rows, account: Account, kind: JobType, period: str, terms: Terms) -> Allowance:
    """The included units of a month that is over, by the plan that counted in it: no later plan changes them.

    `granted` is what was granted, and what the plan includes by today's settings where less was ever asked for.
    """
    then = msgspec.structs.replace(account, plan=plan_of(rows, account.id, period), renews="monthly")
    return allowance(rows, then, kind, period, terms.settings)


def included_of(closed: Row) -> dict[JobType, int]:
    """The included units of a closed statement, as they stood when it was closed."""
    return msgspec.json.decode(closed["included"], type=dict[JobType, int])


def overage_micros(rows: Rows, account_id: str, period: str) -> int:
    """What the month's reserves have paid, less what was paid back in it; no line is read."""
    posted = spend.spend(rows, spend.account_scope(account_id), period).posted
    row = rows.one(_REFUNDED, (account_id, period))
    return posted if row is None else posted - int(row["amount"])


def fee_micros(rows: Rows, account_id: str, period: str) -> int:
    """What the plan costs in a month."""
    return sum(amount for _, amount in plans.fees(rows, account_id, period))


def _next_due(rows: Rows, account: Account, now: int, terms: Terms) -> Period | None:
    """The oldest month that is not closed, if it is over and nothing of it is pending."""
    last = rows.one(
        "SELECT max(period) AS period FROM closing WHERE account_id = ? AND voided_at IS NULL", (account.id,)
    )
    closed = None if last is None else last["period"]
    period = terms.calendar.period(first_month(rows, account, terms) if closed is None else following(closed))
    if period.end_us > timeline.present(rows, now) or _is_pending(rows, account.id, period.key):
        return None
    return period


def _is_pending(rows: Rows, account_id: str, period: str) -> bool:
    if spend.spend(rows, spend.account_scope(account_id), period).pending:
        return True
    balances = [transfers.balance(rows, transfers.included(account_id, period), kind) for kind in KINDS]
    return any(balance is not None and balance["debits_pending"] for balance in balances)


def _close(tx: Tx, account: Account, period: Period, at: int, terms: Terms) -> None:
    plan, fee = plan_of(tx, account.id, period.key), fee_micros(tx, account.id, period.key)
    overage = overage_micros(tx, account.id, period.key)
    included = {kind: past_allowance(tx, account, kind, period.key, terms).granted for kind in KINDS}
    last = tx.one(
        "SELECT coalesce(max(id), 0) AS id FROM transfer WHERE account_id = ? AND period = ?", (account.id, period.key)
    )
    number = 0 if last is None else last["id"]
    tx.execute(
        "INSERT INTO closing (account_id, period, start_us, end_us, at, plan, plan_fee_micros, overage_micros,"
        " included, last_transfer_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            account.id,
            period.key,
            period.start_us,
            period.end_us,
            at,
            plan,
            fee,
            overage,
            msgspec.json.encode(included).decode(),
            number,
        ),
    )
    after = {
        "plan": plan,
        "plan_fee_usd": usd(fee),
        "overage_usd": usd(overage),
        "total_usd": usd(fee + overage),
        "included": included,
        "last_transfer_id": number,
    }
    _audit(tx, "statement.closed", account.id, period.key, at, after)


def _audit(tx: Tx, action: str, account_id: str, period: str, at: int, after: dict[str, Any]) -> None:
    audit.append(
        tx, at=at, account_id=account_id, actor="box", action=action, subject=f"{account_id}:{period}", after=after
    )


# Each condition of an index is repeated as it stands there, or SQLite does not use it.
_REFUNDED: Final = (
    "SELECT coalesce(sum(amount), 0) AS amount FROM transfer INDEXED BY transfer_beside_posts WHERE account_id = ?"
    " AND period = ? AND ledger = 'usd' AND kind IN ('topup', 'correct', 'refund') AND kind = 'refund'"
)
