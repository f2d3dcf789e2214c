from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.money import Money, open_money
from zsky_box import overage
from zsky_box.errors import Refusal
from zsky_box.ledger import spend
from zsky_box.schemas import PeriodView, PricesView, UnitsView


@pytest.fixture
def money(tmp_path: Path) -> Generator[Money]:
    """Ann, who has set nothing yet."""
    with open_money(tmp_path) as money:
        yield money


def changes(money: Money, action: str) -> list[tuple[str, Any, Any]]:
    """Who changed what into what."""
    return [
        (row["actor"], json.loads(row["before"]), json.loads(row["after"]))
        for row in money.audited(f"overage.{action}")
    ]


def box_ceiling(money: Money) -> int | None:
    with money.store.snapshot() as rows:
        return spend.box_ceiling_micros(rows)


# The toggle


def test_overage_is_off_until_it_is_turned_on(money: Money) -> None:
    assert not money.view().enabled
    money.toggle(enabled=True)
    assert money.view().enabled
    assert changes(money, "toggled") == [(money.id, {"enabled": False}, {"enabled": True})]
    (row,) = money.audited("overage.")
    assert (row["subject"], row["account_id"], row["at"]) == (money.id, money.id, money.clock())


def test_without_a_word_the_toggle_flips(money: Money) -> None:
    for enabled in (True, False, True):
        money.toggle()
        assert money.view().enabled == enabled
    assert len(changes(money, "toggled")) == 3


@pytest.mark.parametrize("enabled", [True, False])
def test_turning_it_to_what_it_is_changes_nothing(money: Money, enabled: bool) -> None:
    money.toggle(enabled=enabled)
    before = money.everything()
    money.toggle(enabled=enabled)
    assert money.everything() == before


def test_the_toggle_gates_new_reserves_and_leaves_open_jobs_alone(money: Money) -> None:
    money.set(included_images=0)
    money.spending("1.00")
    posted, voided = money.reserve(2), money.reserve()
    money.toggle(enabled=False)
    assert money.refusal().code == "allowance_exhausted"
    money.post(posted)
    money.void(voided)
    assert money.stands() == ("0.10", "0.00", "999.90", "0.90")


def test_the_toggle_is_one_accounts_alone(money: Money) -> None:
    bob = money.add("bob")
    money.toggle(enabled=True)
    money.id = bob
    assert not money.view().enabled


# The cap


def test_the_cap_is_five_dollars_until_it_is_chosen(money: Money) -> None:
    assert money.view().cap_usd == "5.00"


@pytest.mark.parametrize("usd", ["5.00", "5.01", "999.99", "1000.00"])
def test_a_cap_from_5_to_1000_is_taken(money: Money, usd: str) -> None:
    money.cap(usd)
    assert money.view().cap_usd == usd


@pytest.mark.parametrize("usd", ["4.99", "0.00", "-5.00", "1000.01"])
def test_any_other_cap_is_refused_and_changes_nothing(money: Money, usd: str) -> None:
    before = money.everything()
    with pytest.raises(Refusal) as refused:
        money.cap(usd)
    assert (refused.value.status, refused.value.code, refused.value.field) == (422, "invalid_field", "cap_usd")
    assert refused.value.detail == "cap_usd: the cap is $5.00 to $1000.00 a month."
    assert money.everything() == before


def test_a_change_of_the_cap_is_one_audit_row_and_the_same_cap_none(money: Money) -> None:
    money.cap("5.00")
    money.cap("250.00")
    money.cap("250.00")
    assert changes(money, "cap") == [(money.id, {"cap_usd": "5.00"}, {"cap_usd": "250.00"})]


def test_a_cap_is_within_the_owners_ceiling_to_the_cent(money: Money) -> None:
    money.ceiling("20.00")
    with pytest.raises(Refusal, match=r"the owner has set a ceiling of \$20.00 a month") as refused:
        money.cap("20.01")
    assert refused.value.field == "cap_usd"
    money.cap("20.00")
    money.ceiling("2000.00")
    with pytest.raises(Refusal, match=r"\$5.00 to \$1000.00"):
        money.cap("1000.01")
    money.cap("1000.00")


def test_a_cap_below_what_is_spent_is_taken_and_leaves_no_room(money: Money) -> None:
    money.set(included_images=0, image_usd="10.00")
    money.spending("100.00")
    money.paid()
    job_id = money.reserve()
    money.cap("5.00")
    assert money.stands() == ("10.00", "10.00", "0.00", "80.00")
    assert money.refusal().code == "cap_reached"
    money.post(job_id)
    assert money.stands() == ("20.00", "0.00", "0.00", "80.00")


# The owner's ceilings


def test_a_ceiling_is_shown_as_the_cap_where_it_is_lower_and_the_users_choice_outlives_it(money: Money) -> None:
    money.cap("50.00")
    money.ceiling("20.00")
    assert money.view().cap_usd == "20.00"
    money.ceiling("60.00")
    assert money.view().cap_usd == "50.00"
    money.ceiling("0.00")
    assert money.view().cap_usd == "0.00"
    money.ceiling(None)
    money.ceiling(None)
    assert money.view().cap_usd == "50.00"
    assert changes(money, "ceiling") == [
        ("owner", {"ceiling_usd": None}, {"ceiling_usd": "20.00"}),
        ("owner", {"ceiling_usd": "20.00"}, {"ceiling_usd": "60.00"}),
        ("owner", {"ceiling_usd": "60.00"}, {"ceiling_usd": "0.00"}),
        ("owner", {"ceiling_usd": "0.00"}, {"ceiling_usd": None}),
    ]


def test_the_boxs_ceiling_is_nobodys_account_and_each_change_one_audit_row(money: Money) -> None:
    assert box_ceiling(money) is None
    for usd in ("75.00", "75.00", "0.00", None):
        money.box_ceiling(usd)
    assert box_ceiling(money) is None
    assert changes(money, "ceiling") == [
        ("owner", {"ceiling_usd": None}, {"ceiling_usd": "75.00"}),
        ("owner", {"ceiling_usd": "75.00"}, {"ceiling_usd": "0.00"}),
        ("owner", {"ceiling_usd": "0.00"}, {"ceiling_usd": None}),
    ]
    assert {(row["account_id"], row["subject"]) for row in money.audited("overage.")} == {(None, "box")}


# The rule


def test_a_rule_is_kept_changed_and_ended_on_record(money: Money) -> None:
    money.topup("1.00")
    money.rule("1.00", "2.00", "8.00")
    money.rule("1.00", "2.00", "8.00")
    money.rule("0.50", "3.00", "9.00")
    now = money.clock()
    money.store.write(lambda tx: overage.set_rule(tx, money.id, None, actor="owner", now=now, terms=money.terms))
    first = {"below_usd": "1.00", "add_usd": "2.00", "month_usd": "8.00"}
    second = {"below_usd": "0.50", "add_usd": "3.00", "month_usd": "9.00"}
    assert changes(money, "replenish") == [("owner", {}, first), ("owner", first, second), ("owner", second, {})]
    assert money.account.replenish is None
    assert money.view().wallet_usd == "1.00"


def test_replenishing_does_what_the_rule_calls_for_and_says_how_much(money: Money) -> None:
    def replenish() -> int:
        now = money.clock()
        return money.store.write(lambda tx: overage.replenish(tx, money.id, now=now, terms=money.terms))

    assert replenish() == 0
    money.rule("1.00", "2.00", "5.00")
    assert money.view().wallet_usd == "2.00"
    assert replenish() == 0
    money.correct("-1.01")
    assert replenish() == 2_000_000
    assert money.view().wallet_usd == "2.99"
    money.correct("-2.50")
    assert replenish() == 0
    money.clock.set("2026-12-01T00:00:00Z")
    assert replenish() == 2_000_000
    assert money.transfers("topup")[-1]["period"] == "2026-12"


def test_a_wallet_that_its_rule_has_filled_can_run_low_again(money: Money) -> None:
    money.set(included_images=0, low_wallet_usd="1.00", image_usd="0.90")
    money.spending("1.00")
    money.hold()
    money.rule("0.50", "2.00", "2.00")
    assert money.view().wallet_usd == "2.10"
    money.hold(2, job_id="job_y")
    assert [alert.kind for alert in money.told] == ["wallet_low", "wallet_low"]


def test_a_ceiling_set_below_what_is_spent_tells_at_once_what_it_has_reached(money: Money) -> None:
    money.set(included_images=0)
    money.spending("50.00")
    money.reserve(10)
    money.ceiling("0.60")
    assert [row["action"] for row in money.audited("alert.")] == ["alert.cap_50", "alert.cap_80"]


# The clock


def test_a_topup_waits_for_a_clock_that_is_behind_and_a_setting_does_not(money: Money) -> None:
    money.topup("1.00")
    last = money.clock()
    money.clock.advance(-601)
    for refused in (money.topup, money.correct):
        with pytest.raises(Refusal, match="clock_behind"):
            refused("1.00")
    money.toggle(enabled=True)
    money.cap("6.00")
    money.ceiling("7.00")
    money.box_ceiling("8.00")
    money.rule("0.50", "1.00", "1.00")
    assert {row["at"] for row in money.audited("overage.")} == {last}


# How things stand


def test_it_shows_how_the_next_reserve_would_find_things(money: Money) -> None:
    view = money.view()
    assert (view.enabled, view.cap_usd, view.spend_usd, view.pending_usd) == (False, "5.00", "0.00", "0.00")
    assert (view.remaining_usd, view.wallet_usd, view.plan) == ("5.00", "0.00", "max")
    assert view.prices == PricesView(video_usd="0.50", image_usd="0.05")
    assert view.included == {
        "video": UnitsView(granted=3, used=0, pending=0, left=3),
        "image": UnitsView(granted=10, used=0, pending=0, left=10),
    }
    assert view.period == PeriodView(start="2026-11-01T00:00:00Z", end="2026-12-01T00:00:00Z")


def test_it_shows_what_is_used_and_held_of_each_kind(money: Money) -> None:
    money.spending("5.00", "10.00")
    money.paid(4)
    money.reserve(2)
    money.reserve(3, "video")
    money.paid(1, "video")
    money.reserve(1, "video")
    view = money.view()
    assert view.included == {
        "video": UnitsView(granted=3, used=0, pending=3, left=0),
        "image": UnitsView(granted=10, used=4, pending=2, left=4),
    }
    assert money.stands() == ("0.50", "0.50", "9.00", "4.00")


def test_it_shows_the_plan_that_counts_now_though_its_end_is_not_on_record_yet(money: Money) -> None:
    money.choose("free")
    assert money.view().plan == "max"
    money.clock.set("2026-12-01T00:00:00Z")
    assert (money.view().plan, money.account.plan) == ("free", "max")
    assert money.view().included["image"].granted == 50


def test_a_clock_that_is_behind_shows_the_ledgers_month(money: Money) -> None:
    money.clock.set("2026-12-01T00:00:00Z")
    money.topup("1.00")
    money.clock.advance(-60)
    assert money.view().period.start == "2026-12-01T00:00:00Z"


def test_time_alone_puts_terms_on_record_and_nothing_where_none_is_due(money: Money) -> None:
    def roll() -> None:
        now = money.clock()
        money.store.write(lambda tx: overage.roll(tx, money.id, now=now, terms=money.terms))

    roll()
    before = money.everything()
    money.clock.advance(60)
    roll()
    assert money.everything() == before
    money.clock.set("2026-12-01T00:00:00Z")
    roll()
    assert len(money.store.all("SELECT * FROM plan_fee")) == 2
