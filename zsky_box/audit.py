"""The audit: append-only rows, each hashed over its predecessor, so that a changed or missing row shows."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from zsky_box.db import Row, Rows, Store, Tx

GENESIS: Final = bytes(32)
_STATES: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_VALUES: Final = json.JSONEncoder(separators=(",", ":"))


def append(
    tx: Tx,
    *,
    at: int,
    account_id: str | None,
    actor: str,
    action: str,
    subject: str,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    transfer_id: int | None = None,
) -> None:
    """Write one row: who (`actor`) did what (`action`) to what (`subject`), with the state before and after."""
    last = tx.one("SELECT hash FROM audit ORDER BY id DESC LIMIT 1")
    previous = GENESIS if last is None else bytes(last["hash"])
    values = (at, account_id, actor, action, subject, _canonical(before), _canonical(after), transfer_id)
    tx.execute(
        "INSERT INTO audit (at, account_id, actor, action, subject, before, after, transfer_id, previous, hash)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*values, previous, _digest(previous, values)),
    )


def in_browser(account_id: str) -> str:
    """The actor of what a person did in the browser, signed in or by their own link."""
    return f"browser:{account_id}"


def first_broken_row(store: Store, last_rows: int | None = None) -> int | None:
    """Replay the chain (all of it, or its last rows); the id of the first row that does not fit, or None."""
    limit = -1 if last_rows is None else last_rows
    with store.snapshot() as rows:
        return first_broken_row_of(rows, limit)


def first_broken_row_of(rows: Rows, limit: int = -1) -> int | None:
    """The same of one state; a negative limit means all rows."""
    newest = rows.one(_NEWEST_NUMBER)
    first = rows.one(_FIRST_OF_LAST, (limit,))
    start = 0 if first is None or first["id"] is None else int(first["id"])
    before = rows.one("SELECT id, hash FROM audit WHERE id < ? ORDER BY id DESC LIMIT 1", (start,))
    number, previous = (0, GENESIS) if before is None else (int(before["id"]), bytes(before["hash"]))
    for row in rows.each("SELECT * FROM audit WHERE id >= ? ORDER BY id", (start,)):
        if row["previous"] != previous or row["hash"] != _digest(previous, _hashed_values(row)):
            return int(row["id"])
        number, previous = int(row["id"]), row["hash"]
    # SQLite keeps the highest number that was given out: rows cut off at the end show too.
    return number + 1 if newest is not None and number < newest["seq"] else None


_NEWEST_NUMBER: Final = "SELECT seq FROM sqlite_sequence WHERE name = 'audit'"
_FIRST_OF_LAST: Final = "SELECT min(id) AS id FROM (SELECT id FROM audit ORDER BY id DESC LIMIT ?)"


def _hashed_values(row: Row) -> tuple[Any, ...]:
    names = ("at", "account_id", "actor", "action", "subject", "before", "after", "transfer_id")
    return tuple(row[name] for name in names)


def _canonical(state: dict[str, Any] | None) -> str:
    return _STATES.encode(state or {})


def _digest(previous: bytes, values: tuple[Any, ...]) -> bytes:
    return hashlib.sha256(previous + _VALUES.encode(values).encode()).digest()
