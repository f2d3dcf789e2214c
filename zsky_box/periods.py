"""A billing period is a calendar month in the box's zone, `[start, end)`, computed in UTC. Pure functions.

Midnight of the first may happen twice (America/Havana, 2026-11-01: the first occurrence counts) or not at all
(America/Asuncion, 2023-10-01: the first valid instant after the gap counts). Another zone begins with the next period:
the one it was chosen in keeps its end, and the one after it begins there.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
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


class ZoneFrom(NamedTuple):
    """A zone that counts from an instant on, which is the start of the period `key`."""

    zone: ZoneInfo
    from_us: int
    key: str


class Calendar:
    """All periods of a box, through every change of its zone; each begins where the one before it ends."""

    def __init__(self, zones: tuple[ZoneFrom, ...]) -> None:
        """`zones` in the order of their instants, the first of which counts from ever."""
        self._zones = zones
        self._last: Period | None = None  # most questions are of one month, many in a row

    @classmethod
    def of(cls, zone: ZoneInfo) -> Calendar:
        """A calendar of one zone, from ever."""
        return cls((ZoneFrom(zone, EVER_US, ""),))

    @property
    def zone(self) -> ZoneInfo:
        """The last zone chosen."""
        return self._zones[-1].zone

    def zone_at(self, at_us: int) -> ZoneInfo:
        """The zone that counts at an instant: what a day is."""
        return self._entry(at_us).zone

    def period_at(self, at_us: int) -> Period:
        """The period that contains an instant."""
        last = self._last
        if last is None or not last.start_us <= at_us < last.end_us:
            last = self._last = self._find(at_us)
        return last

    def _find(self, at_us: int) -> Period:
        entry = self._entry(at_us)
        period = period_at(at_us, entry.zone)
        if period.key <= entry.key:
            # The new zone's own first month may begin before or after the old zone's last one ended.
            year, month = _year_month(following(entry.key))
            period = Period(entry.key, entry.from_us, month_start_us(year, month, entry.zone))
        for later in self._zones:
            if period.start_us < later.from_us < period.end_us:
                return Period(period.key, period.start_us, later.from_us)
        return period

    def _entry(self, at_us: int) -> ZoneFrom:
        return next(entry for entry in reversed(self._zones) if entry.from_us <= at_us)

    def period(self, key: str) -> Period:
        """The period of this name, `YYYY-MM`; raises ValueError for what is no month."""
        year, month = _year_month(key)
        for entry in reversed(self._zones):
            if entry.key <= key:
                # The middle of a month is in it in every zone.
                middle = datetime(year, month, 15, 12, tzinfo=entry.zone)
                return self.period_at(round(middle.timestamp()) * SECOND_US)
        raise AssertionError("the first zone counts from ever")


EVER_US: Final = -(2**62)


def following(key: str, months: int = 1) -> str:
    """The name of the month so many months after this one."""
    year, month = _year_month(key)
    count = year * 12 + month - 1 + months
    return f"{count // 12:04d}-{count % 12 + 1:02d}"


def _year_month(key: str) -> tuple[int, int]:
    match = _KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"{key!r} is not a month such as 2026-11")
    return int(match[1]), int(match[2])


# Within what datetime can tell in every zone, and no month of the year 0.
_KEY: Final = re.compile(r"(20[0-9]{2}|19[7-9][0-9])-(0[1-9]|1[0-2])", re.ASCII)
