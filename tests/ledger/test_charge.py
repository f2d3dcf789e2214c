from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.ledger.money import Money
from zsky_box.errors import Refusal
from zsky_box.ledger import Allowance, transfers


def sources(money: Money, job_id: str) -> list[tuple[int, str, int]]:
    """Ordinal, ledger and amount of each of a job's reserves."""
    rows = [row for row in money.transfers("reserve") if row["job_id"] == job_id]
    return [(row["ordinal"], row["ledger"], row["amount"]) for row in rows]


# Sources


def test_included_units_are_taken_first_and_the_wallet_pays_for_the_rest(money: Money) -> None:
    money.spending("1.00")
    money.reserve(8)
    held = money.hold(5, job_id="job_across")
    assert (held.included_units, held.wallet_units, held.amount_micros, held.wordmarked) == (2, 3, 150_000, 0)
    assert sources(money, "job_across") == [
        (0, "image", 1),
        (1, "image", 1),
        (2, "usd", 50_000),
        (3, "usd", 50_000),
        (4, "usd", 50_000),
    ]
    assert money.allowance() == Allowance(10, 0, 10)
    assert money.stands() == ("0.00", "0.15", "999.85", "0.85")


def test_a_job_that_its_units_cover_takes_nothing_from_the_wallet(money: Money) -> None:
    money.spending()
    held = money.hold(10)
    assert (held.included_units, held.wallet_units, held.amount_micros, held.alerts) == (10, 0, 0, ())
    assert money.stands() == ("0.00", "0.00", "1000.00", "5.00")


def test_of_a_job_across_both_sources_the_named_ordinals_are_paid_and_the_others_go_back_where_they_came_from(
    money: Money,
) -> None:
    money.spending("1.00")
    money.reserve(8)
    job_id = money.reserve(4)
    money.resolve(job_id, frozenset({1, 2}))
    assert money.allowance() == Allowance(10, 1, 8)
    assert money.stands() == ("0.05", "0.00", "999.95", "0.95")


def test_a_job_that_the_wallet_cannot_finish_takes_no_included_unit_either(money: Money) -> None:
    money.spending("0.10")
    money.reserve(8)
    assert money.refusal(5).code == "wallet_empty"
    money.reserve(4)
    assert money.stands()[3] == "0.00"


def test_a_video_has_its_own_price(money: Money) -> None:
    money.spending("1.00")
    money.reserve(3, "video")
    held = money.hold(1, "video")
    assert held.amount_micros == 500_000
    money.hold(1, "video", "job_y")
    assert money.refusal(1, "video").code == "wallet_empty"


# Refusals, in their order


def test_used_up_and_overage_off_is_allowance_exhausted_though_there_is_money(money: Money) -> None:
    money.topup("5.00")
    money.reserve(10)
    refusal = money.refusal()
    assert (refusal.status, refusal.code) == (429, "allowance_exhausted")
    assert "overage is off" in refusal.detail
    money.toggle(enabled=True)
    money.reserve()


def test_a_price_over_the_caps_room_is_cap_reached_though_the_wallet_is_short_too(money: Money) -> None:
    money.set(included_images=0)
    money.spending("0.00", "5.00")
    assert money.refusal(101).code == "cap_reached"
    assert money.refusal(100).code == "wallet_empty"


def test_the_cap_is_reached_exactly_and_not_by_one_micro_more(money: Money) -> None:
    money.set(included_images=0)
    money.spending("20.00", "5.00")
    for _ in range(10):
        money.reserve(10)
    assert money.stands() == ("0.00", "5.00", "0.00", "15.00")
    refusal = money.refusal()
    assert (refusal.status, refusal.code) == (429, "cap_reached")
    assert refusal.headers["Retry-After"] == str(8 * 86_400 + 12 * 3_600)
    assert refusal.detail == (
        "This costs $0.05, and the spend cap, $5.00 a month, leaves $0.00 until 2026-12-01T00:00:00Z; jobs that are"
        " open count."
    )


def test_the_boxs_limit_is_told_without_what_others_have_spent(money: Money) -> None:
    money.set(included_images=0)
    money.spending("20.00")
    money.box_ceiling("0.35")
    money.paid(2)
    money.id = money.add("bob")
    money.spending("20.00")
    refusal = money.refusal(6)
    assert (refusal.status, refusal.code) == (429, "cap_reached")
    assert refusal.headers["Retry-After"] == str(8 * 86_400 + 12 * 3_600)
    assert refusal.detail == (
        "This costs $0.30, and the ceiling that the owner has set for the whole box is reached until"
        " 2026-12-01T00:00:00Z; jobs that are open count."
    )


@pytest.mark.parametrize(("cap_usd", "accepted"), [("5.04", False), ("5.05", True), ("5.06", True)])
def test_a_cap_has_room_to_the_cent(money: Money, cap_usd: str, accepted: bool) -> None:
    money.set(included_images=0, image_usd="5.05")
    money.spending("20.00", cap_usd)
    if accepted:
        money.reserve()
    assert money.refusal().code == "cap_reached"


def test_the_wallet_is_emptied_to_the_last_cent_and_no_further(money: Money) -> None:
    money.set(included_images=0)
    money.spending("0.14")
    money.reserve(2)
    refusal = money.refusal()
    assert (refusal.status, refusal.code, refusal.headers) == (402, "wallet_empty", {})
    assert refusal.detail == "The wallet has $0.04 and this costs $0.05: fill it."
    money.topup("0.01")
    money.reserve()
    assert money.stands()[3] == "0.00"
    assert money.refusal().code == "wallet_empty"


def test_what_is_assessed_is_what_a_reserve_then_does(money: Money) -> None:
    money.spending("0.10")
    money.reserve(8)
    before = money.everything()
    enough, short, beyond = money.assess(4), money.assess(5), money.assess(2)
    assert money.everything() == before
    assert (enough.included_units, enough.wallet_units, enough.amount_micros, enough.refusal) == (2, 2, 100_000, None)
    assert (short.included_units, short.wallet_units, short.amount_micros) == (2, 3, 150_000)
    assert short.refusal is not None
    assert short.refusal.code == "wallet_empty"
    assert (beyond.amount_micros, beyond.refusal) == (0, None)
    held = money.hold(4)
    assert (held.included_units, held.wallet_units, held.amount_micros) == (2, 2, 100_000)


@pytest.mark.parametrize("included", [10, 0])
def test_a_statement_that_holds_nothing_after_all_undoes_the_whole_reserve(
    money: Money, monkeypatch: pytest.MonkeyPatch, included: int
) -> None:
    money.spending()
    money.set(included_images=included)
    before = money.everything()

    def hold_nothing(*_: object) -> bool:
        return False

    monkeypatch.setattr(transfers, "hold", hold_nothing)
    with pytest.raises(AssertionError, match="a moment ago"):
        money.reserve()
    assert money.everything() == before


# Concurrency


@pytest.mark.parametrize(
    ("wallet_usd", "ceiling_usd", "accepted", "refused"),
    [("100.00", "0.62", 12, "cap_reached"), ("0.44", None, 8, "wallet_empty")],
)
def test_32_spenders_at_once_are_accepted_exactly_as_often_as_room_and_wallet_pay_for(
    money: Money, wallet_usd: str, ceiling_usd: str | None, accepted: int, refused: str
) -> None:
    money.set(included_images=0)
    money.spending(wallet_usd)
    money.ceiling(ceiling_usd)

    def spend() -> str:
        try:
            money.reserve()
        except Refusal as refusal:
            return refusal.code
        return "accepted"

    with ThreadPoolExecutor(32) as pool:
        attempts = [pool.submit(spend) for _ in range(64)]
        answers = Counter(attempt.result(60) for attempt in attempts)
    assert answers == {"accepted": accepted, refused: 64 - accepted}
    assert money.view().pending_usd == f"0.{accepted * 5:02d}"


# The price


def test_the_price_is_the_reserves_whatever_it_is_changed_to_while_the_job_runs(money: Money) -> None:
    money.set(included_images=0)
    money.spending("5.00")
    posted, voided = money.reserve(2), money.reserve()
    money.set(image_usd="1.00")
    assert money.view().pending_usd == "0.15"
    money.post(posted)
    money.void(voided)
    assert money.stands() == ("0.10", "0.00", "999.90", "4.90")
    money.refund(posted, 0)
    assert money.stands() == ("0.05", "0.00", "999.95", "4.95")
    assert money.hold().amount_micros == 1_000_000


# Resolve


@pytest.mark.parametrize("first", [None, frozenset[int](), frozenset({1})])
@pytest.mark.parametrize("second", [None, frozenset[int](), frozenset({0})])
def test_resolving_twice_changes_nothing(
    money: Money, first: frozenset[int] | None, second: frozenset[int] | None
) -> None:
    money.spending()
    money.reserve(9)
    job_id = money.reserve(2)
    money.resolve(job_id, first)
    before = money.everything()
    money.clock.advance(60)
    money.resolve(job_id, second)
    assert money.everything() == before


def test_a_job_without_a_reserve_resolves_to_nothing(money: Money) -> None:
    before = money.everything()
    money.clock.advance(60)
    money.post("job_of_a_test_key")
    assert money.everything() == before


def test_ends_bear_the_time_that_they_are_made_at_and_the_period_of_their_reserve(money: Money) -> None:
    money.set(included_images=0)
    money.spending()
    job_id = money.reserve(2)
    money.clock.set("2026-12-02T03:04:05Z")
    money.resolve(job_id, frozenset({0}))
    assert [(row["kind"], row["period"], row["at"]) for row in money.transfers("post", "void")] == [
        ("post", "2026-11", money.clock()),
        ("void", "2026-11", money.clock()),
    ]
    assert money.spent("box", "2026-11").posted == 50_000
    assert money.stands() == ("0.00", "0.00", "1000.00", "4.95")


# Refunds


def test_a_refund_returns_each_unit_once(money: Money) -> None:
    money.set(included_images=0)
    money.spending("1.00")
    job_id = money.paid(3)
    assert money.refund(job_id, 0, 2) == 2
    assert money.stands() == ("0.05", "0.00", "999.95", "0.95")
    assert money.refund(job_id, 0) == 0
    assert money.refund(job_id) == 1
    assert money.refund(job_id) == 0
    assert money.stands() == ("0.00", "0.00", "1000.00", "1.00")
    assert [row["ordinal"] for row in money.transfers("refund")] == [0, 2, 1]


def test_a_refund_answers_the_post_and_says_who_and_why(money: Money) -> None:
    money.set(included_images=0)
    money.spending("1.00")
    job_id = money.paid()
    money.refund(job_id)
    (post,), (refund,) = money.transfers("post"), money.transfers("refund")
    assert (refund["pending_id"], refund["job_id"], refund["ordinal"]) == (post["id"], job_id, 0)
    assert (refund["debit"], refund["credit"], refund["amount"]) == ("revenue", f"wallet:{money.id}", 50_000)
    (row,) = money.audited("ledger.refund")
    assert (row["actor"], row["subject"]) == ("owner", job_id)
    assert '"why":"a bad day"' in row["after"]


def test_only_what_was_posted_is_refunded(money: Money) -> None:
    money.set(included_images=0)
    money.spending("1.00")
    half, still_open = money.reserve(2), money.reserve()
    money.resolve(half, frozenset({1}))
    before = money.everything()
    assert money.refund(half, 0) == 0
    assert money.refund(still_open) == 0
    assert money.refund("job_never_heard_of") == 0
    assert money.everything() == before
    assert money.refund(half) == 1


def test_a_refund_of_this_months_post_gives_its_room_back(money: Money) -> None:
    money.set(included_images=0, image_usd="5.00")
    money.spending("20.00", "5.00")
    job_id = money.paid()
    assert money.refusal().code == "cap_reached"
    money.refund(job_id)
    money.reserve()


def test_a_refund_in_a_later_month_fills_the_wallet_and_gives_no_room(money: Money) -> None:
    money.set(included_images=0, image_usd="5.00")
    money.spending("15.00", "5.00")
    job_id = money.paid()
    money.clock.set("2026-12-01T00:00:00Z")
    money.paid()
    money.refund(job_id)
    assert money.stands() == ("5.00", "0.00", "0.00", "10.00")
    assert money.refusal().code == "cap_reached"
    (refund,) = money.transfers("refund")
    assert refund["period"] == "2026-12"
    assert money.spent("box", "2026-11").net_micros == 0


# The clock


def test_a_reserve_and_a_refund_wait_for_a_clock_that_is_too_far_behind_and_an_end_does_not(money: Money) -> None:
    money.set(included_images=0)
    money.spending("1.00")
    paid, still_open = money.paid(), money.reserve()
    money.clock.advance(-601)
    refusal = money.refusal()
    assert (refusal.status, refusal.code) == (503, "clock_behind")
    with pytest.raises(Refusal, match="clock_behind"):
        money.refund(paid)
    money.post(still_open)
    assert money.transfers("post")[-1]["at"] == money.clock() + 601_000_000


# The plan without an API


def test_in_person_a_free_plans_units_are_used_and_marked(money: Money) -> None:
    money.id = money.add("bob", "free")
    held = money.hold(3, in_person=True)
    assert (held.included_units, held.wallet_units, held.wordmarked) == (3, 0, 3)
    assert money.allowance() == Allowance(50, 0, 3)


def test_in_person_a_free_plan_pays_beyond_its_units_and_only_its_units_are_marked(money: Money) -> None:
    money.id = money.add("bob", "free")
    money.set(free_images=2)
    assert money.refusal(3, in_person=True).code == "allowance_exhausted"
    money.spending("1.00")
    held = money.hold(3, in_person=True)
    assert (held.included_units, held.wallet_units, held.wordmarked) == (2, 1, 2)


def test_through_the_api_a_free_plan_has_the_wallet_alone_unmarked(money: Money) -> None:
    money.id = money.add("bob", "free")
    refusal = money.refusal()
    assert (refusal.status, refusal.code) == (403, "plan_without_api")
    money.topup("0.07")
    refusal = money.refusal()
    assert (refusal.status, refusal.code) == (429, "allowance_exhausted")
    assert refusal.headers["Retry-After"] == str(8 * 86_400 + 12 * 3_600)
    assert refusal.detail == (
        "The plan free includes nothing through the API: turn overage on to spend the wallet, or choose the plan max."
    )
    money.toggle(enabled=True)
    held = money.hold()
    assert (held.included_units, held.wallet_units, held.wordmarked) == (0, 1, 0)
    assert money.transfers("grant") == []
    assert money.refusal().code == "wallet_empty"


def test_a_rule_that_would_add_as_much_as_the_wallet_has_is_no_empty_wallet(money: Money) -> None:
    money.id = money.add("bob", "free")
    money.spending("0.05")
    money.rule("0.05", "0.05", "0.05")
    money.reserve(2)
    assert money.view().wallet_usd == "0.00"


def test_a_paid_plans_units_bear_no_mark(money: Money) -> None:
    assert money.hold(2, in_person=True).wordmarked == 0
