"""What an account spends beyond its included units: whether it may, how much at most, and how things stand.

The toggle and the cap are the user's; ceilings, the wallet and its rule are the owner's. Each change is one audit row.
Lowering a limit is never refused, and counts from the next reserve on: what is open finishes.
"""

from __future__ import annotations

from typing import Any, Final

from zsky_box import accounts, audit, plans, timeline
from zsky_box.accounts import Account, Replenish
from zsky_box.clock import rfc3339
from zsky_box.db import Rows, Tx
from zsky_box.errors import FieldError, InvalidFields
from zsky_box.ledger import alerts, allowance, spend, wallet
from zsky_box.ledger.alerts import Alert
from zsky_box.manifest import JobType
from zsky_box.pricing import MICROS_PER_USD, usd
from zsky_box.schemas import OverageView, PeriodView, PricesView, UnitsView
from zsky_box.terms import KINDS, Terms

CAP_MIN_MICROS: Final = 5 * MICROS_PER_USD
CAP_MAX_MICROS: Final = 1_000 * MICROS_PER_USD


def toggle(tx: Tx, account_id: str, enabled: bool | None, *, actor: str, now: int, terms: Terms) -> tuple[Alert, ...]:
    """Turn overage on or off; without a word, to what it is not. It gates new reserves only."""
    account = accounts.get(tx, account_id)
    chosen = (not account.overage) if enabled is None else enabled
    at = timeline.advance_anyhow(tx, now)
    if chosen != account.overage:
        tx.execute("UPDATE account SET overage = ? WHERE id = ?", (int(chosen), account_id))
        _audit(tx, account_id, "overage.toggled", actor, at, {"enabled": account.overage}, {"enabled": chosen})
    return _told(tx, account_id, at, terms)


def set_cap(tx: Tx, account_id: str, cap_micros: int, *, actor: str, now: int, terms: Terms) -> tuple[Alert, ...]:
    """Set the spend cap; raises 422 beyond $5 to $1,000 or the owner's ceiling. One below what is spent is accepted."""
    account = accounts.get(tx, account_id)
    most = CAP_MAX_MICROS if account.ceiling_micros is None else min(CAP_MAX_MICROS, account.ceiling_micros)
    if not CAP_MIN_MICROS <= cap_micros <= CAP_MAX_MICROS:
        raise _bad_cap(f"the cap is ${usd(CAP_MIN_MICROS)} to ${usd(CAP_MAX_MICROS)} a month")
    if cap_micros > max(most, CAP_MIN_MICROS):  # the least is always a choice: the ceiling counts beside it
        raise _bad_cap(f"the owner has set a ceiling of ${usd(most)} a month for this account")
    at = timeline.advance_anyhow(tx, now)
    if cap_micros != account.cap_micros:
        tx.execute("UPDATE account SET cap_micros = ? WHERE id = ?", (cap_micros, account_id))
        before, after = {"cap_usd": usd(account.cap_micros)}, {"cap_usd": usd(cap_micros)}
        _audit(tx, account_id, "overage.cap", actor, at, before, after)
    return _told(tx, account_id, at, terms)


def set_ceiling(tx: Tx, account_id: str, micros: int | None, *, actor: str, now: int, terms: Terms) -> None:
    """The owner's ceiling over an account's cap; None lifts it."""
    account = accounts.get(tx, account_id)
    at = timeline.advance_anyhow(tx, now)
    if micros != account.ceiling_micros:
        tx.execute("UPDATE account SET ceiling_micros = ? WHERE id = ?", (micros, account_id))
        before, after = {"ceiling_usd": _usd(account.ceiling_micros)}, {"ceiling_usd": _usd(micros)}
        _audit(tx, account_id, "overage.ceiling", actor, at, before, after)
    _told(tx, account_id, at, terms)


def set_box_ceiling(tx: Tx, micros: int | None, *, actor: str, now: int) -> None:
    """The owner's ceiling over what all accounts spend together in a month; None lifts it."""
    at, old = timeline.advance_anyhow(tx, now), spend.box_ceiling_micros(tx)
    if micros != old:
        tx.execute("UPDATE box SET ceiling_micros = ?", (micros,))
        before, after = {"ceiling_usd": _usd(old)}, {"ceiling_usd": _usd(micros)}
        _audit(tx, None, "overage.ceiling", actor, at, before, after)


def set_rule(tx: Tx, account_id: str, rule: Replenish | None, *, actor: str, now: int, terms: Terms) -> None:
    """The rule that fills the wallet by itself; None ends it. What it calls for now, it does now."""
    account = accounts.get(tx, account_id)
    at = timeline.advance_anyhow(tx, now)
    if rule != account.replenish:
        values = (None, None, None) if rule is None else (rule.below_micros, rule.add_micros, rule.month_micros)
        tx.execute(
            "UPDATE account SET replenish_below_micros = ?, replenish_add_micros = ?, replenish_month_micros = ?"
            " WHERE id = ?",
            (*values, account_id),
        )
        _audit(tx, account_id, "overage.replenish", actor, at, _rule_view(account.replenish), _rule_view(rule))
    replenish(tx, account_id, now=now, terms=terms)


def replenish(tx: Tx, account_id: str, *, now: int, terms: Terms) -> int:
    """Do what the account's rule calls for now; the micros added."""
    account = accounts.get(tx, account_id)
    if not timeline.is_possible(now) or timeline.behind_us(tx, now) > timeline.TOLERANCE_US:
        return 0  # no money moves by a clock that nothing else is accepted by
    at = timeline.advance_anyhow(tx, now)
    added = wallet.replenish(tx, account, 0, terms.calendar.period_at(at), at)
    _told(tx, account_id, at, terms)
    return added


def topup(tx: Tx, account_id: str, amount_micros: int, *, actor: str, now: int, terms: Terms, why: str = "") -> int:
    """Fill the wallet by hand; the transfer's id. Raises 422 for an amount out of bounds, 503 for a clock behind."""
    at = timeline.advance(tx, now)
    account, period = accounts.get(tx, account_id), terms.calendar.period_at(at)
    number = wallet.topup(tx, account, amount_micros, period, actor=actor, at=at, why=why)
    _told(tx, account_id, at, terms)
    return number


def correct(tx: Tx, account_id: str, amount_micros: int, *, actor: str, now: int, terms: Terms, why: str) -> int:
    """Put the wallet right, either way; the transfer's id. Raises 422 for what it cannot be."""
    at = timeline.advance(tx, now)
    account, period = accounts.get(tx, account_id), terms.calendar.period_at(at)
    number = wallet.correct(tx, account, amount_micros, period, actor=actor, at=at, why=why)
    _told(tx, account_id, at, terms)
    return number


def view(rows: Rows, account_id: str, now: int, terms: Terms) -> OverageView:
    """How things stand, as the next reserve would find them."""
    account, at = accounts.get(rows, account_id), timeline.present(rows, now)
    period = terms.calendar.period_at(at)
    spent = spend.spend(rows, spend.account_scope(account.id), period.key)
    limit = account.limit_micros
    included: dict[JobType, UnitsView] = {}
    for kind in KINDS:
        of = allowance(rows, account, kind, period.key, terms.settings)
        included[kind] = UnitsView(granted=of.granted, used=of.used, pending=of.pending, left=of.left)
    return OverageView(
        enabled=account.overage,
        cap_usd=usd(limit),
        spend_usd=usd(spent.net_micros),
        pending_usd=usd(spent.pending),
        remaining_usd=usd(max(0, limit - spent.committed_micros)),
        wallet_usd=usd(wallet.wallet_micros(rows, account.id)),
        plan=account.plan_in(period.key),
        prices=PricesView(video_usd=usd(terms.price_micros("video")), image_usd=usd(terms.price_micros("image"))),
        included=included,
        period=PeriodView(start=rfc3339(period.start_us), end=rfc3339(period.end_us)),
    )


def roll(tx: Tx, account_id: str, *, now: int, terms: Terms) -> Account:
    """Put the terms of the plan on record that have begun or ended by now."""
    account = accounts.get(tx, account_id)
    period = terms.calendar.period_at(timeline.present(tx, now))
    if plans.is_due(account, period.key):
        account = plans.roll(tx, account, period.key, timeline.advance_anyhow(tx, now), terms)
    return account


def _told(tx: Tx, account_id: str, at: int, terms: Terms) -> tuple[Alert, ...]:
    account = accounts.get(tx, account_id)
    return alerts.after_spending(tx, account, terms.calendar.period_at(at).key, at, terms)


def _rule_view(rule: Replenish | None) -> dict[str, Any]:
    if rule is None:
        return {}
    return {
        "below_usd": usd(rule.below_micros),
        "add_usd": usd(rule.add_micros),
        "month_usd": usd(rule.month_micros),
    }


def _usd(micros: int | None) -> str | None:
    return None if micros is None else usd(micros)


def _bad_cap(sentence: str) -> InvalidFields:
    return InvalidFields([FieldError("cap_usd", "invalid_field", f"cap_usd: {sentence}.")])


def _audit(
    tx: Tx, account_id: str | None, action: str, actor: str, at: int, before: dict[str, Any], after: dict[str, Any]
) -> None:
    audit.append(
        tx,
        at=at,
        account_id=account_id,
        actor=actor,
        action=action,
        subject=account_id or "box",
        before=before,
        after=after,
    )
