from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

import pytest

from zsky_box.clock import SECOND_US, rfc3339
from zsky_box.periods import month_start_us, period_at


def local(at_us: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at_us // SECOND_US, UTC).astimezone(zone)


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
    ],
)
def test_a_month_starts_at_its_zones_first_midnight(zone: str, year: int, month: int, start: str) -> None:
    assert rfc3339(month_start_us(year, month, ZoneInfo(zone))) == start


def test_in_every_zone_a_month_starts_with_its_first_instant() -> None:
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        for year in range(2024, 2038):
            for month in range(1, 13):
                start = month_start_us(year, month, zone)
                first, last = local(start, zone), local(start - SECOND_US, zone)
                assert (first.year, first.month, first.day) == (year, month, 1), name
                assert (last.year, last.month) == (year - (month == 1), (month - 2) % 12 + 1), name


@pytest.mark.parametrize("name", ["UTC", "America/Havana", "Africa/Cairo", "Pacific/Apia", "Australia/Lord_Howe"])
def test_periods_follow_each_other_without_gap_or_overlap(name: str) -> None:
    zone = ZoneInfo(name)
    period = period_at(month_start_us(2024, 1, zone), zone)
    for number in range(1, 14 * 12 + 1):
        assert period_at(period.start_us, zone) == period
        assert period_at(period.end_us - 1, zone) == period
        following = period_at(period.end_us, zone)
        assert following.start_us == period.end_us
        assert following.key == f"{2024 + number // 12}-{number % 12 + 1:02d}"
        period = following
