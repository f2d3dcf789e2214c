"""Waiting for what comes about by itself: no longer than it takes, and never for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

BOUND_SECONDS = 60.0


def until(look: Callable[[], T], what: str, *, bound_seconds: float = BOUND_SECONDS, every_seconds: float = 0.01) -> T:
    """The first of what `look` sees that is not empty or false; fails after the bound, saying what did not come."""
    give_up_at = time.monotonic() + bound_seconds
    while not (seen := look()):
        assert time.monotonic() < give_up_at, f"{what}: not within {bound_seconds} s"
        time.sleep(every_seconds)
    return seen
