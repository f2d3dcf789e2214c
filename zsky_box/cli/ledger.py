"""`zsky-box ledger`: look over the whole ledger, take it away as a file, print statements, pay back."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from zsky_box import accounts, control, db, plans, settings, sheets, statements, timeline
from zsky_box.cli import show, show_money, show_statement
from zsky_box.cli.command import CommandError, Group, json_option
from zsky_box.cli.session import Session, kept_terms, open_reader
from zsky_box.clock import rfc3339, system_clock
from zsky_box.db import Row, Rows
from zsky_box.ledger import verify as verification
from zsky_box.ledger.verify_files import Files
from zsky_box.ledger.verify_report import Report
from zsky_box.pricing import usd

_PIECE_ROWS: Final = 500
_COLUMNS: Final = (
    "id",
    "time",
    "kind",
    "ledger",
    "amount",
    "amount_usd",
    "debit",
    "credit",
    "account_id",
    "account",
    "job_id",
    "ordinal",
    "period",
    "actor",
    "pending_id",
    "budget_id",
    "audit_id",
    "audit_hash",
)
_TRANSFERS: Final = (
    "SELECT t.*, c.name AS account, a.id AS audit_id, a.hash AS audit_hash FROM transfer t"
    " JOIN account c ON c.id = t.account_id LEFT JOIN audit a ON a.transfer_id = t.id ORDER BY t.id"
)

out_option = click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Where to write it (else: printed)."
)


@click.group(name="ledger", cls=Group)
def ledger_group() -> None:
    """All movements of money and units.

    Example: zsky-box ledger verify
    """


@ledger_group.command(name="verify")
@click.option("--files", "content", is_flag=True, help="Read every result too and compare it with its hash on record.")
@json_option
@click.pass_obj
def ledger_verify(folder: Path, content: bool, as_json: bool) -> None:
    """Check everything that must always be true of the ledger, beside the running service. Exits with 1 when a rule is
    broken, and names the first row that breaks it.

    Example: zsky-box ledger verify --files
    """
    report = verify(folder, content=content, quiet=as_json)
    told = {"verifies": report.first is None, **msgspec.to_builtins(report)}
    show.told(told, as_json, show_money.verified)
    if report.first is not None:
        sys.exit(1)


@ledger_group.command(name="export")
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True)
@out_option
@json_option
@click.pass_obj
def ledger_export(folder: Path, form: str, out: Path | None, as_json: bool) -> None:
    """Write all transfers, oldest first, each with the hash of its audit row. `amount` is micros or units.

    Example: zsky-box ledger export --format csv --out ledger.csv
    """
    lines = _json_lines if form == "jsonl" or (as_json and out is None) else _csv_lines
    with open_reader(folder) as connection, db.snapshot(connection) as rows:
        _write(lines(rows), out, as_json)


@ledger_group.command(name="statement")
@click.argument("month", metavar="YYYY-MM")
@click.option("--account", metavar="NAME", help="Whose (name or id; the owner's where none is named).")
@click.option("--format", "form", type=click.Choice(["text", "json", "csv"]), default="text", show_default=True)
@out_option
@json_option
@click.pass_obj
def ledger_statement(folder: Path, month: str, account: str | None, form: str, out: Path | None, as_json: bool) -> None:
    """The statement of a month: plan fee, included units, overage line by line, credits, totals.

    Example: zsky-box ledger statement 2026-11 --account ann --format csv --out ann.csv
    """
    configured = settings.load(folder)
    account_id = _rolled(folder, account, month, configured)
    with open_reader(folder) as connection:
        with db.snapshot(connection) as rows:
            found = statements.statement(rows, account_id, month, system_clock(), kept_terms(rows, configured))
        # Lines are read in pages of their own: all they need of a store is to be read from.
        pages = Rows(connection)
        pieces: Iterator[bytes]
        match "json" if as_json and out is None else form:
            case "json":
                pieces = statements.json_pieces(pages, found)
            case "csv":
                pieces = statements.csv_pieces(pages, found)
            case _:
                pieces = show_statement.text_pieces(pages, found)
        _write(pieces, out, as_json)


@ledger_group.command(name="refund")
@click.argument("job_id", metavar="JOB_ID")
@click.option("--ordinal", type=click.IntRange(min=0), metavar="N", help="Only this result, counted from 0.")
@click.option("--reason", required=True, metavar="TEXT", help="Why, on record.")
@json_option
@click.pass_obj
def ledger_refund(folder: Path, job_id: str, ordinal: int | None, reason: str, as_json: bool) -> None:
    """Pay back what a job was charged: money to the wallet, included units to the current month.

    Example: zsky-box ledger refund job_3q9zkx… --reason "flicker in the second half"
    """
    if len(reason) > control.REASON_MAX:
        raise CommandError(f"A reason has at most {control.REASON_MAX} characters.")
    command = control.RefundJob(job_id=job_id, ordinal=ordinal, reason=reason)
    show.told(Session(folder).control(command), as_json, show_money.refund)


def _rolled(folder: Path, name: str | None, month: str, configured: settings.Settings) -> str:
    """The account's id, once the plan's fees up to this month are on record: a box that was off has charged none."""
    with open_reader(folder) as connection, db.snapshot(connection) as rows:
        account, terms = accounts.named(rows, name) if name else _owner(rows), kept_terms(rows, configured)
        try:
            has_begun = terms.calendar.period(month).start_us <= timeline.present(rows, system_clock())
        except ValueError as error:
            raise CommandError(f"{error}.") from error
        is_due = has_begun and plans.is_due(account, month)
    if is_due:
        Session(folder).control(control.RollPlan(account=account.id))
    return account.id


def verify(folder: Path, *, content: bool, quiet: bool) -> Report:
    """The full verification of the live ledger, with a bar on stderr where that is a terminal."""
    configured = settings.load(folder)
    outputs = Path(configured.outputs).expanduser() if configured.outputs else folder / "outputs"
    with open_reader(folder) as connection, open_reader(folder) as present, db.snapshot(connection) as rows:
        later = Rows(present)

        def is_removed(asset_id: str) -> bool:
            return later.one("SELECT 1 FROM asset WHERE id = ? AND removed_at IS NOT NULL", (asset_id,)) is not None

        files = Files(outputs, content, is_removed)
        with _bar(verification.rows_to_read(rows, files), quiet=quiet) as told:
            return verification.verify(rows, files=files, told=told)


@contextmanager
def _bar(total: int, *, quiet: bool) -> Generator[Callable[[int], None]]:
    console = Console(stderr=True)
    columns = (TextColumn("verifying"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("verifying", total=total)
        yield lambda read: bar.advance(task, read)


def _owner(rows: Rows) -> accounts.Account:
    owner = accounts.owner(rows)
    if owner is None:
        raise CommandError("There is no owner yet; run `zsky-box init` first.")
    return owner


def _cells(row: Row) -> tuple[str | int | None, ...]:
    return (
        row["id"],
        rfc3339(row["at"]),
        row["kind"],
        row["ledger"],
        row["amount"],
        usd(row["amount"]) if row["ledger"] == "usd" else None,
        row["debit"],
        row["credit"],
        row["account_id"],
        row["account"],
        row["job_id"],
        row["ordinal"],
        row["period"],
        row["actor"],
        row["pending_id"],
        row["budget_id"],
        row["audit_id"],
        None if row["audit_hash"] is None else row["audit_hash"].hex(),
    )


def _csv_lines(rows: Rows) -> Iterator[bytes]:
    yield sheets.lines([_COLUMNS])
    piece: list[tuple[str | int | None, ...]] = []
    named = _COLUMNS.index("account")
    for row in rows.each(_TRANSFERS):
        cells = _cells(row)
        piece.append((*cells[:named], sheets.told(str(cells[named])), *cells[named + 1 :]))
        if len(piece) == _PIECE_ROWS:
            yield sheets.lines(piece)
            piece = []
    yield sheets.lines(piece)


def _json_lines(rows: Rows) -> Iterator[bytes]:
    for row in rows.each(_TRANSFERS):
        yield msgspec.json.encode(dict(zip(_COLUMNS, _cells(row), strict=True))) + b"\n"


def _write(pieces: Iterator[bytes], out: Path | None, as_json: bool) -> None:
    """Print, or write a file whole or not at all; what is there already and is no file is written to as it is."""
    if out is None:
        for piece in pieces:
            click.echo(piece.decode(), nl=False)
        return
    if out.exists() and not out.is_file() and not out.is_dir():
        with out.open("wb") as device:
            device.writelines(pieces)
        return
    target = out.resolve()
    if not target.name or not target.parent.is_dir() or target.is_dir():
        raise CommandError(f"{str(out)!r} is not where a file can be; name one in a folder that is there.")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            if target.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            file.writelines(pieces)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    told: dict[str, Any] = {"path": str(target)}
    click.echo(json.dumps(told) if as_json else told["path"])
