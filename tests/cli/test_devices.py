from __future__ import annotations

from pathlib import Path

import pytest

from tests.boxes import running
from tests.cli.conftest import Run
from tests.running import make_owner
from tests.waiting import until


def test_a_paused_box_queues_jobs_up_and_says_why_they_ran_once_it_is_resumed(run: Run, tmp_path: Path) -> None:
    with running(tmp_path / "data") as box, box.client() as client:
        assert "cpu takes no jobs since" in run("pause", "cpu", data=box.folder).out
        job_id = client.post("/v1/generate", json={"type": "image", "prompt": "waits"}).json()["job_id"]

        def told() -> str:
            return run("status", job_id, "--why", data=box.folder).out

        until(lambda: "It waits: all devices are paused." in told(), "the scheduler has heard of the pause")
        assert "queued" in told()
        assert client.get(f"/v1/job_status/{job_id}").json()["status"] == "queued"
        assert "All devices take jobs" in run("resume", "cpu", data=box.folder).out
        assert box.ended(client, job_id)["status"] == "completed"
        why = run("status", job_id, "--why", "--json", data=box.folder).json["decisions"]
        (decision,) = why["data"]
        assert decision["device"]
        assert "cpu is where it is done soonest" in decision["why"]
        assert why["waits"] is None
        assert decision["why"] in run("status", job_id, "--why", data=box.folder).out
        assert client.get(f"/v1/jobs/{job_id}/decisions").json() == {"object": "list", **why} | {"data": [decision]}
        assert client.get("/v1/jobs/job_unknown/decisions").status_code == 404


def test_an_unloaded_device_gives_its_job_back_uncharged_and_runs_it_again_later(run: Run, tmp_path: Path) -> None:
    with running(tmp_path / "data") as box, box.client() as client:
        body = {"type": "video", "prompt": "double:slow_steps", "resolution": "480p", "duration": 1}
        job_id = client.post("/v1/generate", json=body).json()["job_id"]
        box.until(client, job_id, lambda job: job["phase"] == "denoising")
        assert "the memory is free" in run("unload", data=box.folder).out
        job = box.until(client, job_id, lambda job: job["status"] == "queued")
        assert job["charge"]["state"] == "reserved"
        told = run("resume", "cpu", data=box.folder).sentence
        assert "All devices are paused together" in told
        run("resume", data=box.folder)
        box.until(client, job_id, lambda job: job["status"] == "running")
        run("cancel", job_id, data=box.folder)


@pytest.mark.parametrize("device", ["cuda", "gpu0", "1x", "cuda:12345"])
def test_what_is_no_device_is_said_in_one_sentence(run: Run, tmp_path: Path, device: str) -> None:
    make_owner(tmp_path / "data")
    assert "no device" in run("pause", device, data=tmp_path / "data").sentence


def test_a_device_that_the_running_box_has_not_is_refused(run: Run, tmp_path: Path) -> None:
    with running(tmp_path / "data", ready=False) as box:
        assert "it has cpu" in run("pause", "3", data=box.folder).sentence


def test_a_pause_is_kept_while_no_service_runs(run: Run, tmp_path: Path) -> None:
    make_owner(tmp_path / "data")
    run("unload", "0", data=tmp_path / "data")
    page = run("pause", "0", "--json", data=tmp_path / "data").json
    assert [(pause["device"], pause["unloaded"]) for pause in page["data"]] == [("cuda:0", True)]
