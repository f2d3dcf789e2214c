"""Hours of the week as an owner writes them: `mon-fri 09:00-18:00; sat 10:00-12:00`."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

SPANS_MAX: Final = 32

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN: Final = re.compile(
    r"(?:(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))?\s+)?(?P<from>\d{1,2}:\d{2})\s*-\s*(?P<to>\d{1,2}:\d{2})"
)
_MINUTES_A_DAY: Final = 24 * 60


class Span(Struct, frozen=True):
    """Hours of some days of the week (0 is Monday); an end at or before the start is on the next day."""

    days: frozenset[int]
    start_minute: int
    end_minute: int

    def covers(self, day: int, minute: int) -> bool:
        """Whether a minute of a day lies within."""
        if self.start_minute < self.end_minute:
            return day in self.days and self.start_minute <= minute < self.end_minute
        late = day in self.days and minute >= self.start_minute
        return late or ((day - 1) % 7 in self.days and minute < self.end_minute)


def parse_hours(text: str) -> tuple[Span, ...]:
    """Spans parted by semicolons; without days every day is meant. Raises ValueError, saying what is wrong."""
    parts = [part.strip().lower() for part in text.split(";") if part.strip()]
    if len(parts) > SPANS_MAX:
        raise ValueError(f"more than {SPANS_MAX} spans")
    return tuple(_span(part) for part in parts)


def _span(part: str) -> Span:
    found = _SPAN.fullmatch(part)
    if found is None:
        raise ValueError(f"{part!r} is not of the form mon-fri 09:00-18:00")
    days = frozenset(range(7))
    if found["first"]:
        names = [found["first"], found["last"] or found["first"]]
        if not set(names) <= set(_DAYS):
            raise ValueError(f"{part!r}: days are {', '.join(_DAYS)}")
        first, last = (_DAYS.index(name) for name in names)
        days = frozenset((first + step) % 7 for step in range((last - first) % 7 + 1))
    return Span(days, _minute(found["from"], part), _minute(found["to"], part) % _MINUTES_A_DAY)


def _minute(text: str, part: str) -> int:
    hour, minute = (int(number) for number in text.split(":"))
    if minute > 59 or hour * 60 + minute > _MINUTES_A_DAY:
        raise ValueError(f"{part!r}: {text} is no time of day")
    return hour * 60 + minute
