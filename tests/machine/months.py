"""Which month an instant is in: by the wall calendar of the zone that counted then, without the box's own calendar."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

SECOND_US = 1_000_000
DAY_SECONDS = 86_400


class ZoneSince(NamedTuple):
    """A zone, the instant from which it counts, and the month that begins there."""

    since_us: int
    month: str
    zone: str


def month_of(at_us: int, zones: Sequence[ZoneSince]) -> str:
    """`YYYY-MM`: what the calendar on the wall says, but never a month that had ended when the zone began."""
    chosen = max((zone for zone in zones if zone.since_us <= at_us), key=lambda zone: zone.since_us)
    return max(chosen.month, _on_the_wall(at_us, chosen.zone))


def month_end_us(at_us: int, zones: Sequence[ZoneSince]) -> int:
    """The first second of the next month, by the zone that counts at this instant or the one that follows it."""
    chosen = max((zone for zone in zones if zone.since_us <= at_us), key=lambda zone: zone.since_us)
    month = month_of(at_us, zones)
    low, high = at_us // SECOND_US, at_us // SECOND_US + 63 * DAY_SECONDS
    while high - low > 1:
        middle = (low + high) // 2
        if _on_the_wall(middle * SECOND_US, chosen.zone) > month:
            high = middle
        else:
            low = middle
    return min([high * SECOND_US, *(zone.since_us for zone in zones if zone.since_us > at_us)])


def month_after(month: str, count: int = 1) -> str:
    """So many months later."""
    months = int(month[:4]) * 12 + int(month[5:]) - 1 + count
    return f"{months // 12:04d}-{months % 12 + 1:02d}"


def _on_the_wall(at_us: int, zone: str) -> str:
    return f"{datetime.fromtimestamp(at_us // SECOND_US, UTC).astimezone(ZoneInfo(zone)):%Y-%m}"
