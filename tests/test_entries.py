"""The ledger's listing: every row of the audit, each charge with its job, in pages and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.stores import add_account, caller_for
from tests.studio import Studio
from zsky_box import entries, keys, keyset, ledger, overage, passwords
from zsky_box.accounts import Replenish
from zsky_box.clock import parse_rfc3339
from zsky_box.entries import EntryView, Filters
from zsky_box.errors import InvalidFields
from zsky_box.keys import Caller
from zsky_box.pricing import micros


class Books(Studio):
    """The studio, and its ledger as it is listed."""

    def all(self, caller: Caller | None = None, limit: int = 100, **filters: Any) -> list[EntryView]:
        """All that the filters match, page by page."""
        found: list[EntryView] = []
        cursor: str | None = None
        for _ in range(1_000):
            page = entries.page(self.store, caller or self.owner, Filters(**filters), limit, cursor)
            found += page.data
            assert (page.next_cursor is not None) == page.has_more
            if page.next_cursor is None:
                return found
            cursor = page.next_cursor
        raise AssertionError("the pages have no end")

    def table(self, limit: int | None = None, cursor: str | None = None, **filters: Any) -> list[dict[str, str]]:
        pieces = entries.csv_pieces(self.store, self.owner, Filters(**filters), limit, cursor)
        return list(csv.DictReader(io.StringIO(b"".join(pieces).decode(), newline="")))


@pytest.fixture
def studio(tmp_path: Path) -> Generator[Books]:
    rooms = Books(tmp_path)
    yield rooms
    rooms.close()


def test_each_charge_names_its_job_and_its_transfer(studio: Books) -> None:
    job_id = studio.make(2)
    money, unit = studio.all(type="deduction")
    assert (money.job_id, unit.job_id, money.actor) == (job_id, job_id, "box")
    assert money.transfer is not None
    assert (money.transfer.kind, money.transfer.ledger, money.transfer.amount_usd) == ("post", "usd", "0.05")
    assert (money.transfer.debit, money.transfer.credit) == (f"wallet:{studio.owner.account.id}", "revenue")
    assert money.transfer.period == "2026-11"
    assert {money.transfer.id, money.transfer.pending_id} <= set(studio.view(job_id).charge.ledger_ids)
    assert unit.transfer is not None
    assert (unit.transfer.ledger, unit.transfer.units) == ("image", 1)
    row = studio.store.one("SELECT hash FROM audit WHERE id = ?", (money.id,))
    assert row is not None
    assert money.hash == row["hash"].hex()


def test_everything_that_happens_to_the_money_is_there_by_its_type(studio: Books) -> None:
    account, terms = studio.owner.account, studio.terms
    job_id = studio.make(2)
    studio.end(studio.running())
    studio.refund(job_id)
    rule = Replenish(micros("110"), micros("20"), micros("20"))

    def work(tx: Any) -> None:
        now = studio.clock()
        overage.set_cap(tx, account.id, micros("20"), actor="ann", now=now, terms=terms)
        overage.set_ceiling(tx, account.id, micros("30"), actor="ann", now=now, terms=terms)
        overage.set_rule(tx, account.id, rule, actor="ann", now=now, terms=terms)
        overage.correct(tx, account.id, -micros("1"), actor="ann", now=now, terms=terms, why="typed wrongly")
        keys.limit(tx, account.id, studio.owner.key.id, micros("3"), now=now, actor="ann")

    studio.store.write(work)
    found = studio.all()
    assert [entry.id for entry in found] == sorted((entry.id for entry in found), reverse=True)
    assert len(found) == len(studio.store.all("SELECT 1 FROM audit WHERE account_id = ?", (account.id,)))
    kinds = {entry.type: entry.action for entry in found}
    assert kinds == {
        "account": "account.created",
        "cap_change": "overage.cap",
        "ceiling": "overage.ceiling",
        "correction": "ledger.correct",
        "deduction": "ledger.post",
        "grant": "ledger.grant",
        "key": "key.issued",
        "plan": "plan.fee",
        "refund": "ledger.refund",
        "replenish": "ledger.topup",
        "replenish_rule": "overage.replenish",
        "reserve": "ledger.reserve",
        "toggle": "overage.toggled",
        "topup": "ledger.topup",
        "void": "ledger.void",
    }
    assert set(kinds) <= set(entries.TYPES)
    cap = next(entry for entry in found if entry.action == "overage.cap")
    assert (cap.before, cap.after, cap.transfer, cap.job_id) == (
        {"cap_usd": "1000.00"},
        {"cap_usd": "20.00"},
        None,
        None,
    )
    for kind in kinds:
        assert {entry.type for entry in studio.all(type=kind)} == {kind}


def test_money_alone_leaves_out_keys_people_and_the_ways_in(studio: Books) -> None:
    studio.make(2)
    account = studio.owner.account
    studio.store.write(lambda tx: passwords.set_for(tx, account.id, "hash", now=studio.clock(), actor="ann"))
    left_out = {entry.id for entry in studio.all()} - {entry.id for entry in studio.all(type=entries.MONEY)}
    assert {entry.action for entry in studio.all() if entry.id in left_out} == {
        "account.created",
        "key.issued",
        "password.set",
    }
    assert {row["id"] for row in studio.table(type=entries.MONEY)} == {
        str(entry.id) for entry in studio.all() if entry.id not in left_out
    }


def test_an_alert_is_listed(studio: Books) -> None:
    account, now = studio.owner.account, studio.clock()
    studio.store.write(
        lambda tx: overage.set_cap(tx, account.id, micros("5"), actor="ann", now=now, terms=studio.terms)
    )
    for _ in range(6):
        studio.make(10)
    assert [entry.action for entry in studio.all(type="alert")] == ["alert.cap_50"]


def test_filters_narrow_the_list(studio: Books) -> None:
    first = studio.make(2)
    studio.clock.set("2026-12-05T00:00:00Z")
    second = studio.make(2)
    studio.refund(first)
    assert {entry.job_id for entry in studio.all(job_id=first)} == {first}
    assert [entry.type for entry in studio.all(job_id=first)] == ["refund"] * 2 + ["deduction"] * 2 + ["reserve"] * 2
    assert {entry.job_id for entry in studio.all(action="ledger.post")} == {first, second}
    november, december = (studio.terms.calendar.period(key) for key in ("2026-11", "2026-12"))
    assert {entry.job_id for entry in studio.all(period=november, type="deduction")} == {first}
    assert {entry.job_id for entry in studio.all(period=december, type="refund")} == {first}
    assert {entry.job_id for entry in studio.all(period=december, type="deduction")} == {second}
    assert [entry.action for entry in studio.all(period=november, type="account")] == ["account.created"]
    assert studio.all(period=december, type="account") == []
    boundary = parse_rfc3339("2026-12-05T00:00:00Z")
    later, earlier = studio.all(created_after=boundary), studio.all(created_before=boundary)
    assert {entry.at for entry in later} == {"2026-12-05T00:00:00Z"}
    assert [entry.id for entry in later + earlier] == [entry.id for entry in studio.all()]
    assert studio.all(job_id="job_nobody") == []


def test_pages_have_every_row_once_while_new_ones_arrive(studio: Books) -> None:
    studio.make(3)
    before = [entry.id for entry in studio.all()]
    first = entries.page(studio.store, studio.owner, Filters(), 5, None)
    studio.make(2)
    seen = [entry.id for entry in first.data]
    cursor = first.next_cursor
    while cursor is not None:
        page = entries.page(studio.store, studio.owner, Filters(), 5, cursor)
        seen += [entry.id for entry in page.data]
        cursor = page.next_cursor
    assert seen == before
    assert [entry.id for entry in studio.all(limit=1)] == [entry.id for entry in studio.all()]


def test_a_page_looks_through_so_many_rows_and_no_more(studio: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = studio.make(2)
    wanted = [entry.id for entry in studio.all(type="account")]
    monkeypatch.setattr(keyset, "SCAN_MAX", 3)
    page = entries.page(studio.store, studio.owner, Filters(type="account"), 20, None)
    assert (page.data, page.has_more) == ([], True)
    assert [entry.id for entry in studio.all(type="account")] == wanted
    assert [row["id"] for row in studio.table(type="account")] == [str(number) for number in wanted]
    assert len(entries.page(studio.store, studio.owner, Filters(job_id=job_id), 20, None).data) == 4


@pytest.mark.parametrize("cursor", ["", "x", "ajE", "é", "ZQ", "ZS0x", "A" * 500])
def test_a_cursor_that_is_none_of_ours_is_refused(studio: Books, cursor: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        entries.page(studio.store, studio.owner, Filters(), 20, cursor)
    assert refused.value.field == "cursor"
    with pytest.raises(InvalidFields):
        entries.csv_pieces(studio.store, studio.owner, Filters(), None, cursor)


def test_csv_has_all_that_the_list_has(studio: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = studio.make(3)
    studio.refund(job_id)
    monkeypatch.setattr(entries, "CSV_PAGE", 7)
    listed, rows = studio.all(), studio.table()
    assert [row["id"] for row in rows] == [str(entry.id) for entry in listed]
    for row, entry in zip(rows, listed, strict=True):
        assert (row["at"], row["type"], row["job_id"]) == (entry.at, entry.type, entry.job_id or "")
        assert json.loads(row["after"] or "{}") == entry.after
        assert row["hash"] == entry.hash
        if entry.transfer is not None and entry.transfer.ledger == "usd":
            assert (row["amount_usd"], row["transfer_id"]) == (entry.transfer.amount_usd, str(entry.transfer.id))
    assert len(studio.table(limit=9)) == 9
    cursor = entries.page(studio.store, studio.owner, Filters(), 9, None).next_cursor
    assert studio.table(cursor=cursor) == rows[9:]


def test_a_test_key_sees_its_own_list_which_is_empty(studio: Books) -> None:
    studio.make(2)
    studio.complete(studio.running(caller=studio.tester))
    assert studio.all(studio.tester) == []
    pieces = list(entries.csv_pieces(studio.store, studio.tester, Filters(), None, None))
    assert [piece.count(b"\r\n") for piece in pieces] == [1]


def test_another_accounts_rows_never_appear(studio: Books) -> None:
    account = add_account(studio.store, "bob")
    bob = caller_for(studio.store, account)
    own, others = studio.make(2), studio.make(1, bob)
    assert {entry.job_id for entry in studio.all() if entry.job_id} == {own}
    assert {entry.job_id for entry in studio.all(bob) if entry.job_id} == {others}
    assert studio.all(job_id=others) == []
    assert studio.all(bob, job_id=own) == []


def test_the_changes_of_the_wallet_add_up_to_what_it_has(studio: Books) -> None:
    now, owner = studio.clock(), studio.owner.account.id
    job_id = studio.make(3)
    studio.new_job(n=2)
    studio.end(studio.running(n=2))
    studio.store.write(
        lambda tx: ledger.refund(tx, job_id, frozenset({1}), actor="ann", why="blurred", now=now, terms=studio.terms)
    )
    for amount in ("-20.00", "1.50"):
        studio.store.write(
            lambda tx, amount=amount: overage.correct(
                tx, owner, micros(amount), actor="ann", now=now, terms=studio.terms, why="wrong"
            )
        )
    corrected = [row["change_usd"] for row in studio.table(type="correction")]
    assert corrected == ["1.50", "-20.00"]
    changes = [micros(row["change_usd"]) for row in studio.table() if row["change_usd"]]
    assert sum(changes) == micros(studio.overage().wallet_usd)
    assert len(changes) > 10
