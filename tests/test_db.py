# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from tests.stores import opened
from zsky_box import db
from zsky_box.db import Store, Tx
from zsky_box.errors import Refusal, StoreError
from zsky_box.instance_lock import InstanceLock

WAIT_SECONDS = 60.0


def insert(name: str, units: int = 0) -> Callable[[Tx], int]:
    """A write that adds one balance row."""

    def work(tx: Tx) -> int:
        tx.execute(
            "INSERT INTO balance (name, ledger, overdraft, credits_posted) VALUES (?, 'image', 0, ?)", (name, units)
        )
        return units

    return work


def refused(tx: Tx) -> None:
    """A write that changes something and is then refused."""
    insert("refused")(tx)
    raise Refusal(429, "queue_full", "No.")


def names(store: Store) -> set[str]:
    """What a reader sees."""
    return {row["name"] for row in store.all("SELECT name FROM balance")}


class Gate:
    """Holds the writer inside one write, so that what follows becomes one group."""

    def __init__(self, store: Store) -> None:
        self._entered, self._open = threading.Event(), threading.Event()
        self.held = store.submit(self._work)
        assert self._entered.wait(WAIT_SECONDS)

    def _work(self, _: Tx) -> None:
        self._entered.set()
        assert self._open.wait(WAIT_SECONDS)

    def open(self) -> None:
        """Let the writer go on."""
        self._open.set()


class FailingConnection:
    """The writer's connection, whose statement of that name fails as a broken disk would make it."""

    def __init__(self, real: sqlite3.Connection, statement: str, error: Exception) -> None:
        self._real, self._statement, self._error = real, statement, error

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if sql == self._statement:
            raise self._error
        return self._real.execute(sql, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def let_fail(store: Store, statement: str, error: Exception | None = None) -> None:
    error = error or sqlite3.OperationalError("disk I/O error")
    store._writer = FailingConnection(store._writer, statement, error)  # pyright: ignore[reportAttributeAccessIssue]


def error_of(future: Future[Any]) -> Refusal:
    """The refusal that a write ended with."""
    error = future.exception(WAIT_SECONDS)
    assert isinstance(error, Refusal)
    return error


# Writes


def test_a_write_is_seen_by_every_other_connection_when_it_is_answered(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert store.write(insert("mine", 5)) == 5
        outside = db.connect(store.path, read_only=True)
        assert outside.execute("SELECT credits_posted FROM balance WHERE name = 'mine'").fetchone()[0] == 5
        outside.close()


def test_an_answer_and_a_callback_come_only_after_the_commit(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        gate, seen = Gate(store), list[bool]()

        def work(tx: Tx) -> None:
            insert("mine")(tx)
            tx.after_commit.append(lambda: seen.append("mine" in names(store)))

        written = store.submit(work)
        assert not written.done()
        gate.open()
        written.result(WAIT_SECONDS)
        assert seen == [True]


def test_one_refused_write_of_a_group_does_not_undo_its_neighbours(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        gate = Gate(store)
        before, bad, after = store.submit(insert("before")), store.submit(refused), store.submit(insert("after"))
        gate.open()
        assert error_of(bad).code == "queue_full"
        assert (before.result(WAIT_SECONDS), after.result(WAIT_SECONDS)) == (0, 0)
        assert names(store) == {"before", "after"}


def test_callbacks_of_a_refused_write_are_not_called(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        called: list[str] = []

        def work(tx: Tx) -> None:
            tx.after_commit.append(lambda: called.append("no"))
            refused(tx)

        with pytest.raises(Refusal):
            store.write(work)
        assert called == []


def test_a_callback_that_fails_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("the listener is gone")

    def work(tx: Tx) -> None:
        insert("mine")(tx)
        tx.after_commit.append(fail)

    with opened(tmp_path) as store:
        store.write(work)
        store.write(insert("next"))
        assert names(store) == {"mine", "next"}
    assert "a callback after COMMIT failed" in caplog.text


def test_hundreds_of_writes_from_many_threads_are_all_stored(tmp_path: Path) -> None:
    with opened(tmp_path) as store, ThreadPoolExecutor(32) as pool:
        written = [pool.submit(store.write, insert(f"n{number}")) for number in range(600)]
        assert [future.result(WAIT_SECONDS) for future in written] == [0] * 600
        assert names(store) == {f"n{number}" for number in range(600)}


def test_32_spenders_get_exactly_the_allowance_and_nobody_is_locked_out(tmp_path: Path) -> None:
    allowance = 300

    def spend(tx: Tx) -> bool:
        left = tx.one("SELECT credits_posted - debits_posted AS n FROM balance WHERE name = 'wallet'")
        assert left is not None
        if left["n"] < 1:
            return False
        tx.execute("UPDATE balance SET debits_posted = debits_posted + 1 WHERE name = 'wallet'")
        return True

    with opened(tmp_path) as store, ThreadPoolExecutor(32) as pool:
        store.write(insert("wallet", allowance))
        spenders = [pool.submit(store.write, spend) for _ in range(2 * allowance)]
        accepted = sum(future.result(WAIT_SECONDS) for future in spenders)
        row = store.one("SELECT debits_posted FROM balance WHERE name = 'wallet'")
        assert row is not None
        assert (accepted, row["debits_posted"]) == (allowance, allowance)


def test_a_write_whose_caller_has_gone_is_not_done_and_the_next_ones_are(tmp_path: Path) -> None:
    async def give_up(store: Store, gate: Gate) -> None:
        task = asyncio.ensure_future(store.write_async(insert("gone")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()

    with opened(tmp_path) as store:
        asyncio.run(give_up(store, Gate(store)))
        store.submit(insert("next")).result(WAIT_SECONDS)
        assert names(store) == {"next"}


def test_more_waiting_writes_than_the_bound_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "WAITING_MAX", 2)
    with opened(tmp_path) as store:
        gate = Gate(store)
        kept = [store.submit(insert(name)) for name in "ab"]
        assert error_of(store.submit(insert("c"))).code == "storage_error"
        gate.open()
        wait(kept, WAIT_SECONDS)
        assert names(store) == {"a", "b"}


# Faults


def test_a_full_disk_refuses_the_write_and_the_store_goes_on_when_there_is_room(tmp_path: Path) -> None:
    fatal: list[BaseException] = []
    with opened(tmp_path, fatal=fatal.append) as store:
        pages = store.write(lambda tx: int(tx.execute("PRAGMA page_count").fetchone()[0]))
        store.write(lambda tx: tx.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        full = error_of(store.submit(insert("x" * 100_000)))
        assert (full.status, full.code) == (503, "storage_error")
        assert full.headers["Retry-After"]
        store.write(lambda tx: tx.execute(f"PRAGMA max_page_count = {pages + 1_000}").fetchone())
        store.write(insert("after"))
        assert (names(store), fatal) == ({"after"}, [])


def test_a_damaged_page_is_a_storage_error_and_not_an_unknown_exception(tmp_path: Path) -> None:
    def work(_: Tx) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    with opened(tmp_path) as store:
        assert error_of(store.submit(work)).code == "storage_error"


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), sqlite3.DatabaseError("malformed")])
def test_after_a_failed_commit_the_store_stops_writing_for_good(tmp_path: Path, error: Exception) -> None:
    fatal: list[BaseException] = []
    stopped = threading.Event()

    def on_fatal(reason: BaseException) -> None:
        fatal.append(reason)
        stopped.set()

    with opened(tmp_path, fatal=on_fatal) as store:
        store.write(insert("before"))
        gate = Gate(store)
        let_fail(store, "COMMIT", error)
        group = [store.submit(insert(name)) for name in "ab"]
        gate.open()
        for future in (gate.held, *group):
            assert error_of(future).code == "storage_error"
        assert stopped.wait(WAIT_SECONDS)
        assert error_of(store.submit(insert("later"))).code == "storage_error"
        assert fatal == [error]
        assert names(store) == {"before"}


def test_callers_of_a_failed_group_do_not_share_one_exception(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        gate = Gate(store)
        let_fail(store, "COMMIT")
        one, other = store.submit(insert("a")), store.submit(insert("b"))
        gate.open()
        assert error_of(one) is not error_of(other)


def test_when_the_lock_cannot_be_had_the_group_is_refused_and_the_store_goes_on(tmp_path: Path) -> None:
    fatal: list[BaseException] = []
    with opened(tmp_path, fatal=fatal.append) as store:
        real = store._writer
        let_fail(store, "BEGIN IMMEDIATE", sqlite3.OperationalError("database is locked"))
        assert error_of(store.submit(insert("a"))).code == "storage_error"
        store._writer = real
        store.write(insert("b"))
        assert (names(store), fatal) == ({"b"}, [])


def test_when_sqlite_rolled_the_group_back_nobody_of_it_is_told_that_it_is_stored(tmp_path: Path) -> None:
    def undoing(tx: Tx) -> None:
        tx.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")

    with opened(tmp_path) as store:
        gate = Gate(store)
        group = [store.submit(insert("a")), store.submit(undoing), store.submit(insert("b"))]
        gate.open()
        assert {error_of(future).code for future in group} == {"storage_error"}
        store.write(insert("c"))
        assert names(store) == {"c"}


# Reads


def test_readers_cannot_write(tmp_path: Path) -> None:
    with opened(tmp_path) as store, pytest.raises(sqlite3.OperationalError, match="readonly"):
        store.reader().execute("DELETE FROM balance")


def test_a_snapshot_sees_one_state_while_others_write(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.write(insert("before"))
        with store.snapshot() as rows:
            first = rows.all("SELECT count(*) FROM balance")[0][0]
            store.write(insert("after"))
            second = rows.all("SELECT count(*) FROM balance")[0][0]
        assert (first, second) == (1, 1)
        assert names(store) == {"before", "after"}


def test_reads_run_beside_the_event_loop(tmp_path: Path) -> None:
    async def read(store: Store) -> str:
        return await store.read(lambda: threading.current_thread().name)

    with opened(tmp_path) as store:
        assert asyncio.run(read(store)).startswith("store-read")


# Open and close


def test_closing_finishes_the_queued_writes_and_refuses_later_ones(tmp_path: Path) -> None:
    store = Store(tmp_path)
    gate = Gate(store)
    queued = [store.submit(insert(f"n{number}")) for number in range(300)]
    closing = threading.Thread(target=store.close)
    closing.start()
    gate.open()
    closing.join(WAIT_SECONDS)
    assert [future.result(0) for future in queued] == [0] * 300
    assert error_of(store.submit(insert("late"))).code == "storage_error"
    store.close()
    with opened(tmp_path) as again:
        assert len(names(again)) == 300


def test_a_write_that_meets_the_close_half_way_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    closing, really_put = threading.Thread(target=store.close), store._waiting.put_nowait

    def put_while_closing(write: Any) -> None:
        """The close has all the time it wants between the check that the store is open and the queueing."""
        if write is not None:
            closing.start()
            closing.join(0.3)
        really_put(write)

    monkeypatch.setattr(store._waiting, "put_nowait", put_while_closing)
    assert store.submit(insert("mine")).result(WAIT_SECONDS) == 0
    closing.join(WAIT_SECONDS)
    assert not closing.is_alive()


def test_a_store_is_durable_private_and_in_a_folder_of_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "a b?c#d%20é"
    folder.mkdir()
    with opened(folder) as store:
        pragmas = store.write(
            lambda tx: {
                name: tx.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous", "foreign_keys", "trusted_schema")
            }
        )
        assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "trusted_schema": 0}
        assert store.path.stat().st_mode & 0o777 == 0o600


def test_what_is_no_ledger_is_refused_with_the_file_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(StoreError, match=r"ledger\.db cannot be opened"):
        Store(tmp_path)


HOLDER = """
import sys, time
from pathlib import Path
from zsky_box.instance_lock import InstanceLock
InstanceLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_with_the_holders_id_until_that_is_killed(tmp_path: Path) -> None:
    lock = InstanceLock(tmp_path)
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(StoreError, match=rf"in use by process {holder.pid};"):
                lock.acquire()
        finally:
            holder.send_signal(signal.SIGKILL)
    lock.acquire()
    lock.release()
    lock.release()


def test_the_lock_names_only_its_present_holder(tmp_path: Path) -> None:
    (tmp_path / "instance.lock").write_text("1234567890\n")
    lock = InstanceLock(tmp_path)
    lock.acquire()
    assert (tmp_path / "instance.lock").read_text() == f"{os.getpid()}\n"
    lock.release()
