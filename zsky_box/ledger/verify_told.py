"""What has a row of its own and one in the audit: plan fees, closings and alerts, compared one to one, both ways.

Memory holds what there is one of per account and period.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from zsky_box.db import Row, Rows
from zsky_box.ledger.verify_report import Fault
from zsky_box.pricing import usd

_Said = TypeVar("_Said", bound=Struct)

FEES: Final = "each plan fee has one audit row that says the same"
CLOSINGS: Final = "each closed statement has audit rows that say the same"
ALERTS: Final = "each alert has one audit row that says the same"

# What is not of a movement is found by the index of those that are.
_FEES: Final = "SELECT * FROM audit WHERE transfer_id IS NULL AND action = 'plan.fee' ORDER BY id"
_CLOSINGS: Final = (
    "SELECT * FROM audit WHERE transfer_id IS NULL AND action IN ('statement.closed', 'statement.reopened') ORDER BY id"
)
_ALERTS: Final = "SELECT * FROM audit WHERE transfer_id IS NULL AND action LIKE 'alert.cap_%' ORDER BY id"
_UNREADABLE: Final = "what cannot be read"


class Line(NamedTuple):
    """One row of the table or of the audit: how it is named, and what it says."""

    name: str
    values: tuple[Any, ...]
    audit_id: int = 0


class SaidFee(Struct, frozen=True):
    """What the audit says of a fee."""

    description: str
    amount_usd: str
    annual: bool


class SaidClosing(Struct, frozen=True):
    """What the audit says of a closed statement."""

    plan: str
    plan_fee_usd: str
    overage_usd: str
    last_transfer_id: int
    included: dict[str, int]


class SaidAlert(Struct, frozen=True):
    """What the audit says of an alert."""

    cap_usd: str


def first_wrong_fee(rows: Rows) -> Fault | None:
    """The first fee that was changed, taken away or added."""

    def kept() -> Iterator[Line]:
        for row in rows.each("SELECT * FROM plan_fee ORDER BY id"):
            amount_usd, annual = usd(row["amount_micros"]), bool(row["annual"])
            yield Line(str(row["id"]), (_subject(row), row["at"], row["description"], amount_usd, annual))

    def said() -> Iterator[Line]:
        for row in rows.each(_FEES):
            fee = _read(row, SaidFee)
            told = (_UNREADABLE,) if fee is None else (fee.description, fee.amount_usd, fee.annual)
            yield Line(row["subject"], (row["subject"], row["at"], *told), row["id"])

    return _first_unlike(FEES, "plan_fee", kept(), said())


def first_wrong_closing(rows: Rows) -> Fault | None:
    """The first closing that was changed, taken away or added, or opened again without a word."""
    said: list[Line] = []
    newest: dict[str, int] = {}
    for row in rows.each(_CLOSINGS):
        subject = row["subject"]
        if row["action"] == "statement.closed":
            newest[subject] = len(said)
            said.append(Line(subject, (subject, row["at"], *_closed(row), None), row["id"]))
        elif (place := newest.pop(subject, None)) is None:
            return Fault(CLOSINGS, "audit", str(row["id"]), f"opens {subject}, which is not closed")
        else:
            said[place] = said[place]._replace(values=(*said[place].values[:-1], row["at"]))

    def kept() -> Iterator[Line]:
        for row in rows.each("SELECT * FROM closing ORDER BY id"):
            figures = (row["plan"], usd(row["plan_fee_micros"]), usd(row["overage_micros"]), row["last_transfer_id"])
            values = (_subject(row), row["at"], *figures, _units(row["included"]), row["voided_at"])
            yield Line(str(row["id"]), values)

    return _first_unlike(CLOSINGS, "closing", kept(), iter(said))


def first_wrong_alert(rows: Rows) -> Fault | None:
    """The first alert that was changed, taken away or added."""
    said: dict[str, tuple[int, int]] = {}
    for row in rows.each(_ALERTS):
        alert = _read(row, SaidAlert)
        percent = row["action"].removeprefix("alert.cap_")
        name = f"{row['subject']}:{_UNREADABLE if alert is None else alert.cap_usd}:{percent}"
        said[name] = (row["id"], row["at"])
    for row in rows.each("SELECT * FROM alert ORDER BY account_id, period, cap_micros, percent"):
        name = f"{_subject(row)}:{usd(row['cap_micros'])}:{row['percent']}"
        audit_id, at = said.pop(name, (0, None))
        if at != row["at"]:
            told = f"is of {row['at']}, audit row {audit_id} says {at}" if audit_id else "is not told of in the audit"
            return Fault(ALERTS, "alert", name, told)
    for name, (audit_id, _) in said.items():
        return Fault(ALERTS, "alert", name, f"is not there, audit row {audit_id} tells of it")
    return None


TOLD: Final[tuple[Callable[[Rows], Fault | None], ...]] = (first_wrong_fee, first_wrong_closing, first_wrong_alert)


def _first_unlike(rule: str, table: str, kept: Iterator[Line], said: Iterator[Line]) -> Fault | None:
    """Both in the order in which they were written: what is missing or added shows at the first pair that differs."""
    for row, told in zip_longest(kept, said):
        if row is not None and told is not None and row.values == told.values:
            continue
        surplus = sum(1 for _ in kept) - sum(1 for _ in said)
        if row is not None and (told is None or surplus > 0):
            return Fault(rule, table, row.name, f"is not told of in the audit: {row.values}")
        if told is not None and (row is None or surplus < 0):
            return Fault(rule, table, told.name, f"is not there, audit row {told.audit_id} tells of it")
        if row is not None and told is not None:
            return Fault(rule, table, row.name, f"is {row.values}, audit row {told.audit_id} says {told.values}")
    return None


def _closed(row: Row) -> tuple[Any, ...]:
    said = _read(row, SaidClosing)
    if said is None:
        return (_UNREADABLE,)
    return said.plan, said.plan_fee_usd, said.overage_usd, said.last_transfer_id, said.included


def _units(included: str) -> dict[str, int] | None:
    try:
        return msgspec.json.decode(included, type=dict[str, int])
    except msgspec.DecodeError:
        return None  # as nothing that was ever said


def _read(row: Row, kind: type[_Said]) -> _Said | None:
    try:
        return msgspec.json.decode(row["after"], type=kind)
    except msgspec.DecodeError:
        return None


def _subject(row: Row) -> str:
    return f"{row['account_id']}:{row['period']}"
