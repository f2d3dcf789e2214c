"""Training: the same seed trains the same weights, also when it was killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts.mini.legs import averages
from scripts.mini.train import CODECS, main
from zsky_box.pipelines.mini_model import MiniModel
from zsky_box.settings import CHECKOUT

pytestmark = pytest.mark.timeout(1_800)


def order(folder: Path, *more: str) -> list[str]:
    return ["--recipe", "test", "--folder", str(folder), "--threads", "1", *more]


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "scripts.mini.train", *order(folder)]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    output = process.communicate(timeout=900)[0]
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
    run = json.loads((trained / "runs.jsonl").read_text().splitlines()[0])
    assert run["torch"] == torch.__version__
    assert len(run["world"]) == 64
    assert (run["seed"], run["threads"]) == (1, 1)


def test_a_leg_out_of_time_stops_and_the_next_goes_on_as_if_it_had_not(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Legs of a step each, in this process: most of a short leg is the start of its own.
    monkeypatch.setattr("sys.argv", ["train", *order(tmp_path, "--minutes", "0")])
    legs = 0
    while "The model is in" not in capsys.readouterr().out:
        assert legs < 40, "forty legs of a step each did not finish the training"
        with torch.random.fork_rng():
            torch.manual_seed(legs)  # what an earlier leg has drawn is no use to the next
            main()
        legs += 1
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
        assert process.wait(timeout=120) == -signal.SIGKILL
    finish(start(tmp_path))
    assert_same(tmp_path, trained)


def assert_same(one: Path, other: Path) -> None:
    """All weights are equal to the bit."""
    for stage in (*CODECS, "flow"):
        first, second = (averages(folder / f"{stage}.pt") for folder in (one, other))
        assert first[1] == second[1]
        for name, value in first[0].items():
            assert torch.equal(value, second[0][name]), (stage, name)
