"""A month's included units, as a client meets their end."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.api.asking import IMAGE, SLOW, problem, runs, submit
from tests.running import RunningBox


@pytest.fixture
def small(tmp_path: Path) -> Generator[RunningBox]:
    """A box whose plan includes three images and one video."""
    running = RunningBox(tmp_path / "data", devices="cpu", included_images=3, included_videos=1).start()
    yield running
    running.stop()


def test_it_works(small: RunningBox) -> None:
    with small.client() as client, small.client("test") as tester:
        me = client.get("/v1/me").json()
        assert me["included"]["image"] == {"granted": 3, "used": 0, "pending": 0, "left": 3}
        for _ in range(3):
            small.ended(client, submit(client, IMAGE))
        full = client.get("/v1/me").json()["included"]
        assert full["image"] == {"granted": 3, "used": 3, "pending": 0, "left": 0}
        answer = client.post("/v1/generate", json=IMAGE)
        refused = problem(answer, 429, "allowance_exhausted")
        assert "3 images" in refused["detail"]
        assert me["period"]["end"] in refused["detail"]
        # The wait is the one until the period ends.
        assert 0 < int(answer.headers["retry-after"]) <= 31 * 86_400
        assert client.get("/v1/me").json()["included"] == full
        assert len(client.get("/v1/jobs").json()["data"]) == 3
        # Videos are counted apart, and a test key costs nothing.
        assert small.ended(tester, submit(tester, IMAGE))["status"] == "completed"
        assert client.get("/v1/me").json()["included"] == full


def test_several_images_are_accepted_all_or_none(small: RunningBox) -> None:
    with small.client() as client:
        submit(client, {**IMAGE, "n": 2})
        refused = problem(client.post("/v1/generate", json={**IMAGE, "n": 2}), 429, "allowance_exhausted")
        assert "1 left, 2 asked for" in refused["detail"]
        assert client.get("/v1/me").json()["included"]["image"]["left"] == 1
        assert len(client.get("/v1/jobs").json()["data"]) == 1
        assert client.post("/v1/generate", json=IMAGE).status_code == 202


def test_a_refused_key_is_free_to_be_used_again(small: RunningBox) -> None:
    """A refusal is evaluated anew; and a job that is cancelled before it began gives its unit back."""
    headers = {"Idempotency-Key": "again"}
    with small.client() as client:
        held = submit(client, SLOW)
        waiting = {**SLOW, "prompt": "a night market"}
        problem(client.post("/v1/generate", json=waiting, headers=headers), 429, "allowance_exhausted")
        small.until(client, held, runs)
        assert client.get("/v1/me").json()["included"]["video"]["pending"] == 1
        client.post(f"/v1/jobs/{held}/cancel")
        ended = small.ended(client, held)
        video = client.get("/v1/me").json()["included"]["video"]
        charged = ended["charge"]["state"] == "posted"
        assert video == {"granted": 1, "used": int(charged), "pending": 0, "left": int(not charged)}
        again = client.post("/v1/generate", json=waiting, headers=headers)
        assert again.status_code == (429 if charged else 202)
