"""Closing: once a month is over and nothing of it is pending, its statement never changes."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.stores import PEPPER, SIGNING, SetClock, add_account, tampering
from tests.studio import Studio
from zsky_box import accounts, audit, control, ledger, plans, statements, timeline
from zsky_box.bookkeeping import Bookkeeping
from zsky_box.clock import parse_rfc3339
from zsky_box.db import Store
from zsky_box.errors import Refusal, StoreError
from zsky_box.secretfile import Secrets
from zsky_box.terms import Terms

NOVEMBER, DECEMBER = "2026-11", "2026-12"


@pytest.fixture
def studio(tmp_path: Path) -> Generator[Studio]:
    rooms = Studio(tmp_path)
    yield rooms
    assert ledger.first_wrong_balance(rooms.store) is None
    assert audit.first_broken_row(rooms.store) is None
    rooms.close()


@pytest.mark.parametrize("n", [1, 2], ids=["an included unit", "the wallet's money"])
def test_a_statement_closes_when_nothing_of_it_is_pending(studio: Studio, n: int) -> None:
    if n == 2:
        studio.make()
    attempt = studio.running(n=n)
    assert studio.close_due() == []
    studio.clock.set("2026-12-01T00:00:00Z")
    assert studio.close_due() == []
    assert (studio.json(NOVEMBER)["status"], studio.json(NOVEMBER)["closed_at"]) == ("open", None)
    studio.clock.set("2026-12-02T00:00:00Z")
    studio.complete(attempt)
    assert studio.close_due() == [NOVEMBER]
    assert (studio.json(NOVEMBER)["status"], studio.json(NOVEMBER)["closed_at"]) == ("closed", "2026-12-02T00:00:00Z")
    assert studio.close_due() == []
    assert studio.json(DECEMBER)["status"] == "open"


def test_a_closed_statement_is_the_same_bytes_for_ever(studio: Studio) -> None:
    job_id = studio.make(4, metadata={"shot": "1"})
    studio.clock.set("2026-12-05T00:00:00Z")
    studio.close_due()
    before = studio.json_bytes(NOVEMBER), studio.csv_bytes(NOVEMBER)
    studio.refund(job_id)
    studio.fund(studio.owner.account, "7")
    studio.make(3)
    studio.delete(job_id)
    studio.choose("free")
    studio.clock.set("2027-03-05T00:00:00Z")
    assert studio.close_due() == [DECEMBER, "2027-01", "2027-02"]
    studio.restart()
    assert (studio.json_bytes(NOVEMBER), studio.csv_bytes(NOVEMBER)) == before
    assert studio.json("2027-02")["plan"] == "free"


def test_months_close_in_order_and_so_many_in_a_call(studio: Studio) -> None:
    studio.make(2)
    studio.clock.set("2029-02-10T00:00:00Z")
    first, second = studio.close_due(), studio.close_due()
    assert (len(first), first[0], first[-1]) == (24, NOVEMBER, "2028-10")
    assert second == ["2028-11", "2028-12", "2029-01"]
    assert studio.close_due() == []
    assert {studio.json(key)["plan_fee_usd"] for key in [*first, *second]} == {"99.00"}


def test_a_later_month_waits_for_an_earlier_one(studio: Studio) -> None:
    attempt = studio.running()
    studio.clock.set("2027-01-10T00:00:00Z")
    assert studio.close_due() == []
    studio.complete(attempt)
    assert studio.close_due() == [NOVEMBER, DECEMBER]


def test_a_closing_is_on_record_and_the_clock_does_not_fall_behind_it(studio: Studio) -> None:
    studio.make(3)
    studio.clock.set("2026-12-01T00:00:00Z")
    studio.close_due()
    row = studio.store.one("SELECT * FROM audit WHERE action = 'statement.closed'")
    assert row is not None
    assert (row["subject"], row["actor"]) == (f"{studio.owner.account.id}:{NOVEMBER}", "box")
    told = json.loads(row["after"])
    assert (told["plan_fee_usd"], told["overage_usd"], told["total_usd"]) == ("99.00", "0.10", "99.10")
    assert told["included"] == {"video": 300, "image": 1}
    studio.clock.advance(-60)
    studio.make(2)
    assert studio.json(NOVEMBER)["overage_usd"] == "0.10"
    assert studio.json(DECEMBER)["overage_usd"] == "0.05"


def test_a_clock_that_is_accepted_behind_opens_what_has_not_ended(studio: Studio) -> None:
    studio.make(3)
    studio.clock.set("2027-02-10T00:00:00Z")
    assert studio.close_due() == [NOVEMBER, DECEMBER, "2027-01"]
    november = studio.json_bytes(NOVEMBER)
    studio.clock.set("2026-12-15T00:00:00Z")

    def accept(tx: Any) -> int:
        timeline.accept(tx, studio.clock(), "ann")
        reopened = statements.reopen_after(tx, studio.clock())
        plans.undo_after(tx, accounts.get(tx, studio.owner.account.id), DECEMBER, studio.clock())
        return reopened

    assert studio.store.write(accept) == 2
    assert studio.json_bytes(NOVEMBER) == november
    assert studio.json(DECEMBER)["status"] == "open"
    assert len(studio.store.all("SELECT 1 FROM audit WHERE action = 'statement.reopened'")) == 2
    studio.make(2)
    studio.clock.set("2027-01-01T00:00:00Z")
    assert studio.close_due() == [DECEMBER]
    assert studio.json(DECEMBER)["total_usd"] == "99.05"


def test_a_months_unused_units_are_told_after_it_as_in_it(studio: Studio) -> None:
    free = add_account(studio.store, "bob", "free")
    unused = {"video": {"granted": 300, "used": 0, "pending": 0}, "image": {"granted": 1, "used": 0, "pending": 0}}
    of_free = {kind: of | {"granted": 10 if kind == "video" else 50} for kind, of in unused.items()}
    told = [studio.json(NOVEMBER)["included"], studio.json(NOVEMBER, free)["included"]]
    studio.clock.set("2026-12-05T00:00:00Z")
    studio.choose("max", account=free)
    studio.choose("free")  # and the owner cancels: what is chosen now counts later
    told += [studio.json(NOVEMBER)["included"], studio.json(NOVEMBER, free)["included"]]
    assert (studio.close_due(), studio.close_due(free)) == ([NOVEMBER], [NOVEMBER])
    told += [studio.json(NOVEMBER)["included"], studio.json(NOVEMBER, free)["included"]]
    assert told == [unused, of_free] * 3


def test_an_open_past_month_tells_the_units_that_its_closing_writes_and_no_later_settings_change_them(
    studio: Studio,
) -> None:
    attempt = studio.running()
    studio.clock.set("2026-12-05T00:00:00Z")
    studio.terms = changed(studio.terms, included_images=4, included_videos=7)
    open_units = studio.json(NOVEMBER)["included"]
    assert open_units["image"] == {"granted": 4, "used": 0, "pending": 1}
    assert open_units["video"]["granted"] == 7
    studio.complete(attempt)
    studio.close_due()
    studio.terms = changed(studio.terms, included_images=0, included_videos=0)
    closed = studio.json(NOVEMBER)
    assert closed["status"] == "closed"
    assert closed["included"]["image"] == {"granted": 4, "used": 1, "pending": 0}
    assert closed["included"]["video"]["granted"] == 7


def test_a_smaller_setting_takes_nothing_back_that_was_granted(studio: Studio) -> None:
    studio.make()
    studio.clock.set("2026-12-05T00:00:00Z")
    studio.terms = changed(studio.terms, included_images=0)
    studio.close_due()
    assert studio.json(NOVEMBER)["included"]["image"] == {"granted": 1, "used": 1, "pending": 0}


def test_a_unit_that_was_given_back_stays_beside_the_plans_own(studio: Studio) -> None:
    job_id = studio.make()
    studio.clock.set("2026-12-05T00:00:00Z")
    studio.refund(job_id)
    assert studio.json(DECEMBER)["included"]["image"]["granted"] == 2
    studio.clock.set("2027-01-05T00:00:00Z")
    studio.close_due()
    assert studio.json(DECEMBER)["included"]["image"] == {"granted": 2, "used": 0, "pending": 0}


def test_an_account_that_began_under_a_clock_that_was_ahead_has_its_months_from_its_first_fee(tmp_path: Path) -> None:
    rooms = Studio(tmp_path, clock=SetClock(parse_rfc3339("2026-02-10T00:00:00Z")))
    books = Bookkeeping(rooms.store, rooms.terms, rooms.clock)
    rooms.clock.set("2026-06-10T00:00:00Z")
    ann = add_account(rooms.store, "ann", now=rooms.clock())
    books.sweep()
    rooms.clock.set("2026-02-15T00:00:00Z")
    means = control.Means(rooms.store, Secrets(PEPPER, SIGNING), rooms.terms, rooms.clock)
    assert control.run(control.AcceptClock(), means)["accepted"]
    books.sweep()
    assert (rooms.json("2026-02", ann)["status"], rooms.json("2026-02", ann)["total_usd"]) == ("open", "99.00")
    rooms.clock.set("2026-03-15T00:00:00Z")
    books.sweep()
    assert (rooms.json("2026-02", ann)["status"], rooms.json("2026-02", ann)["total_usd"]) == ("closed", "99.00")
    with rooms.store.snapshot() as rows:
        listed = statements.months(rows, ann, rooms.clock(), None, 10, rooms.terms)
    assert [(month.period.key, month.plan_fee_micros) for month in listed] == [
        ("2026-03", 99_000_000),
        ("2026-02", 99_000_000),
    ]
    with pytest.raises(Refusal, match="not_found"):
        rooms.json("2026-01", ann)
    rooms.close()


def test_fees_that_were_all_taken_back_begin_no_statements(tmp_path: Path) -> None:
    rooms = Studio(tmp_path, clock=SetClock(parse_rfc3339("2026-01-05T00:00:00Z")))
    means = control.Means(rooms.store, Secrets(PEPPER, SIGNING), rooms.terms, rooms.clock)
    rooms.clock.set("2026-06-10T00:00:00Z")
    ann = add_account(rooms.store, "ann", now=rooms.clock())
    for set_back in ("2026-02-15T00:00:00Z", "2026-01-10T00:00:00Z"):
        control.run(control.ChoosePlan(account="ann", plan="max"), means)
        control.run(control.ChoosePlan(account="ann", plan="free"), means)
        rooms.clock.set(set_back)
        control.run(control.AcceptClock(), means)
    rooms.clock.set("2026-03-15T00:00:00Z")
    Bookkeeping(rooms.store, rooms.terms, rooms.clock).sweep()
    fees = rooms.store.all("SELECT period, amount_micros FROM plan_fee WHERE account_id = ? ORDER BY id", (ann.id,))
    assert [(row["period"], row["amount_micros"]) for row in fees] == [
        ("2026-06", 99_000_000),
        ("2026-06", -99_000_000),
        ("2026-02", 99_000_000),
        ("2026-02", -99_000_000),
    ]
    with rooms.store.snapshot() as rows:
        assert statements.months(rows, ann, rooms.clock(), None, 10, rooms.terms) == []
    rooms.close()


def changed(terms: Terms, **settings: Any) -> Terms:
    """The terms as after a restart with other settings."""
    return msgspec.structs.replace(terms, settings=msgspec.structs.replace(terms.settings, **settings))


def test_a_closed_statement_that_was_tampered_with_is_not_told(tmp_path: Path) -> None:
    rooms = Studio(tmp_path)
    rooms.make(3)
    rooms.clock.set("2026-12-01T00:00:00Z")
    rooms.close_due()
    rooms.close()
    tampering(rooms.store, "UPDATE transfer SET amount = 1 WHERE kind = 'post' AND ledger = 'usd'")
    with pytest.raises(StoreError, match="does not add up"):
        _opened_again(rooms).statement(NOVEMBER)
    rooms.close()


def _opened_again(rooms: Studio) -> Studio:
    rooms.store = Store(rooms.folder)
    return rooms
