"""The full verification beside the running service: what it found last, and another one whenever the owner wants it.

It reads one state of the store over a connection and on a thread of its own, and is given up when the box stops.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from zsky_box import db
from zsky_box.clock import Clock
from zsky_box.ledger.verify import CHAIN, rows_to_read, verify

log = logging.getLogger(__name__)

STOP_SECONDS: Final = 10.0
FAULTS_MAX: Final = 20

State = Literal["running", "holds", "broken", "failed"]


class Verification(Struct, kw_only=True):
    """One verification, now or as it ended: `rows_read` of `rows` so far; times in microseconds.

    `newest_row` is the audit's last row in the state that is read. `broken` means that a rule does not hold: `faults`
    has its sentences, and `is_chained` says whether the audit's chain itself is whole. `failed` was not carried out.
    """

    begun_at: int
    state: State = "running"
    rows_read: int = 0
    rows: int = 0
    newest_row: int = 0
    transfers: int = 0
    jobs: int = 0
    is_chained: bool = True
    faults: list[str] = msgspec.field(default_factory=list[str])
    ended_at: int | None = None


class Verifier:
    """The verifications of a running box, one at a time."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._last: Verification | None = None
        self._ended: Verification | None = None
        self._thread: threading.Thread | None = None
        self._closing = False

    def last(self) -> Verification | None:
        """The one that goes on, else the one that ended last since the start; a copy."""
        with self._lock:
            return None if self._last is None else msgspec.structs.replace(self._last)

    def ended(self) -> Verification | None:
        """The one that ended last, with whatever it found; a copy."""
        with self._lock:
            return None if self._ended is None else msgspec.structs.replace(self._ended)

    def begin(self) -> bool:
        """Begin one; False where one goes on already, or the box stops."""
        with self._lock:
            if self._closing or (self._last is not None and self._last.state == "running"):
                return False
            self._last = Verification(begun_at=self._clock())
            self._thread = threading.Thread(target=self._run, args=(self._last,), name="verify", daemon=True)
            self._thread.start()
            return True

    def close(self) -> None:
        """Give up what goes on, in bounded time."""
        with self._lock:
            self._closing = True
            thread = self._thread
        if thread is not None:
            thread.join(STOP_SECONDS)

    def _run(self, going: Verification) -> None:
        try:
            with closing(db.connect(self._path, read_only=True)) as connection:
                # Asked for every few thousand steps of SQLite, also within one long query.
                connection.set_progress_handler(lambda: self._closing, 10_000)
                with db.snapshot(connection) as rows:
                    self._read(going, rows)
        except sqlite3.Error as error:
            if not self._closing:
                log.exception("the ledger could not be verified")
            self._end(going, "failed", [f"It could not be read: {error}"])

    def _read(self, going: Verification, rows: db.Rows) -> None:
        newest = rows.one("SELECT coalesce(max(id), 0) AS id FROM audit")
        of = rows_to_read(rows)
        with self._lock:
            going.rows, going.newest_row = of, 0 if newest is None else int(newest["id"])
        report = verify(rows, told=lambda read: self._tell(going, read))
        with self._lock:
            going.transfers, going.jobs = report.transfers, report.jobs
            going.is_chained = all(fault.rule != CHAIN for fault in report.faults)
        for fault in report.faults:
            log.critical("the ledger does not verify: %s", fault)
        faults = [str(fault) for fault in report.faults[:FAULTS_MAX]]
        self._end(going, "broken" if faults else "holds", faults)

    def _tell(self, going: Verification, read: int) -> None:
        with self._lock:
            going.rows_read = min(going.rows_read + read, going.rows)

    def _end(self, going: Verification, state: State, faults: list[str]) -> None:
        with self._lock:
            going.state, going.faults, going.ended_at = state, faults, self._clock()
            self._ended = going
