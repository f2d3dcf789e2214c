from __future__ import annotations

import json

import pytest

from tests.ledger.money import Money
from zsky_box.ledger import Alert

WALLET_LOW = Alert("wallet_low", None)


def percents(alerts: tuple[Alert, ...] | list[Alert]) -> list[int | None]:
    return [alert.percent for alert in alerts if alert.kind == "cap"]


@pytest.fixture
def money(money: Money) -> Money:
    """A cap of five dollars, a hundred images of 5 cents, and a wallet that never runs low."""
    money.set(included_images=0, low_wallet_usd="1.00")
    money.spending("100.00", "5.00")
    return money


# The cap


def test_each_percentage_is_told_when_it_is_reached_exactly_and_once(money: Money) -> None:
    told = {units: percents(money.hold(units, job_id=f"job_{number}").alerts) for number, units in enumerate((49, 1))}
    assert told == {49: [], 1: [50]}
    assert percents(money.hold(5, job_id="job_a").alerts) == []
    assert percents(money.hold(24, job_id="job_b").alerts) == []
    assert percents(money.hold(1, job_id="job_c").alerts) == [80]
    assert percents(money.hold(10, job_id="job_d").alerts) == []
    assert percents(money.hold(9, job_id="job_e").alerts) == []
    assert percents(money.hold(1, job_id="job_f").alerts) == [100]
    assert percents(money.told) == [50, 80, 100]


def test_one_job_that_reaches_all_three_tells_all_three_in_order(money: Money) -> None:
    assert percents(money.hold(100).alerts) == [50, 80, 100]


def test_an_alert_is_one_audit_row_of_the_box_that_says_how_much_of_which_cap(money: Money) -> None:
    money.hold(50)
    (row,) = money.audited("alert.")
    assert (row["action"], row["actor"], row["account_id"]) == ("alert.cap_50", "box", money.id)
    assert (row["subject"], row["at"]) == (f"{money.id}:2026-11", money.clock())
    assert json.loads(row["after"]) == {"cap_usd": "5.00", "committed_usd": "2.50"}


def test_what_is_left_of_a_cap_but_buys_nothing_is_all_of_it(money: Money) -> None:
    money.cap("5.04")
    assert percents(money.hold(99).alerts) == [50, 80]
    assert percents(money.hold(1, job_id="job_y").alerts) == [100]


def test_room_for_just_one_more_of_the_cheapest_is_not_the_end(money: Money) -> None:
    money.cap("5.05")
    assert percents(money.hold(100).alerts) == [50, 80]
    assert percents(money.hold(1, job_id="job_y").alerts) == [100]


def test_what_was_told_is_not_told_again_after_voids_and_refunds(money: Money) -> None:
    job_id = money.reserve(50)
    money.void(job_id)
    assert percents(money.hold(50).alerts) == []
    paid = money.paid(30)
    money.refund(paid)
    assert percents(money.hold(30, job_id="job_y").alerts) == []
    assert percents(money.told) == [50, 80]


def test_a_new_height_of_the_cap_has_alerts_of_its_own_and_an_old_one_does_not_again(money: Money) -> None:
    money.hold(50)
    assert percents(money.cap("6.00")) == []
    assert percents(money.hold(10, job_id="job_y").alerts) == [50]
    assert percents(money.cap("5.00")) == []
    assert len(money.audited("alert.")) == 2


def test_a_cap_set_below_what_is_spent_tells_at_once_what_it_has_reached(money: Money) -> None:
    money.cap("10.00")
    money.hold(99)
    assert percents(money.cap("5.00")) == [50, 80]
    assert percents(money.cap("6.00")) == [50, 80]


def test_a_cap_that_is_set_before_anything_is_spent_tells_nothing(money: Money) -> None:
    money.ceiling("0.00")
    assert money.audited("alert.") == []


def test_the_owners_ceiling_is_what_percentages_are_of(money: Money) -> None:
    money.ceiling("1.00")
    assert percents(money.hold(10).alerts) == [50]
    assert json.loads(money.audited("alert.")[0]["after"])["cap_usd"] == "1.00"


def test_a_new_month_has_alerts_of_its_own(money: Money) -> None:
    money.hold(50)
    money.clock.set("2026-12-01T00:00:00Z")
    assert percents(money.hold(49, job_id="job_y").alerts) == []
    assert percents(money.hold(1, job_id="job_z").alerts) == [50]


def test_a_refused_job_tells_nothing(money: Money) -> None:
    money.refusal(101)
    assert money.audited("alert.") == []


# The wallet


def test_a_low_wallet_is_told_below_its_level_and_once(money: Money) -> None:
    money.cap("1000.00")
    money.set(image_usd="99.00", video_usd="99.00")
    assert money.hold(1).alerts == ()
    assert money.view().wallet_usd == "1.00"
    money.set(image_usd="0.05", video_usd="0.05")
    assert money.hold(1, job_id="job_y").alerts == (WALLET_LOW,)
    assert money.hold(1, job_id="job_z").alerts == ()
    (row,) = money.audited("alert.wallet_low")
    assert (row["actor"], row["subject"], row["account_id"], row["at"]) == ("box", money.id, money.id, money.clock())
    assert json.loads(row["after"]) == {"wallet_usd": "0.95", "below_usd": "1.00"}


def test_a_low_wallet_is_told_again_after_it_was_filled(money: Money) -> None:
    money.correct("-99.00")
    assert money.audited("alert.wallet_low") == []
    money.hold(1)
    money.topup("0.04")
    money.hold(1, job_id="job_y")
    assert len(money.audited("alert.wallet_low")) == 1
    money.topup("0.06")
    assert money.view().wallet_usd == "1.00"
    assert money.hold(1, job_id="job_z").alerts == (WALLET_LOW,)


def test_a_refund_that_fills_the_wallet_lets_it_be_told_again(money: Money) -> None:
    money.correct("-99.00")
    job_id = money.paid()
    money.refund(job_id)
    money.hold(1)
    assert len(money.audited("alert.wallet_low")) == 2


def test_a_correction_that_leaves_little_tells_it(money: Money) -> None:
    money.correct("-99.01")
    assert len(money.audited("alert.wallet_low")) == 1


def test_a_low_wallet_is_told_while_overage_is_on_alone(money: Money) -> None:
    money.toggle(enabled=False)
    money.correct("-99.50")
    assert money.audited("alert.wallet_low") == []
    assert money.toggle(enabled=True) == (WALLET_LOW,)
    assert money.toggle(enabled=False) == ()
    assert money.toggle(enabled=True) == (), "it was said, and nothing has changed since"


def test_a_rule_that_fills_the_wallet_in_time_keeps_it_from_being_low(money: Money) -> None:
    money.correct("-98.50")
    money.rule("1.20", "5.00", "50.00")
    assert money.hold(10).alerts == ()
    assert money.view().wallet_usd == "6.00"
