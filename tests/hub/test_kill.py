"""`kill -9` of the real command at any byte: the same command then fetches what is missing, and nothing else."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

from scripts.tiny_models import cached
from tests.cli.conftest import clean_environment
from tests.doubles.hub import HubDouble, a_hub, files_of
from tests.hub.checkpoint import TINY_REPOSITORY, write_manifest
from zsky_box.install.stock import compare

BOUND_SECONDS: Final = 120.0
FILES: Final = files_of(cached("tiny-klein"))
TOTAL: Final = sum(map(len, FILES.values()))
SMALL: Final = sum(len(content) for path, content in FILES.items() if not path.endswith(".safetensors"))


@pytest.fixture
def hub() -> Generator[HubDouble]:
    with a_hub(TINY_REPOSITORY, FILES) as double:
        yield double


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder whose manifests name the repository."""
    write_manifest(tmp_path / "data")
    return tmp_path / "data"


def started(data: Path, hub: HubDouble) -> subprocess.Popen[str]:
    """The command as a script runs it."""
    command = [sys.executable, "-m", "zsky_box", "--data", str(data), "models", "install", "tiny-klein"]
    return subprocess.Popen(
        [*command, "--accept-licence", "--json"],
        env=clean_environment(ZSKY_HUB_URL=hub.url, ZSKY_FREE_SPACE_FLOOR_BYTES="0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(data: Path, hub: HubDouble) -> dict[str, Any]:
    """The last line of a run that nobody disturbs."""
    command = started(data, hub)
    out, err = command.communicate(timeout=BOUND_SECONDS)
    assert command.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def arrived(data: Path) -> int:
    """Bytes of the model that are on the disk."""
    tree = data / "weights" / ".tiny-klein.installing" / "tree"
    found = [path for path in tree.rglob("*") if path.suffix != ".part-tag"]
    return sum(path.stat().st_size for path in found if path.is_file())


def kill_after(data: Path, hub: HubDouble, count: int) -> None:
    """Let so many bytes through, wait until all of them are on the disk, and pull the plug."""
    hub.faults.hold_after = count
    command = started(data, hub)
    try:
        assert hub.holding.wait(BOUND_SECONDS)
        until = time.monotonic() + BOUND_SECONDS
        while arrived(data) != count:
            assert time.monotonic() < until, (arrived(data), count)
            assert command.poll() is None
            time.sleep(0.01)
    finally:
        command.send_signal(signal.SIGKILL)
        command.communicate(timeout=BOUND_SECONDS)
    hub.released.set()
    hub.released.clear()
    hub.holding.clear()
    hub.faults.hold_after = None


@pytest.mark.parametrize(
    "count",
    [0, 1, 440, SMALL - 1, SMALL, SMALL + 8, SMALL + 328_951, 700_001, TOTAL - 1],
)
def test_a_kill_at_any_byte_costs_no_byte(data: Path, hub: HubDouble, count: int) -> None:
    kill_after(data, hub, count)
    assert not (data / "weights" / "tiny-klein").exists()
    hub.served.clear()
    told = finished(data, hub)
    assert hub.bytes == TOTAL - count
    assert (told["event"], told["revision"], told["bytes"]) == ("installed", hub.commit, TOTAL)
    assert compare(data / "weights" / "tiny-klein") == []


def test_many_kills_in_a_row_cost_no_byte(data: Path, hub: HubDouble) -> None:
    counts = sorted(random.Random(4).sample(range(TOTAL), 3))  # noqa: S311
    for count in counts:
        kill_after(data, hub, count)
    finished(data, hub)
    assert hub.bytes == TOTAL
    assert compare(data / "weights" / "tiny-klein") == []


def test_two_installations_of_one_model_do_not_meet(data: Path, hub: HubDouble) -> None:
    hub.faults.hold_after = 1_000
    first = started(data, hub)
    try:
        assert hub.holding.wait(BOUND_SECONDS)
        second = started(data, hub)
        _, err = second.communicate(timeout=BOUND_SECONDS)
        assert second.returncode == 1
        assert (
            err
            == f"zsky-box: tiny-klein is being installed, verified or removed by process {first.pid}; wait for it.\n"
        )
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=BOUND_SECONDS)
    hub.faults.hold_after = None
    hub.released.set()
    finished(data, hub)


def test_ctrl_c_says_how_to_go_on(data: Path, hub: HubDouble) -> None:
    hub.faults.hold_after = 1_000
    command = started(data, hub)
    try:
        assert hub.holding.wait(BOUND_SECONDS)
        command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=BOUND_SECONDS)
    finally:
        command.kill()
    assert command.returncode == 130
    assert err == "zsky-box: Interrupted. What has arrived is kept; the same command goes on.\n"


@pytest.mark.campaign
def test_kills_at_random_moments_always_end_well(data: Path, hub: HubDouble, fresh_seed: int) -> None:
    chance = random.Random(fresh_seed)  # noqa: S311 - it can be repeated
    for _ in range(40):
        command = started(data, hub)
        try:
            command.wait(chance.uniform(0.2, 2.0))
        except subprocess.TimeoutExpired:
            os.kill(command.pid, signal.SIGKILL)
        command.communicate(timeout=BOUND_SECONDS)
        if (data / "weights" / "tiny-klein").exists():
            assert compare(data / "weights" / "tiny-klein") == []
            hub.files = hub.files | {"vae/config.json": FILES["vae/config.json"] + b" " * chance.randint(1, 9)}
    finished(data, hub)
    assert compare(data / "weights" / "tiny-klein") == []
