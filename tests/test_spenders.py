"""Many clients at once against one box, over HTTP: the cap holds to the cent, and a key makes a request happen once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import invariants, money
from tests.running import RunningBox

SPENDERS = 256
CALLERS = 100
IMAGE = {"type": "image", "prompt": "a quiet lake"}


@pytest.fixture
def box(tmp_path: Path) -> Generator[RunningBox]:
    """No included images, $50 in the wallet, a cap of $5.20: room for 104 images and not for 105."""
    running = RunningBox(tmp_path / "data", devices="cpu", included_images=0, drain_seconds=0.1)
    money.filled(running.folder, "50.00")
    money.spending(running.folder, "5.20")
    running.start()
    yield running
    running.stop()
    invariants.check(running.folder, set(), at_rest=False)


async def answers(
    box: RunningBox, callers: int, path: str, bodies: list[Any], headers: dict[str, str]
) -> list[httpx.Response]:
    """What so many callers are told that send at once, each on a connection of its own."""
    limits = httpx.Limits(max_connections=callers, max_keepalive_connections=callers)
    everyone = {"X-API-Key": box.keys["live"], **headers}
    async with httpx.AsyncClient(
        base_url=box.url, headers=everyone, limits=limits, timeout=300, trust_env=False
    ) as client:
        await asyncio.gather(*(client.get("/healthz") for _ in range(callers)))
        return await asyncio.gather(*(client.post(path, json=body) for body in bodies))


def told(answered: list[httpx.Response]) -> Counter[str]:
    return Counter("accepted" if one.status_code in (200, 202) else one.json()["code"] for one in answered)


def test_256_spenders_at_the_cap_are_accepted_exactly_as_often_as_there_is_room(box: RunningBox) -> None:
    answered = asyncio.run(answers(box, SPENDERS, "/v1/generate", [IMAGE] * SPENDERS, {}))
    assert told(answered) == {"accepted": 104, "cap_reached": SPENDERS - 104}
    assert all(int(one.headers["Retry-After"]) > 0 for one in answered if one.status_code == 429)
    with box.client() as client:
        for one in answered:
            if one.status_code == 202:
                assert box.ended(client, one.json()["job_id"])["charge"]["state"] == "posted"
        stands = money.stands(client)
    assert (stands["spend_usd"], stands["pending_usd"], stands["remaining_usd"]) == ("5.20", "0.00", "0.00")
    assert stands["wallet_usd"] == "44.80"


def test_of_jobs_with_several_images_each_is_taken_whole_or_not_at_all(box: RunningBox) -> None:
    sizes = [1 + place % 10 for place in range(SPENDERS)]
    bodies: list[Any] = [{**IMAGE, "n": size} for size in sizes]
    answered = asyncio.run(answers(box, SPENDERS, "/v1/generate", bodies, {}))
    assert set(told(answered)) == {"accepted", "cap_reached"}
    units = sum(one.json()["n"] for one in answered if one.status_code == 202)
    refused = [size for size, one in zip(sizes, answered, strict=True) if one.status_code == 429]
    with box.client() as client:
        stands = money.stands(client)
    room = 104 - units
    assert 0 <= room < min(refused), "whoever was refused would not have had room at the end either"
    committed = sum(round(float(stands[name]) * 100) for name in ("spend_usd", "pending_usd"))
    assert committed == units * 5


def test_100_callers_with_one_idempotency_key_are_one_job(box: RunningBox) -> None:
    answered = asyncio.run(answers(box, CALLERS, "/v1/generate", [IMAGE] * CALLERS, {"Idempotency-Key": "one"}))
    assert told(answered) == {"accepted": CALLERS}
    assert len({one.content for one in answered}) == 1
    assert {one.headers["Location"] for one in answered} == {f"/v1/jobs/{answered[0].json()['job_id']}"}
    assert sum("Idempotent-Replayed" not in one.headers for one in answered) == 1
    with box.client() as client:
        assert len(client.get("/v1/jobs?limit=100").json()["data"]) == 1
        box.ended(client, answered[0].json()["job_id"])
        assert money.stands(client)["spend_usd"] == "0.05"


def test_100_retries_of_one_flip_flip_once(box: RunningBox) -> None:
    path, headers = "/v1/me/overage/toggle", {"Idempotency-Key": "flip"}
    answered = asyncio.run(answers(box, CALLERS, path, [{}] * CALLERS, headers))
    assert told(answered) == {"accepted": CALLERS}
    assert {json.dumps(one.json()["enabled"]) for one in answered} == {"false"}
    with box.client() as client:
        assert money.stands(client)["enabled"] is False


def test_spenders_and_someone_who_moves_the_cap_never_exceed_the_highest_of_it(box: RunningBox) -> None:
    async def storm() -> list[httpx.Response]:
        headers = {"X-API-Key": box.keys["live"]}
        async with httpx.AsyncClient(base_url=box.url, headers=headers, timeout=300, trust_env=False) as client:

            async def spend() -> list[httpx.Response]:
                return [await client.post("/v1/generate", json=IMAGE) for _ in range(12)]

            async def move() -> list[httpx.Response]:
                caps = ("5.00", "5.50", "5.10", "6.00") * 3
                moved = [await client.post("/v1/me/overage/cap", json={"cap_usd": cap}) for cap in caps]
                assert {one.status_code for one in moved} == {200}
                return []

            groups = await asyncio.gather(*(spend() for _ in range(16)), move())
            return [one for group in groups for one in group]

    answered = asyncio.run(storm())
    counted = told(answered)
    assert set(counted) <= {"accepted", "cap_reached"}
    assert counted["accepted"] <= 120
    with box.client() as client:
        stands = money.stands(client)
    assert float(stands["spend_usd"]) + float(stands["pending_usd"]) == pytest.approx(counted["accepted"] * 0.05)
