"""`POST /v1/generate`: what is accepted, and that a refusal stores and charges nothing."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest

from tests.api.asking import IMAGE, VIDEO, made, nothing_happens, problem, submit, units_left
from tests.running import RunningBox
from tests.waiting import until

CALLERS = 120


def test_it_works(live: httpx.Client) -> None:
    answer = live.post("/v1/generate", json={"type": "video", "prompt": "a red fox in the snow"})
    assert answer.status_code == 202
    accepted = answer.json()
    assert re.fullmatch(r"job_[0-9a-z]{26}", accepted["job_id"])
    assert accepted["status"] == "queued"
    assert answer.headers["location"] == f"/v1/jobs/{accepted['job_id']}"
    assert live.get(answer.headers["location"]).json()["job_id"] == accepted["job_id"]
    assert (accepted["type"], accepted["test"], accepted["n"]) == ("video", False, 1)
    # The documented defaults: 1080p, 16:9, five seconds; the exact length comes back.
    assert (accepted["width"], accepted["height"]) == (1920, 1080)
    assert accepted["duration"] == pytest.approx(5, abs=0.1)
    assert accepted["fps"] == 24
    assert 0 <= accepted["seed"] < 2**53
    assert accepted["created_at"].endswith("Z")
    # No real model is installed: the reply says what answered.
    assert accepted["model"] == "leader"
    assert any("leader" in note for note in accepted["notes"])


def test_every_field_of_a_request_comes_back_with_the_job(shared_box: RunningBox, live: httpx.Client) -> None:
    body = {
        "type": "video",
        "prompt": "a red fox in the snow",
        "model": "leader",
        "seed": 2**53 - 10,
        "aspect_ratio": "9:16",
        "resolution": "720p",
        "duration": 2.5,
        "fps": 30,
        "n": 1,
        "metadata": {"campaign": "winter", "größe": "✓"},
        "priority": "batch",
        "start_deadline": 600,
        "deadline": 900.5,
    }
    job = made(shared_box, live, body)
    for name in ("type", "prompt", "model", "seed", "duration", "fps", "n", "metadata", "priority"):
        assert job[name] == body[name], name
    assert (job["width"], job["height"]) == (720, 1280)
    assert (job["result"]["width"], job["result"]["height"], job["result"]["frames"]) == (720, 1280, 75)


@pytest.mark.parametrize(
    ("resolution", "ratio", "size"),
    [
        ("1080p", "16:9", (1920, 1080)),
        ("1080p", "9:16", (1080, 1920)),
        ("1080p", "1:1", (1080, 1080)),
        ("1080p", "4:3", (1440, 1080)),
        ("1080p", "3:4", (1080, 1440)),
        ("1080p", "21:9", (2520, 1080)),
        ("480p", "16:9", (854, 480)),
    ],
)
def test_sizes_are_the_documented_ones(live: httpx.Client, resolution: str, ratio: str, size: tuple[int, int]) -> None:
    body = {"type": "image", "prompt": "a fox", "resolution": resolution, "aspect_ratio": ratio}
    accepted = live.post("/v1/generate", json=body).json()
    assert (accepted["width"], accepted["height"]) == size


def test_several_images_are_one_job_with_one_unit_each(shared_box: RunningBox, live: httpx.Client) -> None:
    job = made(shared_box, live, {**IMAGE, "n": 3, "seed": 7})
    assert [result["seed"] for result in job["results"]] == [7, 8, 9]
    assert job["results"][0] == job["result"]
    assert job["result_url"] == job["result"]["url"]
    assert (job["charge"]["units"], job["charge"]["included_units"], job["charge"]["state"]) == (3, 3, "posted")


def test_images_that_failed_are_not_charged(shared_box: RunningBox, live: httpx.Client) -> None:
    job = shared_box.ended(live, submit(live, {**IMAGE, "prompt": "double:fails_second_image", "n": 3}))
    assert (job["status"], len(job["results"])) == ("completed", 1)
    assert (job["charge"]["units"], job["charge"]["included_units"]) == (3, 1)
    assert any("2 of 3 images failed" in note for note in job["notes"])


def test_text_in_any_script_is_kept_as_it_came(shared_box: RunningBox, live: httpx.Client) -> None:
    prompt = "夜市の雨\n\tcafé ☕ 👩‍🎨 e\u0301"
    assert made(shared_box, live, {**IMAGE, "prompt": prompt})["prompt"] == prompt


def test_the_last_of_a_repeated_name_counts(live: httpx.Client) -> None:
    """As every JSON reader that clients know has it."""
    answer = live.post("/v1/generate", content=b'{"type": "video", "prompt": "a", "type": "image", "prompt": "b"}')
    assert answer.status_code == 202
    job = live.get(f"/v1/jobs/{answer.json()['job_id']}").json()
    assert (job["type"], job["prompt"]) == ("image", "b")


# Bad input

BAD_BODIES: list[tuple[str, bytes, int, str]] = [
    ("empty", b"", 400, "malformed_json"),
    ("not JSON", b"prompt=a+fox", 400, "malformed_json"),
    ("cut short", b'{"type": "image", "prompt": "a', 400, "malformed_json"),
    ("more after it", b'{"type": "image", "prompt": "a"} {}', 400, "malformed_json"),
    ("a list", b'[{"type": "image", "prompt": "a"}]', 422, "invalid_field"),
    ("an empty list", b"[]", 422, "invalid_field"),
    ("text", b'"a fox"', 422, "invalid_field"),
    ("a number", b"7", 422, "invalid_field"),
    ("null", b"null", 422, "invalid_field"),
    ("NaN", b'{"type": "video", "prompt": "a", "duration": NaN}', 400, "malformed_json"),
    ("Infinity", b'{"type": "video", "prompt": "a", "duration": -Infinity}', 400, "malformed_json"),
    ("a float out of range", b'{"type": "video", "prompt": "a", "duration": 1e999}', 400, "malformed_json"),
    ("a giant integer", b'{"type": "image", "prompt": "a", "seed": %s}' % (b"9" * 5000), 400, "malformed_json"),
    ("deep lists", b"[" * 100_000, 400, "malformed_json"),
    ("deep objects", b'{"a":' * 100_000, 400, "malformed_json"),
    ("invalid UTF-8", b'{"type": "image", "prompt": "\xff\xfe"}', 400, "malformed_json"),
    ("UTF-16", '{"type": "image", "prompt": "a"}'.encode("utf-16"), 400, "malformed_json"),
    ("a byte order mark", b'\xef\xbb\xbf{"type": "image", "prompt": "a"}', 400, "malformed_json"),
    ("half a surrogate pair", b'{"type": "image", "prompt": "\\ud83d"}', 400, "malformed_json"),
]


@pytest.mark.parametrize(("body", "status", "code"), [case[1:] for case in BAD_BODIES], ids=[c[0] for c in BAD_BODIES])
def test_a_body_that_is_no_json_object_is_refused(live: httpx.Client, body: bytes, status: int, code: str) -> None:
    with nothing_happens(live):
        problem(live.post("/v1/generate", content=body, headers={"Content-Type": "application/json"}), status, code)


BAD_FIELDS: list[tuple[str, dict[str, Any], str, str]] = [
    ("no type", {"type": ...}, "invalid_field", "type"),
    ("no prompt", {"prompt": ...}, "invalid_field", "prompt"),
    ("empty prompt", {"prompt": ""}, "invalid_field", "prompt"),
    ("blank prompt", {"prompt": " \n\t "}, "invalid_field", "prompt"),
    ("a prompt of 100,000 characters", {"prompt": "x" * 100_000}, "invalid_field", "prompt"),
    ("a number as prompt", {"prompt": 7}, "invalid_field", "prompt"),
    ("null as prompt", {"prompt": None}, "invalid_field", "prompt"),
    ("a list as prompt", {"prompt": ["a fox"]}, "invalid_field", "prompt"),
    ("an object as prompt", {"prompt": {"text": "a fox"}}, "invalid_field", "prompt"),
    ("a control character", {"prompt": "a\x00fox"}, "invalid_field", "prompt"),
    ("another type", {"type": "audio"}, "invalid_field", "type"),
    ("text as seed", {"seed": "7"}, "invalid_field", "seed"),
    ("truth as seed", {"seed": True}, "invalid_field", "seed"),
    ("a fraction as seed", {"seed": 1.5}, "invalid_field", "seed"),
    ("a negative seed", {"seed": -1}, "invalid_field", "seed"),
    ("a seed that JavaScript rounds", {"seed": 2**53}, "invalid_field", "seed"),
    ("a seed of 64 bits", {"seed": 2**64 - 1}, "invalid_field", "seed"),
    ("no images", {"type": "image", "n": 0}, "invalid_field", "n"),
    ("eleven images", {"type": "image", "n": 11}, "invalid_field", "n"),
    ("no duration", {"duration": 0}, "invalid_field", "duration"),
    ("text as metadata", {"metadata": "a"}, "invalid_field", "metadata"),
    ("seventeen pairs", {"metadata": {str(i): "" for i in range(17)}}, "invalid_field", "metadata"),
    ("a number in metadata", {"metadata": {"a": 1}}, "invalid_field", "metadata.a"),
    ("a priority of one's own", {"priority": "urgent"}, "invalid_field", "priority"),
    ("a deadline in the past", {"deadline": -5}, "invalid_field", "deadline"),
    ("an unknown size", {"resolution": "4k"}, "invalid_field", "resolution"),
    ("an unknown shape", {"aspect_ratio": "2:1"}, "invalid_field", "aspect_ratio"),
    ("an unknown field", {"promt": "a fox"}, "unknown_field", "promt"),
    ("too long for the model", {"duration": 3_000}, "unsupported_for_model", "duration"),
    ("too short for the model", {"duration": 0.01}, "unsupported_for_model", "duration"),
    ("a rate the model has not", {"fps": 23}, "unsupported_for_model", "fps"),
    ("two videos", {"n": 2}, "unsupported_for_model", "n"),
    ("a still with a duration", {"type": "image", "duration": 5}, "unsupported_for_model", "duration"),
    ("a still with a rate", {"type": "image", "fps": 24}, "unsupported_for_model", "fps"),
    ("a negative prompt", {"negative_prompt": "blur"}, "unsupported_for_model", "negative_prompt"),
    ("a reference image", {"image": "data:image/png;base64,AA=="}, "unsupported_for_model", "image"),
    ("a strength", {"strength": 0.5}, "unsupported_for_model", "strength"),
    ("a webhook", {"webhook_url": "https://example.com/hook"}, "invalid_field", "webhook_url"),
    ("a model that is not there", {"model": "no-such-model"}, "model_not_installed", "model"),
    ("a model that is not installed", {"model": "ltx-2.3-distilled"}, "model_not_installed", "model"),
]


@pytest.mark.parametrize(
    ("changes", "code", "field"), [case[1:] for case in BAD_FIELDS], ids=[case[0] for case in BAD_FIELDS]
)
def test_a_bad_field_is_refused_by_name(live: httpx.Client, changes: dict[str, Any], code: str, field: str) -> None:
    body = {name: value for name, value in ({"type": "video", "prompt": "a"} | changes).items() if value is not ...}
    with nothing_happens(live):
        refused = problem(live.post("/v1/generate", json=body), 422, code, field)
    assert field.partition(".")[0] in refused["detail"]
    assert [error["field"] for error in refused["errors"]] == [field]


def test_all_that_is_wrong_is_told_at_once(live: httpx.Client) -> None:
    body = {"type": "image", "prompt": 5, "n": 99, "seed": "x", "metadata": {"a": 1}, "resolutoin": "480p"}
    refused = problem(live.post("/v1/generate", json=body), 422, "invalid_field")
    told = {error["field"]: error for error in refused["errors"]}
    assert told.keys() == {"prompt", "n", "seed", "metadata.a", "resolutoin"}
    assert told["resolutoin"]["code"] == "unknown_field"
    assert "'resolution'" in told["resolutoin"]["message"]


def test_what_the_model_can_do_is_in_the_message(live: httpx.Client) -> None:
    body = {"type": "video", "prompt": "a", "fps": 23, "duration": 100}
    refused = problem(live.post("/v1/generate", json=body), 422, "unsupported_for_model")
    assert [error["field"] for error in refused["errors"]] == ["fps", "duration"]
    assert "24, 25, 30" in refused["errors"][0]["message"]
    assert "1 to 20 seconds" in refused["errors"][1]["message"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", b'{"type": "image", "prompt": "a"}'),
        ("application/xml", b"<prompt/>"),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("application/x-www-form-urlencoded", b"type=image&prompt=a"),
        ("application/jsonp", b'{"type": "image", "prompt": "a"}'),
        ("/", b'{"type": "image", "prompt": "a"}'),
    ],
)
def test_another_content_type_is_refused(live: httpx.Client, content_type: str, body: bytes) -> None:
    with nothing_happens(live):
        answer = live.post("/v1/generate", content=body, headers={"Content-Type": content_type})
        problem(answer, 415, "unsupported_media")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", "application/ld+json"])
def test_every_way_to_say_json_is_understood(live: httpx.Client, content_type: str) -> None:
    answer = live.post(
        "/v1/generate", content=b'{"type": "image", "prompt": "a"}', headers={"Content-Type": content_type}
    )
    assert answer.status_code == 202


def test_a_compressed_body_is_refused(live: httpx.Client) -> None:
    with nothing_happens(live):
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        problem(live.post("/v1/generate", content=b"\x1f\x8b\x08\x00", headers=headers), 415, "unsupported_media")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_two_mebibytes_is_refused(live: httpx.Client, *, chunked: bool) -> None:
    body = b'{"type": "image", "prompt": "' + b"x" * 2**21 + b'"}'
    content = (body[at : at + 2**15] for at in range(0, len(body), 2**15)) if chunked else body
    with nothing_happens(live):
        answer = live.post("/v1/generate", content=content)
        assert ("content-length" in answer.request.headers) != chunked
        problem(answer, 413, "too_large")


def test_a_client_that_leaves_in_the_middle_is_no_fault(shared_box: RunningBox, live: httpx.Client) -> None:
    def half() -> Any:
        yield b'{"type": "image", '
        raise ConnectionError("the client leaves")

    told = shared_box.log().count("POST /v1/generate 400")
    with nothing_happens(live):
        with shared_box.client() as leaving, pytest.raises(ConnectionError):
            leaving.post("/v1/generate", content=half())
        until(lambda: shared_box.log().count("POST /v1/generate 400") > told, "the request is logged")
    assert "client disconnected prematurely" not in shared_box.log()


# Idempotency


def test_the_same_key_gives_the_same_answer(live: httpx.Client) -> None:
    headers = {"Idempotency-Key": "a retry ~ 1"}
    first = live.post("/v1/generate", json={"type": "image", "prompt": "a fox"}, headers=headers)
    again = live.post("/v1/generate", content=b'{ "prompt": "a fox",\n "type": "image" }', headers=headers)
    assert again.status_code == 202
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"


def test_the_same_key_with_another_request_conflicts(live: httpx.Client) -> None:
    headers = {"Idempotency-Key": "a conflict"}
    job_id = submit(live, IMAGE, **headers)
    with nothing_happens(live):
        problem(live.post("/v1/generate", json=VIDEO, headers=headers), 409, "idempotency_conflict")
        problem(live.post(f"/v1/jobs/{job_id}/rerun", headers=headers), 409, "idempotency_conflict")


def test_live_and_test_keys_do_not_share_idempotency(live: httpx.Client, tester: httpx.Client) -> None:
    headers = {"Idempotency-Key": "one for each mode"}
    assert submit(live, IMAGE, **headers) != submit(tester, IMAGE, **headers)


def test_a_refusal_is_not_kept(live: httpx.Client) -> None:
    headers = {"Idempotency-Key": "refused first"}
    problem(live.post("/v1/generate", json={"type": "image"}, headers=headers), 422, "invalid_field", "prompt")
    assert live.post("/v1/generate", json=IMAGE, headers=headers).status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "naïve"])
def test_a_bad_idempotency_key_is_refused(live: httpx.Client, key: str) -> None:
    with nothing_happens(live):
        headers = {b"Idempotency-Key": key.encode("latin-1")}
        answer = live.post("/v1/generate", json=IMAGE, headers=httpx.Headers(list(headers.items())))
        problem(answer, 422, "invalid_field", "Idempotency-Key")


def test_a_storm_with_one_key_is_one_job(shared_box: RunningBox, live: httpx.Client) -> None:
    """One hundred and twenty callers at once: one job, one unit, one answer for all."""
    before = units_left(live)

    async def storm() -> list[httpx.Response]:
        headers = {"X-API-Key": shared_box.keys["live"], "Idempotency-Key": "storm"}
        limits = httpx.Limits(max_connections=CALLERS)
        async with httpx.AsyncClient(
            base_url=shared_box.url, headers=headers, trust_env=False, timeout=300, limits=limits
        ) as client:
            return await asyncio.gather(*(client.post("/v1/generate", json=IMAGE) for _ in range(CALLERS)))

    answers = asyncio.run(storm())
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert units_left(live) == before | {"image": before["image"] - 1}
