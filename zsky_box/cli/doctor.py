"""`zsky-box doctor`: what a person would check by hand when the box does not do what it should."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import httpx

from zsky_box import db, timeline
from zsky_box.checkup import Finding, bad, good, note, of_clock, of_devices, of_machine
from zsky_box.cli.command import CommandError
from zsky_box.cli.session import Session, open_reader
from zsky_box.clock import rfc3339, system_clock
from zsky_box.errors import StoreError
from zsky_box.ledger.verify import verify


def examine(folder: Path) -> list[Finding]:
    """All findings, in the order in which a person would look."""
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("service", lambda: _service(folder)),
        ("devices", lambda: _devices(folder)),
        ("clock", lambda: _clock(folder)),
        ("ledger", lambda: _ledger(folder)),
    )
    found = [*of_machine(folder), *((name, check()) for name, check in checks)]
    return [{"name": name, **finding} for name, finding in found]


def _service(folder: Path) -> Finding:
    try:
        url = Session(folder).url
    except StoreError as error:
        return bad(f"{error}; remove that file while the service is stopped")
    return note("not running; start it with `zsky-box serve`") if url is None else good(f"answers on {url}")


def _devices(folder: Path) -> Finding:
    """What the running service says of its devices."""
    try:
        session = Session(folder)
        ready = session.readiness() if session.is_running() else None
    except (StoreError, httpx.HTTPError, ValueError) as error:
        return bad(str(error))
    if ready is None:
        return note("asked of the running service only")
    return of_devices(ready.get("quarantined") or {}, ready["status"])


def _clock(folder: Path) -> Finding:
    """Whether the box's clock is where the ledger's is: far behind it, no money moves."""
    if not timeline.is_possible(now := system_clock()):
        return bad(f"says {rfc3339(now)}, which cannot be: set it")
    if not (folder / db.FILE_NAME).exists():
        return note("no ledger yet to compare it with")
    try:
        with open_reader(folder) as connection, db.snapshot(connection) as rows:
            return of_clock(rows, now)
    except (CommandError, sqlite3.DatabaseError) as error:
        return bad(str(error))


def _ledger(folder: Path) -> Finding:
    """All rules that the store can show, read beside the running service; the results' files are `ledger verify`'s."""
    if not (folder / db.FILE_NAME).exists():
        return note("none yet")
    try:
        with open_reader(folder) as connection, db.snapshot(connection) as rows:
            report = verify(rows)
    except (CommandError, sqlite3.DatabaseError) as error:
        return bad(str(error))
    if report.first is not None:
        return bad(str(report.first))
    return good(f"verifies: {report.transfers} transfers, {report.audit_rows} audit rows, {report.jobs} jobs")
