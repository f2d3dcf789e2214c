"""A statement as JSON and as CSV, in pieces of a page each: memory stays flat however many lines there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from zsky_box import sheets
from zsky_box.clock import rfc3339
from zsky_box.db import Row
from zsky_box.ledger.wallet import BY_RULE
from zsky_box.periods import Period
from zsky_box.pricing import usd
from zsky_box.sheets import Cell, told
from zsky_box.statements.reading import Month, Pages, Statement, credit_pages, line_pages, signed_micros
from zsky_box.statements.views import (
    CreditView,
    IncludedView,
    LineView,
    MonthView,
    PlanLineView,
    StatementHead,
    StatementItem,
    TypeTotalView,
    WalletView,
)
from zsky_box.terms import KINDS

PIECE_BYTES: Final = 64 * 1024
COLUMNS: Final = (
    "period",
    "account",
    "name",
    "row",
    "ledger_id",
    "pending_id",
    "time",
    "job_id",
    "ordinal",
    "type",
    "model",
    "key_id",
    "units",
    "amount_usd",
    "description",
    "metadata",
)


def json_pieces(store: Pages, found: Statement) -> Iterator[bytes]:
    """The bytes of a `StatementView`."""
    yield msgspec.json.encode(head_view(found)).removesuffix(b"}") + b',"lines":['
    yield from _listed(line_view(row) for page in line_pages(store, found) for row in page)
    yield b'],"credits":['
    yield from _listed(credit_view(row) for page in credit_pages(store, found) for row in page)
    yield b"]}"


def csv_pieces(store: Pages, found: Statement) -> Iterator[bytes]:
    """A row for each fee, type of included units, line, credit and total; `amount_usd` of the first ones is owed."""
    yield sheets.lines([COLUMNS, *_plan_rows(found)])
    for page in line_pages(store, found):
        yield sheets.lines([_line_row(found, line_view(row)) for row in page])
    for page in credit_pages(store, found):
        yield sheets.lines([_credit_row(found, credit_view(row)) for row in page])
    yield sheets.lines(_total_rows(found))


def item_view(month: Month) -> StatementItem:
    """A statement in a list."""
    return StatementItem(
        period=month_view(month.period),
        status="open" if month.closed_at is None else "closed",
        closed_at=None if month.closed_at is None else rfc3339(month.closed_at),
        plan=month.plan,
        plan_fee_usd=usd(month.plan_fee_micros),
        overage_usd=usd(month.overage_micros),
        total_usd=usd(month.plan_fee_micros + month.overage_micros),
    )


def month_view(period: Period) -> MonthView:
    """A period by its name and its instants."""
    return MonthView(key=period.key, start=rfc3339(period.start_us), end=rfc3339(period.end_us))


def head_view(found: Statement) -> StatementHead:
    """A statement without its lines."""
    wallet = found.wallet
    return StatementHead(
        account=found.account.id,
        name=found.account.name,
        period=month_view(found.period),
        timezone=found.timezone,
        status="open" if found.closed_at is None else "closed",
        closed_at=None if found.closed_at is None else rfc3339(found.closed_at),
        plan=found.plan,
        plan_lines=[PlanLineView(description=text, amount_usd=usd(amount)) for text, amount in found.plan_lines],
        plan_fee_usd=usd(found.plan_fee_micros),
        included={
            kind: IncludedView(granted=of.granted, used=of.used, pending=of.pending)
            for kind, of in found.included.items()
        },
        overage={
            kind: TypeTotalView(units=of.units, refunded_units=of.refunded_units, amount_usd=usd(of.amount_micros))
            for kind, of in found.overage.items()
        },
        overage_usd=usd(found.overage_micros),
        total_usd=usd(found.plan_fee_micros + found.overage_micros),
        pending_usd=usd(found.pending_micros),
        wallet=WalletView(
            opening_usd=usd(wallet.opening),
            credits_usd=usd(wallet.credits),
            overage_usd=usd(found.overage_micros),
            closing_usd=usd(wallet.closing),
        ),
    )


def line_view(row: Row) -> LineView:
    """One unit that was charged or paid back."""
    return LineView(
        kind="refund" if row["kind"] == "refund" else "overage",
        ledger_id=row["id"],
        pending_id=row["pending_id"],
        time=rfc3339(row["at"]),
        job_id=row["job_id"],
        ordinal=row["ordinal"],
        type=row["type"],
        model=row["model"],
        key_id=row["key_id"],
        amount_usd=usd(signed_micros(row)),
        description=why(row),
        metadata=msgspec.json.decode(row["metadata"], type=dict[str, str]),
    )


def credit_view(row: Row) -> CreditView:
    """What filled the wallet, or was taken out of it."""
    by_rule = row["kind"] == "topup" and row["actor"] == BY_RULE
    return CreditView(
        kind="correction" if row["kind"] == "correct" else "replenish" if by_rule else "topup",
        ledger_id=row["id"],
        time=rfc3339(row["at"]),
        actor=row["actor"],
        amount_usd=usd(signed_micros(row)),
        description=why(row),
    )


def why(row: Row) -> str:
    """The reason that was given, which the audit keeps."""
    after: dict[str, Any] = {} if row["after"] is None else msgspec.json.decode(row["after"])
    return str(after.get("why", ""))


def _listed(views: Iterator[msgspec.Struct]) -> Iterator[bytes]:
    """The elements of a JSON list, so many to a piece."""
    piece = bytearray()
    comma = b""
    for view in views:
        piece += comma + msgspec.json.encode(view)
        comma = b","
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _row(found: Statement, **cells: Cell) -> list[Cell]:
    cells |= {"period": found.period.key, "account": found.account.id, "name": told(found.account.name)}
    return [cells.get(name) for name in COLUMNS]


def _plan_rows(found: Statement) -> list[list[Cell]]:
    fees = [
        _row(found, row="plan_fee", amount_usd=usd(amount), description=told(text)) for text, amount in found.plan_lines
    ]
    return fees + [
        _row(
            found,
            row="included",
            type=kind,
            units=found.included[kind].used,
            description=f"of {found.included[kind].granted} granted, {found.included[kind].pending} pending",
        )
        for kind in KINDS
    ]


def _line_row(found: Statement, line: LineView) -> list[Cell]:
    return _row(
        found,
        row=line.kind,
        ledger_id=line.ledger_id,
        pending_id=line.pending_id,
        time=line.time,
        job_id=line.job_id,
        ordinal=line.ordinal,
        type=line.type,
        model=line.model,
        key_id=line.key_id,
        units=-1 if line.kind == "refund" else 1,
        amount_usd=line.amount_usd,
        description=told(line.description),
        metadata=sheets.compact(line.metadata),
    )


def _credit_row(found: Statement, credit: CreditView) -> list[Cell]:
    return _row(
        found,
        row=credit.kind,
        ledger_id=credit.ledger_id,
        time=credit.time,
        amount_usd=credit.amount_usd,
        description=told(f"{credit.description} ({credit.actor})" if credit.description else credit.actor),
    )


def _total_rows(found: Statement) -> list[list[Cell]]:
    head = head_view(found)
    rows = [
        _row(
            found,
            row="type_total",
            type=kind,
            units=found.overage[kind].units - found.overage[kind].refunded_units,
            amount_usd=head.overage[kind].amount_usd,
        )
        for kind in KINDS
    ]
    totals = {
        "plan_fee_usd": head.plan_fee_usd,
        "overage_usd": head.overage_usd,
        "total_usd": head.total_usd,
        "pending_usd": head.pending_usd,
        "wallet opening_usd": head.wallet.opening_usd,
        "wallet credits_usd": head.wallet.credits_usd,
        "wallet closing_usd": head.wallet.closing_usd,
    }
    rows += [_row(found, row="total", description=name, amount_usd=amount) for name, amount in totals.items() if amount]
    return [*rows, _row(found, row="status", description=head.status, time=head.closed_at)]
