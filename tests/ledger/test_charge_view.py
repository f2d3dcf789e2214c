from __future__ import annotations

from tests.ledger.money import Money
from zsky_box import ledger
from zsky_box.ledger import Charge


def told(money: Money, job_id: str) -> tuple[str, int, int, int, int]:
    """State, units, and what of them is held or paid from which source, for how much."""
    charge = money.charge(job_id)
    return charge.state, charge.units, charge.included_units, charge.wallet_units, charge.amount_micros


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


def test_a_charge_of_one_unit_is_reserved_while_its_job_is_open(money: Money) -> None:
    assert told(money, money.reserve()) == ("reserved", 1, 1, 0, 0)


def test_a_charge_across_both_sources_is_told_apart(money: Money) -> None:
    money.spending("1.00")
    money.reserve(8)
    job_id = money.reserve(5)
    assert told(money, job_id) == ("reserved", 5, 2, 3, 150_000)
    money.resolve(job_id, frozenset({0, 2, 3}))
    assert told(money, job_id) == ("posted", 5, 1, 2, 100_000)


def test_a_charge_is_posted_until_the_last_unit_is_refunded(money: Money) -> None:
    money.spending("1.00")
    money.reserve(9)
    job_id = money.paid(3)
    assert told(money, job_id) == ("posted", 3, 1, 2, 100_000)
    money.refund(job_id, 2)
    assert told(money, job_id) == ("posted", 3, 1, 1, 50_000)
    money.refund(job_id, 0)
    assert told(money, job_id) == ("posted", 3, 0, 1, 50_000)
    money.refund(job_id)
    assert told(money, job_id) == ("refunded", 3, 0, 0, 0)


def test_a_job_with_a_void_and_a_refund_is_refunded(money: Money) -> None:
    job_id = money.reserve(2)
    money.resolve(job_id, frozenset({0}))
    money.refund(job_id)
    assert told(money, job_id)[0] == "refunded"


def test_the_ledger_ids_of_a_charge_are_its_transfers_in_order(money: Money) -> None:
    money.paid()
    job_id = money.paid(2)
    money.refund(job_id, 1)
    own = [row["id"] for row in money.transfers() if row["job_id"] == job_id]
    assert [row["kind"] for row in money.transfers() if row["job_id"] == job_id] == [
        "reserve",
        "reserve",
        "post",
        "post",
        "refund",
    ]
    assert money.charge(job_id) == Charge(
        units=2, included_units=1, wallet_units=0, amount_micros=0, state="posted", ledger_ids=tuple(own)
    )
