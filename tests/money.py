"""Accounts, keys and wallets for a box that is not running, and what its clients see of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.stores import opened
from zsky_box import accounts, keys, overage, secretfile
from zsky_box.accounts import Account, Plan
from zsky_box.clock import system_clock
from zsky_box.db import Tx
from zsky_box.keys import SCOPES, Scope
from zsky_box.pricing import micros
from zsky_box.settings import Settings
from zsky_box.terms import Terms

T = TypeVar("T")
OWNER = "owner"
TERMS = Terms.of(Settings())


def written(folder: Path, work: Callable[[Tx], T]) -> T:
    """Write into the store of a box that is not running."""
    with opened(folder) as store:
        return store.write(work)


def filled(folder: Path, usd: str, name: str = OWNER) -> None:
    """Fill an account's wallet, as its administrator does."""

    def work(tx: Tx) -> None:
        account = accounts.named(tx, name)
        overage.topup(tx, account.id, micros(usd), actor="test", now=system_clock(), terms=TERMS)

    written(folder, work)


def spending(folder: Path, usd: str, name: str = OWNER) -> None:
    """Turn an account's overage on, with this cap."""

    def work(tx: Tx) -> None:
        account, now = accounts.named(tx, name), system_clock()
        overage.toggle(tx, account.id, enabled=True, actor="test", now=now, terms=TERMS)
        overage.set_cap(tx, account.id, micros(usd), actor="test", now=now, terms=TERMS)

    written(folder, work)


def member(folder: Path, name: str, plan: Plan = "max") -> Account:
    """Another person's account."""
    return written(folder, lambda tx: accounts.add_member(tx, name, plan, annual=False, now=system_clock()))


def key(folder: Path, name: str = OWNER, *scopes: Scope, test: bool = False, cap_usd: str | None = None) -> str:
    """The secret of a new key of an account, of all scopes where none is named."""
    pepper, cap = secretfile.load(folder).pepper, None if cap_usd is None else micros(cap_usd)

    def work(tx: Tx) -> str:
        account = accounts.named(tx, name)
        issued = keys.issue(
            tx,
            pepper,
            account.id,
            now=system_clock(),
            actor="test",
            test=test,
            scopes=scopes or SCOPES,
            cap_micros=cap,
        )
        return issued[1]

    return written(folder, work)


def ceiling(folder: Path, usd: str, name: str = OWNER) -> None:
    """The owner's ceiling over an account's cap."""

    def work(tx: Tx) -> None:
        account = accounts.named(tx, name)
        overage.set_ceiling(tx, account.id, micros(usd), actor="test", now=system_clock(), terms=TERMS)

    written(folder, work)


def stands(client: httpx.Client) -> dict[str, Any]:
    """How a client's money stands."""
    answer = client.get("/v1/me/overage")
    assert answer.status_code == 200, answer.text
    return answer.json()
