"""A service in a process of its own, started and timed: what the benchmarks of the service measure."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from tests.running import ROOT, free_port

START_SECONDS_MAX: Final = 60.0
END_SECONDS_MAX: Final = 60.0
ANSWER_SECONDS_MAX: Final = 120.0
POLL_SECONDS: Final = 0.002


class Box:
    """`zsky-box serve` over a data folder with an owner, from `start` to `stop`; settings by their names.

    `command` is run as `python -m COMMAND DATA PORT` where it is not the service itself.
    """

    def __init__(self, folder: Path, key: str, *, command: tuple[str, ...] = (), **settings: object) -> None:
        self.folder = folder
        self.key = key
        self.port = free_port()
        self._command = command
        self._settings = {"free_space_floor_bytes": 0, "devices": "cpu", **settings}
        self._log = folder.with_name(f"{folder.name}.log")

    def __enter__(self) -> Box:
        self.start()
        self.wait_for("/healthz" if self._command else "/readyz")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The parent's process id."""
        return self._process.pid

    def start(self) -> None:
        """Start the process; the clock of `wait_for` begins."""
        service = ["zsky_box", "--data", str(self.folder), "serve", "--port", str(self.port)]
        arguments = [*self._command, str(self.folder), str(self.port)] if self._command else service
        settings = {f"ZSKY_{name.upper()}": str(value) for name, value in self._settings.items()}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
        with self._log.open("ab") as log:
            self._began = time.perf_counter()
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments], env=environment, stdout=log, stderr=log, cwd=ROOT
            )

    def wait_for(self, path: str) -> float:
        """Seconds from the start until the path answers 200; raises RuntimeError with the log where it never does."""
        until = self._began + START_SECONDS_MAX
        while time.perf_counter() < until:
            if self._answers(path):
                return time.perf_counter() - self._began
            if self._process.poll() is not None:
                break
            time.sleep(POLL_SECONDS)
        raise RuntimeError(f"the box did not answer {path}:\n{self._log.read_text(errors='replace')[-4000:]}")

    def age_seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._began

    def _answers(self, path: str) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                return connection.recv(64).startswith(b"HTTP/1.1 200 ")
        except OSError:
            return False

    def resident_mib(self) -> float:
        """Resident memory of the parent alone, in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def stop(self) -> None:
        """SIGTERM; raises RuntimeError where the box does not leave in peace."""
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        if status not in (0, -signal.SIGTERM):
            raise RuntimeError(f"the box left with {status}:\n{self._log.read_text(errors='replace')[-4000:]}")


class Client:
    """One kept-alive connection with a key."""

    def __init__(self, box: Box) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", box.port, timeout=ANSWER_SECONDS_MAX)
        self._headers = {"X-API-Key": box.key, "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer's JSON; raises RuntimeError for anything but success."""
        self._connection.request(method, path, None if body is None else json.dumps(body).encode(), self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"{method} {path} answered {answer.status}: {content.decode(errors='replace')}")
        return json.loads(content)

    def submit(self, **body: object) -> str:
        """Ask for a job; returns its id."""
        return str(self.call("POST", "/v1/generate", body)["job_id"])

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


class Ends:
    """The account's event stream, listened to for the ends of jobs."""

    def __init__(self, box: Box) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", box.port, timeout=ANSWER_SECONDS_MAX)
        self._connection.request("GET", "/v1/events", headers={"X-API-Key": box.key})
        self._stream = self._connection.getresponse()
        if self._stream.status != http.HTTPStatus.OK:
            raise RuntimeError(f"/v1/events answered {self._stream.status}")
        while not self._stream.readline().startswith(b"event: snapshot"):
            pass

    def wait_for(self, job_id: str) -> dict[str, Any]:
        """The whole job as the stream tells it at its end; raises RuntimeError when it failed or the stream ended."""
        while line := self._stream.readline():
            if line.startswith(b"data: {"):
                job: dict[str, Any] = json.loads(line[6:])
                if job.get("job_id") == job_id and job["status"] in ("completed", "failed"):
                    if job["status"] == "failed":
                        raise RuntimeError(f"{job_id} failed: {job['error']}")
                    return job
        raise RuntimeError("the event stream ended")

    def __enter__(self) -> Ends:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
