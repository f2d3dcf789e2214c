"""What the API's tests ask and expect again and again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.running import ROOT, RunningBox
from zsky_box import keys, secretfile
from zsky_box.clock import system_clock
from zsky_box.db import Store

PROBLEM = "application/problem+json"
IMAGE: dict[str, Any] = {"type": "image", "prompt": "an espresso bar at golden hour", "resolution": "480p"}
VIDEO: dict[str, Any] = {"type": "video", "prompt": "a neon night market", "resolution": "480p", "duration": 1}
SLOW: dict[str, Any] = {**VIDEO, "prompt": "double:slow_steps"}


def problem(answer: httpx.Response, status: int, code: str, field: str | None = None) -> dict[str, Any]:
    """Check that an answer is the refusal it should be, in RFC 9457's shape; returns its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    body: dict[str, Any] = answer.json()
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["type"] == f"urn:zsky-box:problem:{code}"
    assert body["title"]
    assert body["detail"].strip()
    assert "Traceback" not in answer.text
    assert body["request_id"] == answer.headers["x-request-id"]
    if field is not None:
        assert body["field"] == field, body
    if status == 429:
        assert int(answer.headers["retry-after"]) > 0
    return body


def submit(client: httpx.Client, body: dict[str, Any], **headers: str) -> str:
    """Submit what is to be accepted; returns the job's id."""
    answer = client.post("/v1/generate", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def made(box: RunningBox, client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """Submit and wait: the completed job."""
    job = box.ended(client, submit(client, body))
    assert job["status"] == "completed", job
    return job


def runs(job: dict[str, Any]) -> bool:
    """Whether a job has begun."""
    return job["status"] == "running"


def denoises(job: dict[str, Any]) -> bool:
    """Whether a running job's first step is stored."""
    return job["phase"] == "denoising" and job["progress"] > 0.05


def newest_id(client: httpx.Client) -> str | None:
    """The newest job's id, or None."""
    data = client.get("/v1/jobs", params={"limit": 1}).json()["data"]
    return data[0]["job_id"] if data else None


@contextmanager
def nothing_happens(client: httpx.Client) -> Generator[None]:
    """What is asked within stores nothing and charges nothing."""
    before = newest_id(client), units_left(client)
    yield
    assert (newest_id(client), units_left(client)) == before


def units_left(client: httpx.Client) -> dict[str, int]:
    """What new jobs can still take; jobs that complete meanwhile do not change it."""
    included = client.get("/v1/me").json()["included"]
    return {kind: units["left"] for kind, units in included.items()}


def command(folder: Path, *arguments: str) -> dict[str, Any]:
    """One `zsky-box` command with `--json`, in a process of its own, as the owner gives it."""
    done = subprocess.run(
        [sys.executable, "-m", "zsky_box", "--data", str(folder), *arguments, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def add_member(folder: Path, name: str) -> str:
    """Another person's account with a live key, while the box is stopped; returns the secret."""
    now, secrets, store = system_clock(), secretfile.load(folder), Store(folder)
    try:

        def work(tx: Any) -> str:
            tx.execute(
                "INSERT INTO account (id, name, role, plan, created_at) VALUES (?, ?, 'member', 'max', ?)",
                (f"acc_{name}", name, now),
            )
            return keys.issue(tx, secrets.pepper, f"acc_{name}", now=now, actor="test")[1]

        return store.write(work)
    finally:
        store.close()


class Told:
    """One message of an event stream."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.kind = fields.get("event", "")
        self.id = fields.get("id", "")
        self.data: Any = json.loads(fields["data"]) if "data" in fields else None


def told(answer: httpx.Response) -> Iterator[Told]:
    """The messages of an event stream as the standard reads them; comments are skipped."""
    assert answer.status_code == 200, answer.read()
    assert answer.headers["content-type"].startswith("text/event-stream")
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        else:
            if "data" in fields:
                yield Told(fields)
            fields = {}
