"""An account's audit as its people read it: every deduction, refund, alert and change, each charge naming its job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, get_args

import msgspec
from msgspec import UNSET, Struct, UnsetType

from zsky_box import cursors, keyset, sheets
from zsky_box.clock import rfc3339
from zsky_box.db import Row, Store
from zsky_box.keys import Caller
from zsky_box.ledger.wallet import BY_RULE
from zsky_box.periods import Period
from zsky_box.pricing import usd
from zsky_box.sheets import Cell, told

PAGE_DEFAULT: Final = 20
PAGE_MAX: Final = 100
CSV_PAGE: Final = 500

EntryType = Literal[
    "deduction",
    "reserve",
    "void",
    "grant",
    "topup",
    "replenish",
    "refund",
    "correction",
    "alert",
    "cap_change",
    "toggle",
    "ceiling",
    "replenish_rule",
    "plan",
    "key",
    "account",
    "statement",
    "other",
]
TYPES: Final[tuple[EntryType, ...]] = get_args(EntryType)
NOT_MONEY: Final[tuple[EntryType, ...]] = ("key", "account", "other")
"""What touches neither money nor its limits: keys and people, sign-ins, links, what became of a job by hand."""
MONEY: Final = "money"
"""Asked for in a type's place: every type but those."""


class Filters(Struct, frozen=True, kw_only=True):
    """What the list is narrowed to; times are microseconds, `created_before` exclusive.

    `type` is one of TYPES, or MONEY for all but NOT_MONEY. `period` is the month of a transfer's statement, and for
    what moves nothing the month it was entered in; `key_id` is of the key that a job came through.
    """

    type: str | None = None
    action: str | None = None
    job_id: str | None = None
    key_id: str | None = None
    period: Period | None = None
    created_after: int | None = None
    created_before: int | None = None


class TransferView(Struct, kw_only=True):
    """What was moved: `units` of included ones, or `amount_usd` of the wallet.

    `change_usd` is what it made of what the wallet can spend: a reserve takes it out, a void puts it back, and the post
    of what was held changes nothing any more. The changes of a ledger add up to `wallet_usd`.
    """

    id: int
    kind: str
    ledger: Literal["usd", "video", "image"]
    units: int | UnsetType = UNSET
    amount_usd: str | UnsetType = UNSET
    change_usd: str | UnsetType = UNSET
    debit: str
    credit: str
    pending_id: int | None
    period: str


class EntryView(Struct, kw_only=True):
    """One row of the audit; `hash` is over the row and the hash before it."""

    object: Literal["ledger.entry"] = "ledger.entry"
    id: int
    at: str
    type: EntryType
    action: str
    actor: str
    subject: str
    job_id: str | None
    transfer: TransferView | None
    before: dict[str, Any]
    after: dict[str, Any]
    hash: str


class EntryList(Struct, kw_only=True):
    """A page of the ledger, newest first."""

    object: Literal["list"] = "list"
    data: list[EntryView]
    has_more: bool
    next_cursor: str | None


COLUMNS: Final = (
    "id",
    "at",
    "type",
    "action",
    "actor",
    "subject",
    "job_id",
    "transfer_id",
    "kind",
    "ledger",
    "units",
    "amount_usd",
    "change_usd",
    "debit",
    "credit",
    "pending_id",
    "period",
    "before",
    "after",
    "hash",
)


def page(store: Store, caller: Caller, filters: Filters, limit: int, cursor: str | None) -> EntryList:
    """A page of the caller's own entries; a test key has none, since its jobs move nothing."""
    before = None if cursor is None else cursors.read("e", cursor)
    rows, more = _read(store, caller, filters, before, limit)
    following = None if more is None else cursors.written("e", more)
    return EntryList(data=[_view(row) for row in rows], has_more=more is not None, next_cursor=following)


def csv_pieces(
    store: Store, caller: Caller, filters: Filters, limit: int | None, cursor: str | None
) -> Iterator[bytes]:
    """All that the filters match (at most `limit`), newest first, a page to a piece. Raises 422 for a bad cursor."""
    before = None if cursor is None else cursors.read("e", cursor)
    return _csv_pieces(store, caller, filters, limit, before)


def _csv_pieces(
    store: Store, caller: Caller, filters: Filters, limit: int | None, before: int | None
) -> Iterator[bytes]:
    yield sheets.lines([COLUMNS])
    left = limit
    while left is None or left > 0:
        rows, before = _read(store, caller, filters, before, CSV_PAGE if left is None else min(left, CSV_PAGE))
        if rows:
            yield sheets.lines(_cells(_view(row)) for row in rows)
        if before is None:
            return
        left = None if left is None else left - len(rows)


def _read(
    store: Store, caller: Caller, filters: Filters, before: int | None, limit: int
) -> tuple[list[Row], int | None]:
    """The next matching rows, and the number to go on before, None at the end."""
    if caller.key.test:
        return [], None
    values: dict[str, Any] = {
        "account": caller.account.id,
        "limit": limit + 1,
        "before": keyset.NEWEST if before is None else before,
    }
    clauses, floor = _where(filters, values), None
    if filters.job_id is not None:
        found = store.all(_sql(_OF_JOB, clauses), values)
    else:
        if clauses:
            floor = keyset.floor(store, _NUMBERS, values)
        if floor is not None:
            clauses.append("a.id >= :floor")
            values["floor"] = floor
        found = store.all(_sql(_OF_ACCOUNT, clauses), values)
    return keyset.cut(found, limit, floor)


def _where(filters: Filters, values: dict[str, Any]) -> list[str]:
    clauses: list[str] = []
    for name, clause in (
        ("type", _IS_MONEY if filters.type == MONEY else "entry_type = :type"),
        ("action", "a.action = :action"),
        ("job_id", "t.job_id = :job_id"),
        ("key_id", "EXISTS (SELECT 1 FROM job j WHERE j.id = t.job_id AND j.key_id = :key_id)"),
        ("created_after", "a.at >= :created_after"),
        ("created_before", "a.at < :created_before"),
    ):
        value = getattr(filters, name)
        if value is not None:
            clauses.append(clause)
            values[name] = value
    if filters.period is not None:
        clauses.append("(t.period = :period OR (t.id IS NULL AND a.at >= :start AND a.at < :end))")
        values |= {"period": filters.period.key, "start": filters.period.start_us, "end": filters.period.end_us}
    return clauses


def _sql(source: str, clauses: list[str]) -> str:
    return f"{source} AND {' AND '.join(clauses) or 'TRUE'} ORDER BY a.id DESC LIMIT :limit"


def _sign(row: Row) -> int:
    match row["kind"]:
        case "post":
            return 0
        case "void":
            return 1
        case _:
            return 1 if row["credit"].startswith("wallet:") else -1


def _view(row: Row) -> EntryView:
    transfer = None
    if row["transfer_id"] is not None:
        transfer = TransferView(
            id=row["transfer_id"],
            kind=row["kind"],
            ledger=row["ledger"],
            debit=row["debit"],
            credit=row["credit"],
            pending_id=row["pending_id"],
            period=row["period"],
        )
        if row["ledger"] == "usd":
            transfer.amount_usd = usd(row["amount"])
            transfer.change_usd = usd(_sign(row) * row["amount"])
        else:
            transfer.units = row["amount"]
    return EntryView(
        id=row["id"],
        at=rfc3339(row["at"]),
        type=row["entry_type"],
        action=row["action"],
        actor=row["actor"],
        subject=row["subject"],
        job_id=row["job_id"],
        transfer=transfer,
        before=msgspec.json.decode(row["before"]),
        after=msgspec.json.decode(row["after"]),
        hash=bytes(row["hash"]).hex(),
    )


def _cells(entry: EntryView) -> list[Cell]:
    cells: dict[str, Any] = msgspec.to_builtins(entry)
    moved: dict[str, Any] = cells["transfer"] or {}
    cells |= {name: moved[name] for name in moved if name != "id"} | {"transfer_id": moved.get("id")}
    cells |= {"actor": told(entry.actor), "subject": told(entry.subject)}
    cells |= {"before": sheets.compact(entry.before), "after": sheets.compact(entry.after)}
    return [cells.get(name) for name in COLUMNS]


_TYPE_OF_ACTION: Final[dict[str, EntryType]] = {
    "ledger.post": "deduction",
    "ledger.reserve": "reserve",
    "ledger.void": "void",
    "ledger.grant": "grant",
    "ledger.topup": "topup",
    "ledger.refund": "refund",
    "ledger.correct": "correction",
    "overage.cap": "cap_change",
    "overage.toggled": "toggle",
    "overage.ceiling": "ceiling",
    "overage.replenish": "replenish_rule",
    "key.cap": "cap_change",
}
_TYPE_OF_ROOM: Final[tuple[EntryType, ...]] = ("alert", "plan", "key", "account", "statement")
_TYPE: Final = " ".join(
    [
        f"CASE WHEN a.action = 'ledger.topup' AND a.actor = '{BY_RULE}' THEN 'replenish'",
        *(f"WHEN a.action = '{action}' THEN '{kind}'" for action, kind in _TYPE_OF_ACTION.items()),
        *(f"WHEN a.action GLOB '{kind}.*' THEN '{kind}'" for kind in _TYPE_OF_ROOM),
        "ELSE 'other' END",
    ]
)
_IS_MONEY: Final = "entry_type NOT IN ('" + "', '".join(NOT_MONEY) + "')"
_COLUMNS: Final = (
    f"SELECT a.*, {_TYPE} AS entry_type, t.job_id, t.kind, t.ledger, t.amount, t.debit, t.credit, t.pending_id,"
    " t.period"
)
_OF_ACCOUNT: Final = (
    f"{_COLUMNS} FROM audit a INDEXED BY audit_by_account LEFT JOIN transfer t ON t.id = a.transfer_id"
    " WHERE a.account_id = :account AND a.id < :before"
)
_OF_JOB: Final = (
    f"{_COLUMNS} FROM transfer t INDEXED BY transfer_by_job CROSS JOIN audit a ON a.transfer_id = t.id"
    " WHERE a.account_id = :account AND a.id < :before"
)
_NUMBERS: Final = "SELECT id FROM audit INDEXED BY audit_by_account WHERE account_id = :account AND id < :before"
