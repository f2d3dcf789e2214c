"""Each fault, two hundred times over: every job that meets it ends as it must, and all else goes on as if it were not.

For each fault one whole box of its own, with more devices than cores, since most of them only wait.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import invariants
from tests.boxes import running
from tests.faults import FAULTS
from tests.running import RunningBox
from tests.waiting import until

RUNS = 200
FIRST_RUNS = 20
HEALTHY_EVERY = 10
"""So many faults to one job of a live key and one of a test key that have nothing to do with them."""
DEVICES = 6
MARK = "BOX_OF_A_CAMPAIGN"
OPEN_FILES_MORE_MAX = 10
QUIET_SECONDS = 60.0
END_SECONDS = 1_500.0
HEALTHY: dict[str, Any] = {"type": "image", "prompt": "in the midst of it"}
# Quick to fall silent, and never quarantined: this is about the jobs.
OPTIONS: dict[str, Any] = {
    "devices": ",".join(["cpu"] * DEVICES),
    "included_images": 10**6,
    "worker_silence_timeout_seconds": 6,
    "worker_cancel_timeout_seconds": 2,
    "job_timeout_seconds": 10,
    "worker_restarts_max": 1_000,
    "worker_restart_window_seconds": 0.01,
    "requests_per_second": 100_000,
    "requests_burst": 10**6,
    "test_queue_open_max": 1_000,
}


class Campaign:
    """One box under one fault: `faulty`, `live` and `test` are the jobs, in the order in which they were asked for."""

    def __init__(self, box: RunningBox, client: httpx.Client, tester: httpx.Client, name: str) -> None:
        self.box, self.client, self.tester = box, client, tester
        self.body = {"type": "image", "prompt": f"double:{name}"}
        self.faulty: list[str] = []
        self.live: list[str] = []
        self.test: list[str] = []

    def go_on(self, runs: int) -> None:
        """Ask for so many faults, with other jobs between them, and see all of them to their end."""
        for number in range(runs):
            self.faulty.append(asked(self.client, self.body))
            if number % HEALTHY_EVERY == 0:
                self.live.append(asked(self.client, HEALTHY))
                self.test.append(asked(self.tester, HEALTHY))
        until(lambda: not self.are_open(), "all jobs have ended", bound_seconds=END_SECONDS, every_seconds=0.2)

    def are_open(self) -> bool:
        """Whether any job is queued or running."""
        return any(
            client.get("/v1/jobs", params={"status": status, "limit": 1}).json()["data"]
            for client in (self.client, self.tester)
            for status in ("queued", "running")
        )

    def ends(self, client: httpx.Client, job_ids: list[str]) -> Counter[tuple[str, str | None, str]]:
        """How the jobs ended and what was charged, each end with how many came to it."""
        jobs = [client.get(f"/v1/job_status/{job_id}").json() for job_id in job_ids]
        return Counter((job["status"], job.get("error_code"), job["charge"]["state"]) for job in jobs)

    def attempts(self) -> Counter[int]:
        """How often the faulty jobs were begun, each with how many of them."""
        with closing(sqlite3.connect(f"{(self.box.folder / 'ledger.db').as_uri()}?mode=ro", uri=True)) as ledger:
            rows = ledger.execute("SELECT attempts FROM job WHERE id IN (SELECT value FROM json_each(?))", [ids(self)])
            return Counter(row[0] for row in rows)

    def open_files(self) -> int:
        """Descriptors that the service holds, once it has nothing to do and all its workers are up."""
        processes = DEVICES + 2  # the service, a worker of each device, and the one of the test jobs
        until(
            lambda: len(invariants.processes_marked(MARK_VALUE)) == processes,
            "the workers are up",
            bound_seconds=QUIET_SECONDS,
            every_seconds=0.2,
        )
        self.box.wait_for("/readyz")
        return len(list(Path(f"/proc/{self.box.pid}/fd").iterdir()))


MARK_VALUE = f"{MARK}={secrets.token_hex(16)}"


def ids(campaign: Campaign) -> str:
    """The faulty jobs as a JSON list."""
    return "[" + ",".join(f'"{job_id}"' for job_id in campaign.faulty) + "]"


def asked(client: httpx.Client, body: dict[str, Any]) -> str:
    """Submit; the job's id."""
    answer = client.post("/v1/generate", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


@pytest.mark.campaign
@pytest.mark.timeout(2 * END_SECONDS)
@pytest.mark.parametrize("name", FAULTS)
def test_every_one_of_many_faults_comes_to_its_end_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fault, began = FAULTS[name], time.monotonic()
    monkeypatch.setenv(MARK, MARK_VALUE.partition("=")[2])
    with (
        running(tmp_path / "data", ready=False, **OPTIONS) as box,
        box.client() as client,
        box.client("test") as tester,
    ):
        campaign = Campaign(box, client, tester, name)
        campaign.go_on(FIRST_RUNS)
        open_files = campaign.open_files()
        campaign.go_on(RUNS - FIRST_RUNS)
        more_files = campaign.open_files() - open_files
        ends, attempts = campaign.ends(client, campaign.faulty), campaign.attempts()
        told = f"{dict(ends)}, attempts {dict(attempts)}, {more_files:+d} files, {time.monotonic() - began:.0f} s"
        print(f"\n{name}: {told}")
        assert ends == {("failed", fault.code, fault.charge): RUNS}
        assert attempts == {fault.attempts: RUNS}
        assert campaign.ends(client, campaign.live) == {("completed", None, "posted"): len(campaign.live)}
        assert {status for status, _, _ in campaign.ends(tester, campaign.test)} == {"completed"}
        assert more_files <= OPEN_FILES_MORE_MAX
        assert box.stop() == 0
    assert invariants.processes_marked(MARK_VALUE) == []
    invariants.check(tmp_path / "data", {*campaign.faulty, *campaign.live, *campaign.test}, at_rest=True)
