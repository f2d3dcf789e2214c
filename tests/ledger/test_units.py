from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.ledger.money import Money
from zsky_box import ledger
from zsky_box.errors import Refusal
from zsky_box.ledger import Allowance
from zsky_box.settings import Settings
from zsky_box.terms import Terms


def on_plan(money: Money, plan: Any) -> None:
    """Another plan at once, whatever was paid."""
    money.store.write(lambda tx: tx.execute("UPDATE account SET plan = ? WHERE id = ?", (plan, money.id)))


def granted(money: Money) -> list[tuple[str, str, int]]:
    return [(row["period"], row["ledger"], row["amount"]) for row in money.transfers("grant")]


# Grants


def test_before_the_first_job_the_allowance_is_the_plans(money: Money) -> None:
    assert money.allowance() == Allowance(10, 0, 0)
    assert money.allowance("video") == Allowance(3, 0, 0)
    assert granted(money) == []


def test_a_period_is_granted_once_however_many_jobs_it_has(money: Money) -> None:
    for _ in range(3):
        money.paid()
    assert granted(money) == [("2026-11", "image", 10)]
    assert money.allowance() == Allowance(10, 3, 0)


def test_a_grant_goes_from_the_issuer_to_the_period_of_the_account(money: Money) -> None:
    money.reserve()
    (row,) = money.transfers("grant")
    assert (row["debit"], row["credit"]) == ("issuer", f"included:{money.id}:2026-11")
    assert (row["account_id"], row["actor"], row["at"]) == (money.id, "plan", money.clock())
    assert (row["job_id"], row["ordinal"], row["pending_id"], row["budget_id"]) == (None, None, None, None)


def test_images_and_videos_are_granted_and_spent_apart(money: Money) -> None:
    money.reserve(10)
    assert money.refusal().code == "allowance_exhausted"
    money.reserve(1, "video")
    assert money.allowance("video") == Allowance(3, 0, 1)


def test_a_larger_plan_within_the_month_tops_up_to_its_figure_and_a_smaller_takes_nothing_back(money: Money) -> None:
    money.terms = Terms.of(Settings(included_images=80))
    on_plan(money, "free")
    money.reserve(20, in_person=True)
    on_plan(money, "max")
    assert money.allowance() == Allowance(80, 0, 20)
    money.reserve(1)
    on_plan(money, "free")
    money.reserve(1, in_person=True)
    on_plan(money, "max")
    money.reserve(1)
    assert [row["amount"] for row in money.transfers("grant")] == [50, 30]
    assert money.allowance() == Allowance(80, 0, 23)


def test_the_owner_who_includes_more_within_the_month_tops_up_by_just_the_difference(money: Money) -> None:
    money.reserve(10)
    money.set(included_images=11)
    assert money.allowance() == Allowance(11, 0, 10)
    money.reserve()
    assert money.refusal().code == "allowance_exhausted"
    assert [row["amount"] for row in money.transfers("grant")] == [10, 1]


def test_the_owner_who_includes_less_within_the_month_takes_nothing_back(money: Money) -> None:
    money.reserve(9)
    money.set(included_images=9)
    assert money.allowance() == Allowance(10, 0, 9)
    money.reserve()
    assert granted(money) == [("2026-11", "image", 10)]


def test_a_plan_that_includes_nothing_grants_nothing(money: Money) -> None:
    money.set(included_images=0)
    assert money.refusal().code == "allowance_exhausted"
    money.spending()
    money.reserve()
    assert granted(money) == []
    assert money.allowance() == Allowance(0, 0, 0)


def test_what_is_left_lapses_with_the_month(money: Money) -> None:
    money.paid(9)
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
    assert {row["ordinal"]: row["kind"] for row in money.transfers("post", "void")} == {
        0: "post",
        1: "void",
        2: "void",
        3: "post",
    }
    assert money.allowance() == Allowance(10, 2, 0)


def test_all_units_of_a_job_are_held_or_none(money: Money) -> None:
    money.reserve(8)
    assert money.refusal(3).code == "allowance_exhausted"
    assert money.allowance() == Allowance(10, 0, 8)
    money.reserve(2)


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
    money.id = money.add("bob")
    assert money.allowance() == Allowance(10, 0, 0)
    money.reserve(10)


# Refusals


def test_an_exhausted_allowance_says_when_it_is_renewed(money: Money) -> None:
    money.reserve(8)
    refusal = money.refusal(3)
    assert (refusal.status, refusal.code) == (429, "allowance_exhausted")
    assert int(refusal.headers["Retry-After"]) == 8 * 86_400 + 12 * 3_600
    assert "The plan's 10 images of this month" in refusal.detail
    assert "2 left, 3 asked for" in refusal.detail
    assert "2026-12-01T00:00:00Z" in refusal.detail


def test_who_waits_for_retry_after_is_accepted(money: Money) -> None:
    money.clock.set("2026-11-30T23:59:58.200Z")
    money.reserve(10)
    seconds = int(money.refusal().headers["Retry-After"])
    assert seconds == 2
    money.clock.advance(seconds)
    money.reserve()


def test_a_refused_first_job_does_not_open_the_month(money: Money) -> None:
    assert money.refusal(11).code == "allowance_exhausted"
    assert money.transfers() == []
    assert money.store.all('SELECT * FROM "grant"') == []


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
    assert {row["actor"] for row in again} == {"box"}
    reasons = [json.loads(row["after"]).get("why") for row in money.audited("ledger.grant")]
    assert reasons.count("given back after 2026-11 had ended") == 4
    money.reserve(13)
    assert money.refusal().code == "allowance_exhausted"


def test_a_void_within_its_own_month_grants_nothing_again(money: Money) -> None:
    money.void(money.reserve(4))
    assert granted(money) == [("2026-11", "image", 10)]
    assert money.allowance() == Allowance(10, 0, 0)


def test_a_void_by_a_clock_set_back_over_months_end_gives_nothing_twice(money: Money) -> None:
    money.clock.set("2026-12-01T00:01:00Z")
    job_id = money.reserve(4)
    money.clock.set("2026-11-30T23:59:00Z")
    money.void(job_id)
    assert money.allowance() == Allowance(10, 0, 0)
    money.clock.set("2026-12-01T00:02:00Z")
    assert money.allowance() == Allowance(10, 0, 0)


def test_the_month_is_the_boxs_zones(money: Money) -> None:
    money.set(timezone="Pacific/Auckland")
    money.clock.set("2026-11-30T10:59:59Z")
    money.reserve(10)
    money.clock.set("2026-11-30T11:00:00Z")
    money.reserve(10)
    assert [row["period"] for row in money.transfers("grant")] == ["2026-11", "2026-12"]


# Refunds


def test_a_refunded_unit_goes_back_to_the_issuer_and_is_granted_again(money: Money) -> None:
    job_id = money.paid(3)
    assert money.refund(job_id, 1) == 1
    assert money.allowance() == Allowance(11, 3, 0)
    assert money.allowance().left == 8
    (refund,) = money.transfers("refund")
    assert (refund["debit"], refund["credit"], refund["amount"], refund["ordinal"]) == ("consumed", "issuer", 1, 1)
    again = money.transfers("grant")[-1]
    assert (again["amount"], again["period"], again["actor"]) == (1, "2026-11", "owner")
    assert f"refund of {job_id}" in money.audited("ledger.grant")[-1]["after"]


def test_a_unit_refunded_in_a_later_month_is_granted_there(money: Money) -> None:
    job_id = money.paid(2)
    money.clock.set("2026-12-05T00:00:00Z")
    assert money.refund(job_id) == 2
    assert money.allowance() == Allowance(12, 0, 0)
    money.reserve(12)
    assert money.refusal().code == "allowance_exhausted"
    assert [row["period"] for row in money.transfers("refund")] == ["2026-12", "2026-12"]


def test_included_units_are_in_no_counter_of_money(money: Money) -> None:
    money.spending()
    job_id = money.paid(4)
    money.void(money.reserve(2))
    money.refund(job_id)
    assert money.stands() == ("0.00", "0.00", "1000.00", "5.00")
    assert money.store.all("SELECT * FROM spend WHERE pending + posted + refunded > 0") == []
    assert ledger.charges(money.store, [job_id])[job_id].amount_micros == 0
