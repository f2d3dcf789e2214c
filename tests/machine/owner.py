"""What the owner and the users do with money and plans in a world; each refusal is the one that the model tells.

An outcome that the disk has hidden is found out once the box is up again: what was done has left an audit row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.machine.world import World, or_refusal
from tests.stores import PEPPER
from zsky_box import accounts, keys, ledger, overage, plans, statements, timeline
from zsky_box.accounts import Replenish
from zsky_box.bookkeeping import Bookkeeping
from zsky_box.db import Tx
from zsky_box.errors import Refusal

ACTOR = "terminal"


def _do(world: World, work: Callable[[Tx], Any], then: Callable[[], None], code: str | None = None) -> None:
    """Do it in a write; the model follows with `then`. `code` is the refusal that must come instead."""
    audited = _audited(world)
    told = world.ask(lambda: world.rooms.store.write(work))
    if isinstance(told, Refusal) and told.code == "storage_error":
        world.unsure.append(lambda: then() if _audited(world, unless=ALSO_AT_START) > audited else None)
    elif isinstance(told, Refusal):
        assert told.code == code, told
    else:
        assert code is None, f"{code} was to come"
        then()


ALSO_AT_START = ("ledger.void", "ledger.post", "ledger.grant", "calendar.zone")


def _audited(world: World, unless: tuple[str, ...] = ()) -> int:
    """How many audit rows there are: the newest that a start does not write by itself."""
    marks = ",".join("?" * len(unless))
    row = world.rooms.store.one(
        f"SELECT coalesce(max(id), 0) AS id FROM audit WHERE action NOT IN ({marks})",  # noqa: S608
        unless,
    )
    assert row is not None
    return int(row["id"])


def _behind(world: World) -> str | None:
    return "clock_behind" if world.is_clock_behind else None


# The wallet


def topup(world: World, who: int, amount: int) -> None:
    money, rooms = world.money(who), world.rooms

    def then() -> None:
        money.wallet += amount

    _do(
        world,
        lambda tx: overage.topup(tx, money.id, amount, actor=ACTOR, now=rooms.clock(), terms=rooms.terms),
        then,
        _behind(world) or (None if amount > 0 else "invalid_field"),
    )


def correct(world: World, who: int, amount: int) -> None:
    money, rooms = world.money(who), world.rooms

    def then() -> None:
        money.wallet += amount

    _do(
        world,
        lambda tx: overage.correct(
            tx, money.id, amount, actor=ACTOR, now=rooms.clock(), terms=rooms.terms, why="mistyped"
        ),
        then,
        _behind(world) or (None if amount and money.wallet + amount >= 0 else "invalid_field"),
    )


def refund(world: World, job_id: str, ordinals: frozenset[int] | None) -> None:
    """What was posted comes back once; of what was not, nothing does."""
    rooms, account_id = world.rooms, world.rooms.row(job_id)["account_id"]
    units = world.model.jobs.get(job_id, [])
    due = sum(unit.state == "posted" and (ordinals is None or number in ordinals) for number, unit in enumerate(units))

    def work(tx: Tx) -> int:
        return ledger.refund(tx, job_id, ordinals, actor=ACTOR, why="unusable", now=rooms.clock(), terms=rooms.terms)

    def then() -> None:
        chosen = None if ordinals is None else set(ordinals)
        if job_id in world.model.jobs:
            assert world.model.refund(account_id, job_id, chosen, world.at_us) == due

    _do(world, work, then, _behind(world) if due else None)


def set_rule(world: World, who: int, rule: tuple[int, int, int] | None) -> None:
    money, rooms = world.money(who), world.rooms

    def then() -> None:
        money.rule = rule
        if _behind(world) is None:  # by a clock that nothing else is accepted by, no money moves
            world.model.replenish(money.id, world.at_us)

    chosen = None if rule is None else Replenish(*rule)
    _do(
        world,
        lambda tx: overage.set_rule(tx, money.id, chosen, actor=ACTOR, now=rooms.clock(), terms=rooms.terms),
        then,
    )


# Limits


def toggle(world: World, who: int, enabled: bool | None) -> None:
    money, rooms = world.money(who), world.rooms
    chosen = not money.overage if enabled is None else enabled

    def then() -> None:
        money.overage = chosen

    _do(
        world,
        lambda tx: overage.toggle(tx, money.id, enabled, actor=money.id, now=rooms.clock(), terms=rooms.terms),
        then,
    )


def set_cap(world: World, who: int, cap: int) -> None:
    money, rooms = world.money(who), world.rooms
    most = 1_000_000_000 if money.ceiling is None else max(5_000_000, min(1_000_000_000, money.ceiling))

    def then() -> None:
        money.cap = cap

    _do(
        world,
        lambda tx: overage.set_cap(tx, money.id, cap, actor=money.id, now=rooms.clock(), terms=rooms.terms),
        then,
        None if 5_000_000 <= cap <= most else "invalid_field",
    )


def set_ceiling(world: World, who: int, ceiling: int | None) -> None:
    money, rooms = world.money(who), world.rooms

    def then() -> None:
        money.ceiling = ceiling

    _do(
        world,
        lambda tx: overage.set_ceiling(tx, money.id, ceiling, actor=ACTOR, now=rooms.clock(), terms=rooms.terms),
        then,
    )


def set_box_ceiling(world: World, ceiling: int | None) -> None:
    def then() -> None:
        world.model.box_ceiling = ceiling

    now = world.rooms.clock()
    _do(world, lambda tx: overage.set_box_ceiling(tx, ceiling, actor=ACTOR, now=now), then)


def set_key_cap(world: World, who: int, line: int, cap: int | None) -> None:
    key, now = world.caller(who, line).key, world.rooms.clock()
    _do(
        world,
        lambda tx: keys.limit(tx, key.account_id, key.id, cap, now=now, actor=ACTOR),
        lambda: None,
    )


def rotate(world: World, who: int, line: int, overlap_seconds: int) -> None:
    """The successor goes on with the line's budget and cap; the old one is revoked, to make room for others."""
    old, now, store = world.caller(who, line).key, world.rooms.clock(), world.rooms.store

    def work(tx: Tx) -> str:
        return keys.rotate(
            tx, PEPPER, old.account_id, old.id, overlap_seconds=overlap_seconds, now=now, actor=old.account_id
        )[1]

    def lost() -> None:
        """Nobody has seen the new key: where the old one has ended or will end, there is a fresh one."""
        known = or_refusal(lambda: world.caller(who, line))
        if isinstance(known, Refusal) or known.key.expires_at is not None:
            world.people[who].secrets[line] = world.issue(old.account_id)

    secret = or_refusal(lambda: store.write(work))
    if isinstance(secret, Refusal):
        assert secret.code == "storage_error"
        world.unsure.append(lost)
        return
    world.people[who].secrets[line] = secret
    new = world.caller(who, line).key
    assert (new.budget_id, new.cap_micros) == (old.budget_id, old.cap_micros)
    store.write(lambda tx: keys.revoke(tx, old.account_id, old.id, now=now, actor=ACTOR))


# Plans and time


def choose_plan(world: World, who: int, plan: Any, annual: bool) -> None:
    money, rooms, at = world.money(who), world.rooms, world.at_us

    def work(tx: Tx) -> None:
        reached = timeline.advance_anyhow(tx, rooms.clock())
        period = rooms.terms.calendar.period_at(reached).key
        account = accounts.get(tx, money.id)
        plans.choose(tx, account, plan, annual=annual, period=period, at=reached, actor=ACTOR, terms=rooms.terms)

    _do(world, work, lambda: money.plan.choose(plan, annual, world.model.month(at)))


def sweep(world: World) -> None:
    """What time itself calls for: months are closed, terms begin and end, wallets are filled by their rules."""
    rooms = world.rooms
    before = _audited_of(world)
    Bookkeeping(rooms.store, rooms.terms, rooms.clock).sweep()
    if world.disk_may_fail:  # it has logged what it could not do: one write an account
        world.unsure.append(lambda: _swept(world, unless_still=before))
    else:
        _swept(world, unless_still={})


def _swept(world: World, unless_still: dict[str, int]) -> None:
    after = _audited_of(world) if unless_still else {}
    for person in world.people:
        money = world.model.accounts[person.account_id]
        if not unless_still or after[money.id] > unless_still[money.id]:
            money.plan.roll(world.model.month(world.at_us))
            if _behind(world) is None:
                world.model.replenish(money.id, world.at_us)


def _audited_of(world: World) -> dict[str, int]:
    """The newest row of each account that a sweep may have written."""
    rows = world.rooms.store.all(
        "SELECT account_id, max(id) AS id FROM audit WHERE action IN ('ledger.topup', 'plan.fee', 'plan.ended',"
        " 'statement.closed', 'account.created') GROUP BY account_id"
    )
    return {row["account_id"]: row["id"] for row in rows}


def accept_clock(world: World) -> None:
    """The owner says that the clock is right as it stands: what the wrong one has charged and closed is undone."""
    rooms, now = world.rooms, world.rooms.clock()
    was_behind = world.at_us > now
    month = world.model.month(now)

    def work(tx: Tx) -> bool:
        accepted = timeline.accept(tx, now, ACTOR)
        if accepted:
            statements.reopen_after(tx, now)
            for person in world.people:
                period = rooms.terms.calendar.period_at(now).key
                plans.undo_after(tx, accounts.get(tx, person.account_id), period, now)
        return accepted

    def then() -> None:
        assert not world.is_clock_behind
        for person in world.people if was_behind else []:
            world.model.accounts[person.account_id].plan.undo_after(month)

    _do(world, work, then)
