from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.boxes import running
from tests.cli.conftest import Run, Told
from tests.running import make_owner
from zsky_box.clock import system_clock


def states(told: Told) -> dict[str, str]:
    return {check["name"]: check["state"] for check in told.json["checks"]}


def test_a_fresh_box_is_well(run: Run, tmp_path: Path) -> None:
    make_owner(tmp_path / "data")
    told = run("doctor", "--json", data=tmp_path / "data", env={"ZSKY_FREE_SPACE_FLOOR_BYTES": "0"})
    assert told.status == 0
    assert "bad" not in states(told).values()
    assert states(told)["ledger"] == "good"
    assert states(told)["service"] == "note"


def test_without_a_box_the_doctor_says_what_to_run(run: Run, tmp_path: Path) -> None:
    told = run("doctor", data=tmp_path / "none")
    assert told.status == 1
    assert "zsky-box init" in told.out
    assert not (tmp_path / "none").exists()


def test_a_running_box_answers(run: Run, tmp_path: Path) -> None:
    with running(tmp_path / "data", ready=False) as box:
        told = run("doctor", data=box.folder, env={"ZSKY_FREE_SPACE_FLOOR_BYTES": "0"})
        assert told.status == 0
        assert f"answers on {box.url}" in told.out
        assert "ledger: verifies: 0 transfers" in told.out


def test_a_quarantined_device_is_told_with_its_reason(run: Run, tmp_path: Path) -> None:
    with running(tmp_path / "data", worker_restarts_max=1) as box, box.client() as client:
        told = run("doctor", "--json", data=box.folder, env={"ZSKY_FREE_SPACE_FLOOR_BYTES": "0"})
        assert states(told)["devices"] == "good"
        deadly = client.post("/v1/generate", json={"type": "image", "prompt": "double:segfaults"}).json()["job_id"]
        box.ended(client, deadly)
        told = run("doctor", data=box.folder, env={"ZSKY_FREE_SPACE_FLOOR_BYTES": "0"})
        assert told.status == 1
        assert "cpu is quarantined: It lost 2 workers in 300 s." in told.out


def bad_setting(folder: Path) -> None:
    (folder / "zsky.toml").write_text("prot = 80\n")


def no_ffmpeg(folder: Path) -> None:
    (folder / "zsky.toml").write_text('ffmpeg = "/nowhere/ffmpeg"\n')


def no_space(folder: Path) -> None:
    (folder / "zsky.toml").write_text(f"free_space_floor_bytes = {2**62}\n")


def open_secrets(folder: Path) -> None:
    (folder / "secrets.json").chmod(0o644)


def bad_manifest(folder: Path) -> None:
    (folder / "models").mkdir()
    (folder / "models" / "broken.toml").write_text("name = 1\n")


def bad_note(folder: Path) -> None:
    (folder / "control.json").write_text("{")


def changed_audit(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as ledger:
        ledger.execute("DROP TRIGGER audit_is_append_only_u")
        ledger.execute("UPDATE audit SET actor = 'somebody else' WHERE id = 2")


def changed_balance(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as ledger:
        ledger.execute("INSERT INTO balance (name, ledger, overdraft, credits_posted) VALUES ('nowhere', 'usd', 0, 7)")


def clock_ahead(folder: Path) -> None:
    """As after an hour during which the box's clock was wrong by a year."""
    with closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as ledger:
        ledger.execute("UPDATE box SET clock_at = ?", (system_clock() + 365 * 86_400 * 1_000_000,))


def older_schema(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as ledger:
        ledger.execute("PRAGMA user_version = 3")


def no_ledger(folder: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        (folder / f"ledger.db{suffix}").unlink(missing_ok=True)
    (folder / "ledger.db").write_bytes(b"not a database " * 1000)
    (folder / "ledger.db").chmod(0o600)


@pytest.mark.parametrize(
    ("harm", "check", "told"),
    [
        (bad_setting, "settings", "did you mean port?"),
        (no_ffmpeg, "ffmpeg", "/nowhere/ffmpeg"),
        (no_space, "free space", "below the floor"),
        (open_secrets, "data folder", "chmod 600"),
        (bad_manifest, "models", "broken.toml"),
        (bad_note, "service", "control.json"),
        (changed_audit, "ledger", "audit 2 does not fit the chain"),
        (changed_balance, "ledger", "balance nowhere/usd is [0, 0, 0, 7]"),
        (clock_ahead, "clock", "zsky-box doctor --accept-clock"),
        (older_schema, "ledger", "schema 3"),
        (no_ledger, "ledger", "not a database"),
    ],
)
def test_what_must_be_mended_is_named_and_is_the_exit_status(
    run: Run, tmp_path: Path, harm: Callable[[Path], None], check: str, told: str
) -> None:
    make_owner(tmp_path / "data")
    harm(tmp_path / "data")
    answer = run("doctor", "--json", data=tmp_path / "data", env={"NO_COLOR": "1"})
    assert answer.status == 1
    assert states(answer)[check] == "bad"
    (finding,) = [finding for finding in answer.json["checks"] if finding["name"] == check]
    assert told in finding["told"]


def test_a_clock_that_was_set_back_is_accepted_by_the_owners_word(run: Run, tmp_path: Path) -> None:
    make_owner(tmp_path / "data")
    clock_ahead(tmp_path / "data")
    refused = run("accounts", "topup", "owner", "5", data=tmp_path / "data")
    assert "zsky-box doctor --accept-clock" in refused.sentence
    accepted = run("doctor", "--accept-clock", data=tmp_path / "data")
    assert accepted.status == 0
    assert accepted.out.startswith("The ledger goes on at 20")
    assert run("accounts", "topup", "owner", "5", data=tmp_path / "data").status == 0
    again = run("doctor", "--accept-clock", "--json", data=tmp_path / "data")
    assert (again.status, again.json["accepted"]) == (0, False)
