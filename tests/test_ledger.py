from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.stores import SetClock, add_account, opened, tampering
from zsky_box import ids, ledger
from zsky_box.accounts import Account
from zsky_box.catalog import JobType
from zsky_box.db import Row, Store
from zsky_box.errors import Refusal
from zsky_box.ledger import Allowance
from zsky_box.settings import Settings


class Money:
    """An account that spends included units, over a store, a clock and settings of its own."""

    def __init__(self, store: Store) -> None:
        self.store, self.clock = store, SetClock()
        self.settings = Settings(included_images=10, included_videos=3)
        self.account: Account = add_account(store, "ann")

    def reserve(self, units: int = 1, kind: JobType = "image") -> str:
        """A job's id, its units held."""
        job_id = ids.new("job")
        self.store.write(lambda tx: ledger.reserve(tx, self.account, kind, units, job_id, self.clock(), self.settings))
        return job_id

    def resolve(self, job_id: str, posted: frozenset[int] | None) -> None:
        self.store.write(
            lambda tx: ledger.resolve(tx, job_id, posted, actor="box", now=self.clock(), settings=self.settings)
        )

    def post(self, job_id: str) -> None:
        self.resolve(job_id, None)

    def void(self, job_id: str) -> None:
        self.resolve(job_id, frozenset())

    def allowance(self, kind: JobType = "image") -> Allowance:
        return ledger.allowance(self.store, self.account, kind, self.clock(), self.settings)

    def plan(self, plan: Any) -> None:
        self.account = msgspec.structs.replace(self.account, plan=plan)

    def refusal(self, units: int = 1, kind: JobType = "image") -> Refusal:
        with pytest.raises(Refusal) as refused:
            self.reserve(units, kind)
        return refused.value

    def transfers(self, kind: str) -> list[Row]:
        return self.store.all("SELECT * FROM transfer WHERE kind = ? ORDER BY id", (kind,))


@pytest.fixture
def money(tmp_path: Path) -> Generator[Money]:
    with opened(tmp_path) as store:
        yield Money(store)
        assert ledger.first_wrong_balance(store) is None


# Grants


def test_before_the_first_job_the_allowance_is_the_plans(money: Money) -> None:
    assert money.allowance() == Allowance(10, 0, 0)
    assert money.allowance("video") == Allowance(3, 0, 0)
    assert money.transfers("grant") == []


def test_a_period_is_granted_once_however_many_jobs_it_has(money: Money) -> None:
    for _ in range(3):
        money.post(money.reserve())
    assert [row["amount"] for row in money.transfers("grant")] == [10]
    assert money.allowance() == Allowance(10, 3, 0)


def test_images_and_videos_are_granted_and_spent_apart(money: Money) -> None:
    money.reserve(10)
    assert money.refusal().code == "allowance_exhausted"
    money.reserve(1, "video")
    assert money.allowance("video") == Allowance(3, 0, 1)


def test_a_larger_plan_within_the_month_tops_up_to_its_figure_and_a_smaller_takes_nothing_back(money: Money) -> None:
    money.settings = msgspec.structs.replace(money.settings, included_images=80)
    money.plan("free")
    money.reserve(20)
    money.plan("max")
    assert money.allowance() == Allowance(80, 0, 20)
    money.reserve(1)
    money.plan("free")
    money.reserve(1)
    money.plan("max")
    money.reserve(1)
    assert [row["amount"] for row in money.transfers("grant")] == [50, 30]
    assert money.allowance() == Allowance(80, 0, 23)


def test_what_is_left_lapses_with_the_month(money: Money) -> None:
    money.post(money.reserve(9))
    money.clock.set("2026-11-30T23:59:59.999Z")
    assert money.allowance() == Allowance(10, 9, 0)
    money.clock.set("2026-12-01T00:00:00Z")
    assert money.allowance() == Allowance(10, 0, 0)
    money.reserve(10)
    assert money.refusal().code == "allowance_exhausted"


# Reserve, post, void


def test_a_reserve_is_held_a_post_uses_it_and_a_void_gives_it_back(money: Money) -> None:
    posted, voided = money.reserve(2), money.reserve(3)
    assert money.allowance() == Allowance(10, 0, 5)
    money.post(posted)
    assert money.allowance() == Allowance(10, 2, 3)
    money.void(voided)
    assert money.allowance() == Allowance(10, 2, 0)
    assert money.allowance().left == 8


def test_of_several_units_the_named_ones_are_posted_and_the_others_voided(money: Money) -> None:
    job_id = money.reserve(4)
    money.resolve(job_id, frozenset({0, 3}))
    assert {row["ordinal"]: row["kind"] for row in money.transfers("post") + money.transfers("void")} == {
        0: "post",
        1: "void",
        2: "void",
        3: "post",
    }
    assert money.allowance() == Allowance(10, 2, 0)


def test_all_units_of_a_job_are_held_or_none(money: Money) -> None:
    money.reserve(8)
    before = money.store.all("SELECT * FROM transfer")
    assert money.refusal(3).code == "allowance_exhausted"
    assert money.allowance() == Allowance(10, 0, 8)
    assert money.store.all("SELECT * FROM transfer") == before
    money.reserve(2)


@pytest.mark.parametrize("first", [None, frozenset[int](), frozenset({1})])
@pytest.mark.parametrize("second", [None, frozenset[int](), frozenset({0})])
def test_resolving_twice_changes_nothing(
    money: Money, first: frozenset[int] | None, second: frozenset[int] | None
) -> None:
    job_id = money.reserve(2)
    money.resolve(job_id, first)
    before = (money.allowance(), len(money.store.all("SELECT id FROM audit")))
    money.resolve(job_id, second)
    assert (money.allowance(), len(money.store.all("SELECT id FROM audit"))) == before


def test_a_job_without_a_reserve_resolves_to_nothing(money: Money) -> None:
    money.post("job_of_a_test_key")
    assert money.store.all("SELECT * FROM transfer") == []


def test_32_spenders_are_accepted_exactly_as_often_as_there_are_units(money: Money) -> None:
    def spend() -> str:
        try:
            money.reserve()
        except Refusal as refusal:
            return refusal.code
        return "accepted"

    with ThreadPoolExecutor(32) as pool:
        attempts = [pool.submit(spend) for _ in range(64)]
        answers = Counter(attempt.result(60) for attempt in attempts)
    assert answers == {"accepted": 10, "allowance_exhausted": 54}
    assert money.allowance() == Allowance(10, 0, 10)


def test_accounts_do_not_spend_each_others_units(money: Money) -> None:
    money.reserve(10)
    money.account = add_account(money.store, "bob")
    assert money.allowance() == Allowance(10, 0, 0)
    money.reserve(10)


# Refusals


def test_an_exhausted_allowance_says_when_it_is_renewed(money: Money) -> None:
    money.reserve(8)
    refusal = money.refusal(3)
    assert (refusal.status, refusal.code) == (429, "allowance_exhausted")
    assert int(refusal.headers["Retry-After"]) == 8 * 86_400 + 12 * 3_600
    assert "2 left, 3 asked for" in refusal.detail
    assert "2026-12-01T00:00:00Z" in refusal.detail


def test_who_waits_for_retry_after_is_accepted(money: Money) -> None:
    money.clock.set("2026-11-30T23:59:58.200Z")
    money.reserve(10)
    money.clock.advance(int(money.refusal().headers["Retry-After"]))
    money.reserve()


def test_a_refused_first_job_does_not_open_the_month(money: Money) -> None:
    assert money.refusal(11).code == "allowance_exhausted"
    assert money.store.all("SELECT * FROM transfer") == []
    assert money.store.all('SELECT * FROM "grant"') == []


def test_a_clock_behind_the_ledger_is_refused_until_it_is_right_again(money: Money) -> None:
    money.reserve()
    money.clock.advance(-600)
    money.reserve()
    money.clock.advance(600)
    money.reserve()
    money.clock.advance(-601)
    refusal = money.refusal()
    assert (refusal.status, refusal.code) == (503, "clock_behind")
    assert "2026-11-22T12:00:00Z" in refusal.detail
    assert refusal.headers["Retry-After"]
    assert money.allowance().pending == 3
    money.clock.advance(601)
    money.reserve()


def test_an_open_job_can_end_while_the_clock_is_behind(money: Money) -> None:
    job_id = money.reserve()
    money.clock.advance(-86_400)
    money.void(job_id)
    assert money.allowance() == Allowance(10, 0, 0)


# Month's end


def test_a_job_in_flight_at_months_end_is_charged_to_the_month_of_its_reserve(money: Money) -> None:
    money.clock.set("2026-11-30T23:59:59Z")
    job_id = money.reserve(4)
    money.clock.set("2026-12-01T00:00:01Z")
    money.post(job_id)
    assert money.allowance() == Allowance(10, 0, 0)
    money.clock.set("2026-11-30T23:59:59Z")
    assert money.allowance() == Allowance(10, 4, 0)


@pytest.mark.parametrize("first_job_before_the_void", [True, False])
def test_a_void_after_months_end_grants_its_units_again_in_the_new_month(
    money: Money, first_job_before_the_void: bool
) -> None:
    money.clock.set("2026-11-30T23:59:59Z")
    job_id = money.reserve(4)
    money.clock.set("2026-12-01T00:00:01Z")
    if first_job_before_the_void:
        money.reserve(1)
    money.void(job_id)
    assert money.allowance().granted == 14
    if not first_job_before_the_void:
        money.reserve(1)
    assert money.allowance() == Allowance(14, 0, 1)
    again = [row for row in money.transfers("grant") if row["period"] == "2026-12" and row["amount"] == 1]
    assert len(again) == 4
    money.reserve(13)
    assert money.refusal().code == "allowance_exhausted"


def test_a_void_by_a_clock_set_back_over_months_end_gives_nothing_twice(money: Money) -> None:
    money.clock.set("2026-12-01T00:01:00Z")
    job_id = money.reserve(4)
    money.clock.set("2026-11-30T23:59:00Z")
    money.void(job_id)
    assert money.allowance() == Allowance(10, 0, 0)
    money.clock.set("2026-12-01T00:02:00Z")
    assert money.allowance() == Allowance(10, 0, 0)


def test_the_month_is_the_boxs_zones(money: Money) -> None:
    money.settings = msgspec.structs.replace(money.settings, timezone="Pacific/Auckland")
    money.clock.set("2026-11-30T10:59:59Z")
    money.reserve(10)
    money.clock.set("2026-11-30T11:00:00Z")
    money.reserve(10)
    assert [row["period"] for row in money.transfers("grant")] == ["2026-11", "2026-12"]


# Charges and the replay


def test_a_charge_tells_what_was_asked_and_what_is_held_or_paid(money: Money) -> None:
    open_id, part_id, void_id = money.reserve(2), money.reserve(3), money.reserve(1)
    money.resolve(part_id, frozenset({1}))
    money.void(void_id)
    charges = ledger.charges(money.store, [open_id, part_id, void_id, "job_without_a_charge"])
    assert {job_id: (charge.state, charge.units, charge.included_units) for job_id, charge in charges.items()} == {
        open_id: ("reserved", 2, 2),
        part_id: ("posted", 3, 1),
        void_id: ("voided", 1, 0),
    }
    assert len(charges[part_id].ledger_ids) == 6
    assert ledger.charges(money.store, []) == {}


def test_each_movement_is_one_audit_row_that_names_its_job(money: Money) -> None:
    job_id = money.reserve(2)
    money.resolve(job_id, frozenset({0}))
    rows = money.store.all("SELECT * FROM audit WHERE transfer_id IS NOT NULL ORDER BY transfer_id")
    assert [row["action"] for row in rows] == [
        "ledger.grant",
        "ledger.reserve",
        "ledger.reserve",
        "ledger.post",
        "ledger.void",
    ]
    assert {row["subject"] for row in rows[1:]} == {job_id}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE balance SET debits_posted = debits_posted - 1 WHERE name LIKE 'included:%'",
        "UPDATE balance SET credits_posted = credits_posted + 1 WHERE name LIKE 'included:%'",
        "DELETE FROM balance WHERE name = 'consumed'",
        "UPDATE transfer SET amount = 9 WHERE kind = 'grant'",
        "DELETE FROM transfer WHERE kind = 'post'",
        "INSERT INTO balance (name, ledger, overdraft, credits_posted) VALUES ('wallet', 'usd', 0, 5)",
    ],
)
def test_a_balance_that_its_transfers_do_not_say_is_named(tmp_path: Path, change: str) -> None:
    with opened(tmp_path) as store:
        money = Money(store)
        money.post(money.reserve(2))
        assert ledger.first_wrong_balance(store) is None
    tampering(store, change)
    with opened(tmp_path) as store:
        wrong = ledger.first_wrong_balance(store)
        assert wrong is not None
        assert "balance" in wrong
