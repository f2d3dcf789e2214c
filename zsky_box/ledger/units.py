"""Included units: a grant opens a period's allowance once, and it lapses with the period."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from zsky_box.accounts import Account, included_units
from zsky_box.db import Row, Rows, Tx
from zsky_box.ledger import transfers
from zsky_box.ledger.transfers import ISSUER, Entry, included
from zsky_box.manifest import JobType
from zsky_box.periods import Period
from zsky_box.settings import Settings


class Allowance(Struct, frozen=True):
    """Included units of one kind in one period; `left` is what a new job can still take."""

    granted: int
    used: int
    pending: int

    @property
    def left(self) -> int:
        """Never negative: the balance is checked by the store."""
        return self.granted - self.used - self.pending


def allowance(rows: Rows, account: Account, kind: JobType, period: str, settings: Settings) -> Allowance:
    """What the next reserve would find: of the plan's figure, the part that it would still grant counts as granted."""
    planned = included_units(account.plan_in(period), kind, settings)
    row = rows.one(
        "SELECT g.units, b.* FROM (SELECT 1)"
        ' LEFT JOIN "grant" g ON g.account_id = :account AND g.period = :period AND g.kind = :kind'
        " LEFT JOIN balance b ON b.name = :name AND b.ledger = :kind",
        {"account": account.id, "period": period, "kind": kind, "name": included(account.id, period)},
    )
    if row is None or row["name"] is None:
        return Allowance(planned, 0, 0)
    to_come = max(0, planned - (row["units"] or 0))
    return Allowance(row["credits_posted"] + to_come, row["debits_posted"], row["debits_pending"])


def open_period(tx: Tx, account: Account, kind: JobType, period: Period, at: int, settings: Settings) -> None:
    """Grant the plan's units of a period once; a larger plan within the period tops them up to its figure."""
    units = included_units(account.plan_in(period.key), kind, settings)
    granted = _granted(tx, account, kind, period.key)
    if granted >= units:
        return
    tx.execute(
        'INSERT INTO "grant" (account_id, period, kind, units) VALUES (?, ?, ?, ?)'
        " ON CONFLICT (account_id, period, kind) DO UPDATE SET units = excluded.units",
        (account.id, period.key, kind, units),
    )
    grant(tx, account.id, kind, period.key, units - granted, "plan", at)


def grant(tx: Tx, account_id: str, kind: JobType, period: str, units: int, actor: str, at: int, why: str = "") -> None:
    """Further units of a period."""
    transfers.move(
        tx,
        Entry(
            kind="grant",
            ledger=kind,
            debit=ISSUER,
            credit=included(account_id, period),
            amount=units,
            account_id=account_id,
            period=period,
            actor=actor,
            at=at,
            why=why,
        ),
    )


def grant_lapsed(tx: Tx, reserve: Row, actor: str, period: Period, at: int) -> None:
    """A unit that comes back after its period ended is granted again in the current one."""
    if is_included(reserve) and reserve["period"] < period.key:
        why = f"given back after {reserve['period']} had ended"
        grant(tx, reserve["account_id"], reserve["ledger"], period.key, reserve["amount"], actor, at, why)


def is_included(reserve: Row) -> bool:
    """Whether a reserve holds an included unit, not the wallet's money."""
    return str(reserve["ledger"]) != "usd"


def _granted(rows: Rows, account: Account, kind: JobType, period: str) -> int:
    row = rows.one(_PLAN_GRANT, (account.id, period, kind))
    return 0 if row is None else int(row["units"])


_PLAN_GRANT: Final = 'SELECT units FROM "grant" WHERE account_id = ? AND period = ? AND kind = ?'
