"""The owner's hand: each command carried out, in one write where it changes something, by the rooms that own it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from zsky_box import (
    accounts,
    invitations,
    keys,
    ledger,
    overage,
    passwords,
    pauses,
    plans,
    sessions,
    statements,
    timeline,
)
from zsky_box.accounts import Account, Replenish
from zsky_box.clock import Clock, rfc3339
from zsky_box.control.asked import (
    AcceptClock,
    AddAccount,
    CapKey,
    ChoosePlan,
    Command,
    Correct,
    InviteAccount,
    IssueKey,
    ListAccounts,
    ListKeys,
    PauseDevice,
    RefundJob,
    ResumeDevice,
    RevokeKey,
    RollPlan,
    RotateKey,
    SetCap,
    SetCeiling,
    SetOverage,
    SetPassword,
    SetReplenish,
    TopUp,
)
from zsky_box.db import Rows, Store, Tx
from zsky_box.errors import Refusal, StoreError, not_found
from zsky_box.ledger import spend
from zsky_box.pricing import usd
from zsky_box.secretfile import Secrets
from zsky_box.terms import Terms

OfAccount = ChoosePlan | RollPlan | TopUp | Correct | SetCap | SetCeiling | SetOverage | SetReplenish
"""What changes one account's plan, wallet or limits."""


def _nobody() -> None:
    """No service runs."""


class Means(Struct, frozen=True):
    """What commands are carried out with; `devices` are those of the running service, which `wake` has look again.

    `actor` is who is on record for them: the terminal, or the person in the browser, such as `owner:acc_3q9…`.
    """

    store: Store
    secrets: Secrets
    terms: Terms
    clock: Clock
    devices: tuple[str, ...] = ()
    wake: Callable[[], None] = _nobody
    actor: str = "terminal"


def run(command: Command, means: Means) -> dict[str, Any]:
    """Carry out one command for the owner; raises Refusal where it cannot be done."""
    match command:
        case ListKeys() | ListAccounts():
            with means.store.snapshot() as rows:
                return _listed(rows, command, means)
        case IssueKey() | RotateKey() | RevokeKey() | CapKey():
            return means.store.write(lambda tx: _on_keys(tx, command, means))
        case SetCeiling(account=None, ceiling_micros=ceiling):
            return means.store.write(lambda tx: _bound_box(tx, ceiling, means))
        case AddAccount():
            return means.store.write(lambda tx: _add(tx, command, means))
        case RefundJob():
            return means.store.write(lambda tx: pay_back(tx, command, means))
        case SetPassword():
            return _set_password(command, means)
        case InviteAccount():
            return means.store.write(lambda tx: _invite(tx, command, means))
        case PauseDevice() | ResumeDevice():
            return means.store.write(lambda tx: _on_devices(tx, command, means))
        case AcceptClock():
            return means.store.write(lambda tx: _accept_clock(tx, means))
        case _:
            return means.store.write(lambda tx: on_account(tx, command, means))


def account_view(rows: Rows, account: Account, means: Means) -> dict[str, Any]:
    """An account as the administrator sees it: plan, limits, wallet, and what this month has cost."""
    stands, rule = overage.view(rows, account.id, means.clock(), means.terms), account.replenish
    return {
        "id": account.id,
        "name": account.name,
        "role": account.role,
        "plan": stands.plan,
        "term": "annual" if account.annual else "monthly",
        "renews": account.renews,
        "paid_until": account.paid_until or None,
        "overage": stands.enabled,
        "cap_usd": usd(account.cap_micros),
        "ceiling_usd": None if account.ceiling_micros is None else usd(account.ceiling_micros),
        "spend_usd": stands.spend_usd,
        "pending_usd": stands.pending_usd,
        "remaining_usd": stands.remaining_usd,
        "wallet_usd": stands.wallet_usd,
        "replenish": None
        if rule is None
        else {
            "below_usd": usd(rule.below_micros),
            "add_usd": usd(rule.add_micros),
            "month_usd": usd(rule.month_micros),
        },
        "created_at": rfc3339(account.created_at),
    }


def _named(rows: Rows, name: str | None) -> Account:
    if name is not None:
        return accounts.named(rows, name)
    owner = accounts.owner(rows)
    if owner is None:
        raise StoreError("the box has no owner yet; run `zsky-box init` first")
    return owner


# Lists


def _listed(rows: Rows, command: ListKeys | ListAccounts, means: Means) -> dict[str, Any]:
    if isinstance(command, ListKeys):
        found = keys.listed(rows, _named(rows, command.account).id)
        return {"object": "list", "data": [key.view() for key in found]}
    ceiling = spend.box_ceiling_micros(rows)
    return {
        "object": "list",
        "data": [account_view(rows, account, means) for account in accounts.everybody(rows)],
        "box_ceiling_usd": None if ceiling is None else usd(ceiling),
    }


# Keys


def _on_keys(tx: Tx, command: IssueKey | RotateKey | RevokeKey | CapKey, means: Means) -> dict[str, Any]:
    account, now, pepper = _named(tx, command.account), means.clock(), means.secrets.pepper
    match command:
        case IssueKey(name=name, test=test, scopes=scopes, cap_micros=cap):
            _require_api(tx, account, means)
            key, secret = keys.issue(
                tx, pepper, account.id, now=now, actor=means.actor, name=name, test=test, scopes=scopes, cap_micros=cap
            )
            return {**key.view(), "api_key": secret}
        case RotateKey(key_id=key_id, overlap_seconds=overlap):
            if key_id is None and not keys.has_rotatable(tx, account.id, now):
                _require_api(tx, account, means)
            key, secret = keys.rotate(
                tx, pepper, account.id, key_id, overlap_seconds=overlap, now=now, actor=means.actor
            )
            return {**key.view(), "api_key": secret}
        case RevokeKey(key_id=key_id):
            return keys.revoke(tx, account.id, key_id, now=now, actor=means.actor).view()
        case CapKey(key_id=key_id, cap_micros=cap):
            at = timeline.advance_anyhow(tx, now)
            return keys.limit(tx, account.id, key_id, cap, now=at, actor=means.actor).view()


def _require_api(tx: Tx, account: Account, means: Means) -> None:
    present = timeline.present(tx, means.clock())
    keys.require_api(tx, account, means.terms.calendar.period_at(present).key)


# Devices


def _on_devices(tx: Tx, command: PauseDevice | ResumeDevice, means: Means) -> dict[str, Any]:
    known = {pauses.ALL, *means.devices}
    if means.devices and command.device not in known:
        raise Refusal(
            422, "invalid_field", f"This box has no device {command.device}; it has {', '.join(means.devices)}."
        )
    if isinstance(command, PauseDevice):
        pauses.pause(tx, command.device, means.clock(), unload=command.unload, actor=means.actor)
    else:
        pauses.resume(tx, command.device, means.clock(), actor=means.actor)
    tx.after_commit.append(means.wake)
    return {"object": "list", "data": pauses.listed(tx)}


# Accounts


def _add(tx: Tx, command: AddAccount, means: Means) -> dict[str, Any]:
    at = timeline.advance_anyhow(tx, means.clock())
    added = accounts.add_member(
        tx, command.name.strip(), command.plan, annual=command.annual, now=at, actor=means.actor
    )
    period = means.terms.calendar.period_at(at).key
    return account_view(tx, plans.roll(tx, added, period, at, means.terms), means)


def _set_password(command: SetPassword, means: Means) -> dict[str, Any]:
    with means.store.snapshot() as rows:
        account = accounts.named(rows, command.account)
    passwords.check(command.password, account.name)
    hashed = passwords.hashed(command.password)  # before the write, which others wait for

    def work(tx: Tx) -> int:
        passwords.set_for(tx, account.id, hashed, now=means.clock(), actor=means.actor)
        return sessions.end_all(tx, account.id, but=None, now=means.clock(), actor=means.actor)

    return {"id": account.id, "name": account.name, "sessions_ended": means.store.write(work)}


def _invite(tx: Tx, command: InviteAccount, means: Means) -> dict[str, Any]:
    account, now = accounts.named(tx, command.account), means.clock()
    path = f"/setup?token={invitations.invite(tx, account.id, now=now, actor=means.actor)}"
    settings = means.terms.settings
    return {
        "id": account.id,
        "name": account.name,
        "path": path,
        "url": f"{settings.public_url or settings.local_url()}{path}",
        "expires_at": rfc3339(now + invitations.HOURS * invitations.HOUR_US),
    }


def on_account(tx: Tx, command: OfAccount, means: Means) -> dict[str, Any]:
    """What a command makes of an account: its view afterwards, and what it moved."""
    account, now, terms = _named(tx, command.account), means.clock(), means.terms
    told: dict[str, Any] = {}
    match command:
        case ChoosePlan(plan=plan, annual=annual):
            at = timeline.advance_anyhow(tx, now)
            period = terms.calendar.period_at(at).key
            plans.choose(tx, account, plan, annual=annual, period=period, at=at, actor=means.actor, terms=terms)
        case RollPlan():
            overage.roll(tx, account.id, now=now, terms=terms)
        case TopUp(amount_micros=amount, note=note):
            number = overage.topup(tx, account.id, amount, actor=means.actor, now=now, terms=terms, why=note)
            told = {"ledger_id": number, "amount_usd": usd(amount)}
        case Correct(amount_micros=amount, reason=reason):
            number = overage.correct(tx, account.id, amount, actor=means.actor, now=now, terms=terms, why=reason)
            told = {"ledger_id": number, "amount_usd": usd(amount)}
        case SetCap(cap_micros=cap):
            overage.set_cap(tx, account.id, cap, actor=means.actor, now=now, terms=terms)
        case SetCeiling(ceiling_micros=ceiling):
            overage.set_ceiling(tx, account.id, ceiling, actor=means.actor, now=now, terms=terms)
        case SetOverage(enabled=enabled):
            overage.toggle(tx, account.id, enabled, actor=means.actor, now=now, terms=terms)
        case SetReplenish():
            overage.set_rule(tx, account.id, _rule(command), actor=means.actor, now=now, terms=terms)
    return account_view(tx, accounts.get(tx, account.id), means) | told


def _rule(command: SetReplenish) -> Replenish | None:
    below, add, month = command.below_micros, command.add_micros, command.month_micros
    if below is None and add is None and month is None:
        return None
    if below is None or add is None or month is None:
        raise Refusal(
            422, "invalid_field", "A rule says all three: below what, how much, and at most how much a month."
        )
    if month < add:
        raise Refusal(
            422, "invalid_field", f"At most ${usd(month)} a month would never add ${usd(add)}.", field="month_usd"
        )
    return Replenish(below, add, month)


def _bound_box(tx: Tx, ceiling_micros: int | None, means: Means) -> dict[str, Any]:
    overage.set_box_ceiling(tx, ceiling_micros, actor=means.actor, now=means.clock())
    return {"box_ceiling_usd": None if ceiling_micros is None else usd(ceiling_micros)}


# Ledger and clock


def pay_back(tx: Tx, command: RefundJob, means: Means) -> dict[str, Any]:
    """Pay back what a job was charged, each of its charges once; what was paid back to whom."""
    job = tx.one("SELECT account_id FROM job WHERE id = ?", (command.job_id,))
    if job is None:
        raise not_found("job")
    if not command.reason.strip():
        raise Refusal(422, "invalid_field", "A refund says why.", field="reason")
    last = tx.one("SELECT coalesce(max(id), 0) AS id FROM transfer")
    ordinals = None if command.ordinal is None else frozenset({command.ordinal})
    units = ledger.refund(
        tx, command.job_id, ordinals, actor=means.actor, why=command.reason, now=means.clock(), terms=means.terms
    )
    if units == 0:
        of = "" if command.ordinal is None else f" for its image {command.ordinal}"
        raise Refusal(
            422, "invalid_field", f"Nothing that {command.job_id} was charged{of} is left to pay back.", field="job_id"
        )
    refunds = tx.all(
        "SELECT id, ledger, amount FROM transfer WHERE id > ? AND kind = 'refund' ORDER BY id LIMIT 10",
        (0 if last is None else last["id"],),
    )
    return {
        "job_id": command.job_id,
        "account": accounts.get(tx, job["account_id"]).name,
        "units": units,
        "included_units": sum(row["ledger"] != "usd" for row in refunds),
        "amount_usd": usd(sum(row["amount"] for row in refunds if row["ledger"] == "usd")),
        "ledger_ids": [row["id"] for row in refunds],
    }


def _accept_clock(tx: Tx, means: Means) -> dict[str, Any]:
    now = means.clock()
    was = now + timeline.behind_us(tx, now)
    accepted = timeline.accept(tx, now, means.actor)
    reopened = 0
    if accepted:
        reopened = statements.reopen_after(tx, now)
        period = means.terms.calendar.period_at(now).key
        for account in accounts.everybody(tx):
            plans.undo_after(tx, account, period, now)
    return {"accepted": accepted, "at": rfc3339(now), "was": rfc3339(was), "statements_reopened": reopened}
