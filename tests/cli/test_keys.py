from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.boxes import running
from tests.cli.conftest import Run
from tests.running import RunningBox, make_owner

Keys = tuple[Path, RunningBox | None]


@pytest.fixture(params=["running", "stopped"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Keys]:
    """A data folder with an owner, whose service runs or does not: the commands are the same."""
    if request.param == "running":
        with running(tmp_path / "data", ready=False) as started:
            yield started.folder, started
    else:
        make_owner(tmp_path / "data")
        yield tmp_path / "data", None


def listed(run: Run, data: Path) -> dict[str, dict[str, Any]]:
    return {key["id"]: key for key in run("keys", "list", "--json", data=data).json["data"]}


def status_of(box: Keys, secret: str) -> int | None:
    """What the API answers to a key, where it runs."""
    if box[1] is None:
        return None
    return httpx.get(f"{box[1].url}/v1/jobs", headers={"X-API-Key": secret}, trust_env=False).status_code


def test_a_key_is_issued_used_rotated_and_revoked(run: Run, box: Keys) -> None:
    data = box[0]
    before = listed(run, data)
    issued = run("keys", "issue", "--name", "render", "--scopes", "read,generate", "--json", data=data).json
    assert issued["scopes"] == ["generate", "read"]
    assert status_of(box, issued["api_key"]) in (200, None)

    rotated = run("keys", "rotate", issued["id"], "--json", data=data).json
    assert rotated["name"] == "render"
    assert rotated["api_key"] != issued["api_key"]
    assert status_of(box, issued["api_key"]) in (401, None)
    assert status_of(box, rotated["api_key"]) in (200, None)

    revoked = run("keys", "revoke", rotated["id"], data=data)
    assert revoked.out == f"{rotated['id']} (…{rotated['last_four']}) is revoked.\n"
    assert status_of(box, rotated["api_key"]) in (401, None)
    after = listed(run, data)
    assert set(after) == {*before, issued["id"], rotated["id"]}
    assert after[issued["id"]]["revoked_at"]
    assert after[rotated["id"]]["revoked_at"]


def test_rotating_with_an_overlap_keeps_the_old_key_for_a_while(run: Run, box: Keys) -> None:
    issued = run("keys", "issue", "--json", data=box[0]).json
    run("keys", "rotate", issued["id"], "--overlap", "3600", data=box[0])
    old = listed(run, box[0])[issued["id"]]
    assert old["revoked_at"] is None
    assert old["expires_at"]
    assert status_of(box, issued["api_key"]) in (200, None)


def test_a_person_reads_a_table_without_secrets(run: Run, box: Keys) -> None:
    issued = run("keys", "issue", "--name", "for reading", "--test", data=box[0])
    assert "shown once" in issued.out
    (secret,) = [word for word in issued.out.split() if word.startswith("zs_test_")]
    table = run("keys", "list", data=box[0]).out
    (line,) = [line for line in table.splitlines() if "for reading" in line]
    assert "test" in line
    assert f"…{secret[-4:]}" in line
    assert secret not in table


def test_what_cannot_be_done_is_one_sentence(run: Run, box: Keys) -> None:
    data = box[0]
    assert "no such key" in run("keys", "revoke", "key_unknown", data=data).sentence.lower()
    assert "no such key" in run("keys", "rotate", "key_unknown", data=data).sentence.lower()
    issued = run("keys", "issue", "--json", data=data).json
    run("keys", "revoke", issued["id"], data=data)
    assert "ended already" in run("keys", "rotate", issued["id"], data=data).sentence


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--scopes", "generate,paint"], "'paint'"), (["--scopes", ""], "scopes are"), (["--name", "x" * 101], "100")],
)
def test_a_key_that_cannot_be_is_refused_before_anything_is_asked(
    run: Run, tmp_path: Path, options: list[str], told: str
) -> None:
    assert told in run("keys", "issue", *options, data=tmp_path).sentence


def test_an_overlap_of_more_than_a_week_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    told = run("keys", "rotate", "--overlap", "604801", data=tmp_path)
    assert told.status == 2
    assert "604800" in told.err


@pytest.mark.parametrize("command", [["list"], ["issue"], ["rotate"], ["revoke", "key_1"]])
def test_without_a_box_nothing_is_made(run: Run, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    for data in (tmp_path / "empty", tmp_path / "missing"):
        assert "zsky-box init" in run("keys", *command, data=data).sentence
    assert list((tmp_path / "empty").iterdir()) == []
    assert not (tmp_path / "missing").exists()
