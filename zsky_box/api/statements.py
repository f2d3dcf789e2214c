"""What an account has used, what was entered of it, and what it owes: as JSON, and as CSV by `Accept` or `.csv`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from litestar import Request, Response, get
from litestar.params import FromPath

from zsky_box import accounts, cursors, entries, overage, plans, statements, timeline, usage
from zsky_box.api import queries, tables
from zsky_box.api.access import caller_of
from zsky_box.api.deps import Services, services
from zsky_box.api.problems import documented
from zsky_box.api.sending import from_store
from zsky_box.entries import EntryList
from zsky_box.errors import FieldError, InvalidFields, not_found
from zsky_box.keys import Caller
from zsky_box.periods import Period
from zsky_box.statements import StatementList, StatementView
from zsky_box.statements.rendering import item_view
from zsky_box.terms import Terms
from zsky_box.usage import UsageView

_MONTH: Final = {"type": "string", "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])$"}
_PAGE: Final = {
    "limit": {"type": "integer", "minimum": 1, "maximum": entries.PAGE_MAX, "default": entries.PAGE_DEFAULT},
    "cursor": {"type": "string"},
}
_FILTERS: Final = {
    "type": {"type": "string", "enum": [entries.MONEY, *entries.TYPES]},
    "action": {"type": "string"},
    "job_id": {"type": "string"},
    "key_id": {"type": "string"},
    "period": _MONTH,
    "created_after": {"type": "string", "format": "date-time"},
    "created_before": {"type": "string", "format": "date-time"},
}


@get(
    "/me/usage",
    opt={"scope": "read", "csv": True, "query": {"period": _MONTH}},
    operation_id="getUsage",
    tags=["account"],
    summary="What you have used",
    responses=tables.answers(UsageView, "not_found"),
)
async def get_usage(request: Request[Any, Any, Any]) -> Response[Any]:
    """A month's jobs per local day, type, model and key (`period`, default the current month), and your limits."""
    return await _usage(request, as_csv=tables.prefers_csv(request))


@get(
    "/me/usage.csv",
    opt={"scope": "read", "query": {"period": _MONTH}},
    operation_id="getUsageCsv",
    tags=["account"],
    summary="What you have used, as CSV",
    responses=tables.documented_sheet("not_found"),
)
async def get_usage_csv(request: Request[Any, Any, Any]) -> Response[Any]:
    """The same as a table."""
    return await _usage(request, as_csv=True)


@get(
    "/me/ledger",
    opt={"scope": "read", "csv": True, "query": _PAGE | _FILTERS},
    operation_id="listLedger",
    tags=["account"],
    summary="Every movement and change, newest first",
    responses=tables.answers(EntryList),
)
async def list_ledger(request: Request[Any, Any, Any]) -> Response[Any]:
    """Deductions, top-ups, refunds, alerts, changes; each charge names its job. A page may be short with more to come.

    As CSV everything that the filters match, unless a `limit` is given.
    """
    return await _ledger(request, as_csv=tables.prefers_csv(request))


@get(
    "/me/ledger.csv",
    opt={"scope": "read", "query": _PAGE | _FILTERS},
    operation_id="listLedgerCsv",
    tags=["account"],
    summary="Every movement and change, as CSV",
    responses=tables.documented_sheet(),
)
async def list_ledger_csv(request: Request[Any, Any, Any]) -> Response[Any]:
    """Everything that the filters match, unless a `limit` is given."""
    return await _ledger(request, as_csv=True)


@get(
    "/me/statements",
    opt={"scope": "read", "query": _PAGE},
    operation_id="listStatements",
    tags=["account"],
    summary="Your statements, newest first",
    responses=documented("invalid_field", "unknown_field"),
)
async def list_statements(request: Request[Any, Any, Any]) -> Response[StatementList]:
    """One for each month since the account began, with its totals; the current month's is open."""
    values = queries.read(list(request.query_params.items()), _PAGE_READERS)
    box, caller = services(request), caller_of(request)
    before = None if "cursor" not in values else _key_of(cursors.read("s", values["cursor"]))
    limit = values.get("limit", entries.PAGE_DEFAULT)
    await roll(box, caller)
    found = await box.store.read(lambda: _months(box, caller, before, limit))
    return Response(found, media_type=tables.JSON, headers=tables.NO_STORE)


@get(
    "/me/statements/{month:str}",
    opt={"scope": "read", "csv": True},
    operation_id="getStatement",
    tags=["account"],
    summary="What you owe for a month",
    responses=tables.answers(StatementView, "not_found"),
)
async def get_statement(request: Request[Any, Any, Any], month: FromPath[str]) -> Response[Any]:
    """`month` is YYYY-MM, or YYYY-MM.csv: plan fee, included units, a line for each unit charged, credits, totals.

    Once the month is over and nothing of it is pending, the statement is `closed` and never changes.
    """
    queries.read(list(request.query_params.items()), {})
    box, caller, key = services(request), caller_of(request), month.removesuffix(".csv")
    period: Period = queries.read([("month", key)], {"month": _period_of(box.terms)})["month"]
    if caller.key.test:
        raise not_found("statement")  # a test key's jobs owe nothing, and live ones are none of its affair
    await roll(box, caller)
    now = box.clock()

    def read() -> statements.Statement:
        with box.store.snapshot() as rows:
            return statements.statement(rows, caller.account.id, period.key, now, box.terms)

    found = await box.store.read(read)
    if month != key or tables.prefers_csv(request):
        return tables.sheet(box.store, statements.csv_pieces(box.store, found), f"statement-{key}")
    return from_store(
        box.store, statements.json_pieces(box.store, found), media_type=tables.JSON, headers=tables.NO_STORE
    )


async def _usage(request: Request[Any, Any, Any], *, as_csv: bool) -> Response[Any]:
    box, caller = services(request), caller_of(request)
    period = queries.read(list(request.query_params.items()), {"period": _period_of(box.terms)}).get("period")
    now, key = box.clock(), None if period is None else period.key

    def read() -> UsageView:
        with box.store.snapshot() as rows:
            return usage.view(rows, caller, key, now, box.terms, box.usage_memo)

    found = await box.store.read(read)
    if as_csv:
        return tables.sheet(box.store, usage.csv_pieces(found), f"usage-{found.period.key}")
    return Response(found, media_type=tables.JSON, headers=tables.NO_STORE)


async def _ledger(request: Request[Any, Any, Any], *, as_csv: bool) -> Response[Any]:
    box, caller = services(request), caller_of(request)
    readers = _PAGE_READERS | {
        "type": queries.one_of((entries.MONEY, *entries.TYPES)),
        "action": str,
        "job_id": str,
        "key_id": str,
        "period": _period_of(box.terms),
        "created_after": queries.time,
        "created_before": queries.time,
    }
    values = queries.read(list(request.query_params.items()), readers)
    limit, cursor = values.pop("limit", None), values.pop("cursor", None)
    filters = entries.Filters(**values)
    if as_csv:
        return tables.sheet(box.store, entries.csv_pieces(box.store, caller, filters, limit, cursor), "ledger")
    size = limit or entries.PAGE_DEFAULT
    found = await box.store.read(lambda: entries.page(box.store, caller, filters, size, cursor))
    return Response(found, media_type=tables.JSON, headers=tables.NO_STORE)


def _months(box: Services, caller: Caller, before: str | None, limit: int) -> StatementList:
    if caller.key.test:
        return StatementList(data=[], has_more=False, next_cursor=None)
    with box.store.snapshot() as rows:
        account = accounts.get(rows, caller.account.id)
        found = statements.months(rows, account, box.clock(), before, limit + 1, box.terms)
    more, found = len(found) > limit, found[:limit]
    cursor = cursors.written("s", int(found[-1].period.key.replace("-", ""))) if more else None
    return StatementList(data=[item_view(month) for month in found], has_more=more, next_cursor=cursor)


async def roll(box: Services, caller: Caller) -> None:
    """Charge the plan's fee of a month that has begun since, so that its first look shows it."""
    account_id, now = caller.account.id, box.clock()

    def is_due() -> bool:
        with box.store.snapshot() as rows:
            period = box.terms.calendar.period_at(timeline.present(rows, now))
            return plans.is_due(accounts.get(rows, account_id), period.key)

    if not caller.key.test and await box.store.read(is_due):
        await box.store.write_async(lambda tx: overage.roll(tx, account_id, now=now, terms=box.terms))


def _period_of(terms: Terms) -> Callable[[str], Period]:
    """What reads a month's name."""

    def read_period(text: str) -> Period:
        try:
            return terms.calendar.period(text)
        except ValueError:
            raise ValueError("give a month such as 2026-11") from None

    return read_period


def _key_of(number: int) -> str:
    """The month of a cursor; a made-up one is told as such."""
    year, month = divmod(number, 100)
    if not (1970 <= year < 2100 and 1 <= month <= 12):
        raise InvalidFields(
            [FieldError("cursor", "invalid_field", "cursor: use the next_cursor of a page as it came.")]
        )
    return f"{year:04d}-{month:02d}"


_PAGE_READERS: Final[dict[str, Any]] = {"limit": queries.limit(entries.PAGE_MAX), "cursor": str}
