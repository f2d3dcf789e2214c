"""One-time links to set a password with: the owner's first, a member's first, and anybody's after a reset.

Only a link's hash is kept. An account has one at most: making another, or setting the password, ends it.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final, Literal

from zsky_box import accounts, audit, passwords, sessions
from zsky_box.accounts import Account, Reader
from zsky_box.clock import SECOND_US, rfc3339
from zsky_box.db import Tx
from zsky_box.errors import Refusal

HOURS: Final = 72
HOUR_US: Final = 3_600 * SECOND_US
_TOKEN_BYTES: Final = 24
_TOKEN_MAX: Final = 100

Purpose = Literal["setup", "invitation", "reset"]


def invite(tx: Tx, account_id: str, *, now: int, actor: str, hours: int | None = HOURS) -> str:
    """Make a link's token, which exists nowhere else; with `hours` None it works until it is used or replaced."""
    purpose = _purpose(tx, accounts.get(tx, account_id))
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    expires_at = None if hours is None else now + hours * HOUR_US
    tx.execute("DELETE FROM invitation WHERE account_id = ?", (account_id,))
    tx.execute(
        "INSERT INTO invitation (digest, account_id, purpose, created_at, expires_at) VALUES (?, ?, ?, ?, ?)",
        (_digest(token), account_id, purpose, now, expires_at),
    )
    audit.append(
        tx,
        at=now,
        account_id=account_id,
        actor=actor,
        action="invitation.made",
        subject=account_id,
        after={"purpose": purpose, "expires_at": None if expires_at is None else rfc3339(expires_at)},
    )
    return token


def find(rows: Reader, token: str, now: int) -> Account | None:
    """Whose password a link's token may set; None where it is not known, was used or replaced, or has expired."""
    if not token or len(token) > _TOKEN_MAX:
        return None
    row = rows.one(
        "SELECT account.* FROM invitation JOIN account ON account.id = account_id"
        " WHERE digest = ? AND (expires_at IS NULL OR expires_at > ?)",
        (_digest(token), now),
    )
    return None if row is None else accounts.from_row(row)


def use(tx: Tx, token: str, *, hashed: str, now: int) -> Account:
    """Set the password whose hash is given, which uses the link up, and end all sessions; raises 404 as `find`."""
    account = find(tx, token, now)
    if account is None:
        raise Refusal(404, "not_found", "This link has been used or has ended; ask the box's owner for a new one.")
    actor = audit.in_browser(account.id)
    passwords.set_for(tx, account.id, hashed, now=now, actor=actor)
    sessions.end_all(tx, account.id, but=None, now=now, actor=actor)
    return account


def end(tx: Tx, account_id: str) -> None:
    """End the link of an account, if it has one."""
    tx.execute("DELETE FROM invitation WHERE account_id = ?", (account_id,))


def _purpose(rows: Reader, account: Account) -> Purpose:
    if passwords.hash_of(rows, account.id) is not None:
        return "reset"
    return "setup" if account.role == "owner" else "invitation"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
