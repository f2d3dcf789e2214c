"""`/admin/audit`: every change on this box, the state of the chain that binds them, and both as files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any, Final

from litestar import Request, Response, get, post
from litestar.response import Template
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from zsky_box import accounts, audit_pages, cursors, sheets
from zsky_box.api.deps import Services, services
from zsky_box.api.sending import Sending, from_store
from zsky_box.audit_pages import Entry, Filters
from zsky_box.clock import rfc3339
from zsky_box.db import Rows, Store
from zsky_box.pages import changes, frame, narrowing
from zsky_box.pages.admin import places
from zsky_box.verifier import Verification

PATH: Final = "/admin/audit"
ROWS: Final = 50
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
        return narrowing.query(
            {
                "account": self.account,
                "action": self.action,
                "actor": self.actor,
                "from": self.since,
                "to": self.until,
                "cursor": cursor,
            }
        )


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
    return _file(box.store, pieces, sheets.MEDIA_TYPE, "csv")


@get(f"{PATH}.jsonl", opt={"page": "owner"}, include_in_schema=False)
async def audit_jsonl(request: Request[Any, Any, Any]) -> Sending:
    """The same with an object to a line."""
    box = services(request)
    pieces = audit_pages.json_lines(box.store, _filters(box, _asked(request)))
    return _file(box.store, pieces, audit_pages.JSONL, "jsonl")


def _asked(request: Request[Any, Any, Any]) -> Asked:
    """The address's query. Raises 422 with what is wrong."""
    readers = {
        "account": narrowing.text,
        "action": narrowing.text,
        "actor": narrowing.text,
        "from": narrowing.day,
        "to": narrowing.day,
        "cursor": str,
    }
    values = narrowing.read(request.query_params.items(), readers)
    since, until = values.pop("from", None), values.pop("to", None)
    return Asked(**values, since=since, until=until)


def _filters(box: Services, asked: Asked) -> Filters:
    since, before = narrowing.span_us(asked.since, asked.until, box.terms.calendar.zone)
    return Filters(account=asked.account, action=asked.action, actor=asked.actor, since=since, before=before)


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


def _file(store: Store, pieces: Iterator[bytes], media_type: str, ending: str) -> Sending:
    headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="zsky-audit.{ending}"'}
    return from_store(store, pieces, media_type=media_type, headers=headers)


HANDLERS: Final[list[ControllerRouterHandler]] = [audit, chain, verify_now, audit_csv, audit_jsonl]
