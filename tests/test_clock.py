from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsky_box.clock import parse_rfc3339, rfc3339, system_clock


def test_times_are_utc_with_milliseconds_only_where_there_are_some() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00Z"
    assert rfc3339(1_795_348_800_250_999) == "2026-11-22T12:00:00.250Z"


@pytest.mark.parametrize("text", ["2026-11-22T12:00:00Z", "2026-11-22T13:00:00+01:00", "2026-11-22T12:00:00.000Z"])
def test_the_same_instant_is_read_whatever_its_offset(text: str) -> None:
    assert rfc3339(parse_rfc3339(text)) == "2026-11-22T12:00:00Z"


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z", "2026-11-22T12:00:00", "2026-11-22"])
def test_anything_else_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_rfc3339(text)


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=4_000_000_000_000))
def test_a_written_time_is_read_back(at_ms: int) -> None:
    assert parse_rfc3339(rfc3339(at_ms * 1000)) == at_ms * 1000


def test_the_systems_clock_counts_microseconds_of_this_century() -> None:
    assert rfc3339(system_clock()).startswith("20")
