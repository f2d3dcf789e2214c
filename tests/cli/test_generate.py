from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from tests.boxes import add_models, running
from tests.cli.conftest import Run, clean_environment
from tests.media.pictures import corners, encoded
from tests.running import RunningBox
from tests.waiting import until

BOUND_SECONDS = 60


def test_it_saves_the_file_and_prints_its_path_alone(run: Run, cli_box: RunningBox, tmp_path: Path) -> None:
    told = run("generate", "a red fox", "--type", "image", "--out", "fox.png", data=cli_box.folder)
    assert told.status == 0
    assert told.out == f"{tmp_path / 'fox.png'}\n"
    assert (tmp_path / "fox.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["fox.png"], "nothing half is left beside it"


def test_without_out_the_file_is_named_for_its_prompt_and_seed(run: Run, cli_box: RunningBox, tmp_path: Path) -> None:
    told = run("generate", "A red, red fox!", "--type", "image", "--seed", "7", "--json", data=cli_box.folder)
    job = told.json
    assert Path(job["path"]).parent == tmp_path
    assert Path(job["path"]).name == "a-red-red-fox-7-1.png"
    assert sha256(Path(job["path"]).read_bytes()).hexdigest() == job["result"]["sha256"]
    assert job["seed"] == 7
    assert told.err == ""


def test_video_is_the_default(run: Run, cli_box: RunningBox, tmp_path: Path) -> None:
    told = run("generate", "waves", "--duration", "1", "--resolution", "480p", "--json", data=cli_box.folder)
    assert told.json["type"] == "video"
    assert told.json["result"]["mime"] == "video/mp4"
    assert Path(told.json["path"]).is_relative_to(tmp_path)


def test_a_missing_folder_is_said_before_anything_is_charged(run: Run, cli_box: RunningBox) -> None:
    before = run("jobs", "--json", data=cli_box.folder).out
    told = run("generate", "x", "--type", "image", "--out", "no/such/folder/x.png", data=cli_box.folder)
    assert "no/such/folder" in told.sentence
    assert run("jobs", "--json", data=cli_box.folder).out == before


def test_a_folder_is_no_file_to_save_to(run: Run, cli_box: RunningBox, tmp_path: Path) -> None:
    told = run("generate", "x", "--type", "image", "--out", str(tmp_path), data=cli_box.folder)
    assert told.status == 2
    assert "is a directory" in told.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model", "no-such-model"], "not installed"),
        (["--duration", "99999"], "duration"),
        (["--resolution", "8k"], "resolution"),
        (["--aspect-ratio", "2:1"], "aspect_ratio"),
        (["--type", "image", "--duration", "3"], "duration"),
    ],
)
def test_what_the_box_refuses_is_said_in_its_own_words(
    run: Run, cli_box: RunningBox, options: list[str], told: str
) -> None:
    assert told in run("generate", "x", *options, data=cli_box.folder).sentence


@pytest.mark.parametrize("options", [["--type", "sculpture"], ["--seed", "-1"], ["--duration", "long"], ["--colour"]])
def test_a_bad_option_is_a_usage_error(run: Run, cli_box: RunningBox, options: list[str]) -> None:
    told = run("generate", "x", *options, data=cli_box.folder)
    assert told.status == 2
    assert "`zsky-box generate --help` tells more." in told.sentence


def test_a_job_that_fails_says_why_and_saves_nothing(run: Run, cli_box: RunningBox, tmp_path: Path) -> None:
    sentence = run("generate", "double:safety_blocked", "--type", "image", data=cli_box.folder).sentence
    assert "will not make this" in sentence
    assert "safety_blocked" in sentence
    assert list(tmp_path.iterdir()) == []
    told = run("generate", "double:safety_blocked", "--type", "image", "--json", data=cli_box.folder)
    assert told.status == 1
    assert told.json["error_code"] == "safety_blocked", "a script reads the whole job"


def test_ctrl_c_cancels_the_job(cli_box: RunningBox, tmp_path: Path) -> None:
    """As in a terminal, where the whole foreground group gets the signal."""
    with cli_box.client() as client, started(cli_box.folder, tmp_path, "double:slow_steps") as command:
        job_id = running_job(cli_box, "double:slow_steps")
        command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=BOUND_SECONDS)
        assert command.returncode == 130
        assert "Traceback" not in err
        assert f"Cancelled {job_id}" in err
        assert cli_box.ended(client, job_id)["error_code"] == "cancelled"


def started(data: Path, folder: Path, prompt: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "zsky_box", "--data", str(data), "generate", prompt],
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def running_job(box: RunningBox, prompt: str) -> str:
    with box.client() as client:

        def seen() -> str:
            jobs = client.get("/v1/jobs", params={"status": "running"}).json()["data"]
            return next((job["job_id"] for job in jobs if job["prompt"] == prompt and job["progress"] > 0.05), "")

        return until(seen, f"{prompt} runs")


def test_a_box_that_goes_away_leaves_word_of_the_job(tmp_path: Path) -> None:
    with running(tmp_path / "data") as box, started(box.folder, tmp_path, "double:slow_steps") as command:
        job_id = running_job(box, "double:slow_steps")
        box.kill()
        _, err = command.communicate(timeout=BOUND_SECONDS)
        assert command.returncode == 1
        assert f"zsky-box status {job_id}" in err
        assert "Traceback" not in err


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_sees_a_bar_and_colour_only_where_it_is_wanted(
    cli_box: RunningBox, tmp_path: Path, environment: dict[str, str], coloured: bool
) -> None:
    master, terminal = pty.openpty()
    command = subprocess.Popen(
        [sys.executable, "-m", "zsky_box", "--data", str(cli_box.folder), "generate", "double:slow_steps"],
        cwd=tmp_path,
        env=clean_environment(TERM="xterm-256color", COLUMNS="100", **environment),
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    give_up_at = time.monotonic() + BOUND_SECONDS
    while b"denoising" not in shown:
        assert time.monotonic() < give_up_at, shown
        shown += os.read(master, 65536)
    command.send_signal(signal.SIGINT)
    assert command.communicate(timeout=BOUND_SECONDS)[0] == b""
    os.close(master)
    assert b"%" in shown
    assert (b"\x1b[38;5;" in shown or b"\x1b[35m" in shown or b"\x1b[1" in shown) == coloured


def test_a_refusal_in_json_mode_keeps_stdout_for_json(run: Run, cli_box: RunningBox) -> None:
    told = run("generate", "x", "--model", "no-such-model", "--json", data=cli_box.folder)
    assert "no-such-model" in told.sentence
    assert told.out == ""


def test_a_picture_is_uploaded_first_and_the_job_begins_with_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shot.jpg").write_bytes(encoded(corners(), "JPEG"))
    folder = tmp_path / "data"
    add_models(folder)
    with running(folder) as box:
        asked = ["generate", "waves", "--model", "beginner", "--duration", "1", "--image", "shot.jpg"]
        told = run(*asked, "--strength", "0.4", "--json", data=box.folder)
        assert "begins with RGB 64x48 at 0.4" in told.json["notes"]
        assert told.json["reference"].startswith("up_")
        (tmp_path / "shot.jpg").write_bytes(b"GIF89a")
        assert "send a PNG, JPEG or WebP" in run(*asked, data=box.folder).sentence
        assert "cannot be read" in run(*asked[:-1], "no-such.png", data=box.folder).sentence
        assert len(run("jobs", "--json", data=box.folder).json["data"]) == 1
