"""People and their plans. What a plan includes is data from the settings."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Literal

from msgspec import Struct

from zsky_box import audit, ids
from zsky_box.catalog import JobType
from zsky_box.db import Row, Store, Tx
from zsky_box.errors import StoreError
from zsky_box.settings import Settings

Plan = Literal["max", "free"]


class Account(Struct, frozen=True):
    """One person or team that jobs and money belong to."""

    id: str
    name: str
    role: Literal["owner", "member"]
    plan: Plan
    created_at: int


def included_units(plan: Plan, kind: JobType, settings: Settings) -> int:
    """Units of a kind that a plan includes per period."""
    if plan == "free":
        return 10 if kind == "video" else 50
    return settings.included_videos if kind == "video" else settings.included_images


def create_owner(tx: Tx, name: str, now: int) -> Account:
    """The one owner of the box; raises StoreError when there is one already."""
    if tx.one("SELECT 1 FROM account WHERE role = 'owner'") is not None:
        raise StoreError("the box has an owner already; `zsky-box keys rotate` issues a new key")
    account = Account(ids.new("acc"), name, "owner", "max", now)
    tx.execute(
        "INSERT INTO account (id, name, role, plan, created_at) VALUES (?, ?, ?, ?, ?)",
        (account.id, account.name, account.role, account.plan, now),
    )
    audit.append(
        tx,
        at=now,
        account_id=account.id,
        actor="terminal",
        action="account.created",
        subject=account.id,
        after={"name": name, "role": account.role, "plan": account.plan},
    )
    return account


def new_setup_token(store: Store, now: int) -> str:
    """A one-time token for the first run in the browser; only its hash is kept, and an older one ends."""
    token = secrets.token_urlsafe(24)

    def work(tx: Tx) -> None:
        tx.execute("DELETE FROM setup_token")
        tx.execute("INSERT INTO setup_token (digest, created_at) VALUES (?, ?)", (_token_digest(token), now))

    store.write(work)
    return token


def is_setup_token(store: Store, token: str) -> bool:
    """Whether this is the token of the last `init`."""
    row = store.one("SELECT digest FROM setup_token")
    return row is not None and hmac.compare_digest(bytes(row["digest"]), _token_digest(token))


def _token_digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def owner(store: Store) -> Account | None:
    """The owner, or None before `init`."""
    row = store.one("SELECT * FROM account WHERE role = 'owner'")
    return None if row is None else from_row(row)


def from_row(row: Row) -> Account:
    """An account of a row of its table."""
    return Account(row["id"], row["name"], row["role"], row["plan"], row["created_at"])
