"""Huey as doorbell and clock: tasks carry ids only, as JSON; the tables say what is to be done.

Huey deletes a task as it dequeues it, so a killed process loses it: the sweep rings again for what is open. `queue.db`
is disposable: damaged or gone, it is made anew. Two names, so that slow housekeeping never holds up a generation.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from huey import SqliteHuey
from huey.consumer import Consumer
from huey.consumer import Scheduler as HueyScheduler
from huey.registry import Message
from huey.serializer import Serializer

log = logging.getLogger(__name__)

FILE_NAME: Final = "queue.db"
RING_MAX: Final = 256
WAITING_MAX: Final = 20_000
SWEEP_SECONDS: Final = 5
BELL_SECONDS: Final = 0.05
STOP_SECONDS: Final = 5
TIDY_MINUTE: Final = 17


class JsonSerializer(Serializer):
    """Messages as JSON lists: nothing is unpickled, whoever wrote the file."""

    def _serialize(self, data: Any) -> bytes:
        return json.dumps(list(data) if isinstance(data, Message) else data).encode()

    def _deserialize(self, data: bytes) -> Any:
        value = json.loads(bytes(data))
        return Message(*value) if isinstance(value, list) else value


class _Clock(HueyScheduler):
    """Periodic tasks are looked at every few seconds, not every minute."""

    periodic_task_seconds = SWEEP_SECONDS


class _Consumer(Consumer):
    """A consumer inside the service: the server owns the process's signals."""

    scheduler_class = _Clock

    def _set_signal_handlers(self) -> None:
        pass


class Tasks:
    """Both queues with their consumers, on threads of the service.

    `wake` wakes the scheduler; `open_ids` names open jobs; `sweep` and `tidy` are the periodic work.
    """

    def __init__(
        self,
        folder: Path,
        *,
        wake: Callable[[], None],
        open_ids: Callable[[int], list[str]],
        sweep: Callable[[], None],
        tidy: Callable[[], None],
    ) -> None:
        path = folder / FILE_NAME
        _mend(path)
        self._generation = _huey(path, "generation")
        self._housekeeping = _huey(path, "housekeeping")
        self._wake = wake
        self._rung: queue.Queue[str] = queue.Queue(WAITING_MAX)
        self._stopping = threading.Event()
        self._ring_task = self._generation.task(name="ring")(self._ring)

        def sweep_task() -> None:
            sweep()
            if ids := open_ids(RING_MAX):
                self._ring_task(ids)

        self._housekeeping.periodic_task(_always, name="sweep")(sweep_task)
        self._housekeeping.periodic_task(_hourly, name="tidy")(tidy)
        self._consumers = [self._consumer(self._generation), self._consumer(self._housekeeping)]
        self._bell = threading.Thread(target=self._bell_loop, name="bell", daemon=True)

    def start(self) -> None:
        """Start the consumers."""
        self._bell.start()
        for consumer in self._consumers:
            consumer.start()

    def ring(self, job_id: str) -> None:
        """A job was stored: wake the scheduler now, and ring through Huey, without making anybody wait."""
        self._wake()
        try:
            self._rung.put_nowait(job_id)
        except queue.Full:
            log.warning("the doorbell is behind; the sweep will ring for job %s", job_id)

    def stop(self) -> None:
        """Stop in bounded time; what was not rung is rung again after the next start. May be called before `start`."""
        self._stopping.set()
        with suppress(queue.Full):  # then the bell has something to wake up for anyway
            self._rung.put_nowait("")
        if self._bell.is_alive():
            for consumer in self._consumers:
                consumer.stop_flag.set()
            for consumer in self._consumers:
                consumer.stop(graceful=True)
            self._bell.join(STOP_SECONDS)
        for instance in (self._generation, self._housekeeping):
            instance.storage.close()

    def _ring(self, job_ids: list[str]) -> None:
        log.debug("rung for %d jobs", len(job_ids))
        self._wake()

    def _bell_loop(self) -> None:
        while True:
            ids = [self._rung.get()]
            while len(ids) < RING_MAX and not self._rung.empty():
                ids.append(self._rung.get())
            if self._stopping.is_set():
                return
            try:
                self._ring_task(ids)
            except sqlite3.Error:
                log.exception("the doorbell could not be rung; the scheduler was woken directly")
            # The scheduler was woken already: under many submits, few rings of many jobs cost less.
            self._stopping.wait(BELL_SECONDS)

    def _consumer(self, instance: SqliteHuey) -> Consumer:
        return _Consumer(
            instance,
            workers=1,
            worker_type="thread",
            initial_delay=0.1,
            max_delay=0.25,
            scheduler_interval=1,
            check_worker_health=False,
            shutdown_timeout=STOP_SECONDS,
        )


def _mend(path: Path) -> None:
    """Remove a damaged file: what it held is in the jobs, and the sweep rings for them again."""
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path)) as connection:
            told = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        told = str(error)
    if told != "ok":
        log.warning("%s is damaged (%s); it is made anew from the jobs", path.name, told)
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def _huey(path: Path, name: str) -> SqliteHuey:
    os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite gives its side files the same mode
    path.chmod(0o600)
    # Not fsynced: after a power cut the sweep rings again for whatever the ledger says is open.
    return SqliteHuey(
        name, filename=str(path), results=False, serializer=JsonSerializer(), strict_fifo=True, fsync=False
    )


def _always(_: datetime) -> bool:
    return True


def _hourly(now: datetime) -> bool:
    # Looked at every SWEEP_SECONDS or a little more: twice as long is never missed, and tidying twice does no harm.
    return now.minute == TIDY_MINUTE and now.second < 2 * SWEEP_SECONDS
