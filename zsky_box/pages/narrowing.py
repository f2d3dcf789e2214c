"""What the address of a list narrows it to, as pages with filters read it and write it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, Final
from urllib.parse import urlencode

from zsky_box.api import queries
from zsky_box.clock import SECOND_US

TEXT_MAX: Final = 100


def read(items: Iterable[tuple[str, str]], readers: queries.Readers) -> dict[str, Any]:
    """The values by name; an empty field of a form asks for nothing. Raises 422 with everything that is wrong."""
    return queries.read([(name, value.strip()) for name, value in items if value.strip()], readers)


def text(given: str) -> str:
    """A few words; for `read`."""
    if len(given) > TEXT_MAX:
        raise ValueError(f"give at most {TEXT_MAX} characters")
    return given


def day(given: str) -> date:
    """A day of this century, as a form's date field writes it; for `read`."""
    try:
        found = date.fromisoformat(given)
    except ValueError:
        raise ValueError("give a day such as 2026-11-01") from None
    if not 2000 <= found.year < 2100:
        raise ValueError("give a day of this century")
    return found


def span_us(since: date | None, until: date | None, zone: tzinfo) -> tuple[int | None, int | None]:
    """From one day to another, both whole: the microsecond it begins at, and the one that it ends before."""
    after = None if since is None else _begins_us(since, zone)
    return after, None if until is None else _begins_us(until + timedelta(days=1), zone)


def query(values: Mapping[str, object]) -> str:
    """The query string of what asks for something."""
    return urlencode({name: value for name, value in values.items() if value})


def _begins_us(of: date, zone: tzinfo) -> int:
    return round(datetime.combine(of, time(), zone).astimezone(UTC).timestamp()) * SECOND_US
