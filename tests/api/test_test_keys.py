"""Test keys with the real worker: what they make, the ends that they act out, and that no money moves."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.api.asking import denoises, made, problem, submit
from tests.running import RunningBox

ACT: dict[str, Any] = {"type": "image", "resolution": "480p"}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """A box as it is installed: no double, and no model but the leader."""
    running = RunningBox(tmp_path_factory.mktemp("real") / "data", double=False, devices="cpu").start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def key(real: RunningBox) -> Generator[httpx.Client]:
    """A client with the test key."""
    with real.client("test") as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_moves(real: RunningBox) -> Generator[None]:
    """No test job leaves a trace in the ledger."""
    before = _ledger(real)
    yield
    assert _ledger(real) == before


def test_it_works(real: RunningBox, key: httpx.Client) -> None:
    body = {"type": "video", "prompt": "a neon night market", "resolution": "480p", "duration": 1, "seed": 3}
    job = made(real, key, body)
    assert (job["model"], job["test"]) == ("leader", True)
    assert (job["charge"]["state"], job["charge"]["units"], job["charge"]["amount_usd"]) == ("posted", 1, "0.00")
    assert (job["charge"]["included_units"], job["charge"]["ledger_ids"]) == (0, [])
    result = job["result"]
    assert (result["width"], result["height"], result["frames"], result["duration"]) == (854, 480, 24, 1.0)
    assert result["audio"] == {"sample_rate": 48_000, "channels": 2}
    film = httpx.get(job["result_url"], trust_env=False)
    assert film.headers["content-type"] == "video/mp4"
    assert film.content[4:8] == b"ftyp"
    # The same request gives the same file.
    again = real.ended(key, key.post(f"/v1/jobs/{job['job_id']}/rerun").json()["job_id"])
    assert again["result"]["sha256"] == result["sha256"]


def test_a_failure_is_acted_out(real: RunningBox, key: httpx.Client) -> None:
    job = real.ended(key, submit(key, {**ACT, "prompt": "test:fail"}))
    assert (job["status"], job["error_code"], job["charge"]["state"]) == ("failed", "internal_error", "voided")
    assert "test:fail" in job["error"]


def test_a_safety_block_is_acted_out_with_its_charge(real: RunningBox, key: httpx.Client) -> None:
    job = real.ended(key, submit(key, {**ACT, "prompt": " test:safety\n"}))
    assert (job["status"], job["error_code"], job["charge"]["state"]) == ("failed", "safety_blocked", "posted")


def test_the_cap_is_acted_out_at_submit(key: httpx.Client) -> None:
    before = key.get("/v1/jobs").json()["data"]
    problem(key.post("/v1/generate", json={**ACT, "prompt": "test:cap"}), 429, "cap_reached")
    problem(key.post("/v1/generate", json={**ACT, "prompt": "test:cap", "type": "audio"}), 422, "invalid_field")
    assert key.get("/v1/jobs").json()["data"] == before


def test_a_slow_job_can_be_watched_and_cancelled(real: RunningBox, key: httpx.Client) -> None:
    job_id = submit(key, {**ACT, "prompt": "test:slow"})
    real.until(key, job_id, denoises)
    assert key.post(f"/v1/jobs/{job_id}/cancel").json()["cancel_requested"] is True
    job = real.ended(key, job_id)
    assert (job["status"], job["error_code"], job["charge"]["state"]) == ("failed", "cancelled", "posted")
    assert job["charge"]["ledger_ids"] == []


def _ledger(box: RunningBox) -> tuple[int, int]:
    """How many transfers and balances there are."""
    with closing(sqlite3.connect(f"{(box.folder / 'ledger.db').as_uri()}?mode=ro", uri=True)) as ledger:
        counted = [ledger.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("transfer", "balance")]  # noqa: S608
    return counted[0], counted[1]
