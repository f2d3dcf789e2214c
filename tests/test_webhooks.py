from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.stores import Rooms, add_account, caller_for
from zsky_box import ledger, webhooks
from zsky_box.accounts import Account
from zsky_box.db import Tx


@pytest.fixture
def rooms(tmp_path: Path) -> Generator[Rooms]:
    rooms = Rooms(tmp_path)
    yield rooms
    rooms.close()


def subscribe(rooms: Rooms, endpoint_id: str = "end_1", account: Account | None = None) -> None:
    """An endpoint of the owner's, or of another account."""
    values = (endpoint_id, (account or rooms.owner.account).id, "https://studio.test/hook", rooms.clock())
    rooms.store.write(
        lambda tx: tx.execute(
            "INSERT INTO webhook_endpoint (id, account_id, url, created_at) VALUES (?, ?, ?, ?)", values
        )
    )


def unsubscribe(rooms: Rooms, endpoint_id: str = "end_1") -> None:
    values = (rooms.clock(), endpoint_id)
    rooms.store.write(lambda tx: tx.execute("UPDATE webhook_endpoint SET ended_at = ? WHERE id = ?", values))


def outbox(rooms: Rooms) -> list[tuple[str, str, str]]:
    rows = rooms.store.all("SELECT * FROM outbox ORDER BY id")
    return [(row["endpoint_id"], row["event"], row["job_id"]) for row in rows]


def test_a_completed_and_a_failed_job_are_each_one_event_of_their_end(rooms: Rooms) -> None:
    subscribe(rooms)
    done, broken = rooms.running(), rooms.running()
    rooms.clock.advance(5)
    rooms.complete(done)
    rooms.end(broken)
    assert outbox(rooms) == [("end_1", "job.completed", done.job_id), ("end_1", "job.failed", broken.job_id)]
    assert {row["created_at"] for row in rooms.store.all("SELECT * FROM outbox")} == {rooms.clock()}


def test_nothing_but_the_end_of_a_job_is_an_event(rooms: Rooms) -> None:
    subscribe(rooms)
    attempt = rooms.running()
    rooms.step(attempt)
    rooms.retry(attempt)
    rooms.cancel(rooms.running().job_id)
    assert outbox(rooms) == []


def test_a_cancelled_and_a_late_job_have_failed(rooms: Rooms) -> None:
    subscribe(rooms)
    cancelled, late = rooms.new_job(), rooms.new_job(start_deadline=1.0)
    rooms.cancel(cancelled)
    rooms.clock.advance(2)
    rooms.book.expire()
    assert outbox(rooms) == [("end_1", "job.failed", cancelled), ("end_1", "job.failed", late)]


def test_an_end_that_is_told_twice_is_one_event(rooms: Rooms) -> None:
    subscribe(rooms)
    attempt = rooms.running()
    rooms.complete(attempt)
    rooms.end(attempt)
    assert outbox(rooms) == [("end_1", "job.completed", attempt.job_id)]


def test_without_a_subscriber_nothing_is_staged(rooms: Rooms) -> None:
    rooms.complete(rooms.running())
    subscribe(rooms)
    unsubscribe(rooms)
    rooms.complete(rooms.running())
    assert outbox(rooms) == []


def test_each_endpoint_of_the_account_gets_its_own_and_no_other_account_s(rooms: Rooms) -> None:
    bob = add_account(rooms.store, "bob")
    subscribe(rooms, "end_1")
    subscribe(rooms, "end_2")
    subscribe(rooms, "end_bob", bob)
    own, bobs = rooms.running(), rooms.new_job(caller_for(rooms.store, bob))
    rooms.complete(own)
    rooms.complete(rooms.claimed(bobs))
    assert outbox(rooms) == [
        ("end_1", "job.completed", own.job_id),
        ("end_2", "job.completed", own.job_id),
        ("end_bob", "job.completed", bobs),
    ]


def test_an_event_is_undone_with_the_end_that_it_tells_of(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    subscribe(rooms)
    attempt = rooms.running()
    stage = webhooks.stage

    def stage_and_break(tx: Tx, account_id: str, event: webhooks.Event, job_id: str, at: int, *, test: bool) -> None:
        stage(tx, account_id, event, job_id, at, test=test)
        raise KeyError("the transaction ends here")

    with monkeypatch.context() as patch:
        patch.setattr(webhooks, "stage", stage_and_break)
        with pytest.raises(KeyError):
            rooms.end(attempt)
    assert outbox(rooms) == []
    assert rooms.row(attempt.job_id)["status"] == "running"
    assert rooms.charge_state(attempt.job_id) == "reserved"


def test_an_end_whose_money_cannot_be_moved_stages_nothing(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    subscribe(rooms)
    attempt = rooms.running()

    def refuse(*_: object, **__: object) -> None:
        raise KeyError("no money moves")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "resolve", refuse)
        with pytest.raises(KeyError):
            rooms.end(attempt)
    assert outbox(rooms) == []
    rooms.end(attempt)
    assert outbox(rooms) == [("end_1", "job.failed", attempt.job_id)]


def test_a_test_job_tells_no_endpoint(rooms: Rooms) -> None:
    subscribe(rooms)
    rooms.complete(rooms.claimed(rooms.new_job(rooms.tester)))
    assert outbox(rooms) == []
