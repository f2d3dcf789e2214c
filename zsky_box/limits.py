"""What bounds an account's money now, and what counts against it: its cap and ceiling, its keys' caps, its rule."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from zsky_box.accounts import Account
from zsky_box.db import Row, Rows
from zsky_box.ledger import spend
from zsky_box.pricing import usd

KEYS_SHOWN_MAX: Final = 100
_CAPPED: Final = (
    "SELECT * FROM api_key WHERE account_id = ? AND cap_micros IS NOT NULL AND revoked_at IS NULL"
    " AND (expires_at IS NULL OR expires_at > ?) ORDER BY created_at DESC, id LIMIT ?"
)


class KeyLimitView(Struct, kw_only=True):
    """A key with a cap of its own, and what its line has spent and holds."""

    id: str
    name: str
    last_four: str
    cap_usd: str
    spend_usd: str
    pending_usd: str


class BoxLimitView(Struct, kw_only=True):
    """The ceiling over all accounts together, where less of it is left than of the account's own cap.

    Only the owner is told: with what the others spend subtracted it would say what that is.
    """

    ceiling_usd: str
    remaining_usd: str


class RuleView(Struct, kw_only=True):
    """Below `below_usd`, add `add_usd`, at most `month_usd` a month, of which so much was added."""

    below_usd: str
    add_usd: str
    month_usd: str
    added_usd: str


class LimitsView(Struct, kw_only=True):
    """The limits in force now, with what counts against them in the month."""

    enabled: bool
    cap_usd: str
    ceiling_usd: str | None
    spend_usd: str
    pending_usd: str
    keys: list[KeyLimitView]
    box: BoxLimitView | None
    replenish: RuleView | None


def limits(rows: Rows, account: Account, period: str, now: int) -> LimitsView:
    """What bounds an account now, with what counts against it in the period of this key."""
    spent = spend.spend(rows, spend.account_scope(account.id), period)
    ceiling, box = spend.box_ceiling_micros(rows), None
    if ceiling is not None and account.role == "owner":
        left = max(0, ceiling - spend.spend(rows, spend.BOX, period).committed_micros)
        if left < max(0, account.limit_micros - spent.committed_micros):
            box = BoxLimitView(ceiling_usd=usd(ceiling), remaining_usd=usd(left))
    rule = None
    if account.replenish is not None:
        rule = RuleView(
            below_usd=usd(account.replenish.below_micros),
            add_usd=usd(account.replenish.add_micros),
            month_usd=usd(account.replenish.month_micros),
            added_usd=usd(spent.replenished),
        )
    return LimitsView(
        enabled=account.overage,
        cap_usd=usd(account.limit_micros),
        ceiling_usd=None if account.ceiling_micros is None else usd(account.ceiling_micros),
        spend_usd=usd(spent.net_micros),
        pending_usd=usd(spent.pending),
        keys=[_key_limit(rows, row, period) for row in rows.all(_CAPPED, (account.id, now, KEYS_SHOWN_MAX))],
        box=box,
        replenish=rule,
    )


def _key_limit(rows: Rows, row: Row, period: str) -> KeyLimitView:
    spent = spend.spend(rows, spend.key_scope(row["budget_id"]), period)
    return KeyLimitView(
        id=row["id"],
        name=row["name"],
        last_four=row["last_four"],
        cap_usd=usd(row["cap_micros"]),
        spend_usd=usd(spent.net_micros),
        pending_usd=usd(spent.pending),
    )
