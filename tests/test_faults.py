"""Faults acted out in the worker of a whole running box: each has its typed end and its right charge, and others go on.

All faults are asked for at once, in one box with three devices and short patience; each test then looks at its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
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

SLOW = {"type": "video", "prompt": "double:slow_steps", "duration": 1}


class Faulty:
    """The box, a client, and the job of each fault."""

    def __init__(self, box: RunningBox, client: httpx.Client) -> None:
        self.box = box
        self.client = client
        self.jobs = {name: self.ask("image", f"double:{name}") for name in FAULTS}
        self.half = self.ask("image", "double:fails_second_image", n=2)
        self.gap = self.ask("image", "double:invalid_second_image", n=3)

    def ask(self, kind: str, prompt: str, **fields: Any) -> str:
        answer = self.client.post("/v1/generate", json={"type": kind, "prompt": prompt, **fields})
        assert answer.status_code == 202, answer.text
        return answer.json()["job_id"]

    def ended(self, job_id: str) -> dict[str, Any]:
        return self.box.ended(self.client, job_id)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Generator[Faulty]:
    folder = tmp_path_factory.mktemp("faults") / "data"
    options: dict[str, Any] = {
        "devices": "cpu,cpu,cpu",
        "worker_silence_timeout_seconds": 8,
        "worker_cancel_timeout_seconds": 2,
        "job_timeout_seconds": 20,
        "worker_restarts_max": 1000,
        "worker_restart_window_seconds": 0.01,  # no device rests, whatever happens on it
    }
    with running(folder, **options) as box, box.client() as client:
        made = Faulty(box, client)
        yield made
        assert box.stop() == 0
    invariants.check(folder, set(made.jobs.values()), at_rest=True)


def test_other_jobs_are_served_while_faults_happen(faulty: Faulty) -> None:
    """Those of test keys have a child of their own, which no fault of a live job reaches."""
    with faulty.box.client("test") as client:
        for number in range(3):
            asked = client.post("/v1/generate", json={"type": "image", "prompt": f"slate {number}"}).json()
            assert faulty.box.ended(client, asked["job_id"])["status"] == "completed"


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_its_typed_end_and_its_right_charge(faulty: Faulty, name: str) -> None:
    fault, job = FAULTS[name], faulty.ended(faulty.jobs[name])
    ended = job["status"], job["error_code"], job["charge"]["state"]
    assert ended == ("failed", fault.code, fault.charge), job["error"]
    assert fault.told in job["error"]
    assert "Traceback" not in job["error"]
    assert "result_url" not in job


@pytest.mark.parametrize("name", FAULTS)
def test_what_may_pass_by_itself_is_tried_again_once_and_nothing_else(faulty: Faulty, name: str) -> None:
    faulty.ended(faulty.jobs[name])
    assert attempts(faulty, name) == FAULTS[name].attempts


def attempts(faulty: Faulty, name: str) -> int:
    """How often a worker was given the job: each one is told by a claim."""
    with closing(sqlite3.connect(f"{(faulty.box.folder / 'ledger.db').as_uri()}?mode=ro", uri=True)) as ledger:
        return ledger.execute("SELECT attempts FROM job WHERE id = ?", (faulty.jobs[name],)).fetchone()[0]


def test_images_that_succeeded_are_kept_and_the_others_are_not_charged(faulty: Faulty) -> None:
    job = faulty.ended(faulty.half)
    assert (job["status"], len(job["results"])) == ("completed", 1)
    assert job["charge"]["state"] == "posted"
    assert (job["charge"]["units"], job["charge"]["included_units"]) == (2, 1)
    assert any("1 of 2 images failed" in note for note in job["notes"])


def test_images_behind_one_that_failed_are_made_and_charged(faulty: Faulty) -> None:
    job = faulty.ended(faulty.gap)
    assert (job["status"], len(job["results"])) == ("completed", 2)
    assert [result["seed"] - job["seed"] for result in job["results"]] == [0, 2]
    assert (job["charge"]["state"], job["charge"]["included_units"]) == ("posted", 2)
    assert "1 of 3 images failed. The double's second image is not one." in job["notes"]


def test_every_device_serves_again_after_the_faults(faulty: Faulty) -> None:
    for job_id in (*faulty.jobs.values(), faulty.half, faulty.gap):
        faulty.ended(job_id)
    faulty.box.wait_for("/readyz")
    for job_id in [faulty.ask("image", f"after all faults, {number}") for number in range(6)]:
        assert faulty.ended(job_id)["status"] == "completed"


def test_a_running_job_is_cancelled_within_two_steps_and_charged_for_the_work(faulty: Faulty) -> None:
    job_id = faulty.ask("video", "double:slow_steps", duration=1)
    faulty.box.until(faulty.client, job_id, has_denoised)
    assert faulty.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    asked = faulty.client.get(f"/v1/job_status/{job_id}").json()
    job = faulty.ended(job_id)
    assert (job["error_code"], job["charge"]["state"]) == ("cancelled", "posted")
    # A step is 1/200 of the denoising, which is three quarters of the progress. A loaded machine may fit in a few more.
    assert job["progress"] - asked["progress"] < 20 * 0.75 / 200
    assert faulty.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 409


def test_a_job_that_is_not_done_by_its_deadline_is_void(faulty: Faulty) -> None:
    job = faulty.ended(faulty.ask("video", "double:slow_steps", duration=1, deadline=0.6))
    assert (job["error_code"], job["charge"]["state"]) == ("deadline_exceeded", "voided")
    assert job["progress"] < 0.5, "it takes a minute in all"


def has_denoised(job: dict[str, Any]) -> bool:
    return job["progress"] > 0.05


def is_running(job: dict[str, Any]) -> bool:
    return job["status"] == "running"


# Boxes with settings of their own


def test_a_job_that_has_not_begun_by_its_start_deadline_is_void(tmp_path: Path) -> None:
    with running(tmp_path / "data") as box, box.client() as client:
        slow = client.post("/v1/generate", json=SLOW).json()["job_id"]
        box.until(client, slow, is_running)
        late = client.post("/v1/generate", json={"type": "image", "prompt": "late", "start_deadline": 0.3}).json()
        job = box.ended(client, late["job_id"])
        assert (job["error_code"], job["charge"]["state"]) == ("deadline_exceeded", "voided")
        assert job["started_at"] is None
        assert client.get(f"/v1/job_status/{slow}").json()["status"] == "running"
        client.post(f"/v1/jobs/{slow}/cancel")
        box.ended(client, slow)
        assert box.stop() == 0


def test_a_job_that_takes_longer_than_a_job_may_is_ended_and_void(tmp_path: Path) -> None:
    with running(tmp_path / "data", job_timeout_seconds=1) as box, box.client() as client:
        job_id = client.post("/v1/generate", json=SLOW).json()["job_id"]
        job = box.ended(client, job_id)
        assert (job["error_code"], job["charge"]["state"]) == ("gpu_timeout", "voided")
        box.wait_for("/readyz")
        assert box.stop() == 0


def test_a_device_whose_workers_keep_dying_is_quarantined_and_the_others_serve_on(tmp_path: Path) -> None:
    with (
        running(tmp_path / "data", worker_restarts_max=1) as box,
        box.client() as client,
        box.client("test") as test_client,
    ):
        deadly = client.post("/v1/generate", json={"type": "image", "prompt": "double:segfaults"}).json()["job_id"]
        assert box.ended(client, deadly)["charge"]["state"] == "voided"
        until(lambda: client.get("/readyz").status_code == 503, "the device is out")
        ready = client.get("/readyz")
        assert ready.json() == {"status": "quarantined", "quarantined": {"cpu": "It lost 2 workers in 300 s."}}
        assert int(ready.headers["retry-after"]) > 0
        waiting = client.post("/v1/generate", json={"type": "image", "prompt": "waits"}).json()["job_id"]
        free = test_client.post("/v1/generate", json={"type": "image", "prompt": "a slate"}).json()["job_id"]
        assert box.ended(test_client, free)["status"] == "completed"
        assert client.get(f"/v1/job_status/{waiting}").json()["status"] == "queued"
        box.stop()
        box.start()  # which gives the device another chance
        assert box.ended(client, waiting)["status"] == "completed"
        assert box.stop() == 0


def test_a_full_disk_refuses_new_jobs_and_charges_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "data", free_space_floor_bytes=2**62) as box, box.client() as client:
        answer = client.post("/v1/generate", json={"type": "image", "prompt": "no room"})
        assert answer.status_code == 503
        assert answer.json()["code"] == "storage_full"
        assert int(answer.headers["Retry-After"]) > 0
        assert client.get("/v1/jobs").json()["data"] == []
        assert box.stop() == 0


def test_without_ffmpeg_a_clip_fails_as_encode_failed_and_is_void(tmp_path: Path) -> None:
    with running(tmp_path / "data", double=False, ffmpeg="/nowhere/ffmpeg") as box, box.client() as client:
        body = {"type": "video", "prompt": "a slate", "model": "leader", "duration": 1, "resolution": "480p"}
        job = box.ended(client, client.post("/v1/generate", json=body).json()["job_id"])
        assert (job["status"], job["error_code"], job["charge"]["state"]) == ("failed", "encode_failed", "voided")
        still = {"type": "image", "prompt": "a slate", "model": "leader", "resolution": "480p"}
        job = box.ended(client, client.post("/v1/generate", json=still).json()["job_id"])
        assert job["status"] == "completed", "the worker goes on"
        assert box.stop() == 0
