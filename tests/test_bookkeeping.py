from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.stores import Rooms
from zsky_box import overage
from zsky_box.accounts import Replenish
from zsky_box.bookkeeping import Bookkeeping


@pytest.fixture
def rooms(tmp_path: Path) -> Generator[Rooms]:
    opened = Rooms(tmp_path)
    yield opened
    opened.close()


def keeping(rooms: Rooms) -> Bookkeeping:
    return Bookkeeping(rooms.store, rooms.terms, rooms.clock)


def count(rooms: Rooms, table: str) -> int:
    return rooms.store.all(f"SELECT count(*) AS n FROM {table}")[0]["n"]  # noqa: S608 - the tests' own names


def test_the_first_look_puts_the_months_fee_on_record_and_the_next_writes_nothing(rooms: Rooms) -> None:
    keeping(rooms).sweep()
    fees = rooms.store.all("SELECT period, amount_micros FROM plan_fee")
    assert [tuple(row) for row in fees] == [("2026-11", 99_000_000)]
    before = count(rooms, "audit")
    keeping(rooms).sweep()
    assert count(rooms, "audit") == before


def test_a_box_that_was_off_for_years_closes_every_month_once_and_owes_each(rooms: Rooms) -> None:
    keeping(rooms).sweep()
    rooms.clock.set("2031-02-03T00:00:00Z")
    keeping(rooms).sweep()
    periods = [row["period"] for row in rooms.store.all("SELECT period FROM closing ORDER BY id")]
    assert (len(periods), periods[0], periods[-1]) == (51, "2026-11", "2031-01")
    assert count(rooms, "plan_fee") == 52
    keeping(rooms).sweep()
    assert count(rooms, "closing") == 51


def test_a_month_with_a_job_in_flight_waits_for_it(rooms: Rooms) -> None:
    attempt = rooms.running()
    rooms.clock.set("2026-12-01T00:00:01Z")
    keeping(rooms).sweep()
    assert count(rooms, "closing") == 0
    rooms.complete(attempt)
    keeping(rooms).sweep()
    assert count(rooms, "closing") == 1


def test_a_rule_fills_the_wallet_without_a_job(rooms: Rooms) -> None:
    owner, now = rooms.owner.account.id, rooms.clock()
    rule = Replenish(below_micros=5_000_000, add_micros=20_000_000, month_micros=30_000_000)
    rooms.store.write(lambda tx: overage.set_rule(tx, owner, rule, actor="test", now=now, terms=rooms.terms))
    rooms.store.write(
        lambda tx: overage.correct(tx, owner, -18_000_000, actor="test", now=now, terms=rooms.terms, why="spent")
    )
    assert rooms.overage().wallet_usd == "2.00"
    keeping(rooms).sweep()
    assert rooms.overage().wallet_usd == "2.00", "the month's limit leaves no room for another 20"
    rooms.clock.set("2026-12-01T00:00:01Z")
    keeping(rooms).sweep()
    assert rooms.overage().wallet_usd == "22.00"


def test_an_account_whose_books_cannot_be_kept_holds_up_no_other(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.stores import add_account
    from zsky_box import statements
    from zsky_box.errors import StoreError

    other = add_account(rooms.store, "ann")
    rooms.clock.set("2026-12-01T00:00:01Z")
    close = statements.close_due

    def sometimes(tx: object, account: object, now: int, terms: object) -> list[str]:
        if getattr(account, "id", "") == rooms.owner.account.id:
            raise StoreError("not now")
        return close(tx, account, now, terms)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr("zsky_box.bookkeeping.statements.close_due", sometimes)
    keeping(rooms).sweep()
    assert [row["account_id"] for row in rooms.store.all("SELECT account_id FROM closing")] == [other.id]
    assert "the books of owner are not kept: not now" in caplog.text
