from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.running import RunningBox
from zsky_box.key_secrets import well_formed


def test_it_works(run: Run, tmp_path: Path) -> None:
    told = run("init", "--owner", "Studio North", "--json", data=tmp_path / "box").json
    assert told["owner"] == "Studio North"
    assert well_formed(told["api_key"])
    assert told["setup_url"].startswith("http://127.0.0.1:8420/setup?token=")
    assert told["data"] == str(tmp_path / "box")


def test_the_key_is_shown_once_and_kept_nowhere(run: Run, tmp_path: Path) -> None:
    told = run("init", data=tmp_path / "box")
    (key,) = [word for word in told.out.split() if word.startswith("zs_live_")]
    assert well_formed(key)
    assert "shown once" in told.out
    assert told.err == ""
    for path in (tmp_path / "box").rglob("*"):
        if path.is_file():
            assert key.encode() not in path.read_bytes()
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert key not in run("keys", "list", "--json", data=tmp_path / "box").out


def test_twice_is_refused_and_changes_nothing(run: Run, tmp_path: Path) -> None:
    run("init", data=tmp_path / "box")
    before = run("keys", "list", data=tmp_path / "box").out
    assert "has an owner already" in run("init", data=tmp_path / "box").sentence
    assert run("keys", "list", data=tmp_path / "box").out == before


def test_of_a_running_box_says_what_to_do_instead(run: Run, cli_box: RunningBox) -> None:
    assert "keys rotate" in run("init", data=cli_box.folder).sentence


@pytest.mark.parametrize("name", ["", "   ", "x" * 101])
def test_an_owner_needs_a_name(run: Run, tmp_path: Path, name: str) -> None:
    assert "1 to 100 characters" in run("init", "--owner", name, data=tmp_path / "box").sentence
    assert not (tmp_path / "box").exists()


def test_a_folder_that_cannot_be_made_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / "file") in run("init", data=tmp_path / "file" / "box").sentence


def test_the_data_folder_is_chosen_in_three_ways(run: Run, tmp_path: Path) -> None:
    before, after, environment = tmp_path / "before", tmp_path / "after", tmp_path / "environment"
    assert run("--data", str(before), "init", data=None).status == 0
    assert run("init", data=after).status == 0
    assert run("init", data=None, env={"ZSKY_DATA": str(environment)}).status == 0
    for folder in (before, after, environment):
        assert (folder / "ledger.db").is_file()
    assert run("--data", str(before), "keys", "--data", str(after), "list", data=environment).status == 0
