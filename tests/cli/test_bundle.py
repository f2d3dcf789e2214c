from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.api.asking import IMAGE
from tests.cli.conftest import Run
from tests.running import RunningBox, make_owner
from zsky_box import __version__
from zsky_box.cli import bundle

ENOUGH = {"ZSKY_FREE_SPACE_FLOOR_BYTES": "0"}
TOKEN = "a-token-of-the-metrics"
OF_OTHERS = """
metrics_token = "a-token-of-the-metrics"
hub_url = "https://studio:the-password-of-a-hub@hub.example"
public_url = "https://box-of-a-client.example"
timezone = "Europe/Berlin"
requests_burst = 77
team_library = true
[blocked_terms]
unannounced = ["Project Heron"]
"""


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes())


def test_it_works(run: Run, cli_box: RunningBox, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with cli_box.client() as client:
        body = {**IMAGE, "prompt": "what the client asked for", "metadata": {"scene": "a scene of theirs"}}
        job_id = client.post("/v1/generate", json=body).json()["job_id"]
        cli_box.ended(client, job_id)
    told = run("doctor", "--bundle", str(path), "--json", data=cli_box.folder, env=ENOUGH)
    assert (told.status, told.json["bundle"]) == (0, str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = read(path)
    assert (found["checks"], found["version"]) == (told.json["checks"], __version__)
    assert found["packages"]["litestar"]
    assert found["jobs"]["counts"]["completed"] >= 1
    [job] = [job for job in found["jobs"]["newest"] if job["id"] == job_id]
    assert (job["status"], job["error_code"], job["model"]) == ("completed", None, "leader")
    assert job["device"]
    for words in ("what the client asked for", "a scene of theirs", "owner", *cli_box.keys.values()):
        assert words not in path.read_text()
    assert f"is in {path}" not in told.out
    again = tmp_path / "again.json"
    assert f"is in {again}" in run("doctor", "--bundle", str(again), data=cli_box.folder, env=ENOUGH).out


def test_settings_that_are_free_text_are_only_said_to_be_set(run: Run, tmp_path: Path) -> None:
    make_owner(tmp_path / "data")
    (tmp_path / "data" / "zsky.toml").write_text(OF_OTHERS)
    told = run("doctor", "--bundle", "report.json", data=tmp_path / "data", env=ENOUGH)
    assert told.status == 0
    assert read(tmp_path / "report.json")["settings"] == {
        "metrics_token": "(set)",
        "hub_url": "(set)",
        "public_url": "(set)",
        "blocked_terms": "(set)",
        "timezone": "Europe/Berlin",
        "free_space_floor_bytes": 0,
        "requests_burst": 77,
        "team_library": True,
    }
    for text in (told.out, (tmp_path / "report.json").read_text()):
        for secret in (TOKEN, "password-of-a-hub", "box-of-a-client", "Heron"):
            assert secret not in text


def test_a_secret_that_is_no_good_is_not_told_with_what_is_wrong_about_it(run: Run, tmp_path: Path) -> None:
    make_owner(tmp_path / "data")
    for written, env in (('metrics_token = "too short"\n', {}), ("", {"ZSKY_METRICS_TOKEN": "too short"})):
        (tmp_path / "data" / "zsky.toml").write_text(written)
        (tmp_path / "report.json").unlink(missing_ok=True)
        told = run("doctor", "--bundle", "report.json", data=tmp_path / "data", env=env)
        assert told.status == 1
        found = read(tmp_path / "report.json")
        assert found["settings"] is None
        [check] = [check for check in found["checks"] if check["name"] == "settings"]
        assert "(hidden): allowed is empty, or 16 to 200" in check["told"]
        assert "too short" not in told.out + told.err + json.dumps(found)


def test_a_box_that_cannot_be_read_is_told_of_as_far_as_it_goes(run: Run, tmp_path: Path) -> None:
    make_owner(tmp_path / "data")
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / "data" / f"ledger.db{suffix}").unlink(missing_ok=True)
    (tmp_path / "data" / "ledger.db").write_bytes(b"not a database " * 1000)
    for name, data in (("damaged", tmp_path / "data"), ("nothing", tmp_path / "none")):
        told = run("doctor", "--bundle", f"{name}.json", data=data)
        assert told.status == 1
        found = read(tmp_path / f"{name}.json")
        assert found["jobs"] is None
        assert "bad" in {check["state"] for check in found["checks"]}
    assert not (tmp_path / "none").exists()


def test_a_file_that_is_there_stays(run: Run, tmp_path: Path) -> None:
    make_owner(tmp_path / "data")
    (tmp_path / "report.json").write_text("something else")
    assert "File exists" in run("doctor", "--bundle", "report.json", data=tmp_path / "data", env=ENOUGH).sentence
    assert (tmp_path / "report.json").read_text() == "something else"


def test_of_many_jobs_the_newest_are_told(cli_box: RunningBox, monkeypatch: pytest.MonkeyPatch) -> None:
    with cli_box.client() as client:
        ids = [client.post("/v1/generate", json=IMAGE).json()["job_id"] for _ in range(3)]
        for job_id in ids:
            cli_box.ended(client, job_id)
    monkeypatch.setattr(bundle, "JOBS_MAX", 2)
    found = bundle.gather(cli_box.folder, [])["jobs"]
    assert [job["id"] for job in found["newest"]] == ids[:0:-1]
    assert sum(found["counts"].values()) >= 3
