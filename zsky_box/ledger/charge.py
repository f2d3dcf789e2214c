"""What a job costs, from its reserve to its end: included units first, then the wallet, all units or none.

`assess` says what a charge would take and why it would be refused; `reserve` takes it, in one transaction whose
statements check each limit anew; `resolve` posts or voids it; `refund` pays back what was posted.
"""

from __future__ import annotations

from msgspec import Struct

from zsky_box import accounts, plans, timeline
from zsky_box.accounts import PLANS, Account
from zsky_box.clock import SECOND_US, rfc3339
from zsky_box.db import Rows, Tx
from zsky_box.errors import Refusal
from zsky_box.ledger import alerts, spend, transfers, wallet
from zsky_box.ledger.transfers import CONSUMED, ISSUER, REVENUE, Entry, Resolution, included
from zsky_box.ledger.units import Allowance, allowance, grant, grant_lapsed, is_included, open_period
from zsky_box.manifest import JobType
from zsky_box.periods import Period
from zsky_box.pricing import usd
from zsky_box.terms import Terms

PLAN_WITHOUT_API = "The plan free has no API: choose the plan max, or fill the wallet and turn overage on."


class Payer(Struct, frozen=True):
    """Whose money a job takes: an account, through one of its keys' lines or in person."""

    account_id: str
    budget_id: str
    key_cap_micros: int | None = None
    in_person: bool = False


class Assessment(Struct, frozen=True):
    """How a charge divides, what of it the wallet pays, and the refusal that it would meet, if any."""

    included_units: int
    wallet_units: int
    amount_micros: int
    refusal: Refusal | None
    limits: tuple[spend.Limit, ...] = ()


class Held(Struct, frozen=True):
    """What a reserve has taken; `wordmarked` of its first units bear the wordmark. `alerts` are to be told."""

    included_units: int
    wallet_units: int
    amount_micros: int
    wordmarked: int
    alerts: tuple[alerts.Alert, ...]


def assess(rows: Rows, account: Account, payer: Payer, kind: JobType, units: int, at: int, terms: Terms) -> Assessment:
    """What a charge of so many units would be at this time; changes nothing."""
    period = terms.calendar.period_at(at)
    plan = PLANS[account.plan_in(period.key)]
    # Through the API a plan without one gives no included units: what the wallet has can still be spent.
    of_plan = Allowance(0, 0, 0)
    if payer.in_person or plan.has_api:
        of_plan = allowance(rows, account, kind, period.key, terms.settings)
    taken = min(of_plan.left, units)
    amount = (units - taken) * terms.price_micros(kind)
    if amount == 0:
        return Assessment(taken, 0, 0, None)
    limits = spend.limits(rows, account, payer.budget_id, payer.key_cap_micros, period.key)
    has = wallet.wallet_micros(rows, account.id)
    filled = wallet.replenishable_micros(rows, account, amount, period.key)
    refusal = None
    if not plan.has_api and not payer.in_person and has + filled == 0:
        refusal = Refusal(403, "plan_without_api", PLAN_WITHOUT_API)
    elif not account.overage:
        refusal = _exhausted(of_plan, kind, units, period, at, has_units=payer.in_person or plan.has_api)
    elif reached := [limit for limit in limits if amount > limit.room_micros]:
        refusal = _reached(reached[0], amount, period, at)
    elif has + filled < amount:
        refusal = Refusal(402, "wallet_empty", f"The wallet has ${usd(has)} and this costs ${usd(amount)}: fill it.")
    return Assessment(taken, units - taken, amount, refusal, limits)


def reserve(tx: Tx, payer: Payer, kind: JobType, units: int, job_id: str, now: int, terms: Terms) -> Held:
    """Hold `units` for a job, one reserve each, all or none; raises the refusal that `assess` tells, or 503."""
    at = timeline.advance(tx, now)
    period = terms.calendar.period_at(at)
    account = plans.roll(tx, accounts.get(tx, payer.account_id), period.key, at, terms)
    found = assess(tx, account, payer, kind, units, at, terms)
    if found.refusal is not None:
        raise found.refusal
    plan = PLANS[account.plan_in(period.key)]
    if payer.in_person or plan.has_api:
        open_period(tx, account, kind, period, at, terms.settings)
    told: tuple[alerts.Alert, ...] = ()
    source = included(account.id, period.key)
    if found.included_units and not transfers.hold(tx, kind, source, CONSUMED, found.included_units):
        raise AssertionError("units that were left a moment ago, in the same transaction, are gone")
    for ordinal in range(found.included_units):
        _record(tx, payer, kind, source, CONSUMED, 1, job_id, ordinal, period, at)
    if found.wallet_units:
        told = _hold_money(tx, account, payer, found, period, at, terms)
        source, price = transfers.wallet(account.id), terms.price_micros(kind)
        for ordinal in range(found.included_units, units):
            _record(tx, payer, "usd", source, REVENUE, price, job_id, ordinal, period, at)
    wordmarked = found.included_units if plan.has_wordmark else 0
    return Held(found.included_units, found.wallet_units, found.amount_micros, wordmarked, told)


def resolve(tx: Tx, job_id: str, posted: frozenset[int] | None, *, actor: str, now: int, terms: Terms) -> None:
    """Post the reserves of a job whose ordinals are in `posted` (None: all of them) and void the rest.

    Reserves that are resolved already stay as they are; a job of a test key has none.
    """
    open_reserves = tx.all(
        "SELECT * FROM transfer r WHERE job_id = ? AND kind = 'reserve' AND NOT EXISTS"
        " (SELECT 1 FROM transfer x WHERE x.pending_id = r.id AND x.kind IN ('post', 'void')) ORDER BY id",
        (job_id,),
    )
    if not open_reserves:
        return
    at = timeline.advance_anyhow(tx, now)
    period = terms.calendar.period_at(at)
    for row in open_reserves:
        kind: Resolution = "post" if posted is None or row["ordinal"] in posted else "void"
        transfers.settle(tx, row, kind, actor, at)
        if not is_included(row):
            spend.settle(tx, row, kind)
        elif kind == "void":
            grant_lapsed(tx, row, actor, period, at)


def refund(
    tx: Tx, job_id: str, ordinals: frozenset[int] | None, *, actor: str, why: str, now: int, terms: Terms
) -> int:
    """Pay back what a job's posts took (of these ordinals, None: all), once each; how many units were paid back.

    Money returns to the wallet; an included unit is granted again in the current period.
    """
    posts = tx.all(
        "SELECT * FROM transfer p WHERE job_id = ? AND kind = 'post' AND NOT EXISTS"
        " (SELECT 1 FROM transfer x WHERE x.pending_id = p.id AND x.kind = 'refund') ORDER BY id",
        (job_id,),
    )
    chosen = [row for row in posts if ordinals is None or row["ordinal"] in ordinals]
    if not chosen:
        return 0
    at = timeline.advance(tx, now)
    period = terms.calendar.period_at(at)
    for post in chosen:
        back = ISSUER if is_included(post) else post["debit"]
        entry = transfers.following(
            post, "refund", actor, at, debit=post["credit"], credit=back, period=period.key, why=why
        )
        transfers.move(tx, entry)
        if is_included(post):
            grant(tx, post["account_id"], post["ledger"], period.key, post["amount"], actor, at, f"refund of {job_id}")
        else:
            spend.refund(tx, post)
    account = accounts.get(tx, chosen[0]["account_id"])
    wallet.note_level(tx, account, terms.low_wallet_micros, at)
    return len(chosen)


def _hold_money(
    tx: Tx, account: Account, payer: Payer, found: Assessment, period: Period, at: int, terms: Terms
) -> tuple[alerts.Alert, ...]:
    amount = found.amount_micros
    wallet.replenish(tx, account, amount, period, at)
    if not (
        spend.hold(tx, account.id, payer.budget_id, period.key, amount, found.limits)
        and transfers.hold(tx, "usd", transfers.wallet(account.id), REVENUE, amount)
    ):
        raise AssertionError("money that was there a moment ago, in the same transaction, is gone")
    return alerts.after_spending(tx, account, period.key, at, terms)


def _record(
    tx: Tx,
    payer: Payer,
    ledger: transfers.Ledger,
    debit: str,
    credit: str,
    amount: int,
    job_id: str,
    ordinal: int,
    period: Period,
    at: int,
) -> None:
    transfers.record_reserve(
        tx,
        Entry(
            kind="reserve",
            ledger=ledger,
            debit=debit,
            credit=credit,
            amount=amount,
            account_id=payer.account_id,
            period=period.key,
            actor=payer.account_id,
            at=at,
            job_id=job_id,
            ordinal=ordinal,
            budget_id=payer.budget_id if ledger == "usd" else None,
        ),
    )


def _exhausted(left: Allowance, kind: JobType, units: int, period: Period, at: int, *, has_units: bool) -> Refusal:
    detail = (
        f"The plan's {left.granted} {kind}s of this month are used up or held by open jobs ({left.left} left, {units}"
        f" asked for); they are renewed at {rfc3339(period.end_us)}, and overage is off."
    )
    if not has_units:  # no month renews what the plan does not give
        detail = (
            "The plan free includes nothing through the API: turn overage on to spend the wallet, or choose the plan"
            " max."
        )
    return Refusal(429, "allowance_exhausted", detail, headers={"Retry-After": _until_renewed(period, at)})


def _reached(limit: spend.Limit, amount: int, period: Period, at: int) -> Refusal:
    stands = f", ${usd(limit.micros)} a month, leaves ${usd(limit.room_micros)}"
    if limit.scope == spend.BOX:  # its figures would tell what the other accounts spend
        stands = " is reached"
    return Refusal(
        429,
        "cap_reached",
        f"This costs ${usd(amount)}, and the {limit.what}{stands} until {rfc3339(period.end_us)}; jobs that are open"
        " count.",
        headers={"Retry-After": _until_renewed(period, at)},
    )


def _until_renewed(period: Period, at: int) -> str:
    return str(-(-(period.end_us - at) // SECOND_US))
