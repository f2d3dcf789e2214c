from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.stores import START_US, SetClock, opened
from zsky_box import timeline
from zsky_box.clock import parse_rfc3339, rfc3339
from zsky_box.db import Store
from zsky_box.settings import Settings
from zsky_box.terms import Terms, open_terms


@pytest.fixture
def store(tmp_path: Path) -> Generator[Store]:
    with opened(tmp_path) as store:
        yield store


def start(store: Store, zone: str, time: str = "2026-11-22T12:00:00Z") -> Terms:
    """What a start of the box with this zone in its settings would go by."""
    return open_terms(store, Settings(timezone=zone), parse_rfc3339(time))


def period(terms: Terms, time: str) -> tuple[str, str, str]:
    found = terms.calendar.period_at(parse_rfc3339(time))
    return found.key, rfc3339(found.start_us), rfc3339(found.end_us)


def test_prices_and_fees_are_the_settings_in_micros() -> None:
    terms = Terms.of(
        Settings(
            video_usd="0.75", image_usd="0.10", plan_month_usd="1.01", plan_year_usd="10.10", low_wallet_usd="2.50"
        )
    )
    assert (terms.price_micros("video"), terms.price_micros("image")) == (750_000, 100_000)
    assert (terms.fee_micros(annual=False), terms.fee_micros(annual=True)) == (1_010_000, 10_100_000)
    assert terms.low_wallet_micros == 2_500_000


@pytest.mark.parametrize(("video_usd", "image_usd"), [("0.75", "0.10"), ("0.10", "0.75")])
def test_the_cheapest_is_whatever_costs_least(video_usd: str, image_usd: str) -> None:
    assert Terms.of(Settings(video_usd=video_usd, image_usd=image_usd)).cheapest_micros == 100_000


def test_the_first_start_counts_in_the_settings_zone_from_ever(store: Store) -> None:
    terms = start(store, "Europe/Berlin")
    assert period(terms, "1999-12-31T22:59:59Z")[0] == "1999-12"
    assert period(terms, "1999-12-31T23:00:00Z")[0] == "2000-01"
    assert store.all("SELECT * FROM audit") == []


def test_another_start_with_the_same_zone_changes_nothing(store: Store) -> None:
    start(store, "Europe/Berlin")
    before = [tuple(row) for row in store.all("SELECT * FROM calendar_zone")]
    start(store, "Europe/Berlin", "2026-12-22T12:00:00Z")
    assert [tuple(row) for row in store.all("SELECT * FROM calendar_zone")] == before
    assert store.all("SELECT * FROM audit") == []


def test_another_zone_begins_with_the_next_period_on_record(store: Store) -> None:
    start(store, "UTC")
    terms = start(store, "Asia/Tokyo")
    assert period(terms, "2026-11-30T23:59:59Z") == ("2026-11", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
    assert period(terms, "2026-12-01T00:00:00Z") == ("2026-12", "2026-12-01T00:00:00Z", "2026-12-31T15:00:00Z")
    assert period(terms, "2026-12-31T15:00:00Z")[0] == "2027-01"
    (row,) = store.all("SELECT * FROM audit")
    assert (row["action"], row["actor"], row["subject"], row["account_id"]) == (
        "calendar.zone",
        "box",
        "2026-12",
        None,
    )
    assert row["at"] == START_US
    assert (json.loads(row["before"]), json.loads(row["after"])) == ({"zone": "UTC"}, {"zone": "Asia/Tokyo"})


def test_a_zone_changed_and_changed_back_within_the_month_is_as_it_was(store: Store) -> None:
    plain = start(store, "UTC")
    for zone in ("Asia/Tokyo", "America/Lima", "UTC"):
        terms = start(store, zone)
    assert len(store.all("SELECT * FROM calendar_zone")) == 2
    for time in ("2026-11-30T23:59:59Z", "2026-12-01T00:00:00Z", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"):
        assert period(terms, time) == period(plain, time)
    assert len(store.all("SELECT * FROM audit")) == 3


def test_the_last_zone_chosen_within_the_month_is_the_one_that_begins(store: Store) -> None:
    start(store, "UTC")
    start(store, "Asia/Tokyo")
    terms = start(store, "America/Lima")
    assert period(terms, "2026-12-15T00:00:00Z") == ("2026-12", "2026-12-01T00:00:00Z", "2027-01-01T05:00:00Z")


def test_the_next_period_is_the_ledgers_though_the_clock_is_a_little_behind(store: Store) -> None:
    start(store, "UTC")
    store.write(lambda tx: timeline.advance(tx, parse_rfc3339("2026-12-01T00:00:01Z")))
    terms = start(store, "Asia/Tokyo", "2026-11-30T23:59:59Z")
    assert period(terms, "2026-12-31T16:00:00Z")[0] == "2026-12"
    assert period(terms, "2027-01-01T00:00:00Z")[0] == "2027-01"


def test_a_zone_chosen_while_the_clock_was_ahead_gives_way_to_one_chosen_since(store: Store) -> None:
    start(store, "UTC")
    start(store, "Europe/Berlin", "2027-01-10T00:00:00Z")
    terms = start(store, "Asia/Tokyo", "2026-11-22T12:00:00Z")
    assert terms.calendar.zone.key == "Asia/Tokyo"
    clock = SetClock(START_US)
    for _ in range(6):
        found = terms.calendar.period_at(clock())
        clock.now_us = found.end_us
        assert terms.calendar.zone_at(clock()).key == "Asia/Tokyo"
        assert terms.calendar.period_at(clock()).key > found.key


def test_a_start_reads_back_what_the_starts_before_it_have_chosen(store: Store) -> None:
    start(store, "UTC", "2026-10-05T00:00:00Z")
    start(store, "Pacific/Kiritimati", "2026-10-06T00:00:00Z")
    start(store, "Pacific/Pago_Pago", "2026-11-06T00:00:00Z")
    terms = start(store, "Pacific/Pago_Pago", "2027-05-06T00:00:00Z")
    assert period(terms, "2026-10-31T23:00:00Z") == ("2026-10", "2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z")
    assert period(terms, "2026-11-15T00:00:00Z") == ("2026-11", "2026-11-01T00:00:00Z", "2026-11-30T10:00:00Z")
    assert period(terms, "2026-12-15T00:00:00Z") == ("2026-12", "2026-11-30T10:00:00Z", "2027-01-01T11:00:00Z")


def test_a_zone_chosen_in_a_time_that_was_disowned_does_not_begin_in_its_time(store: Store) -> None:
    start(store, "UTC")
    start(store, "Asia/Tokyo", "2037-01-10T00:00:00Z")
    store.write(lambda tx: timeline.advance(tx, parse_rfc3339("2037-01-10T00:00:00Z")))
    assert store.write(lambda tx: timeline.accept(tx, START_US, "terminal"))
    calendar = start(store, "UTC").calendar
    assert rfc3339(calendar.period("2037-02").start_us) == "2037-02-01T00:00:00Z"
    rows = len(store.all("SELECT id FROM audit"))
    start(store, "UTC")
    assert len(store.all("SELECT id FROM audit")) == rows, "the next start finds nothing to change"
