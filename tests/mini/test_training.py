"""Training: the same seed trains the same weights, also when it was killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from scripts.mini.legs import OutOfTime, averages
from scripts.mini.train import CODECS, RECIPES, run
from zsky_box.pipelines.mini_model import MiniModel
from zsky_box.settings import CHECKOUT

pytestmark = pytest.mark.timeout(600)


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-u",
        "-m",
        "scripts.mini.train",
        "--recipe",
        "test",
        "--folder",
        str(folder),
        "--threads",
        "1",
    ]
    return subprocess.Popen([*command, *more], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0
    return output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    finish(start(folder))
    return folder


def test_one_command_makes_a_model(trained: Path) -> None:
    model = MiniModel.from_folder(trained / "model")
    assert model.words.read("a big ball").understood == {"kind": "ball", "size": "big"}
    stages = {json.loads(line)["stage"] for line in (trained / "log.jsonl").read_text().splitlines()}
    assert stages == {*CODECS, "flow"}


def test_it_records_what_it_ran_on(trained: Path) -> None:
    row = json.loads((trained / "runs.jsonl").read_text().splitlines()[0])
    assert row["torch"] == torch.__version__
    assert len(row["world"]) == 64
    assert (row["seed"], row["threads"]) == (1, 1)


def test_a_leg_out_of_time_stops_and_the_next_goes_on_as_if_it_had_not(trained: Path, tmp_path: Path) -> None:
    legs = 0
    while True:
        legs += 1
        assert legs < 40, "forty legs of a step each did not finish the training"
        try:
            run(RECIPES["test"], 1, tmp_path, time.monotonic(), (*CODECS, "flow"))
        except OutOfTime:
            continue
        break
    assert legs > len(CODECS)
    assert_same(tmp_path, trained)


def test_a_kill_at_any_line_of_the_log_changes_nothing(trained: Path, tmp_path: Path) -> None:
    for stage in ("words", "seeing", "flow"):
        process = start(tmp_path)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(f"stage {stage}"):
                os.kill(process.pid, signal.SIGKILL)
                break
        process.stdout.close()
        assert process.wait(timeout=60) == -signal.SIGKILL
    finish(start(tmp_path))
    assert_same(tmp_path, trained)


def assert_same(one: Path, other: Path) -> None:
    """All weights are equal to the bit."""
    for stage in (*CODECS, "flow"):
        first, second = (averages(folder / f"{stage}.pt") for folder in (one, other))
        assert first[1] == second[1]
        for name, value in first[0].items():
            assert torch.equal(value, second[0][name]), (stage, name)
