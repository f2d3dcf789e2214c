from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsky_box.errors import FieldError, InvalidFields, Refusal
from zsky_box.schemas import (
    DEADLINE_MAX_SECONDS,
    ERRORS_MAX,
    PROMPT_MAX,
    SEED_MAX,
    GenerateBody,
    read_json,
    read_object,
)

GOOD: dict[str, Any] = {"type": "image", "prompt": "a quiet lake"}
BODY_MAX_BYTES = 1024 * 1024

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from([*GenerateBody.__struct_fields__, "promt", "", "$", "a.b"])


def errors_of(body: Any) -> list[FieldError]:
    """What is wrong with a body."""
    with pytest.raises(InvalidFields) as refused:
        read_object(GenerateBody, body)
    assert refused.value.status == 422
    assert refused.value.field == refused.value.errors[0].field
    return refused.value.errors


def error_of(body: Any) -> FieldError:
    """The only thing that is wrong with a body."""
    (error,) = errors_of(body)
    return error


# JSON


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"type": "image",}',
        b"{'type': 'image'}",
        b'{"seed": NaN}',
        b'{"seed": Infinity}',
        b'{"duration": 1e999}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "\\udc00\\ud800"}',
        b'{"prompt": "\xed\xa0\x80"}',
        b'{"prompt": "\xff"}',
        b'{"prompt": "a\nb"}',
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\x00",
    ],
)
def test_what_is_no_json_is_refused_as_malformed(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        read_json(body)
    assert (refused.value.status, refused.value.code) == (400, "malformed_json")
    assert len(refused.value.detail) < 300


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"prompt": "\xff"}', "The body is not JSON: its text is not UTF-8."),
        (b"[" * 100_000, "The body is not JSON: it is nested too deeply."),
        (b'{"seed": NaN}', "The body is not JSON: invalid character (byte 9)."),
        (b'{"duration": 1e999}', "The body is not JSON: number out of range."),
    ],
)
def test_what_is_wrong_is_told_in_words_about_the_body(body: bytes, told: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_json(body)
    assert refused.value.detail == told


def test_an_empty_body_is_told_from_a_broken_one() -> None:
    with pytest.raises(Refusal, match="The body is empty; send a JSON object"):
        read_json(b"")


@settings(deadline=None)
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")))
def test_any_bytes_become_a_value_or_a_refusal(body: bytes) -> None:
    try:
        read_json(body)
    except Refusal as refusal:
        assert refusal.status == 400  # noqa: PT017 - most inputs raise nothing


# Fields


def test_a_body_becomes_its_struct() -> None:
    body = read_object(GenerateBody, {**GOOD, "seed": 5, "duration": 3, "metadata": {"shot": "12"}, "fps": None})
    assert (body.type, body.prompt, body.seed, body.duration, body.metadata) == (
        "image",
        "a quiet lake",
        5,
        3.0,
        {"shot": "12"},
    )
    assert body.fps is None


@pytest.mark.parametrize("value", [None, [], "text", 1, True, 1.5])
def test_a_body_that_is_no_object_is_refused(value: Any) -> None:
    assert "must be a JSON object" in error_of(value).message


def test_all_errors_are_told_at_once_each_with_its_path() -> None:
    body = {"promt": "x", "seed": True, "n": 11, "metadata": {"a": 1, "b": "fine", "c": None}, "priority": "now"}
    assert [(error.field, error.code) for error in errors_of(body)] == [
        ("promt", "unknown_field"),
        ("seed", "invalid_field"),
        ("n", "invalid_field"),
        ("metadata.a", "invalid_field"),
        ("metadata.c", "invalid_field"),
        ("priority", "invalid_field"),
        ("type", "invalid_field"),
        ("prompt", "invalid_field"),
    ]


def test_the_problem_has_the_first_errors_code_and_counts_the_rest() -> None:
    with pytest.raises(InvalidFields) as refused:
        read_object(GenerateBody, {"promt": "x"})
    assert (refused.value.code, refused.value.field) == ("unknown_field", "promt")
    assert "(2 more: see errors)" in refused.value.detail


@pytest.mark.parametrize(
    ("given_name", "meant"),
    [("promt", "prompt"), ("Seed", "seed"), ("negativ_prompt", "negative_prompt"), ("aspectratio", "aspect_ratio")],
)
def test_an_unknown_field_is_answered_with_the_nearest_known_name(given_name: str, meant: str) -> None:
    error = error_of({**GOOD, given_name: 1})
    assert (error.field, error.code) == (given_name, "unknown_field")
    assert f"did you mean {meant!r}?" in error.message


def test_a_field_like_no_other_is_answered_with_all_names() -> None:
    message = error_of({**GOOD, "zzzzzzzz": 1}).message
    assert all(name in message for name in GenerateBody.__struct_fields__)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("type", "gif", "'gif' is not one of video, image"),
        ("type", None, "expected text, got null"),
        ("type", ["video"], "got a list"),
        ("prompt", "", "length >= 1"),
        ("prompt", "x" * (PROMPT_MAX + 1), "length <= 8000"),
        ("prompt", 5, "expected text, got a whole number"),
        ("seed", True, "expected a whole number, got true or false"),
        ("seed", "5", "expected a whole number, got text"),
        ("seed", 1.5, "expected a whole number, got a number"),
        ("seed", -1, ">= 0"),
        ("seed", SEED_MAX + 1, f"<= {SEED_MAX}"),
        ("seed", 10**30, f"<= {SEED_MAX}"),
        ("n", 0, ">= 1"),
        ("n", 11, "<= 10"),
        ("n", False, "got true or false"),
        ("duration", 0, "> 0"),
        ("duration", -1, "> 0"),
        ("duration", 3_601, "<= 3600"),
        ("duration", True, "got true or false"),
        ("duration", float("nan"), "expected a number"),
        ("duration", float("inf"), "<= 3600"),
        ("fps", 0, ">= 1"),
        ("fps", 24.5, "got a number"),
        ("strength", 1.01, "<= 1"),
        ("aspect_ratio", "2:1", "16:9, 9:16, 1:1, 4:3, 3:4, 21:9"),
        ("resolution", "4k", "480p, 720p, 1080p"),
        ("priority", "urgent", "interactive, batch"),
        ("metadata", [], "expected an object, got a list"),
        ("metadata", {str(number): "x" for number in range(17)}, "length <= 16"),
        ("model", "m" * 65, "length <= 64"),
        ("webhook_url", "h" * 2_049, "length <= 2048"),
        ("start_deadline", 0, "> 0"),
        ("deadline", DEADLINE_MAX_SECONDS + 1, f"<= {DEADLINE_MAX_SECONDS}"),
    ],
)
def test_a_bad_value_is_told_with_what_is_allowed(field: str, value: Any, said: str) -> None:
    error = error_of({**GOOD, field: value})
    assert (error.field, error.code) == (field, "invalid_field")
    assert error.message.startswith(f"{field}: ")
    assert said in error.message


@pytest.mark.parametrize(
    ("metadata", "path", "said"),
    [
        ({"shot": 12}, "metadata.shot", "expected text, got a whole number"),
        ({"shot": "x" * 513}, "metadata.shot", "length <= 512"),
        ({"": "x"}, "metadata.", "its name: expected text of length >= 1"),
        ({"k" * 65: "x"}, f"metadata.{'k' * 64}…", "its name: expected text of length <= 64"),
    ],
)
def test_a_bad_entry_of_the_metadata_is_told_with_its_own_path(metadata: Any, path: str, said: str) -> None:
    error = error_of({**GOOD, "metadata": metadata})
    assert error.field == path
    assert said in error.message


def test_refusing_a_body_full_of_nonsense_is_quick_and_its_answer_small() -> None:
    unknown = {f"unknown{number}": 1 for number in range(60_000)}
    huge = {**GOOD, "type": "x" * BODY_MAX_BYTES, "metadata": dict.fromkeys(map(str, range(60_000)), 1)}
    started = time.process_time()
    for body in (unknown, huge, {"x" * BODY_MAX_BYTES: 1}):
        errors = errors_of(body)
        assert len(errors) <= ERRORS_MAX + len(GenerateBody.__struct_fields__)
        assert sum(len(error.message) for error in errors) < 64 * 1024
    assert time.process_time() - started < 1.0


@settings(deadline=None, max_examples=300)
@given(JSON | st.dictionaries(FIELDS, JSON, max_size=8).map(lambda body: GOOD | body))
def test_any_value_becomes_a_body_or_field_errors(value: Any) -> None:
    try:
        read_object(GenerateBody, value)
    except InvalidFields as refusal:
        assert all(error.message for error in refusal.errors)  # noqa: PT017 - some inputs raise nothing
