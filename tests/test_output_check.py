"""The output check of a whole running box: what it blocks is charged and destroyed, and nothing is claimed that did not
run. The acting worker's check blocks one seed; the real one is a tiny classifier whose answer is known."""

from __future__ import annotations

import re
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.tiny_classifier import BLOCKS, PASSES, REVISION, install_classifiers
from tests import invariants
from tests.api.asking import problem
from tests.boxes import running
from tests.doubles.worker_acting_out import BLOCKED_LABEL, BLOCKED_SEED
from tests.running import RunningBox
from tests.waiting import until
from zsky_box.catalog import Catalog
from zsky_box.errors import JobFailure, SettingsError
from zsky_box.settings import CHECKOUT

NAME = "white-check"
MANIFEST = f"""
name = "NAME"
title = "Blocks white pictures"
makes = []
[licence]
name = "Apache-2.0"
[options]
family = "image_classifier"
blocked_labels = ["{BLOCKED_LABEL}"]
threshold = 0.9
"""
STILL: dict[str, Any] = {"type": "image", "prompt": "a lighthouse", "resolution": "480p"}
CLIP: dict[str, Any] = {"type": "video", "prompt": "a lighthouse", "resolution": "480p", "duration": 1}


def install(folder: Path, name: str = NAME) -> None:
    """The double's check, where the catalogue finds it."""
    (folder / "models").mkdir(parents=True, exist_ok=True)
    (folder / "models" / f"{name}.toml").write_text(MANIFEST.replace("NAME", name))
    (folder / "weights" / name).mkdir(parents=True)
    (folder / "weights" / name / "installed.json").write_text('{"revision": "r7"}')


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("checked") / "data"
    install(folder)
    with running(folder, output_check=NAME) as started:
        yield started
        assert started.stop() == 0
    invariants.check(folder, set(), at_rest=True)


@pytest.fixture
def client(box: RunningBox) -> Generator[httpx.Client]:
    with box.client() as client:
        yield client


def ended(box: RunningBox, client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/generate", json=body)
    assert answer.status_code == 202, answer.text
    return box.ended(client, answer.json()["job_id"])


def left(box: RunningBox) -> set[Path]:
    """Every file among the results, of attempts and of jobs."""
    return {path for path in (box.folder / "outputs").rglob("*") if path.is_file()}


@pytest.mark.parametrize("body", [STILL, CLIP])
def test_what_passes_names_the_check_that_ran(box: RunningBox, client: httpx.Client, body: dict[str, Any]) -> None:
    job = ended(box, client, {**body, "seed": 7})
    assert (job["status"], job["receipt"]["checks"]) == ("completed", [f"{NAME}@r7"])


@pytest.mark.parametrize(
    ("body", "units"),
    [
        ({**STILL, "seed": BLOCKED_SEED}, 1),
        ({**CLIP, "seed": BLOCKED_SEED}, 1),
        ({**STILL, "seed": BLOCKED_SEED - 3, "n": 4}, 4),  # its last image alone
    ],
)
def test_a_block_is_charged_and_destroys_the_output(
    box: RunningBox, client: httpx.Client, body: dict[str, Any], units: int
) -> None:
    before = left(box)
    job = ended(box, client, body)
    assert (job["status"], job["error_code"]) == ("failed", "safety_blocked")
    assert NAME in job["error"]
    assert (job["charge"]["state"], job["charge"]["included_units"]) == ("posted", units)
    assert job["receipt"] is None
    assert not {"result", "results", "result_url"} & job.keys()
    until(lambda: left(box) == before, "its files are gone")
    until(lambda: not list((box.folder / "outputs" / ".tmp").iterdir()), "its folder is gone")
    assert not (box.folder / "outputs" / job["job_id"]).exists()


def test_jobs_of_test_keys_are_not_checked_and_say_nothing_of_it(box: RunningBox) -> None:
    with box.client("test") as tester:
        job = ended(box, tester, {**STILL, "seed": BLOCKED_SEED})
        assert (job["status"], job["receipt"]["checks"]) == ("completed", [])


def test_without_the_setting_nothing_is_checked_and_nothing_is_claimed(tmp_path: Path) -> None:
    install(tmp_path / "data")
    with running(tmp_path / "data") as box, box.client() as client:
        job = ended(box, client, {**STILL, "seed": BLOCKED_SEED})
        assert (job["status"], job["receipt"]["checks"]) == ("completed", [])
        assert box.stop() == 0


def test_a_check_is_listed_and_cannot_be_asked_to_make_anything(client: httpx.Client) -> None:
    model = next(model for model in client.get("/v1/models").json()["data"] if model["id"] == NAME)
    assert (model["makes"], model["installed"], model["resolutions"], model["max_images"]) == ([], True, [], 0)
    told = problem(client.post("/v1/generate", json={**STILL, "model": NAME}), 422, "unsupported_for_model", "model")
    assert "it is an output check" in told["detail"]


def test_a_check_that_stops_or_is_gone_fails_the_job_free_of_charge(tmp_path: Path) -> None:
    """Whatever happens to it: nothing is given out unchecked, and what the box failed to do is not charged."""
    install(tmp_path / "data", "breaks")
    with running(tmp_path / "data", output_check="breaks") as box, box.client() as client:
        for told in ("nothing is given out unchecked", "is gone"):
            job = ended(box, client, STILL)
            assert (job["status"], job["error_code"], job["charge"]["state"]) == ("failed", "internal_error", "voided")
            assert told in job["error"]
            shutil.rmtree(box.folder / "weights", ignore_errors=True)
        until(lambda: not left(box), "what was not checked is gone")
        assert box.stop() == 0


@pytest.mark.parametrize(("name", "told"), [(PASSES, None), (BLOCKS, "shows 'calm'")])
def test_a_real_classifier_looks_at_real_pictures(tmp_path: Path, name: str, told: str | None) -> None:
    """The film leader's still and clip, looked at by the tiny classifier through transformers, on the processor."""
    folder = tmp_path / "data"
    install_classifiers(folder)
    with running(folder, double=False, output_check=name) as box, box.client() as client:
        for body in (STILL, CLIP):
            job = ended(box, client, {**body, "model": "leader"})
            if told is None:
                assert (job["status"], job["receipt"]["checks"]) == ("completed", [f"{PASSES}@{REVISION}"]), job
                assert httpx.get(job["result_url"], trust_env=False).status_code == 200
            else:
                assert (job["status"], job["error_code"], job["charge"]["state"]) == (
                    "failed",
                    "safety_blocked",
                    "posted",
                )
                assert told in job["error"]
        if told is None:
            assert left(box)
        else:
            until(lambda: not left(box), "what was blocked is gone")
        assert box.stop() == 0


# The setting


def catalog(folder: Path) -> Catalog:
    return Catalog([CHECKOUT / "models", folder / "models"], folder / "weights")


def test_no_check_is_named_by_nothing(tmp_path: Path) -> None:
    found = catalog(tmp_path)
    found.use_check("")
    assert found.output_check is None
    assert found.check() is None


def test_a_named_check_is_what_workers_are_given_while_it_is_there(tmp_path: Path) -> None:
    install(tmp_path)
    found = catalog(tmp_path)
    found.use_check(NAME)
    check = found.check()
    assert check is not None
    assert (check.model.name, check.weights_dir) == (NAME, str(tmp_path / "weights" / NAME))
    shutil.rmtree(tmp_path / "weights")
    with pytest.raises(JobFailure, match=f"{NAME} is gone"):
        found.check()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no-such-check", f"allowed is empty, or one of the output checks that this box knows: .*{NAME}"),
        ("leader", "allowed is empty, or one of"),
        (NAME, f"it is not installed; run `zsky-box models install {NAME}`"),
    ],
)
def test_a_check_that_could_not_look_stops_the_start(tmp_path: Path, name: str, told: str) -> None:
    install(tmp_path)
    shutil.rmtree(tmp_path / "weights")
    with pytest.raises(SettingsError, match=rf"^output_check = {re.escape(repr(name))}: {told}"):
        catalog(tmp_path).use_check(name)
