"""The audit of the whole box: pages, filters, and all of it as files."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.stores import add_account, caller_for
from tests.studio import Studio
from zsky_box import audit_pages, keyset
from zsky_box.audit_pages import Entry, Filters


@pytest.fixture
def studio(tmp_path: Path) -> Generator[Studio]:
    rooms = Studio(tmp_path)
    bob = add_account(rooms.store, "bob")
    rooms.fund(bob, "5", "=1+1")
    rooms.make(2)
    rooms.clock.set("2026-11-23T09:00:00Z")
    rooms.make(1, caller_for(rooms.store, bob))
    yield rooms
    rooms.close()


def listed(studio: Studio, limit: int = 1_000, **filters: object) -> list[Entry]:
    """All that matches, page by page."""
    found: list[Entry] = []
    before: int | None = None
    while True:
        with studio.store.snapshot() as rows:
            page, before = audit_pages.page(rows, Filters(**filters), limit, before)  # type: ignore[arg-type]
        assert len(page) <= limit
        found += page
        if before is None:
            return found


def test_it_works(studio: Studio) -> None:
    found = listed(studio, limit=7)
    numbers = [entry.id for entry in found]
    assert numbers == list(range(numbers[0], 0, -1))
    assert all(newer.previous == older.hash for newer, older in itertools.pairwise(found))


def test_filters_narrow_it(studio: Studio) -> None:
    everything, bob = listed(studio), next(entry.account for entry in listed(studio, action="ledger.topup"))
    assert bob is not None
    assert {entry.account for entry in listed(studio, account=bob)} == {bob}
    assert len(listed(studio, account=bob)) == sum(entry.account == bob for entry in everything) > 3
    assert {entry.account for entry in listed(studio, account="-")} <= {None}
    assert {entry.action for entry in listed(studio, action="overage.")} == {"overage.cap", "overage.toggled"}
    assert listed(studio, action="%") == listed(studio, action="*") == []
    assert {entry.actor for entry in listed(studio, actor="ANN")} == {"ann"}
    day = studio.clock()
    assert {entry.at for entry in listed(studio, since=day)} == {"2026-11-23T09:00:00Z"}
    assert listed(studio, since=day) + listed(studio, before=day) == everything
    assert listed(studio, account="acc_nobody") == []


def test_an_actor_is_found_by_name(studio: Studio) -> None:
    bob = next(entry.account for entry in listed(studio, action="ledger.topup"))
    assert {entry.actor for entry in listed(studio, actor="bob")} == {bob}


def test_a_rare_filter_looks_through_so_many_at_a_time(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = listed(studio, action="account.created")
    monkeypatch.setattr(keyset, "SCAN_MAX", 5)
    with studio.store.snapshot() as rows:
        first, more = audit_pages.page(rows, Filters(action="account.created"), 10, None)
    assert first == []
    assert more is not None
    assert listed(studio, action="account.created") == whole
    assert len(whole) == 2


def test_files_have_all_of_it(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_pages, "PIECE_ROWS", 4)
    found = listed(studio)
    text = b"".join(audit_pages.csv_pieces(studio.store, Filters())).decode()
    table = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [int(row["id"]) for row in table] == [entry.id for entry in found]
    assert [row["hash"] for row in table] == [entry.hash for entry in found]
    lines = b"".join(audit_pages.json_lines(studio.store, Filters(action="ledger."))).decode().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [entry.id for entry in listed(studio, action="ledger.")]
    assert json.loads(lines[-1])["after"]


def test_the_actions_there_are(studio: Studio) -> None:
    with studio.store.snapshot() as rows:
        found = audit_pages.actions(rows)
    assert found == sorted(found)
    assert {"account.created", "key.issued", "ledger.post", "overage.cap"} <= set(found)
