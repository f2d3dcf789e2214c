"""The audit of the whole box as its owner reads it: pages by keyset, newest first, and all of it as CSV or JSON lines.

An account's own view of it, in the words of money, is the room `entries`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from zsky_box import accounts, keyset, sheets
from zsky_box.clock import rfc3339
from zsky_box.db import Row, Rows, Store
from zsky_box.sheets import Cell, told

PIECE_ROWS: Final = 500
ACTIONS_MAX: Final = 200
ACTIONS_SCAN: Final = 5_000
JSONL: Final = "application/x-ndjson"


class Filters(Struct, frozen=True, kw_only=True):
    """What the rows are narrowed to; times are microseconds, `before` exclusive.

    `account` is an id, or `-` for what concerns the whole box; `action` begins the action's name, `actor` is part of
    the actor's, or an account's name.
    """

    account: str = ""
    action: str = ""
    actor: str = ""
    since: int | None = None
    before: int | None = None


class Entry(Struct, frozen=True, kw_only=True):
    """A row of the audit, complete: `hash` is over the row and `previous`, the hash of the row before it."""

    id: int
    at: str
    account: str | None
    actor: str
    action: str
    subject: str
    transfer_id: int | None
    before: dict[str, Any]
    after: dict[str, Any]
    previous: str
    hash: str


COLUMNS: Final = tuple(field.name for field in msgspec.structs.fields(Entry))


def page(rows: Rows, filters: Filters, limit: int, before: int | None) -> tuple[list[Entry], int | None]:
    """The next entries, and the number to go on before; None at the end."""
    found, more = _read(rows, filters, limit, before)
    return [_entry(row) for row in found], more


def actions(rows: Rows) -> list[str]:
    """The actions among the newest rows, in alphabetical order."""
    return [row["action"] for row in rows.all(_ACTIONS, (ACTIONS_SCAN, ACTIONS_MAX))]


def csv_pieces(store: Store, filters: Filters) -> Iterator[bytes]:
    """All that the filters match, newest first, in short pieces."""
    yield sheets.lines([COLUMNS])
    yield from _pieces(store, filters, lambda entries: sheets.lines(_cells(entry) for entry in entries))


def json_lines(store: Store, filters: Filters) -> Iterator[bytes]:
    """The same, an object to a line."""
    yield from _pieces(store, filters, msgspec.json.Encoder().encode_lines)


def _pieces(store: Store, filters: Filters, written: Callable[[list[Entry]], bytes]) -> Iterator[bytes]:
    before: int | None = None
    while True:
        with store.snapshot() as rows:
            found, before = _read(rows, filters, PIECE_ROWS, before)
        if found:
            yield written([_entry(row) for row in found])
        if before is None:
            return


def _read(rows: Rows, filters: Filters, limit: int, before: int | None) -> tuple[list[Row], int | None]:
    values: dict[str, Any] = {"before": keyset.NEWEST if before is None else before, "limit": limit + 1}
    clauses, floor = _where(rows, filters, values), None
    index = "INDEXED BY audit_by_account" if filters.account else "NOT INDEXED"
    if clauses:
        of_account = "account_id IS :account AND" if filters.account else ""
        numbers = f"SELECT id FROM audit {index} WHERE {of_account} id < :before"  # noqa: S608 - fixed texts only
        floor = keyset.floor(rows, numbers, values)
        if floor is not None:
            clauses.append("id >= :floor")
            values["floor"] = floor
    where = " AND ".join(["id < :before", *clauses])
    found = rows.all(f"SELECT * FROM audit {index} WHERE {where} ORDER BY id DESC LIMIT :limit", values)  # noqa: S608
    return keyset.cut(found, limit, floor)


def _where(rows: Rows, filters: Filters, values: dict[str, Any]) -> list[str]:
    clauses: list[str] = []
    if filters.account:
        clauses.append("account_id IS :account")
        values["account"] = None if filters.account == "-" else filters.account
    if filters.action:
        clauses.append("substr(action, 1, length(:action)) = :action")
        values["action"] = filters.action
    if filters.actor:
        clauses.append("(instr(lower(actor), lower(:actor)) > 0 OR (:person != '' AND instr(actor, :person) > 0))")
        values |= {"actor": filters.actor, "person": _id_of(rows, filters.actor)}
    if filters.since is not None:
        clauses.append("at >= :since")
        values["since"] = filters.since
    if filters.before is not None:
        clauses.append("at < :until")
        values["until"] = filters.before
    return clauses


def _id_of(rows: Rows, name: str) -> str:
    """The id of the account of this name, as an actor bears it; "" where there is none."""
    return next((account.id for account in accounts.everybody(rows) if account.name == name), "")


def _entry(row: Row) -> Entry:
    return Entry(
        id=row["id"],
        at=rfc3339(row["at"]),
        account=row["account_id"],
        actor=row["actor"],
        action=row["action"],
        subject=row["subject"],
        transfer_id=row["transfer_id"],
        before=msgspec.json.decode(row["before"]),
        after=msgspec.json.decode(row["after"]),
        previous=bytes(row["previous"]).hex(),
        hash=bytes(row["hash"]).hex(),
    )


def _cells(entry: Entry) -> list[Cell]:
    cells: dict[str, Any] = msgspec.structs.asdict(entry)
    cells |= {"actor": told(entry.actor), "subject": told(entry.subject)}
    cells |= {"before": sheets.compact(entry.before), "after": sheets.compact(entry.after)}
    return [cells[name] for name in COLUMNS]


_ACTIONS: Final = (
    "SELECT DISTINCT action FROM (SELECT action FROM audit NOT INDEXED ORDER BY id DESC LIMIT ?)"
    " ORDER BY action LIMIT ?"
)
