"""`zsky-box models install`, `verify` and `remove`, as a person or a script runs them."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from scripts.tiny_models import cached
from tests.boxes import running
from tests.cli.conftest import Run, run
from tests.doubles.hub import HubDouble, a_hub, files_of
from tests.hub.checkpoint import TINY_REPOSITORY, write_manifest
from tests.pipelines.tiny_mini import add_mini

__all__ = ["run"]

TOKEN = "hf_secretsecretsecret"
NAME = "tiny-klein"


@pytest.fixture
def hub() -> Generator[HubDouble]:
    with a_hub(TINY_REPOSITORY, files_of(cached(NAME))) as double:
        yield double


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_manifest(tmp_path / "data")
    return tmp_path / "data"


def env(hub: HubDouble, **changes: str) -> dict[str, str]:
    return {"ZSKY_HUB_URL": hub.url, "ZSKY_FREE_SPACE_FLOOR_BYTES": "0", "HF_TOKEN": "", **changes}


def installed(run: Run, data: Path) -> None:
    told = run("models", "install", NAME, "--from", str(cached(NAME)), "--accept-licence", data=data)
    assert told.status == 0, told.err


def listed(run: Run, data: Path) -> dict[str, Any]:
    return {model["id"]: model for model in run("models", "list", "--json", data=data).json["data"]}


def test_a_model_is_installed_verified_and_removed(run: Run, data: Path, hub: HubDouble) -> None:
    told = run("models", "install", NAME, "--accept-licence", data=data, env=env(hub))
    assert told.status == 0, told.err
    assert told.out.splitlines() == [
        f"tiny-klein is installed at {hub.commit[:12]}: full, {hub.bytes / 1024**2:.1f} MiB.",
        "cpu: recipe full",
    ]
    assert listed(run, data)[NAME]["installed"]
    assert listed(run, data)[NAME]["revision"] == hub.commit
    assert run("models", "verify", data=data).out == "mini: as installed\ntiny-klein: as installed\n"
    assert run("models", "remove", NAME, data=data).out == "tiny-klein is removed.\n"
    assert not listed(run, data)[NAME]["installed"]
    assert run("models", "verify", data=data).out == "mini: as installed\n", "what comes with the box stays"


def test_a_script_reads_lines(run: Run, data: Path, hub: HubDouble) -> None:
    told = run("models", "install", NAME, "--accept-licence", "--json", data=data, env=env(hub))
    lines = [json.loads(line) for line in told.out.splitlines()]
    fetching = [line for line in lines if line.get("phase") == "fetching"]
    assert fetching[-1]["done"] == fetching[-1]["of"] == hub.bytes
    assert lines[-1]["event"] == "installed"
    assert (lines[-1]["revision"], lines[-1]["recipes"]) == (hub.commit, {"cpu": "full"})
    again = run("models", "install", NAME, "--accept-licence", data=data, env=env(hub))
    assert "was installed already" in again.out


def test_a_licence_is_not_accepted_by_silence(run: Run, data: Path, hub: HubDouble) -> None:
    told = run("models", "install", NAME, data=data, env=env(hub))
    assert "Apache-2.0" in told.sentence
    assert "--accept-licence" in told.sentence
    assert hub.asked == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tiny-klien"], "did you mean tiny-klein?"),
        (["leader"], "part of the box"),
        ([NAME, "--from", "nowhere"], "is no folder"),
        ([NAME, "--from", ".", "--revision", "main"], "--from without"),
        ([NAME, "--recipe", "int4"], "no recipe 'int4'"),
    ],
)
def test_what_cannot_be_installed_is_told_in_a_sentence(
    run: Run, data: Path, hub: HubDouble, arguments: list[str], told: str
) -> None:
    failed = run("models", "install", *arguments, "--accept-licence", data=data, env=env(hub))
    assert failed.status == 1
    assert told in failed.err.splitlines()[-1]


def test_a_manifest_that_is_refused_says_why(run: Run, data: Path) -> None:
    path = data / "models" / f"{NAME}.toml"
    path.write_text(path.read_text().replace("size_multiple = 16", 'size_multiple = "16"'))
    told = run("models", "install", NAME, "--accept-licence", data=data)
    assert told.sentence.startswith("The manifest is refused: tiny-klein.toml: ")
    assert "size_multiple" in told.sentence


def test_a_token_comes_from_the_environment_or_a_file_and_is_never_shown(
    run: Run, data: Path, hub: HubDouble, tmp_path: Path
) -> None:
    hub.token = TOKEN
    refused = run("models", "install", NAME, "--accept-licence", data=data, env=env(hub))
    assert "hub_token_file" in refused.err
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    by_file = env(hub, ZSKY_HUB_TOKEN_FILE=str(tmp_path / "token"))
    for each in (by_file, env(hub, HF_TOKEN=TOKEN)):
        told = run("models", "install", NAME, "--accept-licence", data=data, env=each)
        assert told.status == 0, told.err
        assert TOKEN not in told.out + told.err
    missing = env(hub, ZSKY_HUB_TOKEN_FILE=str(tmp_path / "missing"))
    assert "cannot be read" in run("models", "install", NAME, "--accept-licence", data=data, env=missing).sentence
    (tmp_path / "token").write_bytes(b"two words")
    told = run("models", "install", NAME, "--accept-licence", data=data, env=by_file)
    assert "holds no token" in told.sentence
    assert "two words" not in told.sentence


def test_nothing_of_a_token_is_on_the_disk(run: Run, data: Path, hub: HubDouble) -> None:
    hub.token = TOKEN
    assert run("models", "install", NAME, "--accept-licence", data=data, env=env(hub, HF_TOKEN=TOKEN)).status == 0
    assert not any(TOKEN.encode() in path.read_bytes() for path in data.rglob("*") if path.is_file())


def test_verify_finds_a_flipped_byte_a_missing_file_and_one_too_many(run: Run, data: Path) -> None:
    installed(run, data)
    weights = next((data / "weights" / NAME).glob("full-*"))
    flipped = weights / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    (weights / "scheduler" / "scheduler_config.json").unlink()
    (weights / "vae" / "more.json").write_text("{}")
    told = run("models", "verify", NAME, "--json", data=data)
    assert told.status == 1
    (model,) = told.json["models"]
    assert model["state"] == "bad"
    assert {finding["path"].partition("/")[2]: finding["fault"] for finding in model["findings"]} == {
        "vae/diffusion_pytorch_model.safetensors": "has changed: its SHA-256 is another",
        "scheduler/scheduler_config.json": "is missing",
        "vae/more.json": "was not installed with it",
    }
    assert run("models", "verify", data=data).status == 1
    installed(run, data)
    assert run("models", "verify", data=data).status == 0


def test_a_forged_list_of_files_is_found(run: Run, data: Path) -> None:
    installed(run, data)
    record = data / "weights" / NAME / "files.json"
    files = json.loads(record.read_bytes())
    record.write_text(json.dumps([file for file in files if "vae" not in file["path"]]))
    for path in (data / "weights" / NAME).glob("full-*/vae/*"):
        path.unlink()
    told = run("models", "verify", NAME, data=data)
    assert told.status == 1
    assert "files.json does not fit what installed.json says of full" in told.out


@pytest.mark.parametrize("name", ["flux2-klein-4b", "nothing", "../data", ".hidden", "", "a" * 300])
def test_what_is_not_installed_is_neither_verified_nor_removed(run: Run, data: Path, name: str) -> None:
    (data / "weights").mkdir()
    assert "is not installed" in run("models", "verify", name, data=data).sentence
    assert "is not installed" in run("models", "remove", name, data=data).sentence
    assert list((data / "weights").iterdir()) == []


def test_a_bundled_model_stays(run: Run, data: Path) -> None:
    assert "part of the box" in run("models", "remove", "leader", data=data).sentence


def test_the_weights_of_a_bundled_model_are_verified_where_they_lie(run: Run, data: Path) -> None:
    add_mini(data)
    assert run("models", "verify", "mini", data=data).out == "mini: as installed\n"
    weights = data / "models" / "mini" / "transformer" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    told = run("models", "verify", data=data)
    assert told.status == 1
    assert "transformer/diffusion_pytorch_model.safetensors has changed" in told.out
    assert list((data / "weights").glob(".mini*")) == [], "nothing of it is in the owner's folder"


def test_the_output_check_is_not_removed_while_it_is_named(run: Run, data: Path) -> None:
    installed(run, data)
    named = {"ZSKY_OUTPUT_CHECK": NAME}
    assert "is the output check" in run("models", "remove", NAME, data=data, env=named).sentence
    assert listed(run, data)[NAME]["installed"]
    assert run("models", "remove", NAME, data=data).status == 0


def test_a_model_with_open_jobs_is_not_removed_and_finished_ones_stay(run: Run, data: Path) -> None:
    installed(run, data)
    with (
        running(data, double=True, devices="cpu", worker_cancel_timeout_seconds=0.5) as box,
        box.client("live") as client,
    ):
        ask = {"type": "image", "model": NAME}
        made = box.ended(client, client.post("/v1/generate", json={**ask, "prompt": "a fox"}).json()["job_id"])
        hanging = client.post("/v1/generate", json={**ask, "prompt": "double:hangs"}).json()["job_id"]
        told = run("models", "remove", NAME, data=data)
        assert told.sentence == f"1 open jobs want {NAME}; let them end, or cancel them, and remove it then."
        assert listed(run, data)[NAME]["installed"]
        client.post(f"/v1/jobs/{hanging}/cancel")
        assert box.ended(client, hanging)["status"] == "failed"
        assert run("models", "remove", NAME, data=data).status == 0
        assert not listed(run, data)[NAME]["installed"]
        kept = client.get(f"/v1/jobs/{made['job_id']}").json()
        assert (kept["model"], kept["status"], kept["receipt"]) == (NAME, "completed", made["receipt"])
