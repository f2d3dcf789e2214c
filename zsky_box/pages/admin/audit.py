"""`/admin/audit`: every change on this box, the state of the chain that binds them, and both as files."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from litestar import Request, Response, get, post
from litestar.response import Template
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from zsky_box import accounts, audit_pages, cursors, sheets
from zsky_box.api import queries
from zsky_box.api.deps import Services, services
from zsky_box.api.sending import Sending
from zsky_box.audit_pages import Entry, Filters
from zsky_box.clock import SECOND_US, rfc3339
from zsky_box.db import Rows, Store
from zsky_box.pages import changes, frame
from zsky_box.pages.admin import places
from zsky_box.verifier import Verification

PATH: Final = "/admin/audit"
ROWS: Final = 50
TEXT_MAX: Final = 100
_CURSOR: Final = "a"


class Asked(Struct, frozen=True, kw_only=True):
    """What the address asks for; the days are those of the box's zone, both inclusive."""

    account: str = ""
    action: str = ""
    actor: str = ""
    since: date | None = None
    until: date | None = None
    cursor: str | None = None

    def query(self, cursor: str | None = None) -> str:
        """The same filters as a query string, from this cursor on."""
        values: dict[str, Any] = {
            "account": self.account,
            "action": self.action,
            "actor": self.actor,
            "from": self.since,
            "to": self.until,
            "cursor": cursor,
        }
        return urlencode({name: value for name, value in values.items() if value})


class Line(Struct, frozen=True, kw_only=True):
    """A row in a person's words, and all of it for whoever looks closer."""

    entry: Entry
    account: str
    actor: str
    said: str


@get(PATH, opt={"page": "owner"}, include_in_schema=False)
async def audit(request: Request[Any, Any, Any]) -> Template:
    """The page."""
    box, asked = services(request), _asked(request)
    found = await box.store.read(lambda: _found(box, asked))
    return places.page(request, "admin/audit.html", tab="audit", title="Audit", asked=asked, **found, **_chain(box))


@get(f"{PATH}/chain", opt={"page": "owner"}, include_in_schema=False)
async def chain(request: Request[Any, Any, Any]) -> Template:
    """The state of the chain alone, for the page that waits for a verification."""
    return places.page(request, "admin/_chain.html", tab="audit", title="Audit", **_chain(services(request)))


@post(f"{PATH}/verify", opt={"page": "owner"}, status_code=303, include_in_schema=False)
async def verify_now(request: Request[Any, Any, Any]) -> Response[Any]:
    """Begin a full verification; its result shows on the page."""
    begun = services(request).verifier.begin()
    told = "The ledger is being verified." if begun else "A verification goes on already."
    back = frame.local_path((await frame.form(request)).get("back", ""), PATH)
    return frame.done(request, back, told)


@get(f"{PATH}.csv", opt={"page": "owner"}, include_in_schema=False)
async def audit_csv(request: Request[Any, Any, Any]) -> Sending:
    """What the filters match as a table, all of it."""
    box = services(request)
    pieces = audit_pages.csv_pieces(box.store, _filters(box, _asked(request)))
    return _sending(box.store, pieces, sheets.MEDIA_TYPE, "csv")


@get(f"{PATH}.jsonl", opt={"page": "owner"}, include_in_schema=False)
async def audit_jsonl(request: Request[Any, Any, Any]) -> Sending:
    """The same with an object to a line."""
    box = services(request)
    pieces = audit_pages.json_lines(box.store, _filters(box, _asked(request)))
    return _sending(box.store, pieces, audit_pages.JSONL, "jsonl")


def _asked(request: Request[Any, Any, Any]) -> Asked:
    """The address's query; empty fields of the form ask for nothing. Raises 422 with what is wrong."""
    readers = {"account": _text, "action": _text, "actor": _text, "from": _day, "to": _day, "cursor": str}
    items = [(name, value.strip()) for name, value in request.query_params.items() if value.strip()]
    values = queries.read(items, readers)
    since, until = values.pop("from", None), values.pop("to", None)
    return Asked(**values, since=since, until=until)


def _filters(box: Services, asked: Asked) -> Filters:
    def start_us(day: date) -> int:
        moment = datetime.combine(day, time(), box.terms.calendar.zone).astimezone(UTC)
        return round(moment.timestamp()) * SECOND_US

    return Filters(
        account=asked.account,
        action=asked.action,
        actor=asked.actor,
        since=None if asked.since is None else start_us(asked.since),
        before=None if asked.until is None else start_us(asked.until + timedelta(days=1)),
    )


def _found(box: Services, asked: Asked) -> dict[str, Any]:
    before = None if asked.cursor is None else cursors.read(_CURSOR, asked.cursor)
    with box.store.snapshot() as rows:
        listed, more = audit_pages.page(rows, _filters(box, asked), ROWS, before)
        names = _names(rows)
        known = audit_pages.actions(rows)
    return {
        "lines": [_line(entry, names) for entry in listed],
        "next_cursor": None if more is None else cursors.written(_CURSOR, more),
        "people": names,
        "actions": known,
        "timezone": box.terms.calendar.zone.key,
    }


def _names(rows: Rows) -> dict[str, str]:
    return {account.id: account.name for account in accounts.everybody(rows)}


def _line(entry: Entry, names: dict[str, str]) -> Line:
    account = "" if entry.account is None else names.get(entry.account, entry.account)
    in_words = changes.said if entry.transfer_id is None else changes.moved
    said = ", ".join(in_words(entry.before, entry.after))
    return Line(entry=entry, account=account, actor=changes.actor(entry.actor, names), said=changes.cut(said))


def _chain(box: Services) -> dict[str, Any]:
    """How the verification stands: the one that goes on, and what the last one found."""
    now, ended = box.verifier.last(), box.verifier.ended()
    return {
        "verifying": now if now is not None and now.state == "running" else None,
        "verified": ended,
        "verified_at": _ended_at(ended),
    }


def _ended_at(found: Verification | None) -> str:
    return "" if found is None or found.ended_at is None else rfc3339(found.ended_at)


def _sending(store: Store, pieces: Iterator[bytes], media_type: str, ending: str) -> Sending:
    """Piece by piece as fast as the browser reads; between two pieces nothing of the store is held."""

    async def sent() -> AsyncGenerator[bytes]:
        while (piece := await store.read(lambda: next(pieces, None))) is not None:
            yield piece

    headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="zsky-audit.{ending}"'}
    return Sending(sent(), lambda: None, media_type=media_type, headers=headers)


def _text(text: str) -> str:
    if len(text) > TEXT_MAX:
        raise ValueError(f"give at most {TEXT_MAX} characters")
    return text


def _day(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ValueError("give a day such as 2026-11-01") from None
    if not 2000 <= day.year < 2100:
        raise ValueError("give a day of this century")
    return day


HANDLERS: Final[list[ControllerRouterHandler]] = [audit, chain, verify_now, audit_csv, audit_jsonl]
