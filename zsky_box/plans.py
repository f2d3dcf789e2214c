"""When a plan begins, what its terms cost, and when it ends. Fees are lines of statements: the box charges no card.

A term is a month, or a year that is paid for in its first month. A smaller plan, or the same one by the month, begins
when the term that runs has ended; a larger one begins at once. Fees are charged when their period is first looked at,
in order, so that a box that was off owes the same as one that was on.
"""

from __future__ import annotations

from typing import Final

from zsky_box import accounts, audit
from zsky_box.accounts import Account, Plan, Renewal
from zsky_box.db import Rows, Tx
from zsky_box.periods import following
from zsky_box.pricing import usd
from zsky_box.terms import Terms

MONTHS_OF_YEAR: Final = 12
TAKEN_BACK: Final = "Plan max taken back: "
"""How the description of a fee begins that takes another one back: a fee of nothing has no sign to tell it by."""


def is_due(account: Account, period: str) -> bool:
    """Whether a term of the account begins or ends with this period or before it, and is not on record yet."""
    return account.plan == "max" and account.paid_until <= period


def roll(tx: Tx, account: Account, period: str, at: int, terms: Terms) -> Account:
    """Charge the terms that began up to this period, or end the plan whose last one is over."""
    while is_due(account, period):
        start = account.paid_until or min(period, terms.calendar.period_at(account.created_at).key)
        if account.renews == "no" and account.paid_until:
            _change(tx, account, "plan.ended", "box", at, plan="free", renews="monthly", annual=False)
        else:
            _charge(tx, account, start, account.renews == "annual", at, terms)
        account = accounts.get(tx, account.id)
    return account


def choose(
    tx: Tx, account: Account, plan: Plan, *, annual: bool, period: str, at: int, actor: str, terms: Terms
) -> Account:
    """Put the account on a plan: at once where it is more than before, else when the paid term has ended."""
    account = roll(tx, account, period, at, terms)
    renews: Renewal = "no" if plan == "free" else "annual" if annual else "monthly"
    if account.plan == "free":
        if plan == "max":
            _change(tx, account, "plan.begun", actor, at, plan="max", renews=renews, annual=annual, paid_until=period)
    elif renews == "annual" and not account.annual:
        _change(tx, account, "plan.changed", actor, at, renews=renews, annual=True, paid_until=period)
        _take_back(tx, account, period, period, "the year replaces the month", at)
    elif renews != account.renews:
        action = "plan.cancelled" if renews == "no" else "plan.resumed" if account.renews == "no" else "plan.changed"
        _change(tx, account, action, actor, at, renews=renews)
    return roll(tx, accounts.get(tx, account.id), period, at, terms)


def undo_after(tx: Tx, account: Account, period: str, at: int) -> None:
    """Take back the fees of later periods than this one, which a wrong clock has charged, and the end of a plan."""
    _take_back(tx, account, following(period), "9999-12", "the clock was set back", at)
    last = tx.one(
        "SELECT period, annual FROM plan_fee WHERE account_id = ? AND period <= ? GROUP BY period, annual"
        " HAVING sum(CASE WHEN description LIKE ? THEN -1 ELSE 1 END) > 0 ORDER BY period DESC, annual DESC LIMIT 1",
        (account.id, period, f"{TAKEN_BACK}%"),
    )
    until, annual = period, account.annual
    if last is not None:
        until, annual = following(last["period"], MONTHS_OF_YEAR if last["annual"] else 1), bool(last["annual"])
        until = max(until, period)  # months without a plan are not charged for afterwards
        if account.plan == "free" and account.paid_until > period:
            _change(tx, account, "plan.resumed", "box", at, plan="max", renews="no", annual=annual)
            account = accounts.get(tx, account.id)
    if account.plan == "max" and until < account.paid_until:
        _change(tx, account, "plan.changed", "box", at, annual=annual, paid_until=until)


def fees(rows: Rows, account_id: str, period: str) -> list[tuple[str, int]]:
    """The statement's plan lines of a period: what for, and how many micros."""
    found = rows.all(
        "SELECT description, amount_micros FROM plan_fee WHERE account_id = ? AND period = ? ORDER BY id LIMIT 1000",
        (account_id, period),
    )
    return [(row["description"], int(row["amount_micros"])) for row in found]


def _take_back(tx: Tx, account: Account, first: str, last: str, why: str, at: int) -> None:
    for row in tx.all(
        "SELECT period, annual, sum(amount_micros) AS amount FROM plan_fee WHERE account_id = ?"
        " AND period BETWEEN ? AND ? GROUP BY period, annual"
        " HAVING sum(CASE WHEN description LIKE ? THEN -1 ELSE 1 END) > 0 ORDER BY period",
        (account.id, first, last, f"{TAKEN_BACK}%"),
    ):
        _fee(tx, account, row["period"], f"{TAKEN_BACK}{why}", -row["amount"], bool(row["annual"]), at)


def _charge(tx: Tx, account: Account, period: str, annual: bool, at: int, terms: Terms) -> None:
    until = following(period, MONTHS_OF_YEAR if annual else 1)
    tx.execute("UPDATE account SET annual = ?, paid_until = ? WHERE id = ?", (int(annual), until, account.id))
    description = f"Plan max, {'a year' if annual else 'a month'}"
    _fee(tx, account, period, description, terms.fee_micros(annual=annual), annual, at, paid_until=until)


def _fee(
    tx: Tx,
    account: Account,
    period: str,
    description: str,
    amount_micros: int,
    annual: bool,
    at: int,
    **columns: str,
) -> None:
    """A line of the statement; `columns` is what it changes of the account."""
    tx.execute(
        "INSERT INTO plan_fee (account_id, period, description, amount_micros, annual, at) VALUES (?, ?, ?, ?, ?, ?)",
        (account.id, period, description, amount_micros, int(annual), at),
    )
    audit.append(
        tx,
        at=at,
        account_id=account.id,
        actor="plan",
        action="plan.fee",
        subject=f"{account.id}:{period}",
        after={"description": description, "amount_usd": usd(amount_micros), "annual": annual, **columns},
    )


def _change(tx: Tx, account: Account, action: str, actor: str, at: int, **columns: str | bool) -> None:
    before = {name: getattr(account, name) for name in columns}
    marks = ", ".join(f"{name} = ?" for name in columns)
    tx.execute(f"UPDATE account SET {marks} WHERE id = ?", (*columns.values(), account.id))  # noqa: S608 - our own names
    audit.append(
        tx,
        at=at,
        account_id=account.id,
        actor=actor,
        action=action,
        subject=account.id,
        before=before,
        after=dict(columns),
    )
