from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from tests.running import free_port, make_owner
from tests.waiting import until
from zsky_box import settings
from zsky_box.app import Box, create_app
from zsky_box.errors import SettingsError, StoreError, ZskyError
from zsky_box.instance_lock import InstanceLock
from zsky_box.server import Server, configuration, listen

SILENT = "tests.doubles.worker_never_ready"


def configured(folder: Path, **options: Any) -> settings.Settings:
    chosen: dict[str, Any] = {"devices": "cpu", "free_space_floor_bytes": 0, "port": free_port(), **options}
    return settings.load(folder, {}, **chosen)


def a_box(folder: Path) -> Box:
    make_owner(folder)
    return Box(folder, configured(folder), worker_entry=SILENT)


def assert_free(folder: Path) -> None:
    lock = InstanceLock(folder)
    lock.acquire()
    lock.release()


def test_a_box_is_live_before_it_is_ready(tmp_path: Path) -> None:
    box = a_box(tmp_path)
    with TestClient(create_app(box)) as client:
        assert client.get("/healthz").status_code == 200
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["status"] == "starting"
        assert int(answer.headers["Retry-After"]) > 0
        box.services.desk.draining = True
        assert client.get("/readyz").json()["status"] == "draining"
    assert_free(tmp_path)


def test_a_box_that_was_never_started_closes_and_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    a_box(tmp_path).close()
    assert [thread.name for thread in threading.enumerate() if thread not in before] == []
    assert_free(tmp_path)


def no_card(folder: Path) -> settings.Settings:
    return configured(folder, devices="63")


def outputs_in_the_way(folder: Path) -> settings.Settings:
    (folder / "file").write_text("in the way")
    return configured(folder, outputs=str(folder / "file" / "outputs"))


@pytest.mark.parametrize("harm", [no_card, outputs_in_the_way])
def test_a_box_that_cannot_be_furnished_gives_its_folder_back(
    tmp_path: Path, harm: Callable[[Path], settings.Settings]
) -> None:
    make_owner(tmp_path)
    with pytest.raises((ZskyError, OSError)):
        Box(tmp_path, harm(tmp_path), worker_entry=SILENT)
    assert_free(tmp_path)


def test_the_folder_is_checked_before_anything_changes(tmp_path: Path) -> None:
    make_owner(tmp_path)
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as ledger:
        ledger.execute("DROP TRIGGER audit_is_append_only_d")
        ledger.execute("DELETE FROM audit WHERE id = 2")
    box = Box(tmp_path, configured(tmp_path), worker_entry=SILENT)
    try:
        with pytest.raises(StoreError, match="audit's row 3"):
            box.check()
    finally:
        box.close()


def test_the_port_is_taken_before_anything_else_and_said_to_be_in_use(tmp_path: Path) -> None:
    port = free_port()
    with closing(listen("127.0.0.1", port)), pytest.raises(SettingsError, match=f"port {port}.*in use"):
        listen("127.0.0.1", port)
    with closing(listen("::1", free_port())) as listener:
        assert listener.getsockname()[0] == "::1"
    with pytest.raises(SettingsError, match="no-such-host"):
        listen("no-such-host.invalid", port)
    assert list(tmp_path.iterdir()) == []


class Bucket:
    """What a server drains: it notes what is asked of it, and drains for as long as it is told to."""

    def __init__(self) -> None:
        self.drains = 0
        self.streams_ended = threading.Event()
        self.empty = threading.Event()

    def drain(self) -> None:
        self.drains += 1
        assert self.empty.wait(60)

    def end_streams(self) -> None:
        self.streams_ended.set()


async def nothing(*_: Any) -> None:
    """An application that answers nothing."""


@pytest.mark.anyio
async def test_the_first_signal_drains_and_the_second_does_not_wait() -> None:
    bucket = Bucket()
    server = Server(bucket, configuration(nothing))
    assert not await server.on_tick(1)
    server.handle_exit(15, None)
    assert not await server.on_tick(2)
    assert not await server.on_tick(3)
    assert not bucket.streams_ended.is_set()
    server.handle_exit(15, None)
    assert await server.on_tick(4)
    assert bucket.streams_ended.is_set()
    assert bucket.drains == 1
    bucket.empty.set()


@pytest.mark.anyio
async def test_a_drain_that_is_done_ends_the_server() -> None:
    bucket = Bucket()
    bucket.empty.set()
    server = Server(bucket, configuration(nothing))
    server.handle_exit(15, None)
    await server.on_tick(1)
    assert bucket.streams_ended.wait(60)
    until(lambda: server.should_exit, "the drain is over")
    assert await server.on_tick(2)
    assert not server.failed


def test_a_failure_ends_the_server_and_shows_in_its_status(caplog: pytest.LogCaptureFixture) -> None:
    bucket = Bucket()
    server = Server(bucket, configuration(nothing))
    server.fail(StoreError("the disk is gone"))
    assert server.failed
    assert server.should_exit
    assert bucket.streams_ended.is_set()
    assert "the disk is gone" in caplog.text
