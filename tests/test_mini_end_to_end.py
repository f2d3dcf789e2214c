"""mini in a running box, with untrained weights: the default where nothing is installed, its notes, its files."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.asking import problem
from tests.boxes import running
from tests.media.clips import read
from tests.pipelines.tiny_mini import add_mini
from tests.running import RunningBox

IMPORT_SECONDS = 240.0  # the box's child imports torch for the first time
VIDEO: dict[str, Any] = {"type": "video", "prompt": "a red rubber ball bounces on grass beside a lighthouse"}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """A box in which mini has passed its gate."""
    folder = tmp_path_factory.mktemp("mini") / "data"
    add_mini(folder, experimental=False)
    with running(folder, double=False) as started:
        yield started


@pytest.fixture
def client(box: RunningBox) -> Generator[httpx.Client]:
    with box.client() as client:
        yield client


def made(box: RunningBox, client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/generate", json=body)
    assert answer.status_code == 202, answer.text
    job = box.ended(client, answer.json()["job_id"], IMPORT_SECONDS)
    assert job["status"] == "completed", job
    assert job["notes"][: len(answer.json()["notes"])] == answer.json()["notes"]
    return job


def test_a_prompt_becomes_a_clip_with_its_sound_and_what_is_not_known_is_noted(
    box: RunningBox, client: httpx.Client, tmp_path: Path
) -> None:
    job = made(box, client, {**VIDEO, "seed": 3})
    result, receipt = job["result"], job["receipt"]
    assert (job["model"], job["duration"], job["fps"]) == ("mini", 3.0, 24)
    assert (result["width"], result["height"], result["upscaled_from"]) == (1920, 1080, "256x144")
    path = tmp_path / "clip.mp4"
    path.write_bytes(client.get(job["result_url"]).content)
    facts = read(path)
    assert (facts.codecs, len(facts.times), facts.sample_rate, facts.layout) == (("h264", "aac"), 72, 48_000, "stereo")
    assert abs(facts.durations[0] - facts.durations[1]) < 0.05
    told = " ".join(job["notes"])
    assert "No video model is installed: mini" in told
    assert "`zsky-box models install ltx-2.5`" in told
    assert "mini does not know \u201cbeside\u201d and \u201clighthouse\u201d" in told
    assert "Rendered at 256x144 and upscaled to 1920x1080." in told
    assert len(receipt["weights_sha256"]) == 64
    assert {"zsky-box", "torch"} <= receipt["versions"].keys()


def test_named_it_makes_the_same_at_its_own_size_as_often_as_it_is_asked(box: RunningBox, client: httpx.Client) -> None:
    body = {**VIDEO, "model": "mini", "resolution": "144p", "duration": 1, "seed": 5}
    first, second = (made(box, client, body)["result"] for _ in range(2))
    assert (first["width"], first["height"], first["upscaled_from"]) == (256, 144, None)
    assert first["sha256"] == second["sha256"]


def test_a_prompt_without_a_word_that_it_knows_still_becomes_an_image(box: RunningBox, client: httpx.Client) -> None:
    body = {"type": "image", "prompt": "thunder", "n": 2, "resolution": "480p"}
    job = made(box, client, body)
    assert any("mini knows none of these words" in note for note in job["notes"])
    assert [image["upscaled_from"] for image in job["results"]] == ["256x144"] * 2
    assert client.get(job["result_url"]).content.startswith(b"\x89PNG")
    quoted = client.post("/v1/quote", json=body).json()
    assert quoted["notes"] == [note for note in job["notes"] if not note.startswith("Rendered")]
    again = client.post(f"/v1/jobs/{job['job_id']}/rerun").json()
    assert [note for note in again["notes"] if "none of these words" in note]


def test_its_limits_are_told_and_kept(client: httpx.Client) -> None:
    mini = next(model for model in client.get("/v1/models").json()["data"] if model["id"] == "mini")
    assert (mini["default_for"], mini["installed"], mini["experimental"]) == (["video", "image"], True, False)
    assert (mini["min_duration"], mini["max_duration"], mini["fps"]) == (1.0, 3.0, [24])
    assert "ball" in mini["vocabulary"]["knows"]["object"]
    for changes in ({"duration": 5}, {"aspect_ratio": "9:16"}, {"fps": 30}):
        named = client.post("/v1/generate", json={**VIDEO, **changes, "model": "mini"})
        problem(named, 422, "unsupported_for_model", next(iter(changes)))


def test_a_test_key_still_gets_the_film_leader(box: RunningBox) -> None:
    with box.client("test") as tester:
        assert tester.post("/v1/generate", json=VIDEO).json()["model"] == "leader"
