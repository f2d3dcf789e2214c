from __future__ import annotations

import pytest

from zsky_box.hours import parse_hours

MONDAY, FRIDAY, SATURDAY, SUNDAY = 0, 4, 5, 6


def covers(text: str, day: int, hour: int, minute: int = 0) -> bool:
    return any(span.covers(day, hour * 60 + minute) for span in parse_hours(text))


def test_hours_of_working_days() -> None:
    text = "mon-fri 09:00-18:00; sat 10:00-12:00"
    assert covers(text, MONDAY, 9)
    assert covers(text, FRIDAY, 17, 59)
    assert not covers(text, FRIDAY, 18)
    assert covers(text, SATURDAY, 11)
    assert not covers(text, SUNDAY, 11)


def test_an_end_before_the_start_is_on_the_next_day() -> None:
    assert covers("fri 22:00-06:00", FRIDAY, 23)
    assert covers("fri 22:00-06:00", SATURDAY, 5)
    assert not covers("fri 22:00-06:00", FRIDAY, 5)
    assert covers("sun 22:00-06:00", MONDAY, 1)


def test_without_days_every_day_is_meant_and_days_may_go_round_the_week() -> None:
    assert all(covers("12:00-13:00", day, 12) for day in range(7))
    assert [day for day in range(7) if covers("sat-mon 12:00-13:00", day, 12)] == [MONDAY, SATURDAY, SUNDAY]


def test_a_day_has_24_hours() -> None:
    assert all(covers("00:00-24:00", day, hour) for day in range(7) for hour in range(24))


@pytest.mark.parametrize(
    "text", ["9-18", "mon 25:00-26:00", "mon 09:60-10:00", "xyz 09:00-10:00", "mon-fri", ";".join(["09:00-10:00"] * 33)]
)
def test_what_is_no_hours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not of the form|days are|is no time of day|more than 32"):
        parse_hours(text)
