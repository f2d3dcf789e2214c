from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

import pytest

from zsky_box.clock import SECOND_US, parse_rfc3339
from zsky_box.errors import InvalidFields
from zsky_box.pages import narrowing

READERS = {"job": narrowing.text, "from": narrowing.day}
HOUR_US = 3_600 * SECOND_US


def test_empty_fields_ask_for_nothing() -> None:
    assert narrowing.read([("job", "  "), ("from", "")], READERS) == {}
    assert narrowing.read([("job", " job_1 ")], READERS) == {"job": "job_1"}


@pytest.mark.parametrize("given", [("job", "j" * 101), ("from", "yesterday"), ("from", "1999-12-31"), ("form", "x")])
def test_what_cannot_be_read_is_told_by_its_field(given: tuple[str, str]) -> None:
    with pytest.raises(InvalidFields) as refused:
        narrowing.read([given], READERS)
    assert refused.value.field == given[0]


def test_days_are_whole_in_their_zone_however_long_they_are() -> None:
    vienna, day = ZoneInfo("Europe/Vienna"), date(2026, 10, 25)
    after, before = narrowing.span_us(day, day, vienna)
    assert after == parse_rfc3339("2026-10-24T22:00:00Z")
    assert after is not None
    assert before is not None
    assert before - after == 25 * HOUR_US
    assert narrowing.span_us(None, None, vienna) == (None, None)


def test_a_query_names_what_is_asked_for_alone() -> None:
    assert (
        narrowing.query({"type": "", "from": date(2026, 11, 1), "key": None, "job": "a b"}) == "from=2026-11-01&job=a+b"
    )
