from __future__ import annotations

import json

import pytest

from tests.ledger.money import Money
from zsky_box import overage
from zsky_box.accounts import Replenish
from zsky_box.errors import Refusal
from zsky_box.ledger import wallet


def filled(money: Money) -> list[tuple[str, int]]:
    """Who put how many micros into the wallet."""
    return [(row["actor"], row["amount"]) for row in money.transfers("topup")]


# Top-ups


def test_a_topup_is_one_transfer_from_the_studios_budget_and_one_audit_row(money: Money) -> None:
    number = money.topup("12.34")
    assert money.view().wallet_usd == "12.34"
    (row,) = money.transfers()
    assert (row["id"], row["kind"], row["ledger"], row["amount"]) == (number, "topup", "usd", 12_340_000)
    assert (row["debit"], row["credit"], row["period"]) == ("funding", f"wallet:{money.id}", "2026-11")
    assert (row["account_id"], row["actor"], row["at"]) == (money.id, "owner", money.clock())
    (audited,) = money.audited("ledger.")
    assert (audited["action"], audited["transfer_id"]) == ("ledger.topup", number)
    assert "why" not in json.loads(audited["after"])


@pytest.mark.parametrize("usd", ["0.01", "1000000.00"])
def test_the_least_and_the_most_that_can_be_topped_up(money: Money, usd: str) -> None:
    money.topup(usd)
    assert money.view().wallet_usd == usd


@pytest.mark.parametrize("usd", ["0.00", "-0.01", "1000000.01"])
def test_a_topup_out_of_bounds_is_refused_and_changes_nothing(money: Money, usd: str) -> None:
    before = money.everything()
    with pytest.raises(Refusal) as refused:
        money.topup(usd)
    assert (refused.value.status, refused.value.code) == (422, "invalid_field")
    assert refused.value.field == "amount_usd"
    assert refused.value.detail == "A top-up is $0.01 to $1000000.00."
    assert money.everything() == before


def test_a_wallet_has_a_most_that_is_reached_exactly(money: Money, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wallet.WALLET_MAX_MICROS == 10**15
    monkeypatch.setattr(wallet, "WALLET_MAX_MICROS", 3_000_000)
    money.topup("2.00")
    with pytest.raises(Refusal) as refused:
        money.topup("1.01")
    assert (refused.value.status, refused.value.code, refused.value.field) == (422, "invalid_field", "amount_usd")
    assert refused.value.detail == "A wallet holds at most $3.00."
    money.topup("1.00")
    assert money.view().wallet_usd == "3.00"


def test_a_wallet_outlives_every_month(money: Money) -> None:
    money.topup("5.00")
    money.clock.set("2031-01-01T00:00:00Z")
    assert money.view().wallet_usd == "5.00"


def test_wallets_are_the_accounts_own(money: Money) -> None:
    money.topup("5.00")
    money.id = money.add("bob")
    assert money.view().wallet_usd == "0.00"


def test_money_is_counted_to_the_micro(money: Money) -> None:
    def move(amount: int) -> None:
        period = money.terms.calendar.period_at(money.clock())
        account, at = money.account, money.clock()
        money.store.write(lambda tx: wallet.topup(tx, account, amount, period, actor="owner", at=at))
        money.store.write(lambda tx: wallet.correct(tx, account, amount, period, actor="owner", at=at, why="again"))
        money.store.write(lambda tx: wallet.correct(tx, account, -amount, period, actor="owner", at=at, why="not"))

    move(1)
    assert money.view().wallet_usd == "0.000001"
    account, at, period = money.account, money.clock(), money.terms.calendar.period_at(money.clock())
    with pytest.raises(Refusal, match=r"has \$0.000001 to take from"):
        money.store.write(lambda tx: wallet.correct(tx, account, -2, period, actor="owner", at=at, why="too much"))
    rule = Replenish(below_micros=2, add_micros=1, month_micros=1)
    money.store.write(lambda tx: overage.set_rule(tx, money.id, rule, actor="owner", now=at, terms=money.terms))
    assert money.view().wallet_usd == "0.000002"


# Corrections


def test_a_correction_puts_right_either_way_and_says_why(money: Money) -> None:
    money.topup("5.00")
    money.correct("-1.25", "typed twice")
    money.correct("0.01", "and a cent too much")
    assert money.view().wallet_usd == "3.76"
    out, back = money.transfers("correct")
    assert (out["debit"], out["credit"], out["amount"]) == (f"wallet:{money.id}", "funding", 1_250_000)
    assert (back["debit"], back["credit"], back["amount"]) == ("funding", f"wallet:{money.id}", 10_000)
    assert (out["actor"], out["at"], out["period"]) == ("owner", money.clock(), "2026-11")
    assert [json.loads(row["after"])["why"] for row in money.audited("ledger.correct")] == [
        "typed twice",
        "and a cent too much",
    ]


def test_a_correction_takes_the_last_cent_and_not_one_more(money: Money) -> None:
    money.topup("5.00")
    with pytest.raises(Refusal, match=r"The wallet has \$5.00 to take from"):
        money.correct("-5.01")
    money.correct("-5.00")
    assert money.view().wallet_usd == "0.00"


def test_a_correction_leaves_what_is_held_for_open_jobs(money: Money) -> None:
    money.set(included_images=0)
    money.spending("0.15")
    job_id = money.reserve()
    with pytest.raises(Refusal, match=r"The wallet has \$0.10"):
        money.correct("-0.11")
    money.correct("-0.10")
    money.post(job_id)
    assert money.view().wallet_usd == "0.00"


@pytest.mark.parametrize(
    ("usd", "why", "field"),
    [
        ("0.00", "nothing", "amount_usd"),
        ("1000000.01", "too much", "amount_usd"),
        ("-1000000.01", "too much", "amount_usd"),
        ("1.00", "", "reason"),
        ("1.00", "  ", "reason"),
        ("-5.01", "more than there is", "amount_usd"),
    ],
)
def test_a_correction_that_cannot_be_is_refused_and_changes_nothing(
    money: Money, usd: str, why: str, field: str
) -> None:
    money.topup("5.00")
    before = money.everything()
    with pytest.raises(Refusal) as refused:
        money.correct(usd, why)
    assert (refused.value.status, refused.value.code, refused.value.field) == (422, "invalid_field", field)
    assert money.everything() == before


@pytest.mark.parametrize("usd", ["0.01", "1000000.00", "-1000000.00"])
def test_the_least_and_the_most_that_can_be_corrected(money: Money, usd: str) -> None:
    money.topup("1000000.00")
    money.correct(usd)
    assert len(money.transfers("correct")) == 1


# The rule that fills it by itself


@pytest.fixture
def ruled(money: Money) -> Money:
    """One dollar; below 50 cents, add 2 dollars, at most 4 a month; images cost 5 cents."""
    money.set(included_images=0)
    money.spending("1.00")
    money.rule("0.50", "2.00", "4.00")
    return money


def test_a_wallet_at_the_rules_level_is_left_and_one_below_it_is_filled_within_the_reserve(ruled: Money) -> None:
    ruled.reserve(10)
    assert filled(ruled) == [("owner", 1_000_000)]
    assert ruled.view().wallet_usd == "0.50"
    job_id = ruled.reserve()
    assert filled(ruled) == [("owner", 1_000_000), ("replenish", 2_000_000)]
    assert ruled.view().wallet_usd == "2.45"
    topup, reserve = ruled.transfers()[-2:]
    assert (topup["kind"], reserve["job_id"]) == ("topup", job_id)
    assert (topup["debit"], topup["credit"], topup["period"]) == ("funding", f"wallet:{ruled.id}", "2026-11")
    assert json.loads(ruled.audited("ledger.topup")[-1]["after"])["why"] == "below $0.50"
    assert ruled.spent(f"account:{ruled.id}").replenished == 2_000_000


def test_a_job_that_the_wallet_alone_cannot_pay_is_paid_by_what_the_rule_adds(ruled: Money) -> None:
    ruled.reserve(60)
    assert ruled.view().wallet_usd == "0.00"
    assert ruled.transfers("topup")[-1]["actor"] == "replenish"


def test_the_rule_fills_once_a_job_and_no_more_than_it_says_in_a_month(ruled: Money) -> None:
    assert ruled.refusal(61).code == "wallet_empty"
    ruled.reserve(55)
    ruled.reserve(10)
    assert ruled.view().wallet_usd == "1.75"
    assert ruled.spent(f"account:{ruled.id}").replenished == 4_000_000
    ruled.reserve(30)
    refusal = ruled.refusal(6)
    assert (refusal.status, refusal.code) == (402, "wallet_empty")
    assert len(filled(ruled)) == 3
    ruled.clock.set("2026-12-01T00:00:00Z")
    ruled.reserve(6)
    assert ruled.spent(f"account:{ruled.id}").replenished == 2_000_000


@pytest.mark.parametrize(("month_usd", "times"), [("3.99", 1), ("4.00", 2), ("1.99", 0)])
def test_the_months_limit_is_reached_exactly_and_never_passed(money: Money, month_usd: str, times: int) -> None:
    money.set(included_images=0, image_usd="1.00")
    money.spending("1.00")
    money.rule("1.00", "2.00", month_usd)
    for _ in range(1 + 2 * times):
        money.reserve()
    assert money.refusal().code == "wallet_empty"
    assert len(filled(money)) == 1 + times


def test_a_refused_job_takes_back_what_the_rule_would_have_added(ruled: Money) -> None:
    ruled.reserve(10)
    ruled.cap("5.00")
    assert ruled.refusal(95).code == "cap_reached"
    assert filled(ruled) == [("owner", 1_000_000)]


def test_what_is_assessed_counts_what_the_rule_would_add(ruled: Money) -> None:
    assert ruled.assess(60).refusal is None
    beyond = ruled.assess(61).refusal
    assert beyond is not None
    assert beyond.code == "wallet_empty"


def test_setting_a_rule_does_what_it_calls_for_now(money: Money) -> None:
    money.topup("0.50")
    money.rule("0.50", "2.00", "4.00")
    assert money.view().wallet_usd == "0.50"
    money.rule("0.51", "2.00", "4.00")
    assert money.view().wallet_usd == "2.50"


def test_what_was_added_under_an_older_rule_counts_against_the_month_of_the_newer(money: Money) -> None:
    money.rule("0.50", "2.00", "2.00")
    money.rule("3.00", "1.00", "2.99")
    assert money.view().wallet_usd == "2.00"
    money.rule("3.00", "1.00", "3.00")
    assert money.view().wallet_usd == "3.00"


def test_a_plan_without_an_api_spends_what_its_rule_adds(money: Money) -> None:
    money.id = money.add("bob", "free")
    money.spending("0.05")
    money.rule("0.05", "0.10", "0.10")
    money.reserve()
    money.reserve(2)
    assert money.view().wallet_usd == "0.00"
    assert money.refusal().code == "plan_without_api"
    money.clock.set("2026-12-01T00:00:00Z")
    money.reserve()
