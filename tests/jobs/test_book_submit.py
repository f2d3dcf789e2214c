"""Submits: all or nothing, once per key, within the bounds."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.always_true import check_always_true
from tests.stores import Rooms, add_account, caller_for, job_id_of
from zsky_box import idempotency, keys, overage
from zsky_box.errors import Refusal
from zsky_box.idempotency import Idempotency
from zsky_box.settings import CHECKOUT


def once(key: str = "key-1", request: bytes = b"a request") -> Idempotency:
    return Idempotency(key, request)


def refusal(rooms: Rooms, *arguments: Any, **fields: Any) -> Refusal:
    """With what a submit is refused."""
    with pytest.raises(Refusal) as refused:
        rooms.submit(*arguments, **fields)
    return refused.value


def counts(rooms: Rooms) -> dict[str, int]:
    """Rows of every table that a submit may touch."""
    tables = ("job", "transfer", "audit", "idempotency", "balance", "grant")
    return {name: rooms.store.all(f'SELECT count(*) AS n FROM "{name}"')[0]["n"] for name in tables}  # noqa: S608


def test_a_submit_queues_the_job_holds_its_units_and_rings(rooms: Rooms) -> None:
    job_id = rooms.new_job(n=3, metadata={"shot": "12"})
    view = rooms.view(job_id)
    assert (view.status, view.phase, view.progress, view.queue_position) == ("queued", "waiting", 0.0, 1)
    assert (view.charge.state, view.charge.included_units, view.charge.amount_usd) == ("reserved", 3, "0.00")
    assert view.metadata == {"shot": "12"}
    assert rooms.left() == 37
    assert rooms.rung == [job_id]


def test_the_price_of_the_moment_is_stamped_on_the_job(rooms: Rooms) -> None:
    assert rooms.row(rooms.new_job(type="video"))["price_micros"] == 500_000
    assert rooms.row(rooms.new_job())["price_micros"] == 50_000
    assert rooms.row(rooms.new_job(rooms.tester))["price_micros"] == 0


def test_the_same_key_and_request_is_the_same_job_and_answer(rooms: Rooms) -> None:
    first = rooms.submit(idempotency=once())
    before = counts(rooms)
    rooms.clock.advance(60)
    again = rooms.submit(idempotency=once(), prompt="whatever: the request's digest decides")
    assert (again.status, again.body, again.replayed) == (202, first.body, True)
    assert counts(rooms) == before
    assert len(rooms.rung) == 1


def test_the_same_key_with_another_request_is_a_conflict_and_changes_nothing(rooms: Rooms) -> None:
    rooms.submit(idempotency=once())
    before = counts(rooms)
    conflict = refusal(rooms, idempotency=once(request=b"another"))
    assert (conflict.status, conflict.code) == (409, "idempotency_conflict")
    assert counts(rooms) == before


def test_many_submits_with_one_key_at_once_make_one_job(rooms: Rooms) -> None:
    submission = rooms.reader.submission(rooms.owner, rooms.new_job())

    async def storm() -> list[bytes]:
        submits = [rooms.desk.submit(rooms.owner, submission, once()) for _ in range(100)]
        return [accepted.body for accepted in await asyncio.gather(*submits)]

    assert len(set(asyncio.run(storm()))) == 1
    assert counts(rooms)["job"] == 2


def test_keys_are_apart_by_account_and_by_mode(rooms: Rooms) -> None:
    other = caller_for(rooms.store, add_account(rooms.store, "bob"))
    answers = [rooms.submit(caller, once()).body for caller in (rooms.owner, rooms.tester, other)]
    assert len(set(answers)) == 3


def test_a_key_answers_after_its_job_has_ended_and_after_a_restart(rooms: Rooms) -> None:
    first = rooms.submit(idempotency=once())
    rooms.complete(rooms.claimed(job_id_of(first)))
    rooms.restart()
    assert rooms.submit(idempotency=once()).body == first.body


def test_a_key_is_forgotten_after_its_days_and_not_before(rooms: Rooms) -> None:
    first = rooms.submit(idempotency=once())
    rooms.clock.advance(7 * 86_400)
    rooms.store.write(lambda tx: idempotency.forget(tx, 7, rooms.clock()))
    assert rooms.submit(idempotency=once()).replayed
    rooms.clock.advance(1)
    rooms.store.write(lambda tx: idempotency.forget(tx, 7, rooms.clock()))
    assert rooms.submit(idempotency=once()).body != first.body


def test_a_refusal_is_not_stored_and_is_evaluated_anew(rooms: Rooms) -> None:
    held = [rooms.new_job(n=10) for _ in range(4)]
    assert refusal(rooms, idempotency=once()).code == "allowance_exhausted"
    rooms.cancel(held[0])
    assert not rooms.submit(idempotency=once()).replayed


KILLED_AFTER_SUBMIT = """
import os, signal, sys
from pathlib import Path
from tests.always_true import check_always_true
from tests.stores import Killed, Rooms
from zsky_box.idempotency import Idempotency
accepted = Rooms(Path(sys.argv[1])).submit(idempotency=Idempotency("key-1", b"a request"))
sys.stdout.buffer.write(accepted.body)
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_key_answers_the_same_after_the_box_was_killed(tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AFTER_SUBMIT, str(tmp_path)], cwd=CHECKOUT, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    rooms = Rooms(tmp_path)
    again = rooms.submit(idempotency=once())
    assert (again.body, again.replayed) == (killed.stdout, True)
    assert [job.id for job in rooms.queued(test=False)] == [job_id_of(again)]
    check_always_true(rooms)
    rooms.close()


@pytest.mark.parametrize(
    ("settings", "by", "who"),
    [
        ({"queue_open_per_account_max": 2}, "owner", "You have 2 open jobs"),
        ({"queue_open_max": 2}, "other", "The box's queue is full"),
        ({"test_queue_open_max": 2}, "tester", "You have 2 open jobs"),
    ],
)
def test_a_full_queue_refuses_and_changes_nothing(tmp_path: Path, settings: dict[str, Any], by: str, who: str) -> None:
    rooms = Rooms(tmp_path, **settings)
    callers = {
        "owner": rooms.owner,
        "tester": rooms.tester,
        "other": caller_for(rooms.store, add_account(rooms.store, "bob")),
    }
    open_ids = [rooms.new_job(rooms.tester if by == "tester" else rooms.owner) for _ in range(2)]
    before = counts(rooms)
    full = refusal(rooms, callers[by])
    assert (full.status, full.code) == (429, "queue_full")
    assert who in full.detail
    assert full.headers["Retry-After"]
    assert counts(rooms) == before
    rooms.cancel(open_ids[0], callers[by] if by != "other" else rooms.owner)
    rooms.submit(callers[by])
    rooms.close()


def test_test_jobs_do_not_take_the_places_of_live_ones(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path, test_queue_open_max=2, queue_open_per_account_max=2)
    for caller in (rooms.tester, rooms.owner) * 2:
        rooms.submit(caller)
    assert {refusal(rooms, caller).code for caller in (rooms.tester, rooms.owner)} == {"queue_full"}
    rooms.close()


def test_a_draining_box_refuses_and_changes_nothing(rooms: Rooms) -> None:
    rooms.desk.draining = True
    before = counts(rooms)
    draining = refusal(rooms)
    assert (draining.status, draining.code) == (503, "draining")
    assert counts(rooms) == before


def test_a_key_that_was_used_gets_its_answer_whatever_would_be_refused_now(rooms: Rooms) -> None:
    first = rooms.submit(idempotency=once())
    rooms.desk.draining = True
    again = asyncio.run(rooms.desk.replay(rooms.owner, once()))
    assert again is not None
    assert (again.status, again.body, again.replayed) == (first.status, first.body, True)
    assert asyncio.run(rooms.desk.replay(rooms.owner, once("another"))) is None
    assert asyncio.run(rooms.desk.replay(rooms.owner, None)) is None
    with pytest.raises(Refusal, match="idempotency_conflict"):
        asyncio.run(rooms.desk.replay(rooms.owner, once(request=b"another")))


def test_too_little_space_refuses_and_changes_nothing(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path, free_space_floor_bytes=2**60)
    before = counts(rooms)
    full = refusal(rooms)
    assert (full.status, full.code) == (503, "storage_full")
    assert counts(rooms) == before
    rooms.close()


def test_an_unplugged_disk_of_outputs_refuses_and_changes_nothing(rooms: Rooms) -> None:
    before = counts(rooms)
    shutil.rmtree(rooms.assets.root)
    gone = refusal(rooms)
    assert (gone.status, gone.code) == (503, "storage_full")
    assert "cannot be reached" in gone.detail
    assert counts(rooms) == before


def test_a_test_job_moves_no_money_but_acts_its_charge_out(rooms: Rooms) -> None:
    job_id = rooms.new_job(rooms.tester)
    assert rooms.view(job_id, rooms.tester).charge.state == "reserved"
    rooms.complete(rooms.claimed(job_id))
    charge = rooms.view(job_id, rooms.tester).charge
    assert (charge.state, charge.ledger_ids) == ("posted", [])
    assert rooms.left() == 40


def test_a_keys_cap_counts_that_is_in_force_when_the_job_is_stored(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path, included_images=0)
    owner, now, terms = rooms.owner.account.id, rooms.clock(), rooms.terms
    rooms.store.write(lambda tx: overage.topup(tx, owner, 5_000_000, actor="test", now=now, terms=terms))
    rooms.store.write(lambda tx: overage.toggle(tx, owner, enabled=True, actor="test", now=now, terms=terms))
    rooms.submit()
    rooms.store.write(lambda tx: keys.limit(tx, owner, rooms.owner.key.id, 0, now=now, actor="test"))
    refused = refusal(rooms)  # by a caller that was found before
    assert (refused.status, refused.code) == (429, "cap_reached")
    assert "the cap of this key" in refused.detail
    rooms.close()


def test_open_test_jobs_take_no_room_from_live_ones(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path, queue_open_max=2, test_queue_open_max=2)
    for caller in (rooms.tester, rooms.owner):
        for _ in range(2):
            rooms.submit(caller)
        assert refusal(rooms, caller).code == "queue_full"
    rooms.close()
