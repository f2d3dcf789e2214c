"""What an account has made in a month: per local day, type, model and key, with what the wallet paid for it.

A job belongs to the month of its reserves, and what was paid back is taken off there: the sum is the `spend_usd` of the
overage, while a statement shows refunds in the month they were made in.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal

from msgspec import Struct

from zsky_box import accounts, limits, sheets, timeline
from zsky_box.clock import SECOND_US
from zsky_box.db import Row, Rows
from zsky_box.errors import not_found
from zsky_box.keys import Caller
from zsky_box.limits import LimitsView
from zsky_box.manifest import JobType
from zsky_box.periods import Period
from zsky_box.pricing import usd
from zsky_box.sheets import Cell, told
from zsky_box.statements.closing import first_month
from zsky_box.statements.rendering import month_view
from zsky_box.statements.views import MonthView
from zsky_box.terms import Terms

QUARTER_US: Final = 900 * SECOND_US
"""Every zone's days begin at a full quarter of an hour, UTC: jobs are added up by quarters, and those by days."""
MEMO_MAX: Final = 256


class Made(Struct, kw_only=True):
    """Jobs and what they took; `units` were asked for, the other figures are what was charged and not paid back."""

    jobs: int = 0
    completed: int = 0
    failed: int = 0
    units: int = 0
    included_units: int = 0
    wallet_units: int = 0
    amount_usd: str = "0.00"


class UsageKeyView(Struct, kw_only=True):
    """The key that the jobs came through."""

    id: str
    name: str


class UsageRow(Made, kw_only=True):
    """The jobs of one local day, of one type and model, through one key."""

    day: str
    type: JobType
    model: str
    key: UsageKeyView


class UsageView(Struct, kw_only=True):
    """A month's usage; `limits` is null for a test key, which has no money to limit."""

    object: Literal["usage"] = "usage"
    account: str
    test: bool
    period: MonthView
    timezone: str
    totals: Made
    data: list[UsageRow]
    limits: LimitsView | None


COLUMNS: Final = (
    "day",
    "type",
    "model",
    "key_id",
    "key_name",
    "jobs",
    "completed",
    "failed",
    "units",
    "included_units",
    "wallet_units",
    "amount_usd",
)


class Memo:
    """What was counted lately, by account and month, with the transfer up to which it holds.

    To count is work that grows with the month; whoever looks at it looks again, mostly before anything was added.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Of, tuple[int, _Counts]] = OrderedDict()

    def counts(self, of: _Of, newest: int, count: Callable[[], _Counts]) -> _Counts:
        """What is kept for this state of the ledger, else what `count` finds."""
        with self._lock:
            kept = self._kept.get(of)
        if kept is not None and kept[0] == newest:
            return kept[1]
        found = count()
        with self._lock:
            self._kept[of] = newest, found
            self._kept.move_to_end(of)
            while len(self._kept) > MEMO_MAX:
                self._kept.popitem(last=False)
        return found


def view(rows: Rows, caller: Caller, key: str | None, now: int, terms: Terms, memo: Memo) -> UsageView:
    """The month's usage (None: of the current one).

    Raises ValueError for what is no month, 404 for one that has not begun or was over before the account existed.
    """
    account, present = accounts.get(rows, caller.account.id), timeline.present(rows, now)
    period = terms.calendar.period_at(present) if key is None else terms.calendar.period(key)
    if period.start_us > present or period.key < first_month(rows, account, terms):
        raise not_found("month of usage")
    test = caller.key.test
    if test:
        counts = _counted(rows, account.id, period, terms, test=True)
    else:  # whatever becomes of a live job is a transfer; one of a later month may take back one of this
        newest = rows.one(_NEWEST, (account.id, period.key))
        counts = memo.counts(
            (account.id, period.key, period.start_us, period.end_us),
            0 if newest is None else newest["id"] or 0,
            lambda: _counted(rows, account.id, period, terms, test=False),
        )
    names = {
        row["id"]: row["name"] for row in rows.each("SELECT id, name FROM api_key WHERE account_id = ?", (account.id,))
    }
    total = _Count()
    for count in counts.values():
        total.join(count)
    return UsageView(
        account=account.id,
        test=test,
        period=month_view(period),
        timezone=terms.calendar.zone_at(period.start_us).key,
        totals=total.made(),
        data=sorted((_row_view(of, counts[of], names) for of in counts), key=_order),
        limits=None if test else limits.limits(rows, account, period.key, now),
    )


def _counted(rows: Rows, account_id: str, period: Period, terms: Terms, *, test: bool) -> _Counts:
    values = {"account": account_id, "period": period.key, "start": period.start_us, "end": period.end_us}
    counts: _Counts = {}
    for row in rows.each(f"{_TEST if test else _LIVE} {_GROUPED}", values | {"quarter": QUARTER_US}):
        day = _local_day(row["quarter"] * QUARTER_US, period, terms)
        counts.setdefault((day, row["type"], row["model"], row["key_id"]), _Count()).add(row)
    return counts


def csv_pieces(found: UsageView) -> Iterator[bytes]:
    """A row for each row, and a last one of the totals."""
    yield sheets.lines([COLUMNS, *(_cells(row) for row in found.data)])
    yield sheets.lines([["total", None, None, None, None, *_figures(found.totals)]])


class _Count:
    """Sums of integers, money in micros."""

    def __init__(self) -> None:
        self.sums: dict[str, int] = dict.fromkeys(_SUMMED, 0)

    def add(self, row: Row) -> None:
        for name in _SUMMED:
            self.sums[name] += row[name]

    def join(self, other: _Count) -> None:
        for name in _SUMMED:
            self.sums[name] += other.sums[name]

    def made(self) -> Made:
        return Made(**self.figures())

    def figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = dict(self.sums)
        return figures | {"amount_usd": usd(figures.pop("amount"))}


_Counts = dict[tuple[str, str, str, str], _Count]
"""By day, type, model and key."""
_Of = tuple[str, str, int, int]
"""An account, and a month with its bounds."""

_SUMMED: Final = ("jobs", "completed", "failed", "units", "included_units", "wallet_units", "amount")


def _local_day(at_us: int, period: Period, terms: Terms) -> str:
    """The date in the month's zone; never a day beyond the month, which a change of zone may cut short."""
    zone = terms.calendar.zone_at(period.start_us)
    inside = min(max(at_us, period.start_us), period.end_us - 1)
    return datetime.fromtimestamp(inside // SECOND_US, UTC).astimezone(zone).date().isoformat()


def _row_view(of: tuple[str, str, str, str], count: _Count, names: dict[str, str]) -> UsageRow:
    day, kind, model, key_id = of
    key = UsageKeyView(id=key_id, name=names.get(key_id, key_id))
    return UsageRow(day=day, type="video" if kind == "video" else "image", model=model, key=key, **count.figures())


def _order(row: UsageRow) -> tuple[str, ...]:
    return row.day, row.type, row.model, row.key.name, row.key.id


def _cells(row: UsageRow) -> list[Cell]:
    return [row.day, row.type, row.model, row.key.id, told(row.key.name), *_figures(row)]


def _figures(made: Made) -> list[Cell]:
    return [
        made.jobs,
        made.completed,
        made.failed,
        made.units,
        made.included_units,
        made.wallet_units,
        made.amount_usd,
    ]


_GROUPED: Final = (
    "SELECT quarter, type, model, key_id, count(*) AS jobs, count(*) FILTER (WHERE status = 'completed') AS completed,"
    " count(*) FILTER (WHERE status = 'failed') AS failed, sum(units) AS units, sum(included_units) AS included_units,"
    " sum(wallet_units) AS wallet_units, sum(amount) AS amount FROM made GROUP BY quarter, type, model, key_id"
)
# A reserve, the post or void that ended it, and the refund that took the post back: kept is what none did.
_LIVE: Final = (
    "WITH charged AS (SELECT r.job_id, min(r.at) / :quarter AS quarter, count(*) AS units,"
    " count(*) FILTER (WHERE p.kind = 'post' AND f.id IS NULL AND r.ledger != 'usd') AS included_units,"
    " count(*) FILTER (WHERE p.kind = 'post' AND f.id IS NULL AND r.ledger = 'usd') AS wallet_units,"
    " coalesce(sum(r.amount) FILTER (WHERE p.kind = 'post' AND f.id IS NULL AND r.ledger = 'usd'), 0) AS amount"
    " FROM transfer r INDEXED BY transfer_by_account"
    " LEFT JOIN transfer p ON p.pending_id = r.id AND p.kind IN ('post', 'void')"
    " LEFT JOIN transfer f ON f.pending_id = p.id AND f.kind = 'refund'"
    " WHERE r.account_id = :account AND r.period = :period AND r.kind = 'reserve' GROUP BY r.job_id),"
    " made AS (SELECT c.*, j.type, j.model, j.key_id, j.status FROM charged c CROSS JOIN job j ON j.id = c.job_id)"
)
_TEST: Final = (
    "WITH made AS (SELECT created_at / :quarter AS quarter, type, model, key_id, status, n AS units,"
    " 0 AS included_units, 0 AS wallet_units, 0 AS amount FROM job INDEXED BY job_by_account"
    " WHERE account_id = :account AND test = 1 AND created_at >= :start AND created_at < :end)"
)
_NEWEST: Final = (
    "SELECT max(id) AS id FROM transfer INDEXED BY transfer_by_account WHERE account_id = ? AND period >= ?"
)
