"""Statements: every cent with the job that it was spent on, in JSON and in CSV."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Generator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.stores import add_account, caller_for
from tests.studio import Studio
from zsky_box import audit, ids, ledger, overage, statements
from zsky_box.accounts import Replenish
from zsky_box.errors import Refusal
from zsky_box.pricing import micros, usd

NOVEMBER, DECEMBER = "2026-11", "2026-12"
FLAT_BYTES = 2 * 1024 * 1024


@pytest.fixture
def studio(tmp_path: Path) -> Generator[Studio]:
    rooms = Studio(tmp_path)
    yield rooms
    assert ledger.first_wrong_balance(rooms.store) is None
    assert audit.first_broken_row(rooms.store) is None
    rooms.close()


def total(lines: list[dict[str, Any]]) -> str:
    return usd(int(sum(Decimal(line["amount_usd"]) for line in lines) * 1_000_000))


# Lines and totals


def test_each_line_names_its_job_and_they_add_up(studio: Studio) -> None:
    first = studio.make(3, metadata={"shot": "12", "reel": "a"})
    second = studio.make(2)
    found = studio.json(NOVEMBER)
    assert [(line["job_id"], line["ordinal"], line["amount_usd"]) for line in found["lines"]] == [
        (first, 1, "0.05"),
        (first, 2, "0.05"),
        (second, 0, "0.05"),
        (second, 1, "0.05"),
    ]
    line = found["lines"][0]
    assert (line["kind"], line["type"], line["model"], line["time"]) == (
        "overage",
        "image",
        "leader",
        "2026-11-22T12:00:00Z",
    )
    assert line["metadata"] == {"shot": "12", "reel": "a"}
    assert line["key_id"] == studio.owner.key.id
    assert line["ledger_id"] in studio.view(first).charge.ledger_ids
    assert found["overage"]["image"] == {"units": 4, "refunded_units": 0, "amount_usd": "0.20"}
    assert found["overage"]["video"] == {"units": 0, "refunded_units": 0, "amount_usd": "0.00"}
    assert found["overage_usd"] == total(found["lines"]) == studio.overage().spend_usd == "0.20"
    assert (found["plan_fee_usd"], found["total_usd"]) == ("99.00", "99.20")
    assert found["included"]["image"] == {"granted": 1, "used": 1, "pending": 0}


def test_what_is_held_or_was_let_go_is_not_owed(studio: Studio) -> None:
    studio.make()
    held = studio.running(n=2)
    studio.end(studio.running())
    found = studio.json(NOVEMBER)
    assert (found["lines"], found["overage_usd"], found["pending_usd"]) == ([], "0.00", "0.10")
    studio.complete(held)
    assert studio.json(NOVEMBER)["pending_usd"] == "0.00"
    assert studio.json(NOVEMBER)["overage_usd"] == "0.10"


def test_what_fills_the_wallet_is_beside_the_total_and_the_movements_add_up(studio: Studio) -> None:
    account, terms = studio.owner.account, studio.terms
    rule = Replenish(micros("200"), micros("150"), micros("150"))

    def work(tx: Any) -> None:
        overage.correct(tx, account.id, -micros("4"), actor="ann", now=studio.clock(), terms=terms, why="typed wrongly")
        overage.set_rule(tx, account.id, rule, actor="ann", now=studio.clock(), terms=terms)

    studio.store.write(work)
    studio.make(3)
    found = studio.json(NOVEMBER)
    assert [(credit["kind"], credit["amount_usd"], credit["description"]) for credit in found["credits"]] == [
        ("topup", "100.00", ""),
        ("correction", "-4.00", "typed wrongly"),
        ("replenish", "150.00", "below $200.00"),
    ]
    assert found["total_usd"] == "99.10"
    assert found["wallet"] == {
        "opening_usd": "0.00",
        "credits_usd": "246.00",
        "overage_usd": "0.10",
        "closing_usd": "245.90",
    }
    assert studio.overage().wallet_usd == "245.90"
    studio.clock.set("2026-12-05T00:00:00Z")
    studio.make(2)
    assert studio.json(DECEMBER)["wallet"] == {
        "opening_usd": "245.90",
        "credits_usd": "0.00",
        "overage_usd": "0.05",
        "closing_usd": "245.85",
    }


def test_a_refund_is_a_line_of_the_month_that_it_is_made_in_only(studio: Studio) -> None:
    job_id = studio.make(3)
    november = studio.json(NOVEMBER)
    studio.clock.set("2026-12-05T00:00:00Z")
    assert studio.refund(job_id) == 3
    assert studio.json(NOVEMBER)["lines"] == november["lines"]
    assert studio.json(NOVEMBER)["overage_usd"] == "0.10"
    december = studio.json(DECEMBER)
    assert [(line["kind"], line["job_id"], line["amount_usd"]) for line in december["lines"]] == [
        ("refund", job_id, "-0.05"),
        ("refund", job_id, "-0.05"),
    ]
    assert december["lines"][0]["pending_id"] == november["lines"][0]["ledger_id"]
    assert december["lines"][0]["description"] == "a smear"
    assert december["overage"]["image"] == {"units": 0, "refunded_units": 2, "amount_usd": "-0.10"}
    assert december["overage_usd"] == "-0.10"
    assert december["wallet"]["closing_usd"] == studio.overage().wallet_usd == "100.00"


def test_a_job_in_flight_at_the_months_end_is_of_the_month_of_its_reserve(studio: Studio) -> None:
    attempt = studio.running(n=2)
    studio.clock.set("2026-12-01T00:00:00Z")
    studio.complete(attempt)
    assert [line["job_id"] for line in studio.json(NOVEMBER)["lines"]] == [attempt.job_id]
    assert studio.json(NOVEMBER)["lines"][0]["time"] == "2026-12-01T00:00:00Z"
    assert studio.json(DECEMBER)["lines"] == []


def test_another_accounts_job_never_appears(studio: Studio) -> None:
    other = add_account(studio.store, "bob")
    studio.fund(other, "10")
    own, others = studio.make(3), studio.make(2, caller_for(studio.store, other))
    studio.refund(others)
    assert {line["job_id"] for line in studio.json(NOVEMBER)["lines"]} == {own}
    assert {line["job_id"] for line in studio.json(NOVEMBER, other)["lines"]} == {others}
    assert studio.json(NOVEMBER, other)["credits"][0]["amount_usd"] == "10.00"


# Plans


def test_an_annual_plan_is_owed_in_its_first_month_and_then_not(studio: Studio) -> None:
    studio.choose("max", annual=True)
    assert (studio.json(NOVEMBER)["plan_fee_usd"], studio.json(NOVEMBER)["total_usd"]) == ("948.00", "948.00")
    studio.clock.set("2027-11-05T00:00:00Z")
    assert len(studio.close_due()) == 12
    december = studio.json(DECEMBER)
    assert (december["plan"], december["plan_fee_usd"], december["plan_lines"]) == ("max", "0.00", [])
    assert [studio.json(key)["plan_fee_usd"] for key in ("2027-10", "2027-11")] == ["0.00", "0.00"]
    studio.store.write(lambda tx: overage.roll(tx, studio.owner.account.id, now=studio.clock(), terms=studio.terms))
    assert studio.json("2027-11")["plan_fee_usd"] == "948.00"


def test_a_past_month_shows_the_plan_that_counted_in_it(studio: Studio) -> None:
    free = add_account(studio.store, "bob", "free")
    studio.clock.set("2026-12-05T00:00:00Z")
    studio.choose("max", account=free)
    assert (studio.json(NOVEMBER, free)["plan"], studio.json(NOVEMBER, free)["total_usd"]) == ("free", "0.00")
    assert (studio.json(DECEMBER, free)["plan"], studio.json(DECEMBER, free)["total_usd"]) == ("max", "99.00")


# Which months there are


def test_months_are_listed_newest_first_with_their_totals(studio: Studio) -> None:
    studio.make(3)
    studio.clock.set("2027-01-10T00:00:00Z")
    studio.close_due()
    with studio.store.snapshot() as rows:
        found = statements.months(rows, studio.owner.account, studio.clock(), None, 10, studio.terms)
        older = statements.months(rows, studio.owner.account, studio.clock(), DECEMBER, 10, studio.terms)
    assert [(month.period.key, month.closed_at is None, month.overage_micros) for month in found] == [
        ("2027-01", True, 0),
        (DECEMBER, False, 0),
        (NOVEMBER, False, 100_000),
    ]
    assert [month.period.key for month in older] == [NOVEMBER]


@pytest.mark.parametrize(
    ("before", "keys"), [("2099-12", [DECEMBER, NOVEMBER]), ("2027-01", [DECEMBER, NOVEMBER]), ("1970-01", [])]
)
def test_no_month_is_listed_that_has_not_begun_or_was_over_before_the_account(
    studio: Studio, before: str, keys: list[str]
) -> None:
    studio.clock.set("2026-12-05T00:00:00Z")
    with studio.store.snapshot() as rows:
        found = statements.months(rows, studio.owner.account, studio.clock(), before, 10, studio.terms)
    assert [month.period.key for month in found] == keys


@pytest.mark.parametrize("key", ["2026-12", "2026-10", "1999-01"])
def test_there_is_no_statement_of_a_month_to_come_or_before_the_account(studio: Studio, key: str) -> None:
    with pytest.raises(Refusal) as refused:
        studio.statement(key)
    assert refused.value.code == "not_found"


def test_a_month_is_of_the_boxs_zone(tmp_path: Path) -> None:
    rooms = Studio(tmp_path, timezone="America/Havana")
    found = rooms.json(NOVEMBER)
    assert found["timezone"] == "America/Havana"
    assert found["period"] == {"key": NOVEMBER, "start": "2026-11-01T04:00:00Z", "end": "2026-12-01T05:00:00Z"}
    rooms.clock.set("2026-12-01T04:59:59Z")
    rooms.make(2)
    assert rooms.json(NOVEMBER)["overage_usd"] == "0.05"
    rooms.close()


# CSV


def test_csv_reads_back_and_adds_up(studio: Studio) -> None:
    job_id = studio.make(3, metadata={"note": 'a "quoted", long\r\nname'})
    studio.refund(job_id)
    rows = studio.csv(NOVEMBER)
    by_kind = {kind: [row for row in rows if row["row"] == kind] for kind in {row["row"] for row in rows}}
    assert total(by_kind["plan_fee"] + by_kind["overage"] + by_kind["refund"]) == "99.00"
    totals = {row["description"]: row["amount_usd"] for row in by_kind["total"]}
    assert (totals["plan_fee_usd"], totals["overage_usd"], totals["total_usd"]) == ("99.00", "0.00", "99.00")
    assert (len(by_kind["overage"]), len(by_kind["refund"]), len(by_kind["topup"])) == (2, 2, 1)
    assert json.loads(by_kind["overage"][0]["metadata"]) == {"note": 'a "quoted", long\r\nname'}
    assert {row["job_id"] for row in by_kind["overage"] + by_kind["refund"]} == {job_id}
    assert by_kind["refund"][0]["amount_usd"] == "-0.05"
    assert (by_kind["included"][1]["type"], by_kind["included"][1]["units"]) == ("image", "1")
    assert (by_kind["status"][0]["description"], by_kind["status"][0]["time"]) == ("open", "")
    assert studio.csv_bytes(NOVEMBER).endswith(b"\r\n")


def test_what_people_have_written_is_no_formula_in_a_spreadsheet(studio: Studio) -> None:
    account = add_account(studio.store, "=HYPERLINK(1)")
    studio.fund(account, "10", why="@SUM(A1)")
    job_id = studio.make(3, caller_for(studio.store, account), metadata={"=1": "+2"})
    studio.refund(job_id, why="-2+3")
    found = studio.statement(NOVEMBER, account)
    text = b"".join(statements.csv_pieces(studio.store, found)).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert {row["name"] for row in rows} == {"'=HYPERLINK(1)"}
    described = {row["row"]: row["description"] for row in rows}
    assert (described["topup"], described["refund"]) == ("'@SUM(A1) (ann)", "'-2+3")
    for row in rows:
        for name, cell in row.items():
            number = name in ("amount_usd", "units")
            assert number or not cell.startswith(("=", "+", "-", "@", "\t", "\r")), (name, cell)


# Long statements


def test_a_long_statement_is_read_in_flat_memory_and_is_consistent_while_it_grows(studio: Studio) -> None:
    add_lines(studio, 100)
    small = peak_bytes(studio)
    add_lines(studio, 450)
    found = studio.statement(NOVEMBER)
    assert sum(of.units for of in found.overage.values()) == 5_499
    assert peak_bytes(studio) < 1.5 * small
    assert small < FLAT_BYTES
    pieces = statements.json_pieces(studio.store, found)
    read = next(pieces) + next(pieces)
    add_lines(studio, 1)
    studio.fund(studio.owner.account, "1")
    told = json.loads(read + b"".join(pieces))
    assert (len(told["lines"]), total(told["lines"])) == (5_499, told["overage_usd"])
    assert len(told["credits"]) == 3
    assert len(studio.json(NOVEMBER)["lines"]) == 5_509
    rows = [row for row in studio.csv(NOVEMBER) if row["row"] == "overage"]
    assert [int(row["ledger_id"]) for row in rows] == sorted({int(row["ledger_id"]) for row in rows})
    assert len(rows) == 5_509


def add_lines(studio: Studio, jobs: int) -> None:
    """Jobs of ten images each, without their files: only the money is asked for here."""
    account, terms = studio.owner.account, studio.terms
    payer = ledger.Payer(account.id, studio.owner.key.budget_id)

    def work(tx: Any) -> None:
        for _ in range(jobs):
            job_id = ids.new("job")
            ledger.reserve(tx, payer, "image", 10, job_id, studio.clock(), terms)
            tx.execute(
                "INSERT INTO job (id, account_id, key_id, test, type, model, request, prompt, priority, n, status,"
                " phase, price_micros, metadata, notes, created_at, finished_at) VALUES (?, ?, ?, 0, 'image',"
                " 'leader', '{}', '', 0, 10, 'completed', 'encoding', 50000, '{\"shot\":\"1\"}', '[]', ?, ?)",
                (job_id, account.id, studio.owner.key.id, studio.clock(), studio.clock()),
            )
            ledger.resolve(tx, job_id, None, actor="box", now=studio.clock(), terms=terms)

    studio.fund(account, "300")
    studio.store.write(work)


def peak_bytes(studio: Studio) -> int:
    """The most that reading a statement to its end holds at once."""
    found = studio.statement(NOVEMBER)
    tracemalloc.start()
    try:
        for _ in statements.json_pieces(studio.store, found):
            pass
        for _ in statements.csv_pieces(studio.store, found):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
