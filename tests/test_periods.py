from __future__ import annotations

import io
import struct
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest

from zsky_box.clock import SECOND_US, parse_rfc3339, rfc3339
from zsky_box.periods import EVER_US, Calendar, Period, ZoneFrom, following, month_start_us, period_at

MINUTE_US = 60 * SECOND_US
DAY_US = 24 * 60 * MINUTE_US
EARLIEST_MINUTES = 15 * 60
STEP_MINUTES = 3 * 60
MONTHS = [(year, month) for year in range(2024, 2038) for month in range(1, 13)]


# Month starts


def first_minute(year: int, month: int, zone: ZoneInfo) -> int:
    """When a month is entered, by looking: in steps from before any zone can be there, then to the minute."""

    def is_there(minute: int) -> bool:
        local = datetime.fromtimestamp(minute * 60, zone)
        return local.month == month and local.year == year

    after = round(datetime(year, month, 1, tzinfo=UTC).timestamp()) // 60 - EARLIEST_MINUTES
    while not is_there(after):
        after += STEP_MINUTES
    before = after - STEP_MINUTES
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (before, middle) if is_there(middle) else (middle, after)
    return after


def test_in_every_zone_a_month_starts_with_its_first_minute() -> None:
    names = sorted(available_timezones())
    assert len(names) > 400
    for name in names:
        zone = ZoneInfo(name)
        for year, month in MONTHS:
            assert month_start_us(year, month, zone) == first_minute(year, month, zone) * MINUTE_US, (name, year, month)


@pytest.mark.parametrize(
    ("zone", "year", "month", "start"),
    [
        ("UTC", 2026, 11, "2026-11-01T00:00:00Z"),
        ("Europe/Berlin", 2026, 11, "2026-10-31T23:00:00Z"),
        ("Asia/Kathmandu", 2026, 1, "2025-12-31T18:15:00Z"),
        # Midnight comes twice: at 1:00 the clocks go back to 0:00. The first one counts.
        ("America/Havana", 2026, 11, "2026-11-01T04:00:00Z"),
        # There is no midnight: the clocks go from 0:00 to 1:00. The first instant of the new day counts.
        ("America/Asuncion", 2023, 10, "2023-10-01T04:00:00Z"),
        # A local mean time with seconds in it, and a day that never was, on the first of a month's eve.
        ("Africa/Monrovia", 1971, 12, "1971-12-01T00:44:30Z"),
        ("Pacific/Apia", 2012, 1, "2011-12-31T10:00:00Z"),
    ],
)
def test_a_month_starts_at_its_zones_first_midnight(zone: str, year: int, month: int, start: str) -> None:
    assert rfc3339(month_start_us(year, month, ZoneInfo(zone))) == start


def skipping(transition: str, *, before_seconds: int, after_seconds: int) -> ZoneInfo:
    """A zone whose offset changes once: a file of the first version of TZif (RFC 9636), built by hand."""
    at = parse_rfc3339(transition) // SECOND_US
    header = struct.pack(">4s16x6I", b"TZif", 0, 0, 0, 1, 2, 4)
    kinds = struct.pack(">iBB", before_seconds, 0, 0) + struct.pack(">iBB", after_seconds, 0, 0)
    return ZoneInfo.from_file(io.BytesIO(header + struct.pack(">iB", at, 1) + kinds + b"TST\0"))


@pytest.mark.parametrize(
    "transition", ["2026-10-31T23:30:00Z", "2026-10-31T23:29:59Z", "2026-10-31T23:00:01Z", "2026-10-31T23:59:58Z"]
)
def test_a_gap_that_begins_before_midnight_and_ends_after_it_starts_the_month(transition: str) -> None:
    zone = skipping(transition, before_seconds=0, after_seconds=3_600)
    assert rfc3339(month_start_us(2026, 11, zone)) == transition
    assert period_at(parse_rfc3339(transition), zone).key == "2026-11"
    assert period_at(parse_rfc3339(transition) - 1, zone).key == "2026-10"


def test_in_havana_the_second_midnight_belongs_to_the_month_that_has_begun_already() -> None:
    havana = ZoneInfo("America/Havana")
    for time, key in (
        ("2026-11-01T03:59:59Z", "2026-10"),
        ("2026-11-01T04:00:00Z", "2026-11"),
        ("2026-11-01T04:59:59Z", "2026-11"),
        ("2026-11-01T05:00:00Z", "2026-11"),
    ):
        assert period_at(parse_rfc3339(time), havana).key == key


def test_in_asuncion_a_month_without_a_midnight_ends_the_one_before_without_a_gap() -> None:
    asuncion = ZoneInfo("America/Asuncion")
    september = period_at(parse_rfc3339("2023-10-01T03:59:59Z"), asuncion)
    october = period_at(parse_rfc3339("2023-10-01T04:00:00Z"), asuncion)
    assert (september.key, october.key) == ("2023-09", "2023-10")
    assert september.end_us == october.start_us == parse_rfc3339("2023-10-01T04:00:00Z")


@pytest.mark.parametrize("name", ["UTC", "America/Havana", "Africa/Cairo", "Pacific/Apia", "Australia/Lord_Howe"])
def test_periods_follow_each_other_without_gap_or_overlap(name: str) -> None:
    zone = ZoneInfo(name)
    period = period_at(month_start_us(2024, 1, zone), zone)
    for number in range(1, 14 * 12 + 1):
        assert period_at(period.start_us, zone) == period
        assert period_at(period.end_us - 1, zone) == period
        after = period_at(period.end_us, zone)
        assert after.start_us == period.end_us
        assert after.key == f"{2024 + number // 12}-{number % 12 + 1:02d}"
        period = after


# Names of months


@pytest.mark.parametrize(
    ("key", "months", "after"),
    [
        ("2026-11", 1, "2026-12"),
        ("2026-12", 1, "2027-01"),
        ("2026-01", 12, "2027-01"),
        ("2026-12", 12, "2027-12"),
        ("2026-11", 14, "2028-01"),
        ("2026-11", 0, "2026-11"),
        ("2026-01", -1, "2025-12"),
        ("1999-12", 1, "2000-01"),
    ],
)
def test_months_are_counted_over_the_years(key: str, months: int, after: str) -> None:
    assert following(key, months) == after


def test_the_next_month_is_meant_where_no_number_is_named() -> None:
    assert following("2026-11") == "2026-12"


@pytest.mark.parametrize(
    "key", ["", "2026", "2026-00", "2026-13", "2026-1", "0000-01", "1969-12", "2100-01", "\uff12026-11"]
)
def test_what_is_no_month_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="is not a month such as 2026-11"):
        following(key)
    with pytest.raises(ValueError, match="is not a month"):
        Calendar.of(ZoneInfo("UTC")).period(key)


# The calendar, through changes of its zone


def calendar(*zones: str) -> Calendar:
    """The first zone from ever, each other chosen in the middle of a month, from September 2026 on, and begun after."""
    entries = [ZoneFrom(ZoneInfo(zones[0]), EVER_US, "")]
    for month, name in enumerate(zones[1:], 9):
        middle = parse_rfc3339(f"2026-{month:02d}-15T12:00:00Z")
        period = Calendar(tuple(entries)).period_at(middle)
        entries.append(ZoneFrom(ZoneInfo(name), period.end_us, following(period.key)))
    return Calendar(tuple(entries))


def walk(of: Calendar) -> list[Period]:
    """All periods from July 2026 to February 2027, each asked for afresh, at both of its ends and by its name."""
    periods = [of.period_at(parse_rfc3339("2026-07-15T00:00:00Z"))]
    for _ in range(7):
        periods.append(of.period_at(periods[-1].end_us))
    for period in periods:
        for at_us in (period.start_us, (period.start_us + period.end_us) // 2, period.end_us - 1):
            assert of.period_at(at_us) == period
        assert of.period(period.key) == period
    return periods


@pytest.mark.parametrize(
    "zones",
    [
        ["UTC"],
        ["UTC", "Asia/Tokyo"],
        ["UTC", "America/Lima"],
        ["Pacific/Kiritimati", "Pacific/Pago_Pago"],
        ["Pacific/Pago_Pago", "Pacific/Kiritimati"],
        ["Pacific/Kiritimati", "Pacific/Pago_Pago", "Pacific/Kiritimati", "Pacific/Pago_Pago"],
        ["Pacific/Pago_Pago", "Pacific/Kiritimati", "UTC", "Pacific/Kiritimati"],
        ["Europe/Berlin", "America/Havana", "America/Havana", "Europe/Berlin"],
        ["UTC", "UTC", "UTC"],
    ],
    ids=" ".join,
)
def test_through_every_change_of_zone_months_follow_each_other_without_gap_or_overlap(zones: list[str]) -> None:
    periods = walk(calendar(*zones))
    assert [period.key for period in periods] == [following("2026-07", number) for number in range(8)]
    for before, after in pairwise(periods):
        assert before.end_us == after.start_us
        assert 27 * DAY_US < before.end_us - before.start_us < 33 * DAY_US


def test_the_month_in_which_a_zone_was_chosen_keeps_its_end_and_the_next_begins_there() -> None:
    west = calendar("Pacific/Kiritimati", "Pacific/Pago_Pago")
    september, october = west.period("2026-09"), west.period("2026-10")
    assert rfc3339(september.end_us) == "2026-09-30T10:00:00Z"
    assert (rfc3339(october.start_us), rfc3339(october.end_us)) == ("2026-09-30T10:00:00Z", "2026-11-01T11:00:00Z")
    east = calendar("Pacific/Pago_Pago", "Pacific/Kiritimati")
    september, october = east.period("2026-09"), east.period("2026-10")
    assert rfc3339(september.end_us) == "2026-10-01T11:00:00Z"
    assert (rfc3339(october.start_us), rfc3339(october.end_us)) == ("2026-10-01T11:00:00Z", "2026-10-31T10:00:00Z")


def test_the_zone_that_counts_is_the_one_of_the_instant_and_the_last_one_is_the_box_s() -> None:
    changed = calendar("UTC", "Asia/Tokyo", "America/Lima")
    assert changed.zone.key == "America/Lima"
    for time, name in (
        ("1990-01-01T00:00:00Z", "UTC"),
        ("2026-09-30T23:59:59Z", "UTC"),
        ("2026-10-01T00:00:00Z", "Asia/Tokyo"),
        ("2026-10-31T14:59:59Z", "Asia/Tokyo"),
        ("2026-10-31T15:00:00Z", "America/Lima"),
    ):
        assert changed.zone_at(parse_rfc3339(time)).key == name


def test_a_calendar_of_one_zone_is_that_zones_months() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    for time in ("1960-02-03T00:00:00Z", "1985-06-01T00:00:00Z", "2026-11-22T12:00:00Z", "2090-01-01T00:00:00Z"):
        at_us = parse_rfc3339(time)
        assert Calendar.of(berlin).period_at(at_us) == period_at(at_us, berlin)
    assert Calendar.of(berlin).period("1970-01").key == "1970-01"
    assert Calendar.of(berlin).period("2099-12").key == "2099-12"
