"""The full verification: what must always be true of the ledger, checked over all of it in one state of the store.

Each rule that is broken is told with its first broken row. Memory stays flat: rows are streamed, and what is kept is
one entry per balance, counter and limit.
"""

from __future__ import annotations

from zsky_box import audit, timeline
from zsky_box.db import Rows, Store
from zsky_box.ledger import verify_files, verify_plans, verify_told
from zsky_box.ledger.verify_files import Files
from zsky_box.ledger.verify_replay import BALANCES, Replay
from zsky_box.ledger.verify_report import Fault, Report, Told, Watched
from zsky_box.ledger.verify_rules import RULES
from zsky_box.periods import Calendar

CHAIN = "the audit's rows are chained"


def verify(
    rows: Rows, calendar: Calendar | None = None, files: Files | None = None, told: Told | None = None
) -> Report:
    """Check every rule on one state; `calendar` is the store's own unless one is given.

    `files` looks at the results on disk too. `told` hears of rows read: `rows_to_read` says of how many in all.
    """
    watched = Watched(rows, told or _nobody)
    replay = Replay(watched, calendar or timeline.calendar(rows))
    faults = replay.faults()
    for rule in RULES:
        if (fault := rule.first_fault(rows)) is not None:
            faults.append(fault)
    for first_fault in (verify_plans.first_fault, *verify_told.TOLD):
        if (fault := first_fault(rows)) is not None:
            faults.append(fault)
    if (number := audit.first_broken_row_of(watched)) is not None:
        faults.append(Fault(CHAIN, "audit", str(number), "does not fit the chain"))
    count: int | None = None
    if files is not None:
        count, missing = verify_files.first_fault(watched, files)
        faults += [] if missing is None else [missing]
    return Report(
        transfers=replay.count,
        audit_rows=_count(rows, "SELECT count(*) AS n FROM audit"),
        jobs=_count(rows, "SELECT count(*) AS n FROM job"),
        files=count,
        faults=tuple(faults),
    )


def rows_to_read(rows: Rows, files: Files | None = None) -> int:
    """How many rows `verify` will tell of."""
    of_files = 0 if files is None else _count(rows, "SELECT count(*) AS n FROM asset WHERE removed_at IS NULL")
    movements = _count(rows, "SELECT count(*) AS n FROM transfer")
    return movements + _count(rows, "SELECT count(*) AS n FROM audit") + of_files


def first_wrong_balance(store: Store) -> str | None:
    """Replay all transfers against the balances kept beside them; a sentence about the first that differs, or None."""
    with store.snapshot() as rows:
        for fault in Replay(rows, None).faults():
            if fault.rule == BALANCES:
                return f"{fault.table} {fault.row} {fault.told}"
    return None


def _count(rows: Rows, sql: str) -> int:
    row = rows.one(sql)
    return 0 if row is None else int(row["n"])


def _nobody(_: int) -> None:
    """Nobody listens."""
