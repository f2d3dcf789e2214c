"""What a run of the service has to tell its owner: since when it runs, what its start repaired, what it warned of."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Final

from msgspec import Struct

KEPT_MAX: Final = 50
TEXT_MAX: Final = 500
ROOT: Final = "zsky_box"


class Warned(Struct, frozen=True):
    """A line of the log that was a warning or worse; the time in seconds."""

    at_seconds: float
    level: str
    room: str
    text: str


class Record:
    """Of one run; `started_at` in microseconds."""

    def __init__(self, started_at: int) -> None:
        self.started_at = started_at
        self.repairs: list[str] = []
        self._listener = _Listener()

    def listen(self) -> None:
        """Keep what the service's rooms warn of from now on."""
        logging.getLogger(ROOT).addHandler(self._listener)

    def close(self) -> None:
        """Listen no more."""
        logging.getLogger(ROOT).removeHandler(self._listener)

    def warned(self) -> list[Warned]:
        """The last of them, the newest first."""
        return self._listener.kept()


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: deque[Warned] = deque(maxlen=KEPT_MAX)
        self._of_kept = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        room = record.name.removeprefix(f"{ROOT}.")
        text = " ".join(record.getMessage().split())[:TEXT_MAX]
        with self._of_kept:
            self._kept.append(Warned(record.created, record.levelname.lower(), room, text))

    def kept(self) -> list[Warned]:
        with self._of_kept:
            return list(reversed(self._kept))
