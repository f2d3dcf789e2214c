"""What the wallet's reserves of a period hold and have paid, and the limits on it, checked as it is raised.

Three counters stand over each charge: the account's (its cap), the key's line (its cap, if it has one) and the whole
box's (the owner's ceiling, if there is one). They equal the transfers at all times; the money itself is elsewhere.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from zsky_box.accounts import Account
from zsky_box.db import Row, Rows, Tx

BOX: Final = "box"
_NO_LIMIT_MICROS: Final = 2**62


class Spend(Struct, frozen=True):
    """Micros of one scope and period: held, paid, paid back, and put into the wallet by rule."""

    pending: int = 0
    posted: int = 0
    refunded: int = 0
    replenished: int = 0

    @property
    def net_micros(self) -> int:
        """Paid less paid back."""
        return self.posted - self.refunded

    @property
    def committed_micros(self) -> int:
        """What counts against a limit: paid, less paid back, and held."""
        return self.net_micros + self.pending


class Limit(Struct, frozen=True):
    """One limit on a charge and how much of it is left."""

    scope: str
    what: str
    micros: int
    committed_micros: int

    @property
    def room_micros(self) -> int:
        """Never negative: a cap may be set below what is spent."""
        return max(0, self.micros - self.committed_micros)


def account_scope(account_id: str) -> str:
    """The counter of an account."""
    return f"account:{account_id}"


def key_scope(budget_id: str) -> str:
    """The counter of a key's line."""
    return f"key:{budget_id}"


def spend(rows: Rows, scope: str, period: str) -> Spend:
    """The counter of a scope in a period."""
    row = rows.one("SELECT * FROM spend WHERE scope = ? AND period = ?", (scope, period))
    if row is None:
        return Spend()
    return Spend(row["pending"], row["posted"], row["refunded"], row["replenished"])


def limits(rows: Rows, account: Account, budget_id: str, key_cap_micros: int | None, period: str) -> tuple[Limit, ...]:
    """Every limit on a charge of this account through this key, the account's own first."""
    ceiling = box_ceiling_micros(rows)
    capped = account.ceiling_micros is None or account.cap_micros <= account.ceiling_micros
    what = "spend cap" if capped else "ceiling that the owner has set"
    found = [(account_scope(account.id), what, account.limit_micros)]
    if key_cap_micros is not None:
        found.append((key_scope(budget_id), "cap of this key", key_cap_micros))
    if ceiling is not None:
        found.append((BOX, "ceiling that the owner has set for the whole box", ceiling))
    return tuple(
        Limit(scope, what, micros, spend(rows, scope, period).committed_micros) for scope, what, micros in found
    )


def box_ceiling_micros(rows: Rows) -> int | None:
    """What all accounts together may spend in a month, or None."""
    row = rows.one("SELECT ceiling_micros FROM box")
    return None if row is None else row["ceiling_micros"]


def hold(tx: Tx, account_id: str, budget_id: str, period: str, amount: int, within: tuple[Limit, ...]) -> bool:
    """Raise the counters by what a reserve holds, each only while its limit has room; False when one has not."""
    if any(amount > limit.micros for limit in within):
        return False
    most = {limit.scope: limit.micros for limit in within}
    account, key = account_scope(account_id), key_scope(budget_id)
    raised = tx.execute(
        "INSERT INTO spend (scope, period, pending) VALUES (:account, :period, :amount), (:key, :period, :amount),"
        " (:box, :period, :amount) ON CONFLICT (scope, period) DO UPDATE SET pending = pending + excluded.pending"
        " WHERE posted - refunded + pending + excluded.pending <= CASE excluded.scope WHEN :account THEN :account_most"
        " WHEN :key THEN :key_most ELSE :box_most END",
        {
            "account": account,
            "key": key,
            "box": BOX,
            "period": period,
            "amount": amount,
            "account_most": most.get(account, _NO_LIMIT_MICROS),
            "key_most": most.get(key, _NO_LIMIT_MICROS),
            "box_most": most.get(BOX, _NO_LIMIT_MICROS),
        },
    )
    return raised.rowcount == 3  # the account's, the key's and the box's


def settle(tx: Tx, reserve: Row, kind: Literal["post", "void"]) -> None:
    """A reserve's money is paid or let go."""
    kept = int(reserve["amount"]) if kind == "post" else 0
    tx.execute(
        "UPDATE spend SET pending = pending - ?, posted = posted + ? WHERE scope IN (?, ?, ?) AND period = ?",
        (reserve["amount"], kept, *_scopes(reserve["account_id"], reserve["budget_id"]), reserve["period"]),
    )


def refund(tx: Tx, post: Row) -> None:
    """A post's money is paid back: it makes room in the period of its reserve, and in no later one."""
    tx.execute(
        "UPDATE spend SET refunded = refunded + ? WHERE scope IN (?, ?, ?) AND period = ?",
        (post["amount"], *_scopes(post["account_id"], post["budget_id"]), post["period"]),
    )


def replenished(tx: Tx, account_id: str, period: str, amount: int) -> None:
    """Count what a rule has put into the wallet."""
    tx.execute(
        "INSERT INTO spend (scope, period, replenished) VALUES (?, ?, ?)"
        " ON CONFLICT (scope, period) DO UPDATE SET replenished = replenished + excluded.replenished",
        (account_scope(account_id), period, amount),
    )


def _scopes(account_id: str, budget_id: str) -> tuple[str, str, str]:
    return account_scope(account_id), key_scope(budget_id), BOX
