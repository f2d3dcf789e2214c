"""The ledger as a page shows it: its filters, and each entry in a person's words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from itertools import groupby
from typing import Any, Final

from msgspec import Struct

from zsky_box.api import queries
from zsky_box.clock import rfc3339
from zsky_box.entries import MONEY, TYPES, EntryType, EntryView, Filters
from zsky_box.pages import changes, narrowing
from zsky_box.pages.usage_tables import dollars, micro_dollars
from zsky_box.periods import Period
from zsky_box.pricing import micros
from zsky_box.terms import Terms

ROWS: Final = 50
EVERYTHING: Final = "all"
LABELS: Final[dict[EntryType, str]] = {
    "deduction": "Charged",
    "reserve": "Held for a job",
    "void": "Released",
    "grant": "Included units",
    "topup": "Top-up",
    "replenish": "Automatic top-up",
    "refund": "Paid back",
    "correction": "Correction",
    "alert": "Alert",
    "cap_change": "Cap",
    "toggle": "Overage",
    "ceiling": "Ceiling",
    "replenish_rule": "Top-up rule",
    "plan": "Plan",
    "key": "Key",
    "account": "Account",
    "statement": "Statement",
    "other": "Sign-ins and other",
}
_OTHER_LABELS: Final = {"session": "Session", "password": "Password", "invitation": "Link", "job": "Job"}
_CAP_ALERT: Final = "alert.cap_"
_TONES: Final[dict[EntryType, str]] = {
    "deduction": "busy",
    "topup": "good",
    "replenish": "good",
    "refund": "good",
    "alert": "bad",
}


class Asked(Struct, frozen=True, kw_only=True):
    """What the page's address asks for; `since` and `until` are days of the box's zone, both inclusive.

    `type` is an entry's, "" for money and its limits, or EVERYTHING.
    """

    month: str | None = None
    type: str = ""
    job: str = ""
    key: str = ""
    since: date | None = None
    until: date | None = None
    cursor: str | None = None

    def query(self, **changes: str | None) -> str:
        """The same as a query string, with some of it otherwise; a None leaves it out."""
        values: dict[str, Any] = {
            "month": self.month,
            "type": self.type,
            "job": self.job,
            "key": self.key,
            "from": self.since,
            "to": self.until,
            "cursor": self.cursor,
        }
        return narrowing.query(values | changes)

    @property
    def narrows(self) -> bool:
        """Whether more than the month is asked for."""
        return bool(self.type or self.job or self.key or self.since or self.until)


class Line(Struct, frozen=True, kw_only=True):
    """One entry, or several of a job in a row: what they are called, moved, and made of the wallet."""

    at: str
    label: str
    tone: str
    detail: str
    job_id: str | None
    count: int
    moved: str
    wallet: str
    actor: str


def read(items: list[tuple[str, str]]) -> Asked:
    """The address's query. Raises 422 with what is wrong."""
    readers = {
        "month": str,
        "type": queries.one_of((EVERYTHING, *TYPES)),
        "job": narrowing.text,
        "key": narrowing.text,
        "from": narrowing.day,
        "to": narrowing.day,
        "cursor": str,
    }
    values = narrowing.read(items, readers)
    since, until = values.pop("from", None), values.pop("to", None)
    return Asked(**values, since=since, until=until)


def filters(asked: Asked, period: Period, terms: Terms) -> Filters:
    """What the entries are narrowed to: a job's are all of it, days take the month's place."""
    after, before = narrowing.span_us(asked.since, asked.until, terms.calendar.zone_at(period.start_us))
    by_days = asked.since is not None or asked.until is not None
    return Filters(
        type=None if asked.type == EVERYTHING else asked.type or MONEY,
        job_id=asked.job or None,
        key_id=asked.key or None,
        period=None if asked.job or by_days else period,
        created_after=after,
        created_before=before,
    )


def csv_query(narrowed: Filters) -> str:
    """The same filters as the API takes them."""
    values: dict[str, str | None] = {
        "type": narrowed.type,
        "job_id": narrowed.job_id,
        "key_id": narrowed.key_id,
        "period": None if narrowed.period is None else narrowed.period.key,
        "created_after": None if narrowed.created_after is None else rfc3339(narrowed.created_after),
        "created_before": None if narrowed.created_before is None else rfc3339(narrowed.created_before),
    }
    return narrowing.query(values)


def lines(listed: list[EntryView], labels: Mapping[str, str]) -> list[Line]:
    """Entries for a person; `labels` are what keys and accounts are called.

    What follows each other of one job and kind is one line: a job of ten images moves ten times.
    """
    return [_line(list(of), labels) for _, of in groupby(listed, _alike)]


def _alike(entry: EntryView) -> tuple[object, ...]:
    moved = entry.transfer
    return (entry.id,) if moved is None or entry.job_id is None else (entry.job_id, entry.action, moved.ledger)


def _line(of: list[EntryView], labels: Mapping[str, str]) -> Line:
    first = of[0]
    moved, wallet = "", 0
    if first.transfer is not None:
        units = sum(each.transfer.units for each in of if each.transfer and isinstance(each.transfer.units, int))
        moved = f"{units:,} {first.transfer.ledger}{'' if units == 1 else 's'}" if units else _sum(of)
        wallet = _micros(of, "change_usd")
    return Line(
        at=first.at,
        label=_label(first),
        tone=_TONES.get(first.type, ""),
        detail=_detail(first, labels),
        job_id=first.job_id,
        count=len(of),
        moved=moved,
        wallet=("+" if wallet > 0 else "") + micro_dollars(wallet) if wallet else "",
        actor=changes.actor(first.actor, labels),
    )


def _label(entry: EntryView) -> str:
    """What an entry is called; one of the other kind by what it is about."""
    room = entry.action.partition(".")[0]
    return _OTHER_LABELS.get(room, "Other") if entry.type == "other" else LABELS[entry.type]


def _sum(of: list[EntryView]) -> str:
    return micro_dollars(_micros(of, "amount_usd"))


def _micros(of: list[EntryView], name: str) -> int:
    texts = [getattr(entry.transfer, name) for entry in of if entry.transfer is not None]
    return sum(micros(text) for text in texts if isinstance(text, str))


def _detail(entry: EntryView, labels: Mapping[str, str]) -> str:
    """What a change changed, or the reason that was given."""
    if entry.transfer is not None:
        return str(entry.after.get("why", ""))
    if entry.action.startswith(_CAP_ALERT):
        return f"{entry.action.removeprefix(_CAP_ALERT)} % of the cap of {dollars(str(entry.after['cap_usd']))} reached"
    if entry.type == "plan" and {"description", "amount_usd"} <= entry.after.keys():
        return f"{entry.after['description']}: {dollars(str(entry.after['amount_usd']))}"
    told = labels.get(entry.subject, "") if entry.type == "key" else ""
    what = entry.action.replace(".", " ").replace("_", " ") if entry.type in ("other", "key", "account", "plan") else ""
    text = ", ".join(part for part in (what, told, *changes.said(entry.before, entry.after)) if part) or entry.action
    return changes.cut(text)
