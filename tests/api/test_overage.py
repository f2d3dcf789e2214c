"""Overage over HTTP: what a client sees of its money, and what it may set of it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import money
from tests.api.asking import IMAGE, VIDEO, made, problem, told
from tests.money import stands
from tests.running import RunningBox
from tests.waiting import BOUND_SECONDS

JSON = {"Content-Type": "application/json"}
CALLERS = 60


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """The owner and a second account with a ceiling of $20; `script` is a key of the owner without `billing`."""
    folder = tmp_path_factory.mktemp("studio") / "data"
    running = RunningBox(folder, devices="cpu")
    money.member(folder, "member")
    money.ceiling(folder, "20.00", "member")
    running.keys["member"] = money.key(folder, "member")
    running.keys["script"] = money.key(folder, money.OWNER, "generate", "read")
    running.start()
    yield running
    running.stop()


@pytest.fixture
def owner(studio: RunningBox) -> Generator[httpx.Client]:
    """The owner's client, overage off and the cap $5."""
    with studio.client() as client:
        client.post("/v1/me/overage/toggle", json={"enabled": False})
        client.post("/v1/me/overage/cap", json={"cap_usd": 5})
        yield client


def test_it_works(tmp_path: Path) -> None:
    fresh = RunningBox(tmp_path / "data", devices="cpu").start()
    try:
        with fresh.client() as client:
            found = stands(client)
    finally:
        fresh.stop()
    period = found.pop("period")
    assert found == {
        "enabled": False,
        "cap_usd": "5.00",
        "spend_usd": "0.00",
        "pending_usd": "0.00",
        "remaining_usd": "5.00",
        "wallet_usd": "0.00",
        "plan": "max",
        "prices": {"video_usd": "0.50", "image_usd": "0.05"},
        "included": {
            "video": {"granted": 300, "used": 0, "pending": 0, "left": 300},
            "image": {"granted": 1000, "used": 0, "pending": 0, "left": 1000},
        },
    }
    assert list(period) == ["start", "end"]
    assert all(time.endswith("-01T00:00:00Z") for time in period.values())


# Toggle


@pytest.mark.parametrize("enabled", [True, False])
def test_overage_is_turned_on_and_off(owner: httpx.Client, *, enabled: bool) -> None:
    for _ in range(2):
        answer = owner.post("/v1/me/overage/toggle", json={"enabled": enabled})
        assert answer.status_code == 200
        assert answer.json() == stands(owner)
        assert answer.json()["enabled"] is enabled


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {}),
        (b"", JSON),
        (b"{}", JSON),
        (b"", {"Content-Type": "application/x-www-form-urlencoded"}),
        (b"{}", {"Content-Type": "application/x-www-form-urlencoded"}),
    ],
)
def test_without_a_word_it_is_flipped(owner: httpx.Client, content: bytes, headers: dict[str, str]) -> None:
    flips = [owner.post("/v1/me/overage/toggle", content=content, headers=headers) for _ in range(3)]
    assert [answer.json()["enabled"] for answer in flips] == [True, False, True]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"enabled": None}, "invalid_field", "enabled"),
        ({"enabled": 1}, "invalid_field", "enabled"),
        ({"enabled": "true"}, "invalid_field", "enabled"),
        ({"enable": True}, "unknown_field", "enable"),
        ({"enabled": True, "cap_usd": 5}, "unknown_field", "cap_usd"),
        ([], "invalid_field", ""),
        (None, "invalid_field", ""),
        (False, "invalid_field", ""),
    ],
)
def test_another_toggle_is_refused_and_flips_nothing(owner: httpx.Client, body: Any, code: str, field: str) -> None:
    answer = owner.post("/v1/me/overage/toggle", content=json.dumps(body), headers=JSON)
    refused = problem(answer, 422, code, field)
    assert (field != "enable") or "'enabled'" in refused["detail"]
    assert stands(owner)["enabled"] is False


def test_a_retried_flip_does_not_flip_back(owner: httpx.Client) -> None:
    headers = {"Idempotency-Key": "flip once"}
    first = owner.post("/v1/me/overage/toggle", headers=headers)
    again = owner.post("/v1/me/overage/toggle", headers=headers)
    assert first.json()["enabled"] is True
    assert again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert stands(owner)["enabled"] is True
    problem(owner.post("/v1/me/overage/toggle", json={"enabled": False}, headers=headers), 409, "idempotency_conflict")
    problem(owner.post("/v1/me/overage/cap", json={"cap": 5}, headers=headers), 409, "idempotency_conflict")
    assert stands(owner)["enabled"] is True


def test_many_retries_of_a_flip_at_once_are_one_flip(studio: RunningBox, owner: httpx.Client) -> None:
    async def storm() -> list[httpx.Response]:
        headers = {"X-API-Key": studio.keys["live"], "Idempotency-Key": "a storm of flips"}
        async with httpx.AsyncClient(base_url=studio.url, headers=headers, trust_env=False, timeout=300) as client:
            return await asyncio.gather(*(client.post("/v1/me/overage/toggle") for _ in range(CALLERS)))

    answers = asyncio.run(storm())
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert stands(owner)["enabled"] is True


# Cap


@pytest.mark.parametrize(
    ("body", "cap"),
    [
        (b'{"cap_usd": 5}', "5.00"),
        (b'{"cap_usd": 1000}', "1000.00"),
        (b'{"cap": 25}', "25.00"),
        (b'{"cap_usd": "25.5"}', "25.50"),
        (b'{"cap_usd": "25.57"}', "25.57"),
        (b'{"cap": 25.57}', "25.57"),
        (b'{"cap_usd": 1e2}', "100.00"),
        (b'{"cap_usd": 999.99}', "999.99"),
    ],
)
def test_the_cap_is_what_was_sent_to_the_cent(owner: httpx.Client, body: bytes, cap: str) -> None:
    answer = owner.post("/v1/me/overage/cap", content=body, headers=JSON)
    assert answer.status_code == 200
    assert answer.json() == stands(owner)
    assert (answer.json()["cap_usd"], answer.json()["remaining_usd"]) == (cap, cap)


@pytest.mark.parametrize(
    "given",
    [
        *("4.99", '"4.99"', "0", "-5", "-0.0", "1000.01", '"1000.01"', "1e3000", "99999999999999999999"),
        *("25.001", '"25.001"', '"25.000"', "25.0000000000000000000000000000000000001"),
        *('""', '" 25"', '"25 "', '"25\\n"', '"+25"', '"-25"', '"2_5"', '"1e2"', '"25."', '".5"', '"25,00"'),
        *('"٢٥"', '"\uff12\uff15"', '"$25"', '"NaN"', '"Infinity"', '"0x19"', '"twenty"'),
        *("true", "false", "null", "[]", "[25]", "{}", '{"usd": 25}'),
    ],
)
@pytest.mark.parametrize("name", ["cap_usd", "cap"])
def test_another_cap_is_refused_and_changes_nothing(owner: httpx.Client, name: str, given: str) -> None:
    answer = owner.post("/v1/me/overage/cap", content=f'{{"{name}": {given}}}'.encode(), headers=JSON)
    refused = problem(answer, 422, "invalid_field")
    assert refused["field"] in (name, "cap_usd")
    assert stands(owner)["cap_usd"] == "5.00"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b"{}", "invalid_field", "cap_usd"),
        (b"25", "invalid_field", ""),
        (b'{"cap_usd": 25, "cap": 25}', "invalid_field", "cap"),
        (b'{"cap_usd": 25, "cap": null}', "invalid_field", "cap"),
        (b'{"cap_uds": 25}', "unknown_field", "cap_uds"),
        (b'{"cap": 25, "enabled": true}', "unknown_field", "enabled"),
    ],
)
def test_a_body_that_names_no_one_cap_is_refused(owner: httpx.Client, body: bytes, code: str, field: str) -> None:
    refused = problem(owner.post("/v1/me/overage/cap", content=body, headers=JSON), 422, code, field)
    assert (field != "cap_uds") or "'cap_usd'" in refused["detail"]
    assert stands(owner)["cap_usd"] == "5.00"


@pytest.mark.parametrize("body", [b"", b"NaN", b'{"cap_usd": NaN}', b'{"cap_usd": Infinity}', b'{"cap_usd": 025}'])
def test_what_is_no_json_is_no_cap(owner: httpx.Client, body: bytes) -> None:
    problem(owner.post("/v1/me/overage/cap", content=body, headers=JSON), 400, "malformed_json")
    assert stands(owner)["cap_usd"] == "5.00"


def test_a_retried_cap_does_not_undo_a_later_one(owner: httpx.Client) -> None:
    headers = {"Idempotency-Key": "cap once"}
    first = owner.post("/v1/me/overage/cap", json={"cap_usd": 10.5}, headers=headers)
    owner.post("/v1/me/overage/cap", json={"cap_usd": 7})
    again = owner.post("/v1/me/overage/cap", json={"cap_usd": 10.5}, headers=headers)
    assert again.content == first.content
    assert stands(owner)["cap_usd"] == "7.00"
    problem(owner.post("/v1/me/overage/cap", json={"cap_usd": 11}, headers=headers), 409, "idempotency_conflict")


def test_the_owners_ceiling_is_above_every_cap_of_an_account(studio: RunningBox) -> None:
    with studio.client("member") as member:
        refused = problem(member.post("/v1/me/overage/cap", json={"cap": 20.01}), 422, "invalid_field")
        assert "$20.00" in refused["detail"]
        assert member.post("/v1/me/overage/cap", json={"cap": 20}).json()["cap_usd"] == "20.00"


# Who may


def test_a_key_without_billing_reads_and_touches_neither(studio: RunningBox, owner: httpx.Client) -> None:
    before = stands(owner)
    with studio.client("script") as script:
        for path, body in (("toggle", {}), ("cap", {"cap_usd": 1000})):
            refused = problem(script.post(f"/v1/me/overage/{path}", json=body), 403, "insufficient_scope")
            assert "'billing'" in refused["detail"]
        assert stands(script) == before == stands(owner)


def test_a_test_key_reads_and_touches_neither(studio: RunningBox, owner: httpx.Client) -> None:
    before = stands(owner)
    with studio.client("test") as tester:
        for path, body in (("toggle", {}), ("cap", {"cap_usd": 1000})):
            problem(tester.post(f"/v1/me/overage/{path}", json=body), 403, "test_key")
        assert stands(tester) == before == stands(owner)


def test_accounts_do_not_touch_each_others_money(studio: RunningBox, owner: httpx.Client) -> None:
    with studio.client("member") as member:
        before, headers = stands(owner), {"Idempotency-Key": "the same key in two accounts"}
        mine = member.post("/v1/me/overage/toggle", json={"enabled": True}, headers=headers).json()
        member.post("/v1/me/overage/cap", json={"cap": 12})
        assert mine["enabled"] is True
        assert stands(owner) == before
        theirs = owner.post("/v1/me/overage/toggle", json={"enabled": True}, headers=headers)
        assert "idempotent-replayed" not in theirs.headers
        assert (theirs.json()["cap_usd"], stands(member)["cap_usd"]) == ("5.00", "12.00")


# Spending


@pytest.fixture
def spent(tmp_path: Path) -> Generator[RunningBox]:
    """A box that includes one image and no video, the wallet empty and an image $6; `other` is an account with $100."""
    folder = tmp_path / "data"
    running = RunningBox(folder, devices="cpu", included_images=1, included_videos=0, image_usd="6.00")
    money.member(folder, "other")
    money.filled(folder, "100.00", "other")
    running.keys["other"] = money.key(folder, "other")
    running.start()
    yield running
    running.stop()


def test_money_is_refused_in_the_contracts_order_and_no_refusal_moves_a_balance(spent: RunningBox) -> None:
    with spent.client() as client, spent.client("other") as other:
        before = stands(other)
        made(spent, client, IMAGE)
        exhausted = _refused(client, IMAGE, 429, "allowance_exhausted")
        assert int(exhausted.headers["retry-after"]) <= 31 * 86_400
        client.post("/v1/me/overage/toggle", json={"enabled": True})
        # A video's price is within the cap of $5, and an image's of $6 is not: the cap is asked before the wallet.
        _refused(client, VIDEO, 402, "wallet_empty")
        reached = _refused(client, IMAGE, 429, "cap_reached")
        assert int(reached.headers["retry-after"]) <= 31 * 86_400
        client.post("/v1/me/overage/cap", json={"cap_usd": 6})
        short = _refused(client, IMAGE, 402, "wallet_empty")
        assert "$6.00" in short.json()["detail"]
        # Another account's money and cap are its own.
        assert stands(other) == before
        client.post("/v1/me/overage/toggle", json={"enabled": False})
        _refused(client, VIDEO, 429, "allowance_exhausted")


def test_what_is_spent_is_told_and_the_cap_ends_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    running = RunningBox(folder, devices="cpu", included_images=0, included_videos=0, video_usd="2.00")
    money.filled(folder, "100.00")
    running.start()
    try:
        with running.client() as client:
            _refused(client, VIDEO, 429, "allowance_exhausted")
            client.post("/v1/me/overage/toggle")
            job = made(running, client, VIDEO)
            charge = job["charge"]
            assert (charge["wallet_units"], charge["amount_usd"], charge["state"]) == (1, "2.00", "posted")
            made(running, client, VIDEO)
            found = stands(client)
            assert (found["spend_usd"], found["pending_usd"]) == ("4.00", "0.00")
            assert (found["remaining_usd"], found["wallet_usd"]) == ("1.00", "96.00")
            reached = _refused(client, VIDEO, 429, "cap_reached")
            assert "$1.00" in reached.json()["detail"]
            assert int(reached.headers["retry-after"]) <= 31 * 86_400
            # A cap below what is spent cannot be had at $5; above it, there is room again.
            client.post("/v1/me/overage/cap", json={"cap_usd": "6.00"})
            made(running, client, VIDEO)
            client.post("/v1/me/overage/toggle", json={"enabled": False})
            _refused(client, VIDEO, 429, "allowance_exhausted")
    finally:
        running.stop()


def test_what_a_change_of_the_cap_reaches_is_told_on_the_accounts_feed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    running = RunningBox(folder, devices="cpu", included_videos=0, video_usd="4.00")
    money.filled(folder, "100.00")
    money.spending(folder, "100.00")
    running.start()
    heard: list[Any] = []
    try:
        with running.client() as client, running.client() as listening:
            made(running, client, VIDEO)
            with listening.stream("GET", "/v1/events") as stream:
                messages = told(stream)
                assert next(messages).kind == "snapshot"

                def listen() -> None:
                    heard.extend(next(messages) for _ in range(2))

                listener = threading.Thread(target=listen, daemon=True)
                listener.start()
                assert client.post("/v1/me/overage/cap", json={"cap_usd": 5}).status_code == 200
                listener.join(BOUND_SECONDS)
    finally:
        running.stop()
    assert [(message.kind, message.data["alert"], message.data["percent"]) for message in heard] == [
        ("alert", "cap", 50),
        ("alert", "cap", 80),
    ]


def _refused(client: httpx.Client, body: dict[str, Any], status: int, code: str) -> httpx.Response:
    """A submit that is refused and moves no balance."""
    before = stands(client)
    answer = client.post("/v1/generate", json=body)
    problem(answer, status, code)
    assert stands(client) == before
    return answer


@pytest.mark.parametrize("path", ["/v1/me/overage/toggle?enabled=true", "/v1/me/overage/cap?cap_usd=25"])
def test_what_was_meant_for_the_body_is_not_overlooked_in_the_address(shared_box: RunningBox, path: str) -> None:
    with shared_box.client() as client:
        before = money.stands(client)
        answer = client.post(path)
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown_field")
        assert money.stands(client)["enabled"] is before["enabled"]
