from __future__ import annotations

import json
import pickle
import queue
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

import pytest

from zsky_box import tasks as tasks_module
from zsky_box.tasks import FILE_NAME, RING_MAX, JsonSerializer, Tasks

BOUND_SECONDS = 60.0


class Rung:
    """Counts wakes, sweeps and tidyings, and lets a test wait for them."""

    def __init__(self) -> None:
        self.wakes = 0
        self.sweeps = 0
        self.tidied = 0
        self.open: list[str] = []
        self._changed = threading.Condition()

    def wake(self) -> None:
        self._count("wakes")

    def sweep(self) -> None:
        self._count("sweeps")

    def tidy(self) -> None:
        self._count("tidied")

    def open_ids(self, limit: int) -> list[str]:
        return self.open[:limit]

    def until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, BOUND_SECONDS), vars(self)

    def _count(self, name: str) -> None:
        with self._changed:
            setattr(self, name, getattr(self, name) + 1)
            self._changed.notify_all()


@pytest.fixture
def rung() -> Rung:
    return Rung()


def made(folder: Path, rung: Rung) -> Tasks:
    return Tasks(folder, wake=rung.wake, open_ids=rung.open_ids, sweep=rung.sweep, tidy=rung.tidy)


@pytest.fixture
def tasks(tmp_path: Path, rung: Rung) -> Generator[Tasks]:
    started = made(tmp_path, rung)
    started.start()
    yield started
    started.stop()


def test_a_ring_wakes_at_once_and_again_through_the_queue(tasks: Tasks, rung: Rung) -> None:
    tasks.ring("job_1")
    assert rung.wakes >= 1, "before the queue has done anything"
    rung.until(lambda: rung.wakes >= 2)


def test_the_sweep_rings_for_what_is_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rung: Rung) -> None:
    monkeypatch.setattr("zsky_box.tasks._Clock.periodic_task_seconds", 1)
    rung.open = [f"job_{number}" for number in range(RING_MAX + 10)]
    started = made(tmp_path, rung)
    started.start()
    try:
        rung.until(lambda: rung.sweeps >= 1)
        rung.until(lambda: rung.wakes >= 1)
        swept = rung.sweeps
        rung.until(lambda: rung.sweeps > swept)
    finally:
        started.stop()


def test_a_ring_that_was_lost_with_its_process_is_rung_by_the_next_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rung: Rung
) -> None:
    monkeypatch.setattr("zsky_box.tasks._Clock.periodic_task_seconds", 1)
    lost = made(tmp_path, rung)
    lost.stop()  # it never ran: whatever it was to ring is gone
    rung.open = ["job_1"]
    started = made(tmp_path, rung)
    started.start()
    try:
        rung.until(lambda: rung.wakes >= 1)
    finally:
        started.stop()


def test_messages_are_json_with_ids_only_and_nothing_is_ever_unpickled(tmp_path: Path, rung: Rung) -> None:
    stopped = made(tmp_path, rung)
    ring_task = stopped._ring_task  # pyright: ignore[reportPrivateUsage]
    ring_task(["job_1", "job_2"])
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        (data,) = connection.execute("SELECT data FROM task").fetchone()
    message = json.loads(bytes(data))
    assert [["job_1", "job_2"]] in message
    assert b"prompt" not in bytes(data)
    stopped.stop()
    with pytest.raises(ValueError, match=r"JSON|decode|codec"):
        JsonSerializer().deserialize(pickle.dumps({"a": 1}))


def test_a_pickle_that_somebody_left_in_the_file_does_not_fire(tmp_path: Path, rung: Rung) -> None:
    canary = tmp_path / "fired"
    made(tmp_path, rung).stop()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute(
            "INSERT INTO task (queue, data, priority) VALUES ('generation', ?, 9)", (pickle.dumps(Canary(canary)),)
        )
        connection.commit()
    started = made(tmp_path, rung)
    started.start()
    try:
        started.ring("job_1")
        rung.until(lambda: rung.wakes >= 2)
    finally:
        started.stop()
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))  # noqa: S301 - shows that the canary sings where pickles are read
    assert canary.exists()


class Canary:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_the_file_is_the_owners_alone(tasks: Tasks, tmp_path: Path, rung: Rung) -> None:
    tasks.ring("job_1")
    rung.until(lambda: rung.wakes >= 2)
    for path in tmp_path.glob(f"{FILE_NAME}*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\x00" + bytes(5000)])
def test_a_damaged_file_is_made_anew(tmp_path: Path, rung: Rung, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    started = made(tmp_path, rung)
    started.start()
    try:
        started.ring("job_1")
        rung.until(lambda: rung.wakes >= 2)
    finally:
        started.stop()


def test_a_doorbell_that_is_stuck_delays_nobody(
    tmp_path: Path, rung: Rung, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks_module, "WAITING_MAX", 3)
    unstarted = made(tmp_path, rung)
    for number in range(5):
        unstarted.ring(f"job_{number}")
    assert rung.wakes == 5, "the scheduler is woken all the same"
    assert caplog.text.count("the doorbell is behind") == 2
    unstarted.stop()


def test_a_queue_file_that_fails_is_logged_and_the_next_ring_is_rung(
    tasks: Tasks, rung: Rung, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ring_task = tasks._ring_task  # pyright: ignore[reportPrivateUsage]
    failed = threading.Event()

    def fail(_: list[str]) -> None:
        failed.set()
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(tasks, "_ring_task", fail)
    tasks.ring("job_1")
    assert failed.wait(BOUND_SECONDS)
    monkeypatch.setattr(tasks, "_ring_task", ring_task)
    wakes = rung.wakes
    tasks.ring("job_2")
    rung.until(lambda: rung.wakes >= wakes + 2)
    assert "disk I/O error" in caplog.text


def test_it_stops_in_bounded_time_also_while_a_task_runs(tmp_path: Path, rung: Rung) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow_wake() -> None:
        if threading.current_thread().name != "MainThread":
            begun.set()
            go_on.wait(BOUND_SECONDS)

    started = Tasks(tmp_path, wake=slow_wake, open_ids=rung.open_ids, sweep=rung.sweep, tidy=rung.tidy)
    started.start()
    started.ring("job_1")
    assert begun.wait(BOUND_SECONDS)
    asked = time.monotonic()
    threading.Timer(0.3, go_on.set).start()
    started.stop()
    assert time.monotonic() - asked < tasks_module.STOP_SECONDS


def test_it_may_be_stopped_before_it_is_started_and_with_a_full_bell(
    tmp_path: Path, rung: Rung, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks_module, "WAITING_MAX", 1)
    unstarted = made(tmp_path, rung)
    unstarted.ring("job_1")
    unstarted.stop()
    with pytest.raises(queue.Full):
        unstarted._rung.put_nowait("full")  # pyright: ignore[reportPrivateUsage]


def test_nothing_of_it_outlives_its_stop(tmp_path: Path, rung: Rung) -> None:
    before = set(threading.enumerate())
    started = made(tmp_path, rung)
    started.start()
    started.ring("job_1")
    rung.until(lambda: rung.wakes >= 2)
    started.stop()
    assert [thread.name for thread in threading.enumerate() if thread not in before] == []
