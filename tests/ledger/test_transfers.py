from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.money import Money, open_money
from tests.stores import opened, tampering
from zsky_box import ledger
from zsky_box.db import Tx
from zsky_box.ledger import transfers
from zsky_box.ledger.transfers import Entry
from zsky_box.pricing import micros, usd


def entry(money: Money, **changes: Any) -> Entry:
    values: dict[str, Any] = {
        "kind": "topup",
        "ledger": "usd",
        "debit": "funding",
        "credit": f"wallet:{money.id}",
        "amount": 7,
        "account_id": money.id,
        "period": "2026-11",
        "actor": "owner",
        "at": money.clock(),
    }
    return Entry(**(values | changes))


def four(money: Money, name: str, ledger: Any = "usd") -> tuple[int, int, int, int] | None:
    """Debits pending and posted, credits pending and posted."""
    with money.store.snapshot() as rows:
        row = transfers.balance(rows, name, ledger)
    return None if row is None else (*(row[f"{side}_{how}"] for side in ("debits", "credits") for how in _HOWS),)


_HOWS = ("pending", "posted")


def has(money: Money, name: str, ledger: Any = "usd") -> int:
    with money.store.snapshot() as rows:
        return transfers.available(rows, name, ledger)


def test_a_movement_adds_to_both_of_its_balances(money: Money) -> None:
    assert four(money, f"wallet:{money.id}") is None
    assert has(money, f"wallet:{money.id}") == 0
    first = money.store.write(lambda tx: transfers.move(tx, entry(money)))
    second = money.store.write(lambda tx: transfers.move(tx, entry(money, amount=5)))
    assert second == first + 1
    assert four(money, f"wallet:{money.id}") == (0, 0, 0, 12)
    assert four(money, "funding") == (0, 12, 0, 0)
    assert has(money, f"wallet:{money.id}") == 12
    assert has(money, "funding") == -12


def test_only_where_money_and_units_come_from_may_owe_more_than_it_has(money: Money) -> None:
    back = entry(money, kind="correct", debit=f"wallet:{money.id}", credit="funding", amount=8)
    money.store.write(lambda tx: transfers.move(tx, entry(money)))
    with pytest.raises(sqlite3.IntegrityError):
        money.store.write(lambda tx: transfers.move(tx, back))
    assert four(money, f"wallet:{money.id}") == (0, 0, 0, 7)
    money.reserve()
    overdrawn = {row["name"]: row["overdraft"] for row in money.store.all("SELECT name, overdraft FROM balance")}
    assert overdrawn == {
        "funding": 1,
        f"wallet:{money.id}": 0,
        "issuer": 1,
        f"included:{money.id}:2026-11": 0,
        "consumed": 0,
    }


def test_the_same_name_in_two_ledgers_is_two_balances(money: Money) -> None:
    money.reserve(2, "image")
    money.reserve(1, "video")
    assert four(money, "consumed", "image") == (0, 0, 2, 0)
    assert four(money, "consumed", "video") == (0, 0, 1, 0)


@pytest.mark.parametrize(("amount", "held"), [(6, True), (7, True), (8, False)])
def test_a_hold_takes_what_there_is_to_the_last_micro_and_no_more(money: Money, amount: int, held: bool) -> None:
    own = f"wallet:{money.id}"
    money.store.write(lambda tx: transfers.move(tx, entry(money)))

    def attempt(tx: Tx) -> None:
        assert transfers.hold(tx, "usd", own, "revenue", amount) == held
        kept = transfers.available(tx, own, "usd")
        assert kept == (7 - amount if held else 7)
        row = transfers.balance(tx, "revenue", "usd")
        assert (row is not None) == held
        assert row is None or row["credits_pending"] == amount
        if held and amount < 7:
            assert transfers.hold(tx, "usd", own, "revenue", 7 - amount)
            assert not transfers.hold(tx, "usd", own, "revenue", 1)
        raise KeyError("leave no hold without its transfer")

    with pytest.raises(KeyError):
        money.store.write(attempt)


def test_what_is_paid_already_can_be_held_no_more(money: Money) -> None:
    money.set(included_images=0)
    money.spending("0.15")
    money.paid(2)
    for amount, held in ((50_001, False), (50_000, True)):
        assert holds(money, f"wallet:{money.id}", amount) == held


def holds(money: Money, name: str, amount: int) -> bool:
    """Whether so much could be held; it is not."""
    answers: list[bool] = []

    def attempt(tx: Tx) -> None:
        answers.append(transfers.hold(tx, "usd", name, "revenue", amount))
        raise KeyError("leave no hold without its transfer")

    with pytest.raises(KeyError):
        money.store.write(attempt)
    return answers[0]


def test_nothing_can_be_held_of_a_balance_that_has_not_begun(money: Money) -> None:
    money.store.write(lambda tx: tx.execute("SELECT 1"))
    assert not money.store.write(lambda tx: transfers.hold(tx, "usd", f"wallet:{money.id}", "revenue", 1))


def test_a_reserve_a_post_and_a_void_move_both_balances_through_two_phases(money: Money) -> None:
    money.set(included_images=0)
    money.spending("1.00")
    own = f"wallet:{money.id}"
    posted, voided = money.reserve(2), money.reserve(3)
    assert four(money, own) == (250_000, 0, 0, 1_000_000)
    assert four(money, "revenue") == (0, 0, 250_000, 0)
    money.post(posted)
    assert four(money, own) == (150_000, 100_000, 0, 1_000_000)
    assert four(money, "revenue") == (0, 0, 150_000, 100_000)
    money.void(voided)
    assert four(money, own) == (0, 100_000, 0, 1_000_000)
    assert four(money, "revenue") == (0, 0, 0, 100_000)
    assert has(money, own) == 900_000


def test_a_transfer_keeps_every_word_of_its_entry_and_its_audit_row_too(money: Money) -> None:
    money.set(included_images=0)
    money.spending()
    job_id = money.paid()
    reserve, post = money.transfers("reserve", "post")
    common = ("usd", f"wallet:{money.id}", "revenue", 50_000, money.id, job_id, 0, "2026-11", "key_1")
    names = ("ledger", "debit", "credit", "amount", "account_id", "job_id", "ordinal", "period", "budget_id")
    for row, actor in ((reserve, money.id), (post, "box")):
        assert tuple(row[name] for name in names) == common
        assert (row["actor"], row["at"]) == (actor, money.clock())
    assert (reserve["pending_id"], post["pending_id"]) == (None, reserve["id"])
    states = (("free", "held"), ("held", "posted"))
    for row, audited, (before, after) in zip((reserve, post), money.audited("ledger.")[-2:], states, strict=True):
        assert json.loads(audited["before"]) == {"state": before}
        assert audited["transfer_id"] == row["id"]
        assert (audited["subject"], audited["actor"], audited["at"]) == (job_id, row["actor"], row["at"])
        assert audited["account_id"] == money.id
        assert json.loads(audited["after"]) == {
            "ledger": "usd",
            "amount": 50_000,
            "debit": f"wallet:{money.id}",
            "credit": "revenue",
            "state": after,
            "amount_usd": "0.05",
        }


def test_a_movement_without_a_job_is_audited_under_its_account_and_period_with_its_reason(money: Money) -> None:
    money.store.write(lambda tx: transfers.move(tx, entry(money, why="for June's film")))
    money.store.write(lambda tx: transfers.move(tx, entry(money)))
    with_reason, without = money.audited("ledger.topup")
    assert with_reason["subject"] == f"{money.id}:2026-11"
    assert json.loads(with_reason["after"])["why"] == "for June's film"
    assert "why" not in json.loads(without["after"])


def test_a_reserve_is_resolved_at_most_once_and_a_post_refunded_at_most_once_whoever_asks(money: Money) -> None:
    job_id = money.paid()
    (reserve,), (post,) = money.transfers("reserve"), money.transfers("post")
    with pytest.raises(sqlite3.IntegrityError):
        money.store.write(lambda tx: transfers.settle(tx, reserve, "void", "box", money.clock()))
    money.refund(job_id)
    again = transfers.following(post, "refund", "owner", money.clock(), debit="consumed", credit="issuer")
    with pytest.raises(sqlite3.IntegrityError):
        money.store.write(lambda tx: transfers.move(tx, again))


@pytest.mark.parametrize("statement", ["UPDATE transfer SET amount = 2", "DELETE FROM transfer"])
def test_a_transfer_is_never_changed_or_removed(money: Money, statement: str) -> None:
    money.reserve()
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        money.store.write(lambda tx: tx.execute(statement))


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
    with open_money(tmp_path) as money:
        money.paid(2)
        assert ledger.first_wrong_balance(money.store) is None
    tampering(money.store, change)
    with opened(tmp_path) as store:
        wrong = ledger.first_wrong_balance(store)
        assert wrong is not None
        assert "balance" in wrong


def test_what_fills_or_empties_a_wallet_is_audited_with_what_it_had_and_has(money: Money) -> None:
    had = 0
    for filled in ("20.00", "5.00"):
        money.topup(filled)
        row = money.audited("ledger.topup")[-1]
        has = had + micros(filled)
        assert (json.loads(row["before"])["left_usd"], json.loads(row["after"])["left_usd"]) == (usd(had), usd(has))
        had = has
