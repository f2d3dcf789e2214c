from __future__ import annotations

import pytest

from tests.ledger.money import KEY, Money
from tests.stores import PEPPER
from zsky_box import keys
from zsky_box.db import Tx
from zsky_box.keys import Key
from zsky_box.ledger import spend
from zsky_box.ledger.spend import Limit, Spend


@pytest.fixture
def money(money: Money) -> Money:
    """Nothing is included: each image costs 5 cents of a full wallet."""
    money.set(included_images=0)
    money.spending("50.00")
    return money


def counters(money: Money) -> tuple[Spend, Spend, Spend]:
    """Of the account, the key's line and the box."""
    return money.spent(f"account:{money.id}"), money.spent(f"key:{KEY}"), money.spent("box")


def test_the_counters_follow_a_job_from_its_reserve_to_its_refund(money: Money) -> None:
    assert counters(money) == (Spend(), Spend(), Spend())
    job_id = money.reserve(3)
    assert set(counters(money)) == {Spend(pending=150_000)}
    money.resolve(job_id, frozenset({0, 1}))
    assert set(counters(money)) == {Spend(posted=100_000)}
    money.refund(job_id, 0)
    assert set(counters(money)) == {Spend(posted=100_000, refunded=50_000)}
    assert money.stands() == ("0.05", "0.00", "999.95", "49.95")


def test_what_is_posted_less_refunded_and_held_counts() -> None:
    counter = Spend(pending=1, posted=20, refunded=4, replenished=300)
    assert (counter.net_micros, counter.committed_micros) == (16, 17)


def test_room_is_what_the_limit_leaves_and_never_negative() -> None:
    assert [Limit("box", "", 10, spent).room_micros for spent in (0, 9, 10, 11)] == [10, 1, 0, 0]


def test_a_refund_of_an_earlier_month_lowers_that_months_counter_in_every_scope(money: Money) -> None:
    job_id = money.paid(2)
    money.clock.set("2026-12-01T00:00:00Z")
    money.refund(job_id, 1)
    assert counters(money) == (Spend(), Spend(), Spend())
    for scope in (f"account:{money.id}", f"key:{KEY}", "box"):
        assert money.spent(scope, "2026-11") == Spend(posted=100_000, refunded=50_000)


def test_each_account_and_each_keys_line_has_a_counter_of_its_own_and_the_box_has_one_for_all(money: Money) -> None:
    money.reserve(budget_id="key_a")
    money.reserve(2, budget_id="key_b")
    money.id = money.add("bob")
    money.spending("1.00")
    money.reserve(4, budget_id="key_c")
    assert money.spent(f"account:{money.id}").pending == 200_000
    assert [money.spent(f"key:key_{name}").pending for name in "abc"] == [50_000, 100_000, 200_000]
    assert money.spent("box").pending == 350_000


# The owner's ceilings


def test_an_accounts_ceiling_holds_below_its_cap_to_the_cent(money: Money) -> None:
    money.ceiling("0.10")
    money.reserve(2)
    refusal = money.refusal()
    assert (refusal.status, refusal.code) == (429, "cap_reached")
    assert "the ceiling that the owner has set, $0.10 a month, leaves $0.00" in refusal.detail
    assert money.view().cap_usd == "0.10"
    money.ceiling("0.14")
    assert "leaves $0.04" in money.refusal().detail
    money.ceiling("0.15")
    money.reserve()


@pytest.mark.parametrize("ceiling_usd", ["5.00", "5.01", "900.00"])
def test_a_ceiling_at_or_above_the_cap_leaves_the_cap_to_be_named(money: Money, ceiling_usd: str) -> None:
    money.cap("5.00")
    money.ceiling(ceiling_usd)
    assert "the spend cap, $5.00 a month" in money.refusal(101).detail
    assert money.view().cap_usd == "5.00"


def test_a_ceiling_of_nothing_stops_the_wallet_and_not_the_included_units(money: Money) -> None:
    money.ceiling("0.00")
    assert money.refusal().code == "cap_reached"
    money.set(included_images=1)
    money.reserve()


def test_lifting_a_ceiling_gives_its_room_back(money: Money) -> None:
    money.ceiling("0.00")
    money.ceiling(None)
    money.reserve()


def test_the_boxs_ceiling_counts_all_accounts_together_to_the_cent(money: Money) -> None:
    money.box_ceiling("0.15")
    money.reserve(2)
    ann, money.id = money.id, money.add("bob")
    money.spending("1.00")
    money.paid()
    told = money.refusal().detail
    assert "the ceiling that the owner has set for the whole box is reached" in told
    assert "0.15" not in told, "what others have spent is nobody's business"
    money.id = ann
    assert money.refusal().code == "cap_reached"
    money.box_ceiling("0.19")
    assert money.refusal().code == "cap_reached"
    money.box_ceiling("0.20")
    money.reserve()
    money.box_ceiling(None)
    money.reserve()


def test_the_boxs_ceiling_begins_anew_each_month(money: Money) -> None:
    money.box_ceiling("0.05")
    money.paid()
    money.clock.set("2026-12-01T00:00:00Z")
    money.reserve()


def test_what_is_refused_by_two_limits_names_the_accounts_own_first(money: Money) -> None:
    money.cap("5.00")
    money.box_ceiling("0.00")
    assert "the spend cap" in money.refusal(101, key_cap_micros=0).detail
    assert "the cap of this key" in money.refusal(100, key_cap_micros=0).detail
    assert "the whole box" in money.refusal(100, key_cap_micros=5_000_000).detail


# A cap per key


def test_a_keys_cap_holds_for_its_own_line_to_the_micro(money: Money) -> None:
    for _ in range(2):
        money.reserve(key_cap_micros=100_000)
    refusal = money.refusal(key_cap_micros=149_999)
    assert (refusal.status, refusal.code) == (429, "cap_reached")
    assert "the cap of this key, $0.149999 a month, leaves $0.049999" in refusal.detail
    money.reserve(key_cap_micros=150_000)
    money.reserve(budget_id="key_other", key_cap_micros=50_000)
    money.reserve()


def test_what_a_key_without_a_cap_has_spent_counts_once_it_gets_one(money: Money) -> None:
    money.paid(2)
    assert money.refusal(key_cap_micros=100_000).code == "cap_reached"


def test_rotating_a_key_goes_on_with_its_lines_budget_and_a_new_key_begins_its_own(money: Money) -> None:
    def issue() -> Key:
        return money.store.write(
            lambda tx: keys.issue(tx, PEPPER, money.id, now=money.clock(), actor="owner", cap_micros=100_000)
        )[0]

    def spend_with(key: Key) -> str:
        return money.reserve(budget_id=key.budget_id, key_cap_micros=key.cap_micros)

    first, apart = issue(), issue()
    money.post(spend_with(first))
    rotated, _ = money.store.write(
        lambda tx: keys.rotate(tx, PEPPER, money.id, first.id, overlap_seconds=60, now=money.clock(), actor="owner")
    )
    assert rotated.id != first.id
    assert (rotated.budget_id, rotated.cap_micros) == (first.budget_id, 100_000)
    spend_with(rotated)
    for key in (first, rotated):
        assert money.refusal(budget_id=key.budget_id, key_cap_micros=key.cap_micros).code == "cap_reached"
    spend_with(apart)


# What the statements themselves hold


def test_a_limit_is_checked_again_by_the_statement_that_raises_the_counter(money: Money) -> None:
    money.paid(2)
    money.refund(money.paid(1))
    money.reserve()
    # 100,000 are posted and not refunded, 50,000 are held.
    for scope in (f"account:{money.id}", f"key:{KEY}", "box"):
        assert not holds(money, money.id, (Limit(scope, "", 199_999, 0),))
        assert holds(money, money.id, (Limit(scope, "", 200_000, 0),))


def test_the_first_reserve_of_a_month_is_held_to_every_one_of_its_limits(money: Money) -> None:
    wide = Limit(f"account:{money.id}", "", 50_000, 0)
    assert holds(money, money.id, (wide, Limit("box", "", 50_000, 0)))
    assert not holds(money, money.id, (wide, Limit("box", "", 49_999, 0)))


def holds(money: Money, account_id: str, within: tuple[Limit, ...]) -> bool:
    """Whether an image can be held within a limit; what it would have done is undone."""
    answers: list[bool] = []

    def work(tx: Tx) -> None:
        answers.append(spend.hold(tx, account_id, KEY, money.period, 50_000, within))
        raise KeyError("undo")

    with pytest.raises(KeyError):
        money.store.write(work)
    return answers[0]
