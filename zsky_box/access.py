"""A person's ways into the box, all of them closed at once: password, link, sessions, keys."""

from __future__ import annotations

from msgspec import Struct

from zsky_box import invitations, keys, passwords, sessions
from zsky_box.accounts import Account
from zsky_box.db import Rows, Tx
from zsky_box.errors import Refusal


class Ways(Struct, frozen=True):
    """What lets a person in: whether they have a password, and how many sessions and keys that have not ended."""

    has_password: bool
    sessions: int
    keys: int


def ways(rows: Rows, account: Account, *, now: int) -> Ways:
    """What there is of them."""
    sessions_of = rows.one("SELECT count(*) AS n FROM session WHERE account_id = ?", (account.id,))
    return Ways(
        passwords.hash_of(rows, account.id) is not None,
        0 if sessions_of is None else int(sessions_of["n"]),
        len(_open_keys(rows, account, now)),
    )


def close(tx: Tx, account: Account, *, now: int, actor: str) -> Ways:
    """Close them, on record, and tell which there were. A new link lets the person in again.

    Raises 422 for the owner, whom nobody could let in again.
    """
    if account.role == "owner":
        raise Refusal(422, "invalid_field", "The owner's own ways in stay open: nobody else could open them again.")
    closed = ways(tx, account, now=now)
    passwords.remove(tx, account.id, now=now, actor=actor)
    invitations.end(tx, account.id)
    sessions.end_all(tx, account.id, but=None, now=now, actor=actor)
    for key_id in _open_keys(tx, account, now):
        keys.revoke(tx, account.id, key_id, now=now, actor=actor)
    return closed


def _open_keys(rows: Rows, account: Account, now: int) -> list[str]:
    found = rows.all(
        "SELECT id FROM api_key WHERE account_id = ? AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)",
        (account.id, now),
    )
    return [row["id"] for row in found]
