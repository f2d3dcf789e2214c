from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.ledger.money import open_money
from tests.stores import START_US, opened
from zsky_box import timeline
from zsky_box.clock import SECOND_US, parse_rfc3339
from zsky_box.db import Store
from zsky_box.errors import Refusal
from zsky_box.settings import Settings
from zsky_box.terms import open_terms

TOLERANCE_US = 600 * SECOND_US
FIRST_US = parse_rfc3339("2020-01-01T00:00:00Z")
END_US = parse_rfc3339("2100-01-01T00:00:00Z")


@pytest.fixture
def store(tmp_path: Path) -> Generator[Store]:
    """A ledger whose last entry is of START_US."""
    with opened(tmp_path) as store:
        assert store.write(lambda tx: timeline.advance(tx, START_US)) == START_US
        yield store


def present(store: Store, now: int) -> int:
    with store.snapshot() as rows:
        return timeline.present(rows, now)


def behind(store: Store, now: int) -> int:
    with store.snapshot() as rows:
        return timeline.behind_us(rows, now)


def advance(store: Store, now: int) -> int:
    return store.write(lambda tx: timeline.advance(tx, now))


def advance_anyhow(store: Store, now: int) -> int:
    return store.write(lambda tx: timeline.advance_anyhow(tx, now))


def test_a_new_ledger_begins_at_whatever_time_it_is(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert present(store, FIRST_US + 5) == FIRST_US + 5
        assert advance(store, FIRST_US) == FIRST_US
        assert advance(store, FIRST_US + 7) == FIRST_US + 7
        assert present(store, FIRST_US + 5) == FIRST_US + 7


@pytest.mark.parametrize("impossible", [0, FIRST_US - 1, END_US, END_US + TOLERANCE_US])
def test_a_clock_of_another_age_is_never_believed(store: Store, impossible: int) -> None:
    assert not timeline.is_possible(impossible)
    assert present(store, impossible) == START_US
    assert advance_anyhow(store, impossible) == START_US
    with pytest.raises(Refusal, match="which cannot be") as refused:
        advance(store, impossible)
    assert (refused.value.status, refused.value.code) == (503, "clock_behind")
    with store.snapshot() as rows, pytest.raises(Refusal, match="which cannot be"):
        timeline.check(rows, impossible)
    assert present(store, START_US) == START_US


def test_before_its_first_entry_a_ledger_reads_by_the_first_time_there_is(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert present(store, 0) == FIRST_US
        assert present(store, END_US) == FIRST_US
        assert present(store, END_US - 1) == END_US - 1


def test_entries_bear_the_time_that_the_clock_shows_as_it_goes_on(store: Store) -> None:
    for step, move in enumerate((advance, advance_anyhow, advance), 1):
        assert move(store, START_US + step) == START_US + step
        assert present(store, START_US) == START_US + step


@pytest.mark.parametrize("late_us", [1, 1_000, TOLERANCE_US])
def test_a_clock_a_little_behind_is_waited_for(store: Store, late_us: int) -> None:
    assert advance(store, START_US - late_us) == START_US
    assert advance_anyhow(store, START_US - late_us) == START_US
    assert present(store, START_US - late_us) == START_US
    assert behind(store, START_US - late_us) == late_us
    assert advance(store, START_US + 1) == START_US + 1


def test_a_clock_that_is_not_behind_is_behind_by_nothing(store: Store) -> None:
    assert [behind(store, START_US + more) for more in (0, 1, SECOND_US)] == [0, 0, 0]


def test_a_clock_further_behind_is_refused_until_it_is_right(store: Store) -> None:
    with pytest.raises(Refusal) as refused:
        advance(store, START_US - TOLERANCE_US - 1)
    assert (refused.value.status, refused.value.code) == (503, "clock_behind")
    assert refused.value.headers == {"Retry-After": "60"}
    assert "whose last entry is of 2026-11-22T12:00:00Z" in refused.value.detail
    assert "`zsky-box doctor --accept-clock`" in refused.value.detail
    assert present(store, 0) == START_US
    assert advance(store, START_US - TOLERANCE_US) == START_US


@pytest.mark.parametrize(("late_us", "refused"), [(0, False), (TOLERANCE_US, False), (TOLERANCE_US + 1, True)])
def test_whether_the_clock_is_too_far_behind_can_be_asked_without_an_entry(
    store: Store, late_us: int, refused: bool
) -> None:
    with store.snapshot() as rows:
        if refused:
            with pytest.raises(Refusal, match="clock_behind"):
                timeline.check(rows, START_US - late_us)
        else:
            timeline.check(rows, START_US - late_us)
    assert present(store, 0) == START_US


def test_what_ends_something_is_never_refused_and_bears_the_last_time(store: Store) -> None:
    assert advance_anyhow(store, START_US - 10 * TOLERANCE_US) == START_US
    assert present(store, 0) == START_US


def test_the_owner_accepts_a_clock_that_is_behind_on_record(store: Store) -> None:
    earlier = START_US - 10 * TOLERANCE_US
    assert store.write(lambda tx: timeline.accept(tx, earlier, "terminal"))
    assert present(store, 0) == earlier
    assert advance(store, earlier + 1) == earlier + 1
    (row,) = store.all("SELECT * FROM audit WHERE action = 'clock.accepted'")
    assert (row["actor"], row["subject"], row["account_id"], row["at"]) == ("terminal", "clock", None, earlier)
    assert json.loads(row["before"]) == {"at": START_US}
    assert json.loads(row["after"]) == {"at": earlier, "transfer_id": 0}


def test_what_was_entered_before_the_clock_was_accepted_can_be_told(tmp_path: Path) -> None:
    with open_money(tmp_path) as money:
        last = [money.topup("1.00") for _ in range(3)][-1]
        assert money.store.write(lambda tx: timeline.accept(tx, money.clock() - 1, "terminal"))
        (row,) = money.audited("clock.accepted")
        assert json.loads(row["after"])["transfer_id"] == last


@pytest.mark.parametrize("ahead_us", [0, 1])
def test_there_is_nothing_to_accept_of_a_clock_that_is_not_behind(store: Store, ahead_us: int) -> None:
    assert not store.write(lambda tx: timeline.accept(tx, START_US + ahead_us, "terminal"))
    assert present(store, 0) == START_US
    assert store.all("SELECT * FROM audit") == []


def test_a_clock_behind_by_one_microsecond_can_be_accepted(store: Store) -> None:
    assert store.write(lambda tx: timeline.accept(tx, START_US - 1, "terminal"))
    assert present(store, 0) == START_US - 1


def test_the_calendar_on_record_is_none_before_the_first_start(store: Store) -> None:
    with store.snapshot() as rows:
        assert timeline.calendar(rows) is None
    open_terms(store, Settings(), START_US)
    open_terms(store, Settings(timezone="Asia/Tokyo"), START_US)
    with store.snapshot() as rows:
        calendar = timeline.calendar(rows)
    assert calendar is not None
    assert calendar.zone.key == "Asia/Tokyo"
    assert calendar.zone_at(START_US).key == "UTC"


@pytest.mark.parametrize("impossible", [0, FIRST_US - 1, END_US])
def test_a_clock_of_another_age_cannot_be_accepted(store: Store, impossible: int) -> None:
    with pytest.raises(Refusal, match="which cannot be"):
        store.write(lambda tx: timeline.accept(tx, impossible, "terminal"))
    assert present(store, 0) == START_US
    assert store.all("SELECT id FROM audit") == []
