"""Where a ledger is written to: a file is replaced whole, a link is followed, and what is no file stays what it is."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.running import make_owner


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_owner(tmp_path / "data")
    return tmp_path / "data"


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "ledger.csv"
    out.parent.mkdir()
    out.write_text("what was there")
    assert run("ledger", "export", "--out", str(out), data=folder).status == 0
    assert out.read_text().startswith("id,time,kind")
    assert [path.name for path in out.parent.iterdir()] == ["ledger.csv"]


def test_a_link_is_followed(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "linked.csv").symlink_to(tmp_path / "real.csv")
    assert run("ledger", "export", "--out", "linked.csv", data=folder).status == 0
    assert (tmp_path / "linked.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith("id,time,kind")


def test_a_pipe_is_written_to_and_stays_a_pipe(run: Run, folder: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    assert run("ledger", "export", "--out", str(pipe), data=folder).status == 0
    reader.join(10)
    assert read[0].startswith("id,time,kind")
    assert pipe.is_fifo()


@pytest.mark.parametrize("out", ["", ".", "/", "no/such/folder.csv"])
def test_where_no_file_can_be_is_one_sentence(run: Run, folder: Path, out: str) -> None:
    told = run("ledger", "export", "--out", out, data=folder)
    assert told.status != 0
    assert "Traceback" not in told.err


def test_a_file_keeps_its_mode_and_a_new_one_has_the_usual(run: Run, folder: Path, tmp_path: Path) -> None:
    kept, usual = tmp_path / "kept.csv", tmp_path / "usual"
    kept.touch()
    kept.chmod(0o640)
    usual.touch()
    for name in ("kept.csv", "new.csv"):
        assert run("ledger", "export", "--out", name, data=folder).status == 0
    assert kept.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "new.csv").stat().st_mode == usual.stat().st_mode
