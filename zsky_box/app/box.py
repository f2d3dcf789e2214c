"""One running box: its folder's lock, the order in which its rooms start, and the reverse in which they close."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from zsky_box import audit, secretfile, tls
from zsky_box.api.deps import Services
from zsky_box.app.rooms import Rooms
from zsky_box.app.workers import ENTRY
from zsky_box.clock import Clock, system_clock
from zsky_box.control import FILE_NAME as CONTROL_FILE
from zsky_box.control import Address
from zsky_box.errors import StoreError
from zsky_box.instance_lock import InstanceLock
from zsky_box.record import Record
from zsky_box.settings import Settings

LOCK_SECONDS: Final = 1.0  # a command is done in a moment
CHAIN_ROWS_AT_START: Final = 1_000

log = logging.getLogger(__name__)


def _no_one_to_tell(error: BaseException) -> None:
    log.critical("the box cannot go on", exc_info=error)


class Box:
    """Everything that runs.

    `clock` and `worker_entry` are given by tests only. `on_fatal` is called when the ledger cannot be trusted any more.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *,
        clock: Clock = system_clock,
        worker_entry: str = ENTRY,
        on_fatal: Callable[[BaseException], None] = _no_one_to_tell,
    ) -> None:
        self.settings = settings
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = InstanceLock(folder)
        self._lock.acquire(LOCK_SECONDS)
        self._record = Record(clock())
        self._record.listen()
        try:
            self._certificate = tls.certificate(settings)
            self.rooms = Rooms(folder, settings, self._record, clock, worker_entry, on_fatal)
        except BaseException:
            self._record.close()
            self._lock.release()
            raise

    @property
    def services(self) -> Services:
        """The rooms as handlers know them."""
        return self.rooms.services

    def check(self) -> None:
        """Before anything is served or changed: raises StoreError where the end of the ledger's chain is broken."""
        broken = audit.first_broken_row(self.rooms.store, CHAIN_ROWS_AT_START)
        if broken is not None:
            raise StoreError(f"the audit's row {broken} does not fit its chain; restore a backup")

    def start(self) -> None:
        """Reconcile what the last run left, then take jobs."""
        rooms = self.rooms
        recovered = rooms.book.recover()
        if recovered:
            log.warning("%d jobs were running when the box stopped", recovered)
            self._record.repairs.append(
                f"{recovered} jobs were running when the box stopped; they were taken up again."
            )
        rooms.upkeep.clear()
        rooms.bookkeeping.sweep()
        rooms.scheduler.start()
        rooms.cards.start()
        rooms.tasks.start()
        rooms.verifier.begin()
        address = Address(self.settings.local_url(), self.services.control_token, os.getpid(), self._certificate)
        secretfile.write_private(self._folder / CONTROL_FILE, msgspec.json.encode(address))

    def drain(self) -> None:
        """Refuse new jobs and let the running ones end, for as long as the settings allow."""
        self.rooms.desk.draining = True
        if not self.rooms.scheduler.drain(self.settings.drain_seconds):
            log.warning(
                "some jobs still ran after %g s; they begin again after the next start", self.settings.drain_seconds
            )

    def end_streams(self) -> None:
        """End the open event streams, now and to come."""
        self.rooms.feed.close()

    def close(self) -> None:
        """End in bounded time; running attempts go back to the queue."""
        rooms = self.rooms
        (self._folder / CONTROL_FILE).unlink(missing_ok=True)
        rooms.desk.draining = True
        rooms.feed.close()
        rooms.cards.stop()
        rooms.errands.close()
        rooms.verifier.close()
        rooms.backups.close()
        rooms.scheduler.stop()
        rooms.tasks.stop()
        rooms.decoder.close()
        rooms.store.close()
        self._record.close()
        self._lock.release()
