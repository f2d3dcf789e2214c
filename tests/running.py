"""A box in a process of its own, as a client meets it: real HTTP, real files, real worker children."""

from __future__ import annotations

import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from zsky_box import accounts, keys, secretfile
from zsky_box.clock import system_clock
from zsky_box.db import Store

START_SECONDS = 120.0
END_SECONDS = 120.0
POLL_SECONDS = 0.02
ROOT = Path(__file__).resolve().parent.parent
TLS = ssl.create_default_context()
"""What every client of these tests verifies with: reading the certificates again for each takes 20 ms of a core."""

PORTS = range(20_000, 32_000)
"""Below those that Linux gives to connections (32768 and up): one of them could take a port before its box does."""

_kept: list[socket.socket] = []


def free_port() -> int:
    """A port of loopback that nobody listens on, and that no other run of these tests is given while this one lasts.

    The kernel keeps it for this process, by a socket on another address of loopback.
    """
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        keeper = socket.socket()
        try:
            keeper.bind(("127.0.0.2", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            keeper.close()
        else:
            _kept.append(keeper)
            return port
    raise AssertionError("no port is free")


def make_owner(folder: Path) -> dict[str, str]:
    """The owner's live and test key of a fresh data folder."""
    folder.mkdir(parents=True, exist_ok=True)
    now, secrets, store = system_clock(), secretfile.load(folder), Store(folder)
    try:

        def work(tx: Any) -> dict[str, str]:
            owner = accounts.create_owner(tx, "owner", now)
            issued = {
                mode: keys.issue(tx, secrets.pepper, owner.id, now=now, actor="test", test=mode == "test")[1]
                for mode in ("live", "test")
            }
            return {"account": owner.id, **issued}

        return store.write(work)
    finally:
        store.close()


def hide_mini(folder: Path) -> None:
    """Let a data folder's box answer with the film leader where nothing is installed, whatever mini is worth by now.

    A manifest in the data folder replaces the shipped one, and has no weights beside it. One that is there stays.
    """
    manifest = folder / "models" / "mini.toml"
    if not manifest.exists():
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_bytes((ROOT / "models" / manifest.name).read_bytes())


class RunningBox:
    """`double=True` runs the acting worker (tests/doubles), else the real one. `options` are settings.

    `mini=False` hides the model that comes with the box.
    """

    def __init__(self, folder: Path, *, double: bool = True, mini: bool = False, **options: object) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.keys = make_owner(folder) if not (folder / "ledger.db").exists() else {}
        self._double = double
        self._mini = mini
        self._options = {"free_space_floor_bytes": 0, **options}
        self.trust = TLS
        self._process: subprocess.Popen[bytes] | None = None
        self.log_path = folder.with_name(f"{folder.name}.log")

    @property
    def pid(self) -> int:
        """The service's process id."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, ready: bool = True) -> RunningBox:
        """Start and wait until it answers (`ready`: until a worker is up)."""
        if not self._mini:
            hide_mini(self.folder)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        if self._double:
            command = ["-m", "tests.doubles.serve", str(self.folder), str(self.port)]
            command += [f"{name}={value}" for name, value in self._options.items()]
        else:
            command = ["-m", "zsky_box", "--data", str(self.folder), "serve", "--port", str(self.port)]
            environment |= {f"ZSKY_{name.upper()}": str(value) for name, value in self._options.items()}
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, *command], env=environment, stderr=log, stdout=log)
        self.wait_for("/readyz" if ready else "/healthz")
        return self

    def wait_for(self, path: str) -> None:
        """Until the service answers 200; fails with its log when it ends or takes too long."""
        assert self._process is not None
        until = time.monotonic() + START_SECONDS
        with self.client(None) as client:
            while time.monotonic() < until:
                try:
                    if client.get(path).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                assert self._process.poll() is None, self.log()
                time.sleep(POLL_SECONDS)
        raise AssertionError(f"the box did not answer {path} in {START_SECONDS} s:\n{self.log()}")

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self._signal(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        return self._signal(signal.SIGTERM)

    def log(self) -> str:
        """What the service has logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def client(self, key: str | None = "live", **arguments: Any) -> httpx.Client:
        """A client with the live or the test key, or any other secret, or none."""
        secret = self.keys.get(key, key) if key is not None else None
        headers = {} if secret is None else {"X-API-Key": secret}
        return httpx.Client(
            base_url=self.url, headers=headers, trust_env=False, verify=self.trust, timeout=60, **arguments
        )

    def ended(self, client: httpx.Client, job_id: str, seconds: float = END_SECONDS) -> dict[str, Any]:
        """Poll until a job has ended."""
        return self.until(client, job_id, _has_ended, seconds)

    def until(
        self,
        client: httpx.Client,
        job_id: str,
        wanted: Callable[[dict[str, Any]], bool],
        seconds: float = END_SECONDS,
    ) -> dict[str, Any]:
        """Poll until a job looks as wanted; fails when it does not in time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            answer = client.get(f"/v1/job_status/{job_id}")
            assert answer.status_code == 200, answer.text
            job: dict[str, Any] = answer.json()
            if wanted(job):
                return job
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"job {job_id} did not get there:\n{self.log()[-5000:]}")

    def _signal(self, number: int) -> int:
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(number)
        status = self._process.wait(END_SECONDS)
        self._process = None
        return status


def _has_ended(job: dict[str, Any]) -> bool:
    return job["status"] in ("completed", "failed")
