"""install.sh takes itself away: with the data kept, or all of it, and never anybody else's folder."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.install.checkout import Checkout
from tests.waiting import until


def test_uninstall_keeps_the_data(checkout: Checkout) -> None:
    checkout.install()
    output = checkout.run("--uninstall")
    assert not checkout.is_ready()
    assert not (checkout.root / ".venv").exists()
    assert (checkout.data / "ledger.db").exists()
    assert f"The data stays in {checkout.data}" in output
    assert "zs_live_" not in checkout.install()


def test_purge_removes_the_data_and_nothing_of_the_checkout(checkout: Checkout) -> None:
    checkout.install()
    checkout.run("--uninstall", "--purge", "--yes")
    assert [path.name for path in checkout.data.iterdir()] == ["README.md"]
    assert (checkout.root / "install.sh").exists()


def test_purge_of_a_folder_elsewhere_removes_the_folder(checkout: Checkout, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    output = checkout.install("--data", str(elsewhere))
    assert re.search(r"--stop --data \S*else\\ where", output)
    checkout.run("--uninstall", "--purge", "--yes", f"--data={elsewhere}")
    assert not elsewhere.exists()


def test_purge_without_an_answer_removes_nothing(checkout: Checkout) -> None:
    checkout.install("--no-start")
    assert "--yes" in checkout.run("--uninstall", "--purge", status=2)
    assert (checkout.data / "ledger.db").exists()
    assert (checkout.root / ".venv").exists()


@pytest.mark.parametrize("folder", ["/", "home", "unrelated", "checkout"])
def test_purge_refuses_a_folder_that_is_not_a_boxes_own(checkout: Checkout, tmp_path: Path, folder: str) -> None:
    path = {"/": Path("/"), "checkout": checkout.root}.get(folder, tmp_path / folder)
    path.mkdir(exist_ok=True)
    assert "will not be purged" in checkout.run("--uninstall", "--purge", "--yes", "--data", str(path), status=1)
    assert path.is_dir()


@pytest.mark.parametrize("folder", ["", ".venv", ".venv/bin"])
def test_uninstall_stops_at_a_box_started_by_hand(checkout: Checkout, folder: str) -> None:
    checkout.install("--no-start")
    program = checkout.root / ".venv/bin/zsky-box"
    typed = os.path.join(".", os.path.relpath(program, checkout.root / folder))  # noqa: PTH118 - Path drops the dot
    environment = checkout.environment | {"ZSKY_DATA": str(checkout.data)}
    command = [typed, "serve", "--port", str(checkout.port)]
    with subprocess.Popen(command, env=environment, cwd=checkout.root / folder) as box:
        try:
            until(checkout.is_ready, "the checkout is ready")
            assert f"pid {box.pid}" in checkout.run("--uninstall", "--purge", "--yes", status=1)
        finally:
            box.kill()
    assert program.exists()
    assert (checkout.data / "ledger.db").exists()


def test_purge_stops_at_a_data_folder_that_another_checkouts_box_has_open(checkout: Checkout) -> None:
    checkout.install("--no-start")
    with (checkout.data / "instance.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "Another box uses" in checkout.run("--uninstall", "--purge", "--yes", status=1)
    assert (checkout.data / "ledger.db").exists()
