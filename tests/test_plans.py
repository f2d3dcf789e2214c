from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.ledger.money import Money, open_money
from zsky_box import accounts, overage, plans, timeline
from zsky_box.accounts import Account, Plan
from zsky_box.db import Tx

MONTH = ("Plan max, a month", 99_000_000)
YEAR = ("Plan max, a year", 948_000_000)
MONTH_TAKEN_BACK = ("Plan max taken back: the year replaces the month", -99_000_000)


@pytest.fixture
def money(tmp_path: Path) -> Generator[Money]:
    """Ann, on the plan max since 22 November 2026."""
    with open_money(tmp_path) as money:
        yield money


def roll(money: Money, time: str | None = None) -> Account:
    """What time itself does to a plan, looked at now or at another time."""
    if time is not None:
        money.clock.set(time)
    now = money.clock()
    return money.store.write(lambda tx: overage.roll(tx, money.id, now=now, terms=money.terms))


def undo(money: Money, time: str) -> None:
    """The owner says that it is this earlier time."""
    money.clock.set(time)

    def work(tx: Tx) -> None:
        timeline.accept(tx, money.clock(), "owner")
        plans.undo_after(tx, accounts.get(tx, money.id), money.period, money.clock())

    money.store.write(work)


def term(account: Account) -> tuple[str, str, bool, str]:
    return account.plan, account.renews, account.annual, account.paid_until


def all_fees(money: Money) -> list[tuple[str, int]]:
    """Period and dollars of every line, in the order in which they were charged."""
    rows = money.store.all("SELECT period, amount_micros FROM plan_fee ORDER BY id")
    return [(row["period"], row["amount_micros"] // 1_000_000) for row in rows]


def actions(money: Money) -> list[str]:
    return [row["action"] for row in money.audited("plan.") if row["action"] != "plan.fee"]


# Terms


def test_a_month_is_charged_when_its_period_is_first_looked_at_and_once(money: Money) -> None:
    assert all_fees(money) == []
    for _ in range(2):
        assert term(roll(money)) == ("max", "monthly", False, "2026-12")
    money.reserve()
    assert money.fees() == [MONTH]
    roll(money, "2026-11-30T23:59:59Z")
    assert all_fees(money) == [("2026-11", 99)]
    roll(money, "2026-12-01T00:00:00Z")
    assert all_fees(money) == [("2026-11", 99), ("2026-12", 99)]


def test_a_reserve_charges_the_term_that_it_falls_in(money: Money) -> None:
    money.reserve()
    assert all_fees(money) == [("2026-11", 99)]


def test_a_fee_is_one_audit_row(money: Money) -> None:
    roll(money)
    (row,) = money.audited("plan.")
    assert (row["action"], row["actor"], row["account_id"]) == ("plan.fee", "plan", money.id)
    assert (row["subject"], row["at"]) == (f"{money.id}:2026-11", money.clock())
    assert json.loads(row["after"]) == {
        "description": "Plan max, a month",
        "amount_usd": "99.00",
        "annual": False,
        "paid_until": "2026-12",
    }
    (fee,) = money.store.all("SELECT * FROM plan_fee")
    assert (fee["annual"], fee["at"], fee["account_id"]) == (0, money.clock(), money.id)


def test_a_year_is_paid_in_its_first_month_and_the_next_one_a_year_later(money: Money) -> None:
    money.id = money.add("bob", annual=True)
    assert term(roll(money)) == ("max", "annual", True, "2027-11")
    assert money.fees() == [YEAR]
    roll(money, "2027-10-31T23:59:59Z")
    assert all_fees(money) == [("2026-11", 948)]
    roll(money, "2027-11-01T00:00:00Z")
    assert all_fees(money) == [("2026-11", 948), ("2027-11", 948)]


def test_a_box_that_was_off_owes_the_same_as_one_that_was_on(money: Money) -> None:
    roll(money, "2027-03-10T00:00:00Z")
    assert all_fees(money) == [(f"{year}-{month:02d}", 99) for year, month in _MONTHS]
    assert money.account.paid_until == "2027-04"


_MONTHS = [(2026, 11), (2026, 12), (2027, 1), (2027, 2), (2027, 3)]


def test_an_account_made_by_a_clock_that_was_ahead_is_charged_from_the_month_that_it_is(money: Money) -> None:
    money.clock.set("2027-05-01T00:00:00Z")
    money.id = money.add("bob")
    money.clock.set("2026-11-22T12:00:00Z")
    roll(money)
    assert all_fees(money) == [("2026-11", 99)]


def test_the_price_of_a_term_is_the_one_at_its_charge(money: Money) -> None:
    roll(money)
    money.set(plan_month_usd="120.50")
    roll(money)
    assert money.fees() == [MONTH]
    roll(money, "2026-12-01T00:00:00Z")
    assert money.fees() == [("Plan max, a month", 120_500_000)]


def test_a_free_plan_costs_nothing_ever(money: Money) -> None:
    money.id = money.add("bob", "free")
    assert term(roll(money, "2028-01-01T00:00:00Z")) == ("free", "monthly", False, "")
    assert all_fees(money) == []


def test_fees_are_the_accounts_own(money: Money) -> None:
    roll(money)
    money.id = money.add("bob")
    assert money.fees() == []
    roll(money)
    assert money.fees() == [MONTH]


@pytest.mark.parametrize(
    ("plan", "paid_until", "due"),
    [("max", "", True), ("max", "2026-11", True), ("max", "2026-12", False), ("free", "2026-11", False)],
)
def test_a_term_is_due_from_the_first_period_that_is_not_paid_for(plan: Plan, paid_until: str, due: bool) -> None:
    account = Account(id="acc", name="a", role="member", plan=plan, created_at=0, paid_until=paid_until)
    assert plans.is_due(account, "2026-11") == due


# Choosing


def test_choosing_the_plan_that_one_has_changes_nothing_but_to_charge_what_is_due(money: Money) -> None:
    roll(money)
    before = money.everything()
    assert term(money.choose("max")) == ("max", "monthly", False, "2026-12")
    assert money.everything() == before


def test_a_free_account_begins_the_plan_at_once_with_its_allowance_and_its_fee(money: Money) -> None:
    money.id = money.add("bob", "free")
    before = money.choose("free")
    assert term(before) == ("free", "monthly", False, "")
    assert term(money.choose("max")) == ("max", "monthly", False, "2026-12")
    assert money.fees() == [MONTH]
    assert money.allowance().granted == 10
    (row,) = [row for row in money.audited("plan.") if row["action"] == "plan.begun"]
    assert (row["actor"], row["subject"], row["account_id"], row["at"]) == (
        money.id,
        money.id,
        money.id,
        money.clock(),
    )
    assert json.loads(row["before"]) == {"plan": "free", "renews": "monthly", "annual": False, "paid_until": ""}
    assert json.loads(row["after"]) == {"plan": "max", "renews": "monthly", "annual": False, "paid_until": "2026-11"}


def test_a_free_account_begins_a_year_at_once(money: Money) -> None:
    money.id = money.add("bob", "free")
    assert term(money.choose("max", annual=True)) == ("max", "annual", True, "2027-11")
    assert money.fees() == [YEAR]


def test_from_the_month_to_the_year_is_at_once_and_the_month_is_taken_back(money: Money) -> None:
    roll(money)
    assert term(money.choose("max", annual=True)) == ("max", "annual", True, "2027-11")
    assert money.fees() == [MONTH, MONTH_TAKEN_BACK, YEAR]
    assert sum(amount for _, amount in money.fees()) == 948_000_000
    (changed,) = money.audited("plan.changed")
    assert json.loads(changed["before"]) == {"renews": "monthly", "annual": False, "paid_until": "2026-12"}
    assert json.loads(changed["after"]) == {"renews": "annual", "annual": True, "paid_until": "2026-11"}
    roll(money, "2027-10-31T00:00:00Z")
    assert all_fees(money) == [("2026-11", 99), ("2026-11", -99), ("2026-11", 948)]
    (fee,) = [row for row in money.store.all("SELECT * FROM plan_fee") if row["amount_micros"] < 0]
    assert fee["annual"] == 0


def test_only_the_month_that_runs_is_taken_back_for_the_year(money: Money) -> None:
    roll(money, "2026-12-20T00:00:00Z")
    money.choose("max", annual=True)
    assert all_fees(money) == [("2026-11", 99), ("2026-12", 99), ("2026-12", -99), ("2026-12", 948)]
    assert money.account.paid_until == "2027-12"


def test_from_the_year_to_the_month_is_when_the_year_has_ended(money: Money) -> None:
    money.id = money.add("bob", annual=True)
    assert term(money.choose("max")) == ("max", "monthly", True, "2027-11")
    assert actions(money) == ["plan.changed"]
    roll(money, "2027-10-31T00:00:00Z")
    assert all_fees(money) == [("2026-11", 948)]
    assert term(roll(money, "2027-11-01T00:00:00Z")) == ("max", "monthly", False, "2027-12")
    assert all_fees(money) == [("2026-11", 948), ("2027-11", 99)]


def test_who_returns_to_the_year_that_still_runs_pays_nothing_more(money: Money) -> None:
    money.id = money.add("bob", annual=True)
    money.choose("max")
    assert term(money.choose("max", annual=True)) == ("max", "annual", True, "2027-11")
    assert all_fees(money) == [("2026-11", 948)]


# Cancel and resume


def test_a_cancelled_plan_runs_to_the_end_of_the_paid_month_and_is_free_then(money: Money) -> None:
    assert term(money.choose("free")) == ("max", "no", False, "2026-12")
    assert actions(money) == ["plan.cancelled"]
    assert money.account.plan_in("2026-11") == "max"
    assert money.account.plan_in("2026-12") == "free"
    assert money.allowance().granted == 10
    assert term(roll(money, "2026-12-01T00:00:00Z")) == ("free", "monthly", False, "2026-12")
    assert all_fees(money) == [("2026-11", 99)]
    assert actions(money) == ["plan.cancelled", "plan.ended"]
    ended = money.audited("plan.ended")[0]
    assert (ended["actor"], ended["at"]) == ("box", money.clock())
    assert json.loads(ended["after"]) == {"plan": "free", "renews": "monthly", "annual": False}
    assert roll(money, "2029-01-01T00:00:00Z").plan == "free"
    assert all_fees(money) == [("2026-11", 99)]


def test_a_cancelled_year_runs_to_its_end(money: Money) -> None:
    money.id = money.add("bob", annual=True)
    assert term(money.choose("free")) == ("max", "no", True, "2027-11")
    assert money.account.plan_in("2027-10") == "max"
    assert roll(money, "2027-10-31T00:00:00Z").plan == "max"
    assert term(roll(money, "2027-11-01T00:00:00Z")) == ("free", "monthly", False, "2027-11")
    assert all_fees(money) == [("2026-11", 948)]


def test_cancel_and_resume_within_the_month_charges_and_grants_nothing_again(money: Money) -> None:
    money.reserve()
    money.choose("free")
    assert term(money.choose("max")) == ("max", "monthly", False, "2026-12")
    money.reserve()
    assert actions(money) == ["plan.cancelled", "plan.resumed"]
    assert all_fees(money) == [("2026-11", 99)]
    assert [row["amount"] for row in money.transfers("grant")] == [10]


def test_a_cancelled_year_is_resumed_as_a_year_or_goes_on_by_the_month(money: Money) -> None:
    money.id = money.add("bob", annual=True)
    money.choose("free")
    assert term(money.choose("max", annual=True)) == ("max", "annual", True, "2027-11")
    money.choose("free")
    assert term(money.choose("max")) == ("max", "monthly", True, "2027-11")
    assert actions(money) == ["plan.cancelled", "plan.resumed"] * 2
    assert all_fees(money) == [("2026-11", 948)]


def test_a_cancelled_month_that_is_resumed_as_a_year_begins_it_at_once(money: Money) -> None:
    money.choose("free")
    assert term(money.choose("max", annual=True)) == ("max", "annual", True, "2027-11")
    assert sum(amount for _, amount in money.fees()) == 948_000_000


def test_who_chooses_the_plan_after_it_ended_begins_anew(money: Money) -> None:
    money.choose("free")
    money.clock.set("2027-02-03T00:00:00Z")
    assert term(money.choose("max")) == ("max", "monthly", False, "2027-03")
    assert all_fees(money) == [("2026-11", 99), ("2027-02", 99)]
    assert actions(money) == ["plan.cancelled", "plan.ended", "plan.begun"]


def test_cancelling_an_account_that_was_never_looked_at_charges_its_term_first(money: Money) -> None:
    money.choose("free")
    assert all_fees(money) == [("2026-11", 99)]


# A clock that was ahead


def test_what_a_clock_that_was_ahead_has_charged_is_taken_back(money: Money) -> None:
    roll(money, "2027-01-15T00:00:00Z")
    undo(money, "2026-11-23T00:00:00Z")
    assert all_fees(money) == [("2026-11", 99), ("2026-12", 99), ("2027-01", 99), ("2026-12", -99), ("2027-01", -99)]
    assert money.fees("2026-12")[-1] == ("Plan max taken back: the clock was set back", -99_000_000)
    assert money.account.paid_until == "2026-12"
    (changed,) = money.audited("plan.changed")
    assert (changed["actor"], json.loads(changed["after"])) == ("box", {"annual": False, "paid_until": "2026-12"})
    roll(money, "2026-12-01T00:00:00Z")
    assert all_fees(money)[5:] == [("2026-12", 99)]


def test_setting_the_clock_back_within_the_month_takes_nothing_back(money: Money) -> None:
    roll(money)
    before = all_fees(money), money.account
    undo(money, "2026-11-02T00:00:00Z")
    assert (all_fees(money), money.account) == before


def test_a_year_that_a_clock_ahead_began_is_taken_back_with_its_kind(money: Money) -> None:
    roll(money)
    money.clock.set("2026-12-15T00:00:00Z")
    money.choose("max", annual=True)
    undo(money, "2026-11-23T00:00:00Z")
    assert term(money.account) == ("max", "annual", False, "2026-12")
    assert sum(amount for _, amount in money.fees("2026-12")) == 0
    roll(money, "2026-12-15T00:00:00Z")
    assert sum(amount for _, amount in money.fees("2026-12")) == 948_000_000


def test_a_year_that_is_paid_stays_paid(money: Money) -> None:
    money.id = money.add("bob", annual=True)
    roll(money, "2027-12-01T00:00:00Z")
    undo(money, "2027-01-01T00:00:00Z")
    assert term(money.account) == ("max", "annual", True, "2027-11")
    assert all_fees(money) == [("2026-11", 948), ("2027-11", 948), ("2027-11", -948)]


def test_a_plan_that_a_clock_ahead_ended_goes_on_to_its_real_end(money: Money) -> None:
    money.choose("free")
    roll(money, "2026-12-05T00:00:00Z")
    undo(money, "2026-11-23T00:00:00Z")
    assert term(money.account) == ("max", "no", False, "2026-12")
    assert actions(money)[-1] == "plan.resumed"
    assert money.audited("plan.resumed")[0]["actor"] == "box"
    assert roll(money, "2026-12-01T00:00:00Z").plan == "free"
    assert all_fees(money) == [("2026-11", 99)]


def test_a_plan_that_had_ended_already_stays_ended_when_the_clock_is_set_back_within_the_month(money: Money) -> None:
    money.choose("free")
    roll(money, "2026-12-20T00:00:00Z")
    undo(money, "2026-12-02T00:00:00Z")
    assert term(money.account) == ("free", "monthly", False, "2026-12")


def test_of_several_months_those_that_have_come_stay_paid(money: Money) -> None:
    roll(money, "2027-02-10T00:00:00Z")
    undo(money, "2026-12-10T00:00:00Z")
    assert money.account.paid_until == "2027-01"
    assert all_fees(money)[4:] == [("2027-01", -99), ("2027-02", -99)]


def test_what_is_taken_back_again_is_what_was_charged_again_and_nothing_twice(money: Money) -> None:
    money.set(plan_month_usd="120.00")
    roll(money, "2026-12-10T00:00:00Z")
    undo(money, "2026-11-25T00:00:00Z")
    undo(money, "2026-11-24T00:00:00Z")
    money.set(plan_month_usd="99.00")
    roll(money, "2026-12-10T00:00:00Z")
    undo(money, "2026-11-25T00:00:00Z")
    assert [amount for period, amount in all_fees(money) if period == "2026-12"] == [120, -120, 99, -99]


def test_a_month_that_was_taken_back_is_not_the_one_that_is_paid(money: Money) -> None:
    roll(money, "2026-12-10T00:00:00Z")
    undo(money, "2026-11-25T00:00:00Z")
    money.choose("max", annual=True)
    roll(money, "2027-12-10T00:00:00Z")
    undo(money, "2027-02-10T00:00:00Z")
    assert term(money.account) == ("max", "annual", True, "2027-11")


def test_a_month_that_was_taken_back_and_charged_again_is_paid(money: Money) -> None:
    roll(money, "2026-12-10T00:00:00Z")
    undo(money, "2026-11-25T00:00:00Z")
    roll(money, "2027-02-10T00:00:00Z")
    undo(money, "2026-12-10T00:00:00Z")
    assert money.account.paid_until == "2027-01"


def test_a_year_stays_paid_though_the_month_that_it_replaced_cost_nothing(money: Money) -> None:
    money.set(plan_month_usd="0.00")
    roll(money)
    money.choose("max", annual=True)
    roll(money, "2027-12-10T00:00:00Z")
    undo(money, "2026-11-25T00:00:00Z")
    assert term(money.account) == ("max", "annual", True, "2027-11")


def test_an_account_without_a_fee_yet_has_none_to_be_taken_back(money: Money) -> None:
    money.id = money.add("bob", "free")
    before = money.account
    undo(money, "2026-10-01T00:00:00Z")
    assert (all_fees(money), money.account) == ([], before)


def test_a_fee_of_nothing_is_taken_back_once_like_any_other(money: Money) -> None:
    money.set(plan_month_usd="0.00")
    roll(money, "2026-12-05T00:00:00Z")
    undo(money, "2026-11-23T00:00:00Z")
    undo(money, "2026-11-22T12:00:00Z")
    lines = [("Plan max, a month", 0), ("Plan max taken back: the clock was set back", 0)]
    assert (money.fees("2026-11"), money.fees("2026-12")) == (lines[:1], lines)
    assert money.account.paid_until == "2026-12"


def test_a_month_for_nothing_that_a_clock_ahead_began_is_not_the_one_that_is_paid(money: Money) -> None:
    money.set(plan_month_usd="0.00")
    roll(money, "2027-01-05T00:00:00Z")
    undo(money, "2026-11-23T00:00:00Z")
    money.choose("max", annual=True)
    money.choose("free")
    undo(money, "2026-11-22T12:00:00Z")
    assert term(money.account) == ("max", "no", True, "2027-11")
