"""The ends of attempts, stored beside the scheduler's loop: renames, fsyncs and commits hold up no other job's start.

An end is not given up lightly: while it is not stored, its client waits. It is tried again with growing pauses; what
still cannot be stored is reported, so that the service stops and its next start sorts the job out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

PAUSES_SECONDS: Final = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
THREADS: Final = 4

log = logging.getLogger(__name__)


class Settler:
    """`settled` is called after each end that is over; `lost` with the reason why one could not be stored."""

    def __init__(self, settled: Callable[[], None], lost: Callable[[BaseException], None]) -> None:
        self._settled = settled
        self._lost = lost
        self._lock = threading.Lock()
        self._pending = 0
        self._closing = threading.Event()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="settle")

    @property
    def pending(self) -> int:
        """Ends that are not stored yet."""
        return self._pending

    def settle(self, end: Callable[[], object], otherwise: Callable[[], object] | None = None) -> None:
        """Store an end; when it cannot be stored for long, `otherwise` is the last try, if there is one."""
        with self._lock:
            self._pending += 1
        self._threads.submit(self._run, end, otherwise)

    def close(self) -> None:
        """Wait for the ends under way, each of which is tried once more and no longer."""
        self._closing.set()
        self._threads.shutdown(wait=True)

    def _run(self, end: Callable[[], object], otherwise: Callable[[], object] | None) -> None:
        try:
            reason = self._stored(end)
            if reason is not None and otherwise is not None:
                reason = _tried(otherwise)
            if reason is not None:
                log.critical("the end of a job could not be stored; the next start sorts it out", exc_info=reason)
                self._lost(reason)
        finally:
            with self._lock:
                self._pending -= 1
            self._settled()

    def _stored(self, end: Callable[[], object]) -> Exception | None:
        """None once it is stored, else why the last try failed."""
        reason = _tried(end)
        for pause_seconds in PAUSES_SECONDS:
            if reason is None or self._closing.wait(pause_seconds):
                break
            log.warning("the end of a job could not be stored; it is tried again", exc_info=reason)
            reason = _tried(end)
        return reason


def _tried(end: Callable[[], object]) -> Exception | None:
    try:
        end()
    except Exception as error:  # noqa: BLE001 - the caller tries again, tells, and logs it
        return error
    return None
