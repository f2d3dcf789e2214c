"""`/usage`: what was made in a month and what it cost, the ledger behind it, and the statements to print."""

from __future__ import annotations

from calendar import monthrange
from datetime import date, datetime
from itertools import groupby
from typing import Any, Final
from zoneinfo import ZoneInfo

from litestar import Request, get
from litestar.params import FromPath
from litestar.response import Template
from msgspec import Struct

from zsky_box import accounts, cursors, entries, keys, ledger, statements, timeline, usage
from zsky_box.api import queries
from zsky_box.api.deps import Services, services
from zsky_box.api.statements import roll
from zsky_box.db import Rows
from zsky_box.errors import Refusal, not_found
from zsky_box.keys import Caller
from zsky_box.pages import frame, usage_ledger, usage_tables
from zsky_box.pages.usage_ledger import Asked
from zsky_box.pages.usage_tables import dollars, micro_dollars
from zsky_box.periods import Period, following
from zsky_box.pricing import micros, usd
from zsky_box.statements import Statement
from zsky_box.statements.closing import first_month
from zsky_box.statements.reading import Month
from zsky_box.statements.rendering import credit_view, head_view, item_view, line_view
from zsky_box.statements.views import LineView, StatementItem

MONTHS_MAX: Final = 240
KEYS_OFFERED_MAX: Final = 100
STATEMENTS_BESIDE: Final = 6
STATEMENTS_PAGE: Final = 24
LINES_PAGE: Final = 400
CREDITS_MAX: Final = 500
_LINE_CURSOR: Final = "l"


@get("/usage", opt={"page": "member"}, include_in_schema=False)
async def show_usage(request: Request[Any, Any, Any]) -> Template:
    """A month's figures, charts and ledger; `job` shows what one job cost."""
    box, caller = services(request), frame.person(request)
    asked = usage_ledger.read(list(request.query_params.items()))
    await roll(box, caller)
    found = await box.store.read(lambda: _month(box, caller, asked))
    return frame.page(request, "usage.html", place="usage", title="Usage", **found)


@get("/usage/statements", opt={"page": "member"}, include_in_schema=False)
async def list_statements(request: Request[Any, Any, Any]) -> Template:
    """All statements, newest first."""
    box, caller = services(request), frame.person(request)
    before = queries.read(list(request.query_params.items()), {"before": str}).get("before")
    await roll(box, caller)

    def read() -> list[Month]:
        with box.store.snapshot() as rows:
            account = accounts.get(rows, caller.account.id)
            try:
                return statements.months(rows, account, box.clock(), before, STATEMENTS_PAGE + 1, box.terms)
            except ValueError as error:
                raise not_found("month") from error

    found = await box.store.read(read)
    older = found[STATEMENTS_PAGE - 1].period.key if len(found) > STATEMENTS_PAGE else ""
    months = [_titled(item_view(month)) for month in found[:STATEMENTS_PAGE]]
    return frame.page(
        request, "usage/statements.html", place="usage", title="Statements", months=months, older=older, before=before
    )


@get("/usage/statements/{month:str}", opt={"page": "member"}, include_in_schema=False)
async def show_statement(request: Request[Any, Any, Any], month: FromPath[str]) -> Template:
    """One statement, ready to print; the lines of a long one in parts."""
    box, caller = services(request), frame.person(request)
    query = queries.read(list(request.query_params.items()), {"after": str})
    after = cursors.read(_LINE_CURSOR, query["after"]) if "after" in query else 0
    await roll(box, caller)
    found = await box.store.read(lambda: _statement(box, caller, month, after))
    title = f"Statement of {month_title(month)}"
    return frame.page(request, "usage/statement.html", place="usage", title=title, month=month, **found)


def _month(box: Services, caller: Caller, asked: Asked) -> dict[str, Any]:
    now, account_id = box.clock(), caller.account.id
    with box.store.snapshot() as rows:
        try:
            found = usage.view(rows, caller, asked.month, now, box.terms, box.usage_memo)
        except ValueError as error:
            raise not_found("month of usage") from error
        period = box.terms.calendar.period(found.period.key)
        statement = statements.statement(rows, account_id, period.key, now, box.terms)
        owned = keys.listed(rows, account_id)
        labels = usage_tables.key_labels(owned)
        account = accounts.get(rows, account_id)
        narrowed = usage_ledger.filters(asked, period, box.terms)
        listed = entries.page(box.store, caller, narrowed, usage_ledger.ROWS, asked.cursor)
        names = accounts.names(rows, {entry.actor.rpartition(":")[2] for entry in listed.data})
        beside = statements.months(rows, account, now, None, STATEMENTS_BESIDE, box.terms)
        months = _months(rows, box, caller, now)
    year, number = (int(part) for part in period.key.split("-"))
    return {
        "months": [(key, month_title(key)) for key in months],
        "month": period.key,
        "month_title": month_title(period.key),
        "newer": following(period.key) if following(period.key) in months else "",
        "older": following(period.key, -1) if following(period.key, -1) in months else "",
        "timezone": found.timezone,
        "days_of_month": monthrange(year, number)[1],
        "total": usage_tables.total(found.data),
        "by_day": usage_tables.by_day(found.data),
        "by_key": usage_tables.by_key(found.data, labels),
        "by_model": usage_tables.by_model(found.data),
        "micro_dollars": micro_dollars,
        "dollars": dollars,
        "usd": usd,
        "statement": head_view(statement),
        "limits": found.limits if found.period.key == months[0] else None,
        "asked": asked,
        "job": _job(box, caller, asked.job),
        "lines": usage_ledger.lines(listed.data, labels | names),
        "next_cursor": listed.next_cursor,
        "csv_query": usage_ledger.csv_query(narrowed),
        "types": usage_ledger.LABELS,
        "keys": dict(list(labels.items())[:KEYS_OFFERED_MAX]),
        "statements": [_titled(item_view(month)) for month in beside],
        "day_title": _day_title,
    }


def _months(rows: Rows, box: Services, caller: Caller, now: int) -> list[str]:
    """The months that the account has been there for, newest first."""
    account = accounts.get(rows, caller.account.id)
    first = first_month(rows, account, box.terms)
    key = box.terms.calendar.period_at(timeline.present(rows, now)).key
    found = [key]
    while key > first and len(found) < MONTHS_MAX:
        key = following(key, -1)
        found.append(key)
    return found


def _job(box: Services, caller: Caller, job_id: str) -> dict[str, Any] | None:
    """What one job cost; an empty one where there is no such job of this account."""
    if not job_id:
        return None
    try:
        row = box.reader.row(caller, job_id)
    except Refusal:
        return {}
    charge = ledger.charges(box.store, [job_id]).get(job_id)
    return {
        "id": job_id,
        "type": row["type"],
        "status": row["status"],
        "prompt": row["prompt"],
        "charge": charge,
        "amount": "" if charge is None else micro_dollars(charge.amount_micros),
    }


def _statement(box: Services, caller: Caller, month: str, after: int) -> dict[str, Any]:
    with box.store.snapshot() as rows:
        try:
            found: Statement = statements.statement(rows, caller.account.id, month, box.clock(), box.terms)
        except ValueError as error:
            raise not_found("statement") from error
        labels = usage_tables.key_labels(keys.listed(rows, caller.account.id))
        lines = statements.lines_after(box.store, found, after, LINES_PAGE + 1)
        filled = next(statements.credit_pages(box.store, found), [])[:CREDITS_MAX]
    zone = box.terms.calendar.zone_at(found.period.start_us)
    more, lines = len(lines) > LINES_PAGE, lines[:LINES_PAGE]
    return {
        "head": head_view(found),
        "month_title": month_title(found.period.key),
        "charges": _charges([line_view(row) for row in lines], zone),
        "credits": [(credit, _local(credit.time, zone)) for credit in map(credit_view, filled)],
        "is_continued": after > 0,
        "next_part": cursors.written(_LINE_CURSOR, lines[-1]["id"]) if more else "",
        "is_part": after > 0 or more,
        "labels": labels,
        "dollars": dollars,
        "until": _last_day(found.period),
    }


class Charge(Struct, frozen=True):
    """Lines of one job that follow each other, as one: how many, and what they come to."""

    first: LineView
    at: str
    units: int
    amount: str


def _charges(lines: list[LineView], zone: ZoneInfo) -> list[Charge]:
    found: list[Charge] = []
    for _, group in groupby(lines, lambda line: (line.kind, line.job_id, line.description)):
        of = list(group)
        amount = sum(micros(line.amount_usd) for line in of)
        units = -len(of) if of[0].kind == "refund" else len(of)
        found.append(Charge(of[0], _local(of[0].time, zone), units, micro_dollars(amount)))
    return found


def _local(time: str, zone: ZoneInfo) -> str:
    """A time as a statement prints it: the box's own, whoever reads it."""
    return datetime.fromisoformat(time).astimezone(zone).strftime("%Y-%m-%d %H:%M")


def _titled(item: StatementItem) -> dict[str, Any]:
    return {
        "key": item.period.key,
        "title": month_title(item.period.key),
        "status": item.status,
        "plan": item.plan,
        "fee": dollars(item.plan_fee_usd),
        "overage": dollars(item.overage_usd),
        "total": dollars(item.total_usd),
    }


def month_title(key: str) -> str:
    """A month, such as 2026-11, as a person names it: November 2026."""
    year, number = (int(part) for part in key.split("-"))
    return f"{_MONTHS[number - 1]} {year}"


def _day_title(day: str) -> str:
    """28 November."""
    of = date.fromisoformat(day)
    return f"{of.day} {_MONTHS[of.month - 1]}"


def _last_day(period: Period) -> str:
    year, number = (int(part) for part in period.key.split("-"))
    return f"1 to {monthrange(year, number)[1]} {month_title(period.key)}"


_MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
