"""Transfers and the balances kept beside them: the only statements that write either.

A transfer moves an amount from one balance (its debit) to another (its credit), at once or in two phases: a reserve
holds it on both sides, then a post moves it or a void lets it go. Each has exactly one audit row, written with it.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import Struct

from zsky_box import audit
from zsky_box.db import Row, Rows, Tx
from zsky_box.pricing import usd

Ledger = Literal["usd", "video", "image"]
Kind = Literal["topup", "grant", "reserve", "post", "void", "refund", "correct"]
Resolution = Literal["post", "void"]

ISSUER: Final = "issuer"
"""Where included units come from."""
CONSUMED: Final = "consumed"
"""Where used ones go."""
FUNDING: Final = "funding"
"""Where the wallets' money comes from: the studio's budget."""
REVENUE: Final = "revenue"
"""Where spent money goes."""
_OVERDRAWN: Final = (ISSUER, FUNDING)

# What a movement makes of a unit: the state before it and after it.
_STATES: Final[dict[str, tuple[str, str]]] = {
    "reserve": ("free", "held"),
    "post": ("held", "posted"),
    "void": ("held", "voided"),
    "refund": ("posted", "refunded"),
}


def included(account_id: str, period: str) -> str:
    """The balance of a period's included units."""
    return f"included:{account_id}:{period}"


def wallet(account_id: str) -> str:
    """The balance of an account's money; it belongs to no period."""
    return f"wallet:{account_id}"


class Entry(Struct, frozen=True, kw_only=True):
    """What one transfer says; amounts are units, or micros where the ledger is `usd`."""

    kind: Kind
    ledger: Ledger
    debit: str
    credit: str
    amount: int
    account_id: str
    period: str
    actor: str
    at: int
    job_id: str | None = None
    ordinal: int | None = None
    pending_id: int | None = None
    budget_id: str | None = None
    why: str = ""


def available(rows: Rows, name: str, ledger: Ledger) -> int:
    """What a balance has and does not hold for anything."""
    row = balance(rows, name, ledger)
    return 0 if row is None else int(row["credits_posted"] - row["debits_posted"] - row["debits_pending"])


def balance(rows: Rows, name: str, ledger: Ledger) -> Row | None:
    """The row of a balance, None before its first transfer."""
    return rows.one("SELECT * FROM balance WHERE name = ? AND ledger = ?", (name, ledger))


def move(tx: Tx, entry: Entry) -> int:
    """An amount at once; the transfer's id. The store refuses what would overdraw a balance."""
    is_filled = entry.debit in _OVERDRAWN
    has = available(tx, entry.credit if is_filled else entry.debit, entry.ledger)
    _add(tx, entry.debit, entry.ledger, "debits_posted", entry.amount)
    _add(tx, entry.credit, entry.ledger, "credits_posted", entry.amount)
    return _append(tx, entry, has, has + entry.amount if is_filled else has - entry.amount)


def hold(tx: Tx, ledger: Ledger, debit: str, credit: str, amount: int) -> bool:
    """The first phase on both balances, in one conditional statement; False when the debit has not enough."""
    held = tx.execute(
        "UPDATE balance SET debits_pending = debits_pending + :amount WHERE name = :name AND ledger = :ledger"
        " AND credits_posted - debits_posted - debits_pending >= :amount",
        {"amount": amount, "name": debit, "ledger": ledger},
    )
    if held.rowcount != 1:
        return False
    _add(tx, credit, ledger, "credits_pending", amount)
    return True


def record_reserve(tx: Tx, entry: Entry) -> int:
    """The transfer of what `hold` has held, or of a part of it."""
    return _append(tx, entry)


def settle(tx: Tx, reserve: Row, kind: Resolution, actor: str, at: int) -> int:
    """The second phase of a reserve, both balances and the transfer; at most once, which the store holds too."""
    kept = int(reserve["amount"]) if kind == "post" else 0
    for side, name in (("debits", reserve["debit"]), ("credits", reserve["credit"])):
        tx.execute(
            f"UPDATE balance SET {side}_pending = {side}_pending - ?, {side}_posted = {side}_posted + ?"  # noqa: S608
            " WHERE name = ? AND ledger = ?",
            (reserve["amount"], kept, name, reserve["ledger"]),
        )
    return _append(tx, following(reserve, kind, actor, at))


def following(before: Row, kind: Kind, actor: str, at: int, **changes: Any) -> Entry:
    """An entry that answers another: the same balances, amount, job and period unless `changes` say otherwise."""
    values: dict[str, Any] = {
        "kind": kind,
        "ledger": before["ledger"],
        "debit": before["debit"],
        "credit": before["credit"],
        "amount": before["amount"],
        "account_id": before["account_id"],
        "period": before["period"],
        "actor": actor,
        "at": at,
        "job_id": before["job_id"],
        "ordinal": before["ordinal"],
        "pending_id": before["id"],
        "budget_id": before["budget_id"],
    }
    return Entry(**(values | changes))


def _append(tx: Tx, entry: Entry, had: int = 0, has: int = 0) -> int:
    """The transfer and its audit row; what the balance had and has is told where no unit changes its state."""
    of_unit = _STATES.get(entry.kind)
    before: dict[str, Any] = {"left_usd": usd(had)} if entry.ledger == "usd" else {"left": had}
    after: dict[str, Any] = {"left_usd": usd(has)} if entry.ledger == "usd" else {"left": has}
    if of_unit is not None:
        before, after = ({"state": state} for state in of_unit)
    if entry.ledger == "usd":
        after["amount_usd"] = usd(entry.amount)
    cursor = tx.execute(
        "INSERT INTO transfer (kind, ledger, debit, credit, amount, pending_id, account_id, job_id, ordinal, period,"
        " actor, at, budget_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            entry.kind,
            entry.ledger,
            entry.debit,
            entry.credit,
            entry.amount,
            entry.pending_id,
            entry.account_id,
            entry.job_id,
            entry.ordinal,
            entry.period,
            entry.actor,
            entry.at,
            entry.budget_id,
        ),
    )
    number = int(cursor.lastrowid or 0)
    audit.append(
        tx,
        at=entry.at,
        account_id=entry.account_id,
        actor=entry.actor,
        action=f"ledger.{entry.kind}",
        subject=entry.job_id or f"{entry.account_id}:{entry.period}",
        before=before,
        after={"ledger": entry.ledger, "amount": entry.amount, "debit": entry.debit, "credit": entry.credit, **after}
        | ({"why": entry.why} if entry.why else {}),
        transfer_id=number,
    )
    return number


def _add(
    tx: Tx,
    name: str,
    ledger: Ledger,
    column: Literal["debits_posted", "credits_posted", "credits_pending"],
    amount: int,
) -> None:
    """Raise a balance, begun where there is none; only where units and money come from may owe more than they have."""
    values = {"amount": amount, "name": name, "ledger": ledger, "overdraft": int(name in _OVERDRAWN)}
    # Not an upsert: SQLite checks the row to be inserted first, and a debit alone would be an overdraft.
    raised = tx.execute(
        f"UPDATE balance SET {column} = {column} + :amount WHERE name = :name AND ledger = :ledger",  # noqa: S608
        values,
    )
    if raised.rowcount == 0:
        tx.execute(
            f"INSERT INTO balance (name, ledger, overdraft, {column})"  # noqa: S608 - a literal of three
            " VALUES (:name, :ledger, :overdraft, :amount)",
            values,
        )
