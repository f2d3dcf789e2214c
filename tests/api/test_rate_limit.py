"""A key's bucket over HTTP: 429 with its wait, and headers on every answer to a key."""

from __future__ import annotations

import re
import time
from collections.abc import Generator

import httpx
import msgspec
import pytest

from tests import money
from tests.api.asking import IMAGE, problem, submit, units_left
from tests.running import RunningBox
from zsky_box.control import FILE_NAME, Address

BURST = 40


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """A box that gives each key a burst of 40 requests, and one more a second."""
    folder = tmp_path_factory.mktemp("narrow") / "data"
    running = RunningBox(folder, devices="cpu", requests_per_second=1, requests_burst=BURST)
    for name in ("flood", "calm", "answers"):
        running.keys[name] = money.key(folder)
    running.start()
    yield running
    running.stop()


def limits(answer: httpx.Response) -> tuple[int, int]:
    """What is left at once, and the seconds until all of it is back."""
    assert answer.headers["ratelimit-policy"] == f'"requests";q={BURST};w={BURST}', answer.request.url
    match = re.fullmatch(r'"requests";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
    assert match
    return int(match[1]), int(match[2])


def test_a_flood_is_refused_with_the_time_to_wait_and_its_neighbours_are_not(narrow: RunningBox) -> None:
    with narrow.client("flood") as client, narrow.client("calm") as calm:
        answers = [client.post("/v1/quote", json=IMAGE) for _ in range(BURST)]
        assert [answer.status_code for answer in answers] == [200] * BURST
        for _ in range(3):
            answer = refused(client)
            problem(answer, 429, "rate_limited")
            assert int(answer.headers["retry-after"]) == 1
            assert limits(answer)[0] == 0
        # The submit that a full bucket refuses changes no balance either; another key of the account goes on.
        before = calm.get("/v1/me/overage").json(), units_left(calm)
        while (submitted := submitted_after_a_refusal(client)).status_code == 202:  # a second had gone by
            before = calm.get("/v1/me/overage").json(), units_left(calm)
        problem(submitted, 429, "rate_limited")
        assert (calm.get("/v1/me/overage").json(), units_left(calm)) == before


def submitted_after_a_refusal(client: httpx.Client) -> httpx.Response:
    refused(client)
    return client.post("/v1/generate", json=IMAGE)


def refused(client: httpx.Client) -> httpx.Response:
    """The first answer that the bucket refuses: it fills by one a second, and is asked for more than that."""
    for _ in range(100 * BURST):
        answer = client.post("/v1/quote", json=IMAGE)
        if answer.status_code == 429:
            return answer
    raise AssertionError("a flood is not refused")


def test_the_terminal_is_not_limited(narrow: RunningBox) -> None:
    control = httpx.Headers({"X-ZSky-Control": _token(narrow)})
    with httpx.Client(base_url=narrow.url, headers=control, trust_env=False) as terminal:
        answers = [terminal.get("/v1/me") for _ in range(BURST + 10)]
    assert {answer.status_code for answer in answers} == {200}
    assert not any("ratelimit" in answer.headers for answer in answers)


def test_every_answer_to_a_key_says_how_its_limit_stands(narrow: RunningBox) -> None:
    with narrow.client("answers") as client:
        began = time.monotonic()
        left = limits(client.get("/v1/me"))[0]
        job_id = submit(client, IMAGE)
        for method, path, status in (
            ("GET", "/v1/jobs/job_0", 404),
            ("POST", "/v1/generate", 422),
            ("OPTIONS", "/v1/generate", 204),
            ("GET", f"/v1/job_status/{job_id}", 200),
        ):
            answer = client.request(method, path, json={} if method == "POST" else None)
            assert answer.status_code == status
            left_then, full_after = limits(answer)
            assert left_then < left + (time.monotonic() - began)  # one comes back each second
            assert 0 < full_after <= BURST
        problem(client.post("/v1/generate", content=b"{"), 400, "malformed_json")
        with client.stream("GET", "/v1/events") as stream:
            assert stream.status_code == 200
            limits(stream)


def test_who_shows_no_key_is_told_of_no_limit(narrow: RunningBox) -> None:
    with narrow.client(None) as client:
        for answer in (client.get("/healthz"), client.get("/v1/me")):
            assert "ratelimit" not in answer.headers


def test_a_box_as_it_is_configured_lets_a_thousand_through_at_once(live: httpx.Client) -> None:
    answer = live.get("/v1/me")
    assert answer.headers["ratelimit-policy"] == '"requests";q=1000;w=20'
    assert 0 <= int(answer.headers["ratelimit"].partition("r=")[2].partition(";")[0]) < 1_000


def _token(box: RunningBox) -> str:
    return msgspec.json.decode((box.folder / FILE_NAME).read_bytes(), type=Address).token
