"""A box that dies at a point; all its processes carry a mark, by which a test finds those that outlive it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tests import invariants
from tests.running import POLL_SECONDS, ROOT, START_SECONDS, RunningBox
from zsky_box import control
from zsky_box.api.access import CONTROL_HEADER

GONE_SECONDS = 60.0


class CrashingBox(RunningBox):
    """`settings` are added to those of every round; `days` is how far its clock is ahead."""

    def __init__(self, folder: Path, **settings: object) -> None:
        super().__init__(folder)
        self.mark = f"BOX_UNDER_TEST={secrets.token_hex(16)}"
        self.days = 0
        self._settings: dict[str, object] = {
            "devices": "cpu,cpu",
            "free_space_floor_bytes": 0,
            "included_images": 10**6,
            "included_videos": 10**6,
            "queue_open_per_account_max": 8,  # so that no round has a long tail
            "requests_per_second": 100_000,  # all that was asked is asked again at once
            "requests_burst": 10**6,
            "worker_restarts_max": 1000,
            "worker_restart_window_seconds": 1,
            **settings,
        }

    def launch(self, point: str = "never", count: int = 1) -> bool:
        """Start; False when it died before it answered."""
        name, _, value = self.mark.partition("=")
        command = [sys.executable, "-m", "tests.doubles.serve_and_die", str(self.folder), str(self.port), point]
        command += [str(count), str(self.days), *(f"{setting}={given}" for setting, given in self._settings.items())]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, "PYTHONPATH": str(ROOT), name: value}, stdout=log, stderr=log
            )
        give_up_at = time.monotonic() + START_SECONDS
        with self.client(None) as client:
            while not self.is_dead():
                assert time.monotonic() < give_up_at, self.log()[-5000:]
                try:
                    return client.get("/healthz").is_success
                except httpx.TransportError:
                    time.sleep(POLL_SECONDS)
        return False

    def is_dead(self) -> bool:
        """Whether its process has ended."""
        return self._process is None or self._process.poll() is not None

    def command(self, asked: control.Command) -> httpx.Response:
        """What the owner's terminal does while the service runs."""
        address = msgspec.json.decode((self.folder / control.FILE_NAME).read_bytes(), type=control.Address)
        headers = {CONTROL_HEADER: address.token}
        content: Any = msgspec.json.encode(asked)
        with self.client(None) as client:
            return client.post("/control", content=content, headers=headers)

    def assert_nothing_left(self) -> None:
        """The kernel ends the children of a killed service; that takes a moment, and no more."""
        give_up_at = time.monotonic() + GONE_SECONDS
        while left := invariants.processes_marked(self.mark):
            assert time.monotonic() < give_up_at, f"processes {left} outlived their service"
            time.sleep(0.01)
