"""The service's own process: small, without torch, alone on its data folder, and able to stop and to start again."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import invariants
from tests.boxes import running
from tests.running import ROOT, RunningBox, free_port, make_owner
from tests.waiting import BOUND_SECONDS, until
from zsky_box.instance_lock import InstanceLock

RSS_BYTES_MAX = 150 * 1024 * 1024
STILL = {"type": "image", "prompt": "a still", "resolution": "480p"}
CLIP = {"type": "video", "prompt": "a clip", "resolution": "1080p", "duration": 5}  # the leader takes three seconds
SLOW = {"type": "video", "prompt": "double:slow_steps", "duration": 1}  # a minute


def submit(client: httpx.Client, body: dict[str, Any]) -> str:
    answer = client.post("/v1/generate", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()["job_id"]


def is_running(job: dict[str, Any]) -> bool:
    return job["status"] == "running"


def has_denoised(job: dict[str, Any]) -> bool:
    return job["progress"] > 0.05


def refused(folder: Path, *options: str, port: int | None = None) -> str:
    """Start a service that must not start; the one sentence that it says."""
    command = [sys.executable, "-m", "zsky_box", "serve", "--data", str(folder), "--port", str(port or free_port())]
    answer = subprocess.run(
        [*command, "--devices", "cpu", *options], check=False, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 1, answer.stderr
    assert "Traceback" not in answer.stderr
    lines = [line for line in answer.stderr.splitlines() if line.startswith("zsky-box: ")]
    assert len(lines) == 1, answer.stderr
    return lines[0]


def assert_free(folder: Path) -> None:
    lock = InstanceLock(folder)
    lock.acquire()
    lock.release()


# What it is


def test_a_running_service_is_small_and_has_never_seen_torch(tmp_path: Path) -> None:
    with running(tmp_path / "data", double=False) as box, box.client() as client:
        jobs = [submit(client, STILL) for _ in range(5)]
        assert {box.ended(client, job_id)["status"] for job_id in jobs} == {"completed"}
        maps = Path(f"/proc/{box.pid}/maps").read_text()
        assert "libpython" in maps or "python" in maps
        assert "libtorch" not in maps
        assert "diffusers" not in maps
        status = Path(f"/proc/{box.pid}/status").read_text()
        rss_bytes = int(status.split("VmRSS:")[1].split()[0]) * 1024
        assert rss_bytes < RSS_BYTES_MAX


def test_importing_the_service_imports_no_model_library() -> None:
    script = (
        "import sys, zsky_box.app, zsky_box.cli.main, zsky_box.cli.doctor\n"
        "print([name for name in ('torch', 'diffusers', 'transformers', 'accelerate') if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], check=False, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert answer.stdout.strip() == "[]", answer.stderr


def test_every_worker_is_told_what_to_leave_of_its_card_to_others(tmp_path: Path) -> None:
    with running(tmp_path / "data", card_reserve_bytes=12_345) as box:
        workers = [line for line in commands_below(box.pid) if "worker_acting_out" in line]
        assert len(workers) == 2, "one for live keys, one for test keys"
        assert all('"reserve_bytes":12345' in line for line in workers)
        assert box.stop() == 0


def commands_below(pid: int) -> list[str]:
    """The command lines of a process's children, whichever of its threads started them."""
    children = [
        child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text("ascii").split()
    ]
    return [Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode() for child in children]


def test_two_workers_on_the_processor_run_two_jobs_at_once(tmp_path: Path) -> None:
    with running(tmp_path / "data", devices="cpu,cpu") as box, box.client() as client:
        jobs = [submit(client, SLOW) for _ in range(2)]
        for job_id in jobs:
            box.until(client, job_id, has_denoised)
        assert [client.get(f"/v1/job_status/{job_id}").json()["status"] for job_id in jobs] == ["running"] * 2
        for job_id in jobs:
            client.post(f"/v1/jobs/{job_id}/cancel")


# How it stops


def test_sigterm_ends_what_runs_and_refuses_what_is_new(tmp_path: Path) -> None:
    with running(tmp_path / "data", double=False) as box, box.client() as client:
        job_id = submit(client, CLIP)
        box.until(client, job_id, is_running)
        stopped: list[int] = []
        stopping = threading.Thread(target=lambda: stopped.append(box.stop()))
        stopping.start()
        refusal = until_refused(client)
        assert refusal.json()["code"] == "draining"
        assert int(refusal.headers["Retry-After"]) > 0
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        assert client.get(f"/v1/job_status/{job_id}").json()["status"] == "running"
        stopping.join(BOUND_SECONDS)
        assert stopped == [0]
    invariants.check(tmp_path / "data", {job_id}, at_rest=True)
    assert job_of(tmp_path / "data", job_id) == ("completed", 1)


def until_refused(client: httpx.Client) -> httpx.Response:
    """The signal takes a moment; until then a body that asks for nothing is refused for what it is."""
    until(lambda: client.get("/readyz").status_code == 503, "the service drains")
    return client.post("/v1/generate", json=STILL)


def job_of(folder: Path, job_id: str) -> tuple[str, int]:
    """Status and attempts."""
    with closing(sqlite3.connect(folder / "ledger.db")) as ledger:
        return ledger.execute("SELECT status, attempts FROM job WHERE id = ?", (job_id,)).fetchone()


def test_a_job_that_takes_longer_than_the_drain_begins_again_after_the_next_start(tmp_path: Path) -> None:
    with running(tmp_path / "data", double=False, drain_seconds=0.2) as box, box.client() as client:
        job_id = submit(client, CLIP)
        box.until(client, job_id, is_running)
        started = time.monotonic()
        assert box.stop() == 0
        assert time.monotonic() - started < BOUND_SECONDS
        assert job_of(box.folder, job_id) == ("queued", 0)
        invariants.check(box.folder, {job_id}, at_rest=False)
        box.start()
        assert box.ended(client, job_id)["status"] == "completed"
        assert job_of(box.folder, job_id) == ("completed", 1)


def test_a_second_sigterm_stops_at_once(tmp_path: Path) -> None:
    with running(tmp_path / "data", drain_seconds=600) as box, box.client() as client:
        job_id = submit(client, SLOW)
        box.until(client, job_id, has_denoised)
        first = time.monotonic()
        os.kill(box.pid, signal.SIGTERM)
        until_refused(client)
        assert box.stop() == 0
        assert time.monotonic() - first < BOUND_SECONDS, "the drain would take ten minutes"
        assert job_of(box.folder, job_id) == ("queued", 0)


def test_open_event_streams_hold_no_stop_up(tmp_path: Path) -> None:
    with running(tmp_path / "data") as box, ExitStack() as open_streams:
        client = open_streams.enter_context(box.client())
        streams = [open_streams.enter_context(client.stream("GET", "/v1/events")) for _ in range(8)]
        for stream in streams:
            assert stream.status_code == 200
        assert box.stop() == 0
        assert "graceful shutdown exceeded" not in box.log()
        for stream in streams:
            assert b"snapshot" in stream.read(), "each stream was ended, not cut"


def test_a_client_that_reads_nothing_holds_no_stop_up(tmp_path: Path) -> None:
    with running(tmp_path / "data") as box, socket.create_connection(("127.0.0.1", box.port)) as silent:
        silent.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")  # and never the rest
        assert box.stop() == 0
        assert "graceful shutdown exceeded" not in box.log()


# What it refuses


def test_a_data_folder_has_one_service(tmp_path: Path) -> None:
    with running(tmp_path / "data") as box:
        assert f"in use by process {box.pid}" in refused(tmp_path / "data")
        box.wait_for("/readyz")


def test_a_port_in_use_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    make_owner(tmp_path / "data")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        told = refused(tmp_path / "data", port=port)
    assert f"port {port}" in told
    assert "in use" in told
    assert_free(tmp_path / "data")
    assert not (tmp_path / "data" / "control.json").exists()


def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    make_owner(tmp_path / "data")
    assert "192.0.2.1" in refused(tmp_path / "data", "--host", "192.0.2.1")


def test_a_card_that_is_not_there_is_refused(tmp_path: Path) -> None:
    make_owner(tmp_path / "data")
    assert "card" in refused(tmp_path / "data", "--devices", "63")


def newer_schema(ledger: sqlite3.Connection) -> None:
    ledger.execute("PRAGMA user_version = 999")


def changed_audit(ledger: sqlite3.Connection) -> None:
    ledger.execute("DROP TRIGGER audit_is_append_only_u")
    ledger.execute("UPDATE audit SET actor = 'somebody else' WHERE id = 1")


@pytest.mark.parametrize(("harm", "told"), [(newer_schema, "999"), (changed_audit, "audit's row 1")])
def test_a_ledger_that_cannot_be_trusted_is_refused(
    tmp_path: Path, harm: Callable[[sqlite3.Connection], None], told: str
) -> None:
    make_owner(tmp_path / "data")
    with closing(sqlite3.connect(tmp_path / "data" / "ledger.db", isolation_level=None)) as ledger:
        harm(ledger)
    assert told in refused(tmp_path / "data")
    assert_free(tmp_path / "data")


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    make_owner(tmp_path / "data")
    for suffix in ("-wal", "-shm"):
        (tmp_path / "data" / f"ledger.db{suffix}").unlink(missing_ok=True)
    (tmp_path / "data" / "ledger.db").write_bytes(b"not a database " * 1000)
    assert "ledger" in refused(tmp_path / "data")


# What it survives


def harmless(_: Path) -> None:
    """The crash alone."""


def deleted(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def overwritten(path: Path) -> None:
    deleted(path)
    path.write_bytes(b"SQLite format 3\x00" + bytes(range(256)) * 64)


def torn(path: Path) -> None:
    deleted(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE task (id INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO task (text) VALUES (?)", [("x" * 500,)] * 200)
        connection.commit()
    content = bytearray(path.read_bytes())
    content[4096:8192] = bytes(4096)
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [harmless, deleted, overwritten, torn])
def test_jobs_are_in_the_ledger_and_not_in_the_queue_file(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    with running(tmp_path / "data") as box, box.client() as client:
        slow = submit(client, SLOW)
        waiting = [submit(client, {"type": "image", "prompt": f"number {number}"}) for number in range(3)]
        box.until(client, slow, is_running)
        box.kill()
        harm(box.folder / "queue.db")
        box.start()
        client.post(f"/v1/jobs/{slow}/cancel")
        assert {box.ended(client, job_id)["status"] for job_id in waiting} == {"completed"}
        assert (box.folder / "queue.db").stat().st_mode & 0o077 == 0


def test_a_service_whose_ledger_cannot_be_read_any_more_ends_and_says_so(tmp_path: Path) -> None:
    """Better an end that systemd answers with a new start than a service that takes jobs and runs none."""
    make_owner(tmp_path / "data")
    script = (
        "import sys\n"
        "from tests.doubles import serve\n"
        "from zsky_box import scheduler\n"
        "from zsky_box.errors import StoreError\n"
        "from zsky_box.jobs.book import JobBook\n"
        "def broken(*_):\n"
        "    raise StoreError('the disk is gone')\n"
        "JobBook.expire = broken\n"
        "scheduler.FAILING_SECONDS_MAX = 0.5\n"
        "sys.exit(serve.main(*sys.argv[1:]))\n"
    )
    arguments = [str(tmp_path / "data"), str(free_port()), "devices=cpu"]
    answer = subprocess.run(
        [sys.executable, "-c", script, *arguments], check=False, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 1
    assert "the scheduler has failed" in answer.stderr
    assert "the disk is gone" in answer.stderr
    assert_free(tmp_path / "data")


def test_a_stop_and_a_start_lose_nothing_and_change_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "data") as box, box.client() as client:
        job_id = submit(client, {"type": "image", "prompt": "kept", "n": 2})
        before = box.ended(client, job_id)
        assert box.stop() == 0
        restarted: RunningBox = box.start()
        after = client.get(f"/v1/job_status/{job_id}").json()
        assert after == before
        assert client.get(after["result_url"]).status_code == 200
        assert restarted.stop() == 0
