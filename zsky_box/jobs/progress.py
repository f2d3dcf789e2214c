"""How far the running attempts are: notes that come faster than they are written become one write, the last one."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Final

from msgspec import Struct

from zsky_box.db import Store, Tx
from zsky_box.events import Phase
from zsky_box.jobs import rows
from zsky_box.jobs.rows import News

# Where each phase lies within a job's progress.
_SPANS: Final[dict[Phase, tuple[float, float]]] = {
    "waiting": (0.0, 0.0),
    "loading": (0.0, 0.05),
    "denoising": (0.05, 0.80),
    "decoding": (0.80, 0.95),
    "encoding": (0.95, 0.99),
}


class _Note(Struct, frozen=True):
    """Progress that waits to be written."""

    token: int
    phase: Phase
    value: float
    begun: bool


class Progress:
    """The notes of all running attempts."""

    def __init__(self, store: Store, news: News) -> None:
        self._store = store
        self._news = news
        self._notes: dict[str, _Note] = {}
        self._noted: set[str] = set()  # jobs with a write on its way that will take their note
        self._lock = threading.Lock()

    def note(self, job_id: str, token: int, phase: Phase, step: int, steps: int) -> None:
        """Note how far an attempt is, without waiting.

        Work has begun, and a cancel is charged, once the first denoising step is stored.
        """
        low, high = _SPANS[phase]
        value = low + (high - low) * (min(step, steps) / steps if steps > 0 else 0.0)
        begun = phase == "denoising" and step >= 1
        with self._lock:
            before = self._notes.get(job_id)
            if before is not None and before.token > token:
                return  # an older attempt must not hide what a newer one has told
            if before is not None and before.token == token:
                begun, value = begun or before.begun, max(value, before.value)
            self._notes[job_id] = _Note(token, phase, value, begun)
            waiting = job_id in self._noted
            self._noted.add(job_id)
        if not waiting:
            written = self._store.submit(lambda tx: self._write(tx, job_id))
            written.add_done_callback(lambda done: self._noted_in_vain(job_id, done))

    def _noted_in_vain(self, job_id: str, done: Future[None]) -> None:
        """A write that the store refused must not keep the next note waiting for it."""
        if done.exception() is not None:
            with self._lock:
                self._noted.discard(job_id)

    def _write(self, tx: Tx, job_id: str) -> None:
        with self._lock:
            self._noted.discard(job_id)
            note = self._notes.pop(job_id, None)
        if note is None:
            return
        changed = tx.execute(
            "UPDATE job SET phase = ?, progress = max(progress, ?), work_begun = max(work_begun, ?)"
            " WHERE id = ? AND token = ? AND status = 'running'",
            (note.phase, note.value, int(note.begun), job_id, note.token),
        )
        if changed.rowcount == 1:
            row = rows.get(tx, job_id)
            data = {"phase": note.phase, "progress": round(row["progress"], 4), "status": "running"}
            self._news.tell(tx, rows.channel(row), job_id, data, kind="progress")
