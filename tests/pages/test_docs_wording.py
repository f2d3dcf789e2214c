"""Schemas in words, and bodies made up from them."""

from __future__ import annotations

from typing import Any

import pytest

from zsky_box.pages.docs import examples
from zsky_box.pages.docs.wording import Kind, bounds, kind

NULL = {"type": "null"}
KINDS: list[tuple[dict[str, Any], Kind]] = [
    ({"type": "string"}, Kind("string")),
    ({"type": "string", "format": "date-time"}, Kind("time, RFC 3339")),
    ({"enum": ["a", 1, None]}, Kind('"a" | 1 | null')),
    ({"const": "list"}, Kind('"list"')),
    ({"anyOf": [{"type": "integer"}, NULL]}, Kind("integer or null")),
    ({"oneOf": [{"$ref": "#/components/schemas/Receipt"}, NULL]}, Kind("", "Receipt", " or null")),
    ({"type": "array", "items": {"$ref": "#/components/schemas/JobView"}}, Kind("list of ", "JobView")),
    ({"type": "object", "additionalProperties": {"type": "string"}}, Kind("object of string")),
    ({"type": "object"}, Kind("object")),
    ({"type": ["string", "null"]}, Kind("string or null")),
    ({}, Kind("any")),
]
BOUNDS: list[tuple[dict[str, Any], str]] = [
    ({"type": "string", "minLength": 1, "maxLength": 8000}, "1 to 8,000 characters"),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 3600}, "more than 0, at most 3,600"),
    ({"type": "number", "exclusiveMinimum": 0}, "more than 0"),
    ({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 10}, NULL], "default": None}, "1 to 10"),
    ({"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "1 to 100; default 20"),
    ({"type": "object", "maxProperties": 16}, "at most 16 entries"),
    ({"type": "boolean", "default": False}, "default false"),
    ({"type": "string"}, ""),
]


@pytest.mark.parametrize(("schema", "told"), KINDS)
def test_what_a_value_is(schema: dict[str, Any], told: Kind) -> None:
    assert kind(schema) == told


@pytest.mark.parametrize(("schema", "told"), BOUNDS)
def test_what_a_value_is_held_to(schema: dict[str, Any], told: str) -> None:
    assert bounds(schema) == told


def test_a_schema_within_itself_without_end_is_told_as_far_as_it_goes() -> None:
    nested: dict[str, Any] = {"type": "array"}
    nested["items"] = nested
    assert kind(nested).before.startswith("list of list of ")


def test_a_body_that_has_no_sample_is_made_of_what_it_must_have() -> None:
    schema = {
        "type": "object",
        "required": ["url", "events", "mode", "nested"],
        "properties": {
            "url": {"type": "string", "examples": ["https://studio.example/hook"]},
            "events": {"type": "array"},
            "mode": {"enum": ["live", "test"]},
            "nested": {"$ref": "#/components/schemas/Nested"},
            "note": {"type": "string"},
        },
    }
    nested = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    operation = {
        "operationId": "createWebhook",
        "requestBody": {"content": {"application/json": {"schema": schema}}},
    }
    line = examples.curl("post", "/v1/webhooks", operation, {"Nested": nested})
    assert line.startswith(f"curl {examples.BASE}/v1/webhooks \\\n")
    assert f"-H 'X-API-Key: {examples.KEY}'" in line
    assert line.endswith(
        """-d '{"url": "https://studio.example/hook", "events": [], "mode": "live", "nested": {"n": 1}}'"""
    )
