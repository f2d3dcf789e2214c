"""What a page is to say once: told by the request that did something, shown by the next page of the same session.

In memory and bounded: a secret that is shown once is written nowhere.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

SESSIONS_MAX: Final = 1_000
OF_SESSION_MAX: Final = 10
TEXT_MAX: Final = 2_000
"""Refusals may quote what was sent, which can be as long as a form."""
_LINK: Final = "/setup?token="


class Notice(Struct, frozen=True):
    """One message; `secret` is what exists nowhere else, `example` a line for the terminal that uses it."""

    kind: Literal["good", "bad"]
    text: str
    secret: str = ""
    example: str = ""


class Said:
    """The messages not shown yet, by session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: OrderedDict[str, list[Notice]] = OrderedDict()

    def add(self, session_id: str, notice: Notice) -> None:
        """Keep a message for the session's next page; of too many the oldest go, and a link that was made anew before
        anybody saw it: the second has ended the first. A key stays: it opens the box as well as the next one does.
        """
        with self._lock:
            kept = self._of.setdefault(session_id, [])
            if _LINK in notice.secret:
                kept[:] = [each for each in kept if not each.secret or each.text != notice.text]
            kept.append(replace(notice, text=notice.text[:TEXT_MAX]))
            del kept[:-OF_SESSION_MAX]
            self._of.move_to_end(session_id)
            while len(self._of) > SESSIONS_MAX:
                self._of.popitem(last=False)

    def take(self, session_id: str) -> list[Notice]:
        """All messages of the session, which are then gone."""
        with self._lock:
            return self._of.pop(session_id, [])
