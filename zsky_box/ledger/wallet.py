"""An account's money: filled by the administrator or by a rule, spent beyond the included units, never lapsing."""

from __future__ import annotations

from typing import Final

from zsky_box import audit
from zsky_box.accounts import Account
from zsky_box.db import Rows, Tx
from zsky_box.errors import Refusal
from zsky_box.ledger import spend, transfers
from zsky_box.ledger.transfers import FUNDING, Entry
from zsky_box.periods import Period
from zsky_box.pricing import MICROS_PER_USD, usd

BY_RULE: Final = "replenish"
TOPUP_MAX_MICROS: Final = 1_000_000 * MICROS_PER_USD
WALLET_MAX_MICROS: Final = 1_000_000_000 * MICROS_PER_USD


def wallet_micros(rows: Rows, account_id: str) -> int:
    """What can be spent: what is held for open jobs is not counted."""
    return transfers.available(rows, transfers.wallet(account_id), "usd")


def topup(tx: Tx, account: Account, amount: int, period: Period, *, actor: str, at: int, why: str = "") -> int:
    """Put money into the wallet; the transfer's id. Raises 422 for an amount out of bounds."""
    if not 0 < amount <= TOPUP_MAX_MICROS:
        raise Refusal(422, "invalid_field", f"A top-up is $0.01 to ${usd(TOPUP_MAX_MICROS)}.", field="amount_usd")
    _check_room(wallet_micros(tx, account.id), amount)
    return _put(tx, account, "topup", FUNDING, transfers.wallet(account.id), amount, period, actor, at, why)


def correct(tx: Tx, account: Account, amount: int, period: Period, *, actor: str, at: int, why: str) -> int:
    """Put right what was entered wrongly: into the wallet, or out of it where the amount is negative.

    Raises 422 for nothing, for too much, and for more than the wallet has.
    """
    if not 0 < abs(amount) <= TOPUP_MAX_MICROS:
        raise Refusal(
            422, "invalid_field", f"A correction is $0.01 to ${usd(TOPUP_MAX_MICROS)} either way.", field="amount_usd"
        )
    if not why.strip():
        raise Refusal(422, "invalid_field", "A correction says why.", field="reason")
    own, has = transfers.wallet(account.id), wallet_micros(tx, account.id)
    if has + amount < 0:
        raise Refusal(422, "invalid_field", f"The wallet has ${usd(has)} to take from.", field="amount_usd")
    _check_room(has, amount)
    debit, credit = (FUNDING, own) if amount > 0 else (own, FUNDING)
    return _put(tx, account, "correct", debit, credit, abs(amount), period, actor, at, why)


def replenishable_micros(rows: Rows, account: Account, need: int, period: str) -> int:
    """What the account's rule would add now, if taking `need` out of the wallet leaves it below the rule's level."""
    rule = account.replenish
    if rule is None or wallet_micros(rows, account.id) - need >= rule.below_micros:
        return 0
    done = spend.spend(rows, spend.account_scope(account.id), period).replenished
    return rule.add_micros if done + rule.add_micros <= rule.month_micros else 0


def replenish(tx: Tx, account: Account, need: int, period: Period, at: int) -> int:
    """Add what the rule says, as one top-up, counted against the rule's month; the micros added."""
    amount = replenishable_micros(tx, account, need, period.key)
    if amount > 0:
        own = transfers.wallet(account.id)
        why = f"below ${usd(account.replenish.below_micros)}" if account.replenish else ""
        _put(tx, account, "topup", FUNDING, own, amount, period, BY_RULE, at, why)
        spend.replenished(tx, account.id, period.key, amount)
    return amount


def note_level(tx: Tx, account: Account, low_micros: int, at: int) -> bool:
    """Say once that the wallet runs low while overage is on, and again after it was filled; True when said now."""
    has = wallet_micros(tx, account.id)
    is_low = has < low_micros and (account.overage or account.wallet_is_low)
    if is_low == account.wallet_is_low:
        return False
    tx.execute("UPDATE account SET wallet_is_low = ? WHERE id = ?", (int(is_low), account.id))
    if not is_low:
        return False
    audit.append(
        tx,
        at=at,
        account_id=account.id,
        actor="box",
        action="alert.wallet_low",
        subject=account.id,
        after={"wallet_usd": usd(has), "below_usd": usd(low_micros)},
    )
    return True


def _check_room(has: int, amount: int) -> None:
    if has + amount > WALLET_MAX_MICROS:
        raise Refusal(422, "invalid_field", f"A wallet holds at most ${usd(WALLET_MAX_MICROS)}.", field="amount_usd")


def _put(
    tx: Tx,
    account: Account,
    kind: transfers.Kind,
    debit: str,
    credit: str,
    amount: int,
    period: Period,
    actor: str,
    at: int,
    why: str,
) -> int:
    return transfers.move(
        tx,
        Entry(
            kind=kind,
            ledger="usd",
            debit=debit,
            credit=credit,
            amount=amount,
            account_id=account.id,
            period=period.key,
            actor=actor,
            at=at,
            why=why,
        ),
    )
