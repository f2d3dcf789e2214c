from __future__ import annotations

from pathlib import Path

import pytest

from tests.boxes import running
from tests.cli.conftest import Run
from tests.running import RunningBox, make_owner
from zsky_box.control import Address


def test_jobs_are_listed_a_line_each_and_found_by_grep(run: Run, cli_box: RunningBox) -> None:
    with cli_box.client() as client:
        prompt = "a prompt [bold]of[/bold] many words, more than a column of a table holds,\nin two lines"
        job_id = client.post("/v1/generate", json={"type": "image", "prompt": prompt}).json()["job_id"]
        cli_box.ended(client, job_id)
    told = run("jobs", data=cli_box.folder)
    (line,) = [line for line in told.out.splitlines() if job_id in line]
    assert line.split()[:3] == [job_id, "image", "completed"]
    assert "a prompt [bold]of[/bold]" in line
    assert run("jobs", "--json", data=cli_box.folder).json["object"] == "list"


def test_a_job_is_shown_in_words_and_in_json(run: Run, cli_box: RunningBox) -> None:
    with cli_box.client() as client:
        body = {"type": "image", "prompt": "one", "seed": 5}
        job = cli_box.ended(client, client.post("/v1/generate", json=body).json()["job_id"])
    told = run("status", job["job_id"], data=cli_box.folder).out
    assert "completed" in told
    assert job["result_url"] in told
    assert "1 image, posted, $0.00" in told
    assert run("status", job["job_id"], "--json", data=cli_box.folder).json["job_id"] == job["job_id"]


def test_a_filter_and_a_limit(run: Run, cli_box: RunningBox) -> None:
    with cli_box.client() as client:
        for _ in range(2):
            answer = client.post("/v1/generate", json={"type": "image", "prompt": "double:safety_blocked"})
            cli_box.ended(client, answer.json()["job_id"])
    page = run("jobs", "--status", "failed", "--limit", "1", "--json", data=cli_box.folder).json
    assert [job["status"] for job in page["data"]] == ["failed"]
    told = run("jobs", "--status", "failed", "--limit", "1", data=cli_box.folder)
    assert len(told.out.splitlines()) == 2
    assert "older ones" in told.err
    assert run("jobs", "--limit", "0", data=cli_box.folder).status == 2


def test_a_waiting_job_is_cancelled_free_of_charge(run: Run, tmp_path: Path) -> None:
    with running(tmp_path / "data") as box, box.client() as client:
        slow = client.post("/v1/generate", json={"type": "video", "prompt": "double:slow_steps"}).json()["job_id"]
        waiting = client.post("/v1/generate", json={"type": "image", "prompt": "waits"}).json()["job_id"]
        told = run("cancel", waiting, "--json", data=box.folder).json
        assert (told["status"], told["error_code"], told["charge"]["state"]) == ("failed", "cancelled", "voided")
        assert "failed already" in run("cancel", waiting, data=box.folder).sentence
        run("cancel", slow, data=box.folder)


def test_no_job_yet_says_how_to_make_one(run: Run, tmp_path: Path) -> None:
    with running(tmp_path / "data", ready=False) as box:
        assert "zsky-box generate" in run("jobs", data=box.folder).out
        assert run("jobs", "--json", data=box.folder).json["data"] == []


@pytest.mark.parametrize("command", ["status", "cancel"])
@pytest.mark.parametrize("job_id", ["job_unknown", "../../etc/passwd", "job_3q9zkx…", ""])
def test_what_is_no_job_is_said_in_one_sentence(run: Run, cli_box: RunningBox, command: str, job_id: str) -> None:
    sentence = run(command, job_id, data=cli_box.folder).sentence
    assert "no such job" in sentence.lower() or "not a job's id" in sentence


COMMANDS = [["jobs"], ["status", "job_1"], ["cancel", "job_1"], ["generate", "x"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_without_a_service_a_command_says_what_to_start(run: Run, tmp_path: Path, command: list[str]) -> None:
    assert "zsky-box init" in run(*command, data=tmp_path / "none").sentence
    make_owner(tmp_path / "data")
    assert "zsky-box serve" in run(*command, data=tmp_path / "data").sentence


def test_after_a_crash_no_stranger_is_taken_for_the_box(run: Run, cli_box: RunningBox, tmp_path: Path) -> None:
    """The port that a killed service has left in its note may belong to another program, or another box, by then."""
    import msgspec

    make_owner(tmp_path / "data")
    note = tmp_path / "data" / "control.json"
    note.write_bytes(msgspec.json.encode(Address(f"{cli_box.url}/static", "token", 1)))
    assert "zsky-box serve" in run("jobs", data=tmp_path / "data").sentence
    note.write_bytes(msgspec.json.encode(Address(cli_box.url, "a token of an earlier start", 1)))
    assert "not valid" in run("jobs", data=tmp_path / "data").sentence
    note.write_text("{")
    assert "control.json" in run("jobs", data=tmp_path / "data").sentence


def test_models_are_listed_with_and_without_a_service(run: Run, cli_box: RunningBox, tmp_path: Path) -> None:
    for data in (cli_box.folder, tmp_path):
        models = run("models", "list", "--json", data=data).json["data"]
        assert {model["id"]: model["installed"] for model in models}["leader"] is True
        assert "leader" in run("models", "list", data=data).out
