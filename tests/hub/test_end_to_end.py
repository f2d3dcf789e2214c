"""From a hub to a picture: the model is installed while the box runs, and the box makes an image with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.tiny_models import cached
from tests.boxes import running
from tests.cli.conftest import Run, run
from tests.doubles.hub import a_hub, files_of
from tests.hub.checkpoint import TINY_REPOSITORY, write_manifest

__all__ = ["run"]

RECIPE = """
[[recipes]]
name = "int8"
quantise = { transformer = "int8", text_encoder = "int8" }
"""
IMPORT_SECONDS = 240.0  # the box's child imports torch and diffusers for the first time


@pytest.mark.timeout(900)
def test_a_model_that_was_installed_meanwhile_makes_an_image(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_manifest(data)
    ask = {"type": "image", "prompt": "a fox", "resolution": "480p"}
    with running(data, double=False) as box, box.client("live") as client:
        before = box.ended(client, client.post("/v1/generate", json=ask).json()["job_id"])
        assert before["model"] == "leader"
        with a_hub(TINY_REPOSITORY, files_of(cached("tiny-klein"))) as hub:
            environment = {"ZSKY_HUB_URL": hub.url, "ZSKY_FREE_SPACE_FLOOR_BYTES": "0"}
            told = run("models", "install", "tiny-klein", "--accept-licence", data=data, env=environment)
            assert told.status == 0, told.err
            commit = hub.commit
        made = box.ended(client, client.post("/v1/generate", json=ask).json()["job_id"], IMPORT_SECONDS)
        assert made["status"] == "completed", made
        assert made["model"] == "tiny-klein"
        assert made["receipt"]["revision"] == commit
        assert client.get(made["result_url"]).content.startswith(b"\x89PNG")


@pytest.mark.timeout(900)
def test_a_model_that_was_quantised_at_its_installation_makes_an_image(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_manifest(data)
    manifest = data / "models" / "tiny-klein.toml"
    assert "recipes = []\n" in manifest.read_text()
    manifest.write_text(manifest.read_text().replace("recipes = []\n", "") + RECIPE)
    told = run("models", "install", "tiny-klein", "--from", str(cached("tiny-klein")), "--accept-licence", data=data)
    assert told.status == 0, told.err
    assert run("models", "verify", data=data).status == 0
    folders = [path.name.rpartition("-")[0] for path in (data / "weights" / "tiny-klein").iterdir() if path.is_dir()]
    assert folders == ["text_encoder.int8+transformer.int8"]
    with running(data, double=False) as box, box.client("live") as client:
        ask = {"type": "image", "prompt": "a fox", "resolution": "480p"}
        made = box.ended(client, client.post("/v1/generate", json=ask).json()["job_id"], IMPORT_SECONDS)
        assert made["status"] == "completed", made
        assert (made["model"], made["receipt"]["recipe"]) == ("tiny-klein", "int8")


@pytest.mark.timeout(900)
def test_a_model_is_measured_without_a_box(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_manifest(data)
    run("models", "install", "tiny-klein", "--from", str(cached("tiny-klein")), "--accept-licence", data=data)
    told = run("models", "bench", "tiny-klein", "--device", "cpu", "--resolution", "480p", "--json", data=data)
    assert told.status == 0, told.err
    first, second = told.json["runs"]
    assert (told.json["width"], told.json["height"], told.json["recipe"]) == (854, 480, "full")
    assert first["phases"]["denoising"] > 0
    assert second["phases"]["denoising"] > 0
    assert second["phases"]["loading"] < first["phases"]["loading"], "the second run finds the model in memory"
    assert not list(data.rglob("*.png"))


def test_only_what_is_installed_is_measured_and_not_beside_the_box(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_manifest(data)
    assert "is not installed" in run("models", "bench", "tiny-klein", data=data).sentence
    assert (
        "cannot run on cpu by that recipe" in run("models", "bench", "leader", "--recipe", "int8", data=data).sentence
    )
    with running(data, ready=False):
        assert "The box is running" in run("models", "bench", "leader", data=data).sentence
