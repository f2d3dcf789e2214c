"""A billing period is a calendar month in the box's zone, `[start, end)`, computed in UTC. Pure functions.

Midnight of the first may happen twice (America/Havana, 2026-11-01: the first occurrence counts) or not at all
(America/Asuncion, 2023-10-01: the first valid instant after the gap counts).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from zsky_box.clock import SECOND_US


class Period(NamedTuple):
    """`key` is YYYY-MM; `start_us` and `end_us` are UTC microseconds, end exclusive."""

    key: str
    start_us: int
    end_us: int


def month_start_us(year: int, month: int, zone: ZoneInfo) -> int:
    """The first instant whose local date is the first of the month, in UTC microseconds."""
    midnight = datetime(year, month, 1, tzinfo=zone)  # fold=0: the first of two midnights
    instant = midnight.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return round(instant.timestamp()) * SECOND_US
    # In a gap, fold=0 reads the wall time with the offset before it and fold=1 with the offset after it, so the two
    # instants straddle the transition; before it the local date is still the previous month's.
    low, high = sorted((instant, midnight.replace(fold=1).astimezone(UTC)))
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=1) // 2)
        if middle.astimezone(zone).month == month:
            high = middle
        else:
            low = middle
    return round(high.timestamp()) * SECOND_US


def period_at(at_us: int, zone: ZoneInfo) -> Period:
    """The period that contains an instant."""
    local = datetime.fromtimestamp(at_us // SECOND_US, UTC).astimezone(zone)
    year, month = local.year, local.month
    following = (year + month // 12, month % 12 + 1)
    return Period(f"{year:04d}-{month:02d}", month_start_us(year, month, zone), month_start_us(*following, zone))
