"""The box's clock: UTC in integer microseconds, injectable, so that tests and simulations own the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

Clock = Callable[[], int]
"""Returns microseconds since the epoch, UTC."""

SECOND_US: Final = 1_000_000
DAY_US: Final = 86_400 * SECOND_US


def system_clock() -> int:
    """Wall-clock time in microseconds."""
    return time.time_ns() // 1000


def rfc3339(at_us: int) -> str:
    """RFC 3339 in UTC, to the millisecond, without a fraction where it is zero."""
    moment = datetime.fromtimestamp(at_us // SECOND_US, UTC)
    millis = at_us // 1000 % 1000
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{millis:03d}Z" if millis else "Z")


def parse_rfc3339(text: str) -> int:
    """Microseconds of an RFC 3339 time; raises ValueError for anything else or a time without an offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC, such as Z")
    return round(moment.timestamp() * SECOND_US)
