"""`/metrics`: who may ask, and what is told."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.asking import IMAGE, SLOW, VIDEO, denoises, made, problem, submit
from tests.api.test_health import inside
from tests.doubles.nvml import FakeNvml
from tests.running import RunningBox
from tests.waiting import until
from zsky_box import cards, devices
from zsky_box.app import create_app, rooms
from zsky_box.cards import CardWatch

TOKEN = "a-monitor-that-is-elsewhere"

Labels = frozenset[tuple[str, str]]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """A box whose monitor has a token."""
    running = RunningBox(tmp_path_factory.mktemp("watched") / "data", devices="cpu,cpu", metrics_token=TOKEN)
    running.start()
    yield running
    running.stop()


def scraped(client: httpx.Client) -> dict[str, dict[Labels, float]]:
    """Each sample's name, and its values by their labels, as Prometheus' own parser reads them."""
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = frozenset(sample.labels.items())
            assert labels not in found.setdefault(sample.name, {}), f"{sample.name} {labels} is there twice"
            found[sample.name][labels] = sample.value
    return found


def value(samples: dict[str, dict[Labels, float]], name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels among theirs."""
    wanted = set(labels.items())
    return sum(number for own, number in samples.get(name, {}).items() if wanted <= own)


def test_it_works(watched: RunningBox) -> None:
    with watched.client() as client, watched.client("test") as tester:
        before = scraped(client)
        made(watched, client, VIDEO)
        made(watched, client, IMAGE)
        made(watched, tester, IMAGE)
        failed = watched.ended(client, submit(client, {**IMAGE, "prompt": "double:disk_full"}))
        assert failed["error_code"] == "storage_full"
        client.post("/v1/generate", json={"type": "image"})
        now = scraped(client)
    gained = {
        name: {labels: number - before.get(name, {}).get(labels, 0.0) for labels, number in samples.items()}
        for name, samples in now.items()
    }
    ended = partial(value, gained, "zsky_jobs_ended_total", model="leader")
    assert ended(status="completed", mode="live") == 2
    assert ended(status="completed", mode="test") == 1
    assert ended(status="failed", error_code="storage_full", mode="live") == 1
    assert value(gained, "zsky_attempts_failed_total", model="leader", error_code="storage_full") == 1
    assert value(gained, "zsky_requests_refused_total", code="invalid_field") == 1
    assert value(gained, "zsky_wait_seconds_count", model="leader", mode="live") == 3
    runs = partial(value, gained, "zsky_run_seconds_count", phase="denoising", model="leader")
    assert runs(device="cpu-1") + runs(device="cpu-2") == runs() == 2
    assert value(gained, "zsky_load_seconds_count", model="leader") >= 1
    assert value(gained, "zsky_device_busy_seconds_total") > 0


def test_devices_and_their_models_are_told_apart(watched: RunningBox) -> None:
    with watched.client() as client:
        made(watched, client, IMAGE)
        until(lambda: value(scraped(client), "zsky_device_up") == 3, "all workers are up, not only the one of this job")
        told = scraped(client)
        assert {dict(labels)["device"] for labels in told["zsky_device_up"]} == {"cpu-1", "cpu-2", "test"}
        assert value(told, "zsky_device_quarantined") == 0
        assert value(told, "zsky_model_resident", model="leader") >= 1
        until(lambda: value(scraped(client), "zsky_worker_held_bytes", device="cpu-1") > 2**20, "a worker's bytes")


def test_the_queue_is_counted_by_model_and_priority(watched: RunningBox) -> None:
    with watched.client() as client:
        slow = [submit(client, {**SLOW, "priority": "batch"}) for _ in range(4)]
        until(lambda: value(scraped(client), "zsky_device_running") == 2, "both devices run")
        told = scraped(client)
        assert value(told, "zsky_queue_jobs", model="leader", priority="batch", mode="live") == 2
        assert value(told, "zsky_queue_jobs", priority="interactive") == 0
        for job_id in slow:
            client.post(f"/v1/jobs/{job_id}/cancel")
        for job_id in slow:
            watched.ended(client, job_id)


# Who may ask


def test_the_box_itself_may_ask_without_a_key(watched: RunningBox) -> None:
    with watched.client(None) as client:
        assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1"},
        {"X-Forwarded-For": "192.0.2.7"},
        {"Forwarded": "for=192.0.2.7"},
        {"X-Real-IP": "192.0.2.7"},
    ],
)
def test_a_browsers_page_or_whoever_is_behind_a_proxy_may_not(watched: RunningBox, headers: dict[str, str]) -> None:
    with watched.client(None, follow_redirects=False) as client:
        refused = problem(client.get("/metrics", headers=headers), 401, "missing_key")
        assert "metrics_token" in refused["detail"]
        with_token = {**headers, "Authorization": f"Bearer {TOKEN}"}
        assert client.get("/metrics", headers=with_token).status_code == 200


@pytest.mark.parametrize("token", ["x", TOKEN[:-1], TOKEN.upper(), TOKEN + " x", "é" * 20])
def test_another_token_is_refused(watched: RunningBox, token: str) -> None:
    with watched.client(None) as client:
        headers = httpx.Headers([(b"Authorization", f"Bearer {token}".encode("latin-1"))])
        problem(client.get("/metrics", headers=headers), 401, "invalid_key")


def test_without_a_token_in_the_settings_none_is_right(shared_box: RunningBox) -> None:
    with shared_box.client(None) as client:
        for authorization in ("Bearer", "Bearer anything"):
            headers = {"X-Forwarded-For": "192.0.2.7", "Authorization": authorization}
            problem(client.get("/metrics", headers=headers), 401, "missing_key")


def test_a_peer_that_is_not_this_machine_is_refused(tmp_path: Path) -> None:
    with inside(tmp_path / "data") as (box, _):
        application: Any = create_app(box)
        transport = httpx.ASGITransport(app=application, client=("192.0.2.7", 5))

        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=transport, base_url="http://box") as client:
                return await client.get("/metrics")

        answer = asyncio.run(ask())
        assert answer.status_code == 401
        assert answer.json()["code"] == "missing_key"


def test_it_is_not_in_the_document(live: httpx.Client) -> None:
    assert "/metrics" not in live.get("/v1/openapi.json").json()["paths"]


# Cards


def two_cards(setting: str) -> list[str]:
    """As where `devices` is `auto` and the driver counts two."""
    assert setting
    return ["cuda:0", "cuda:1"]


def test_a_card_that_is_lost_is_shown_and_its_job_is_done_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = FakeNvml(2)
    monkeypatch.setattr(cards, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(cards, "WELL_SECONDS", 0.3)
    monkeypatch.setattr(devices, "chosen", two_cards)
    monkeypatch.setattr(rooms, "CardWatch", partial(CardWatch, nvml=driver))
    with inside(tmp_path / "data") as (box, client):
        until(lambda: value(scraped(client), "zsky_device_up", device="cuda:0") == 1, "the first card is up")
        until(lambda: value(scraped(client), "zsky_device_up", device="cuda:1") == 1, "the second card is up")
        until(lambda: "zsky_card_memory_total_bytes" in scraped(client), "the cards have been read")
        told = scraped(client)
        assert value(told, "zsky_card_memory_total_bytes", device="cuda:1") == 80 * 2**30
        assert value(told, "zsky_card_utilisation", device="cuda:1") == 0.97
        assert value(told, "zsky_card_temperature_celsius", device="cuda:1") == 61
        assert "zsky_card_power_watts" not in told, "these cards do not tell it"
        job_id = submit(client, SLOW)
        until(lambda: denoises(client.get(f"/v1/job_status/{job_id}").json()), "the job runs")
        [number] = [n for n, slot in enumerate(box.services.scheduler.slots()) if slot.job_id == job_id]
        driver.cards[number].gone = True
        lost, other = f"cuda:{number}", f"cuda:{1 - number}"
        until(lambda: lost in client.get("/readyz").json().get("quarantined", {}), "the card is shown")
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        assert "does not answer any more" in ready.json()["quarantined"][lost]
        told = scraped(client)
        assert value(told, "zsky_device_quarantined", device=lost) == 1
        assert value(told, "zsky_device_quarantined", device=other) == 0
        until(lambda: box.services.scheduler.slots()[1 - number].job_id == job_id, "the other card has the job")
        client.post(f"/v1/jobs/{job_id}/cancel")
        driver.cards[number].gone = False
        until(lambda: value(scraped(client), "zsky_device_up") == 3, "the card serves again")
        assert client.get("/readyz").json() == {"status": "ready"}
