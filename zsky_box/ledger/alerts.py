"""What a person must hear of before the money is gone: 50, 80 and 100 % of the cap, and a wallet that runs low.

Each is said once, on record: a percentage once for each height of the cap in a period.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from zsky_box import audit
from zsky_box.accounts import Account
from zsky_box.db import Rows, Tx
from zsky_box.ledger import spend, wallet
from zsky_box.pricing import usd
from zsky_box.terms import Terms

PERCENTS: Final = (50, 80, 100)
SAID_MAX: Final = 30


class Alert(Struct, frozen=True):
    """Something to be told now."""

    kind: Literal["cap", "wallet_low"]
    percent: int | None


class Said(Struct, frozen=True):
    """That so much of a cap of this height was reached, and when."""

    percent: int
    cap_micros: int
    at: int


def said_in(rows: Rows, account_id: str, period: str) -> list[Said]:
    """What was said of the cap in a period, newest first."""
    found = rows.all(
        "SELECT percent, cap_micros, at FROM alert WHERE account_id = ? AND period = ?"
        " ORDER BY at DESC, percent DESC LIMIT ?",
        (account_id, period, SAID_MAX),
    )
    return [Said(row["percent"], row["cap_micros"], row["at"]) for row in found]


def after_spending(tx: Tx, account: Account, period: str, at: int, terms: Terms) -> tuple[Alert, ...]:
    """Say what a reserve, or a change of the cap, has reached; what was said before is not said again."""
    told: list[Alert] = []
    cap = account.limit_micros
    committed = spend.spend(tx, spend.account_scope(account.id), period).committed_micros
    # What is left but buys nothing any more is as good as nothing.
    all_of_it = cap - committed < terms.cheapest_micros
    reached = [percent for percent in PERCENTS if committed * 100 >= cap * percent or all_of_it]
    for percent in reached if committed else ():
        told += _say(tx, account, period, cap, percent, committed, at)
    if wallet.note_level(tx, account, terms.low_wallet_micros, at):
        told.append(Alert("wallet_low", None))
    return tuple(told)


def _say(tx: Tx, account: Account, period: str, cap: int, percent: int, committed: int, at: int) -> list[Alert]:
    said = tx.execute(
        "INSERT INTO alert (account_id, period, cap_micros, percent, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (account.id, period, cap, percent, at),
    )
    if said.rowcount != 1:
        return []
    audit.append(
        tx,
        at=at,
        account_id=account.id,
        actor="box",
        action=f"alert.cap_{percent}",
        subject=f"{account.id}:{period}",
        after={"cap_usd": usd(cap), "committed_usd": usd(committed)},
    )
    return [Alert("cap", percent)]
