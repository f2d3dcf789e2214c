"""People: who they are, what plan they are on, and what they and the owner have set of their money.

What a plan includes and costs is data from the settings; when it begins and ends is the room `plans`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from typing import Any, Final, Literal, Protocol

import msgspec
from msgspec import Struct

from zsky_box import audit, ids
from zsky_box.db import Row, Tx
from zsky_box.errors import Refusal, StoreError, not_found
from zsky_box.manifest import JobType
from zsky_box.settings import Settings

Plan = Literal["max", "free"]
Renewal = Literal["monthly", "annual", "no"]

NAME_MAX: Final = 100
ACCOUNTS_MAX: Final = 1_000


class Reader(Protocol):
    """Whatever a row can be read from: the store, a snapshot, a write."""

    def one(self, sql: str, parameters: tuple[Any, ...] = ..., /) -> Row | None:
        """The first row or None."""
        ...

    def all(self, sql: str, parameters: tuple[Any, ...] = ..., /) -> list[Row]:
        """All rows of a bounded query."""
        ...


class PlanTerms(Struct, frozen=True, kw_only=True):
    """What a plan gives; how many units of a kind a period includes is the setting of that name."""

    has_api: bool
    has_wordmark: bool
    included: dict[JobType, str]


PLANS: Final[dict[Plan, PlanTerms]] = {
    "max": PlanTerms(
        has_api=True, has_wordmark=False, included={"video": "included_videos", "image": "included_images"}
    ),
    "free": PlanTerms(has_api=False, has_wordmark=True, included={"video": "free_videos", "image": "free_images"}),
}


class Replenish(Struct, frozen=True):
    """Below `below_micros`, add `add_micros`, at most `month_micros` a month."""

    below_micros: int
    add_micros: int
    month_micros: int


class Account(Struct, frozen=True, kw_only=True):
    """One person or team that jobs and money belong to.

    The plan is the one last begun: `plan_in` says which one counts in a period. `paid_until` is the first period that
    is not paid for ("" before the first fee), `annual` the kind of the term that runs, `renews` what follows it.
    """

    id: str
    name: str
    role: Literal["owner", "member"]
    plan: Plan
    created_at: int
    renews: Renewal = "monthly"
    annual: bool = False
    paid_until: str = ""
    overage: bool = False
    cap_micros: int = 5_000_000
    ceiling_micros: int | None = None
    replenish: Replenish | None = None
    wallet_is_low: bool = False
    """Whether it was said that the wallet runs low, and it was not filled since."""

    def plan_in(self, period: str) -> Plan:
        """A cancelled plan counts until its paid term has ended."""
        ended = self.renews == "no" and self.paid_until != "" and period >= self.paid_until
        return "free" if ended else self.plan

    @property
    def limit_micros(self) -> int:
        """What the wallet may be charged in a month: the user's cap, within the owner's ceiling."""
        return self.cap_micros if self.ceiling_micros is None else min(self.cap_micros, self.ceiling_micros)


def included_units(plan: Plan, kind: JobType, settings: Settings) -> int:
    """Units of a kind that a plan includes per period."""
    return int(getattr(settings, PLANS[plan].included[kind]))


def create_owner(tx: Tx, name: str, now: int) -> Account:
    """The one owner of the box; raises StoreError when there is one already."""
    if tx.one("SELECT 1 FROM account WHERE role = 'owner'") is not None:
        raise StoreError("the box has an owner already; `zsky-box keys rotate` issues a new key")
    account = Account(id=ids.new("acc"), name=written(name), role="owner", plan="max", created_at=now)
    return _create(tx, account, "terminal")


def add_member(tx: Tx, name: str, plan: Plan, *, annual: bool, now: int, actor: str = "terminal") -> Account:
    """A further person on the box; raises 422 for a name that is taken or none, 409 where there are too many."""
    name = written(name)
    _require_name(tx, name)
    count = tx.one("SELECT count(*) AS n FROM account")
    if count is not None and count["n"] >= ACCOUNTS_MAX:
        raise Refusal(409, "too_many_accounts", f"A box has at most {ACCOUNTS_MAX} accounts.")
    renews: Renewal = "annual" if annual else "monthly"
    member = Account(id=ids.new("acc"), name=name, role="member", plan=plan, created_at=now, renews=renews)
    return _create(tx, msgspec.structs.replace(member, annual=annual), actor)


def rename(tx: Tx, account: Account, name: str, *, now: int) -> Account:
    """Give a person another name, as they chose it themselves; raises 422 for one that is taken or none."""
    name = written(name)
    _require_name(tx, name, of=account.id)
    tx.execute("UPDATE account SET name = ? WHERE id = ?", (name, account.id))
    audit.append(
        tx,
        at=now,
        account_id=account.id,
        actor=audit.in_browser(account.id),
        action="account.renamed",
        subject=account.id,
        before={"name": account.name},
        after={"name": name},
    )
    return get(tx, account.id)


def written(name: str) -> str:
    """A name in one form, whatever keyboard or file it comes from: an é may be one character there, or two."""
    return unicodedata.normalize("NFC", name)


def _require_name(rows: Reader, name: str, of: str = "") -> None:
    """Nobody else's, not even one that a person would take for another's: Ann and ann are the same."""
    if not name.strip() or len(name) > NAME_MAX or not name.isprintable():
        raise Refusal(422, "invalid_field", f"A name has 1 to {NAME_MAX} printable characters.", field="name")
    if name.startswith("acc_"):
        raise Refusal(422, "invalid_field", "A name does not begin as an account's id does, with acc_.", field="name")
    others = rows.all("SELECT name FROM account WHERE id != ? LIMIT ?", (of, ACCOUNTS_MAX))
    same = next((other["name"] for other in others if _folded(other["name"]) == _folded(name)), None)
    if same is not None:
        raise Refusal(422, "invalid_field", f"There is an account named {same!r} already.", field="name")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _create(tx: Tx, account: Account, actor: str) -> Account:
    tx.execute(
        "INSERT INTO account (id, name, role, plan, created_at, renews, annual) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            account.id,
            account.name,
            account.role,
            account.plan,
            account.created_at,
            account.renews,
            int(account.annual),
        ),
    )
    audit.append(
        tx,
        at=account.created_at,
        account_id=account.id,
        actor=actor,
        action="account.created",
        subject=account.id,
        after={
            "name": account.name,
            "role": account.role,
            "plan": account.plan,
            "renews": account.renews,
            "annual": account.annual,
        },
    )
    return account


def get(rows: Reader, account_id: str) -> Account:
    """The account as it stands; raises 404."""
    row = rows.one("SELECT * FROM account WHERE id = ?", (account_id,))
    if row is None:
        raise not_found("account")
    return from_row(row)


def named(rows: Reader, name: str) -> Account:
    """The account of this name, or of this id; raises 404."""
    name = written(name)
    row = rows.one("SELECT * FROM account WHERE name = ? OR id = ? ORDER BY id != ? LIMIT 1", (name, name, name))
    if row is None:
        raise Refusal(404, "not_found", f"There is no account {name!r}; `zsky-box accounts list` shows them.")
    return from_row(row)


def everybody(store: Reader) -> list[Account]:
    """All accounts, the owner first."""
    rows = store.all("SELECT * FROM account ORDER BY role = 'owner' DESC, created_at, id LIMIT ?", (ACCOUNTS_MAX,))
    return [from_row(row) for row in rows]


def names(rows: Reader, ids: Collection[str]) -> dict[str, str]:
    """What the accounts among these ids are called."""
    if not ids:
        return {}
    sql = f"SELECT id, name FROM account WHERE id IN ({','.join('?' * len(ids))})"  # noqa: S608 - marks only
    return {row["id"]: row["name"] for row in rows.all(sql, tuple(ids))}


def owner(store: Reader) -> Account | None:
    """The owner, or None before `init`."""
    row = store.one("SELECT * FROM account WHERE role = 'owner'")
    return None if row is None else from_row(row)


def from_row(row: Row) -> Account:
    """An account of a row of its table."""
    below = row["replenish_below_micros"]
    rule = None if below is None else Replenish(below, row["replenish_add_micros"], row["replenish_month_micros"])
    return Account(
        id=row["id"],
        name=row["name"],
        role=row["role"],
        plan=row["plan"],
        created_at=row["created_at"],
        renews=row["renews"],
        annual=bool(row["annual"]),
        paid_until=row["paid_until"],
        overage=bool(row["overage"]),
        cap_micros=row["cap_micros"],
        ceiling_micros=row["ceiling_micros"],
        replenish=rule,
        wallet_is_low=bool(row["wallet_is_low"]),
    )
