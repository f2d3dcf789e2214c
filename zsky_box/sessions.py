"""Sessions of browsers: a secret in a cookie, of which only the hash is kept. A session that ends is a row that goes.

It ends when it was not used for long, when it is old, when its person ends it, and with the password.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from msgspec import Struct

from zsky_box import audit, ids
from zsky_box.accounts import Reader
from zsky_box.clock import SECOND_US
from zsky_box.db import Row, Store, Tx

SESSIONS_MAX: Final = 50
AGENT_MAX: Final = 200
ADDRESS_MAX: Final = 100
_SECRET_BYTES: Final = 32
_SECRET_MAX: Final = 100
_USED_STEP_US: Final = 60 * SECOND_US


class Session(Struct, frozen=True):
    """One browser that signed in: from which address, and what it called itself. Times are microseconds, UTC."""

    id: str
    account_id: str
    created_at: int
    used_at: int
    address: str
    agent: str


def begin(tx: Tx, account_id: str, *, now: int, address: str, agent: str) -> tuple[Session, str]:
    """Begin a session; the second value is its secret, which exists nowhere else.

    An account has at most 50: the one that was not used for longest ends for a new one.
    """
    kept = tx.all(
        "SELECT id FROM session WHERE account_id = ? ORDER BY used_at DESC, rowid DESC LIMIT -1 OFFSET ?",
        (account_id, SESSIONS_MAX - 1),
    )
    for row in kept:
        end(tx, account_id, row["id"], now=now, actor="box")
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    session = Session(ids.new("ses"), account_id, now, now, address[:ADDRESS_MAX], agent[:AGENT_MAX])
    tx.execute(
        "INSERT INTO session (digest, id, account_id, created_at, used_at, address, agent)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (_digest(secret), session.id, account_id, now, now, session.address, session.agent),
    )
    audit.append(
        tx,
        at=now,
        account_id=account_id,
        actor=audit.in_browser(account_id),
        action="session.begun",
        subject=session.id,
        after={"address": session.address},
    )
    return session, secret


def find(rows: Reader, secret: str, *, now: int, idle_us: int, whole_us: int) -> Session | None:
    """The session of a secret; None where there is none, or it ended: unused for `idle_us`, or `whole_us` old."""
    if not secret or len(secret) > _SECRET_MAX:
        return None
    row = rows.one(
        "SELECT * FROM session WHERE digest = ? AND used_at > ? AND created_at > ?",
        (_digest(secret), now - idle_us, now - whole_us),
    )
    return None if row is None else _from_row(row)


def used(store: Store, session: Session, now: int) -> None:
    """Remember the use, at most once a minute, without making the request wait."""
    if now - session.used_at >= _USED_STEP_US:
        store.submit(lambda tx: tx.execute("UPDATE session SET used_at = ? WHERE id = ?", (now, session.id)))


def end(tx: Tx, account_id: str, session_id: str, *, now: int, actor: str) -> bool:
    """End one session of an account at once; False where it has no such session."""
    ended = tx.one("DELETE FROM session WHERE account_id = ? AND id = ? RETURNING id", (account_id, session_id))
    if ended is None:
        return False
    audit.append(tx, at=now, account_id=account_id, actor=actor, action="session.ended", subject=session_id)
    tx.tell_end(session_id)
    return True


def end_all(tx: Tx, account_id: str, *, but: str | None, now: int, actor: str) -> int:
    """End all sessions of an account, but the one of this id; how many."""
    rows = tx.all("SELECT id FROM session WHERE account_id = ? AND id IS NOT ?", (account_id, but))
    return sum(end(tx, account_id, row["id"], now=now, actor=actor) for row in rows)


def listed(rows: Reader, account_id: str, *, now: int, idle_us: int, whole_us: int) -> list[Session]:
    """The sessions of an account that have not ended, the last used first."""
    found = rows.all(
        "SELECT * FROM session WHERE account_id = ? AND used_at > ? AND created_at > ?"
        " ORDER BY used_at DESC, rowid DESC LIMIT ?",
        (account_id, now - idle_us, now - whole_us, SESSIONS_MAX),
    )
    return [_from_row(row) for row in found]


def forget(tx: Tx, now: int, *, idle_us: int, whole_us: int) -> None:
    """Drop the rows of sessions that ended by themselves."""
    tx.execute("DELETE FROM session WHERE used_at <= ? OR created_at <= ?", (now - idle_us, now - whole_us))


def _from_row(row: Row) -> Session:
    return Session(row["id"], row["account_id"], row["created_at"], row["used_at"], row["address"], row["agent"])


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
