"""The verification beside the running service: what it says, one at a time, given up when the box stops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.stores import tamper
from tests.studio import Studio
from tests.waiting import until
from zsky_box import verifier
from zsky_box.ledger.verify_report import Report
from zsky_box.verifier import Verification, Verifier


@pytest.fixture
def studio(tmp_path: Path) -> Generator[Studio]:
    rooms = Studio(tmp_path)
    yield rooms
    rooms.close()


def verified(studio: Studio) -> Verification:
    one = Verifier(studio.store.path, studio.clock)
    assert one.begin()
    until(lambda: one.ended() is not None, "verified")
    one.close()
    found = one.ended()
    assert found is not None
    return found


def test_it_works(studio: Studio) -> None:
    studio.make(2)
    found = verified(studio)
    newest = studio.store.one("SELECT max(id) AS id FROM audit")
    assert newest is not None
    assert (found.state, found.faults, found.is_chained, found.jobs) == ("holds", [], True, 1)
    assert (found.newest_row, found.begun_at, found.ended_at) == (newest["id"], studio.clock(), studio.clock())
    assert found.rows_read == found.rows > 0


def test_a_row_that_was_changed_breaks_the_chain(studio: Studio) -> None:
    studio.make()
    tamper(studio.store.path, "UPDATE audit SET actor = 'nobody' WHERE id = 3")
    found = verified(studio)
    assert (found.state, found.is_chained) == ("broken", False)
    assert any("audit 3" in fault for fault in found.faults)


def test_a_balance_that_is_wrong_breaks_a_rule_and_not_the_chain(studio: Studio) -> None:
    tamper(studio.store.path, "UPDATE balance SET credits_posted = credits_posted + 1 WHERE name LIKE 'wallet:%'")
    found = verified(studio)
    assert (found.state, found.is_chained) == ("broken", True)


def test_what_is_no_ledger_is_told(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no ledger at all" * 100)
    one = Verifier(tmp_path / "ledger.db", lambda: 0)
    assert one.begin()
    until(lambda: one.ended() is not None, "ended")
    found = one.ended()
    assert found is not None
    assert (found.state, len(found.faults)) == ("failed", 1)


def test_there_is_one_at_a_time_and_none_after_the_end(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave = threading.Event(), threading.Event()
    whole: Callable[..., Report] = verifier.verify

    def slowly(*arguments: Any, **named: Any) -> Report:
        entered.set()
        assert leave.wait(60)
        return whole(*arguments, **named)

    monkeypatch.setattr(verifier, "verify", slowly)
    one = Verifier(studio.store.path, studio.clock)
    assert one.begin()
    assert entered.wait(60)
    now = one.last()
    assert now is not None
    assert (now.state, one.ended(), one.begin()) == ("running", None, False)
    leave.set()
    until(lambda: one.ended() is not None, "ended")
    one.close()
    assert not one.begin()
