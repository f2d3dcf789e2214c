"""A JSON schema in words: what kind of value it is, and within which bounds."""

from __future__ import annotations

import json
from typing import Any, Final

from msgspec import Struct

_FORMATS: Final = {"date-time": "time, RFC 3339", "binary": "bytes", "uri": "address"}
_NULL: Final = {"type": "null"}
_DEPTH_MAX: Final = 6


class Kind(Struct, frozen=True):
    """A kind of value: words, and the object that is named between them, if one is."""

    before: str
    ref: str = ""
    after: str = ""


def ref_name(schema: dict[str, Any]) -> str:
    """The object that a schema refers to, or ""."""
    return str(schema.get("$ref", "")).rpartition("/")[2]


def resolved(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, where it is a reference to one."""
    name = ref_name(schema)
    return schemas[name] if name else schema


def kind(schema: dict[str, Any], depth: int = 0) -> Kind:
    """What a value of this schema is."""
    if name := ref_name(schema):
        return Kind("", name)
    choices, is_nullable = _choices(schema)
    if choices and depth < _DEPTH_MAX:
        found = [kind(choice, depth + 1) for choice in choices]
        if is_nullable:
            found.append(Kind("null"))
        return _joined(found, " or ")
    if "enum" in schema:
        return Kind(" | ".join(json.dumps(value) for value in schema["enum"]))
    if "const" in schema:
        return Kind(json.dumps(schema["const"]))
    named = schema.get("type", "any")
    if named == "array" and depth < _DEPTH_MAX:
        return _joined([Kind("list of "), kind(schema.get("items", {}), depth + 1)], "")
    if named == "object":
        values = schema.get("additionalProperties")
        if isinstance(values, dict) and depth < _DEPTH_MAX:
            return _joined([Kind("object of "), kind(values, depth + 1)], "")  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(named, list):
        return Kind(" or ".join(str(each) for each in named))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return Kind(_FORMATS.get(schema.get("format", ""), str(named)))


def bounds(schema: dict[str, Any]) -> str:
    """What the value is held to, and what counts where it is left out; "" where neither is said."""
    choices, _ = _choices(schema)
    told = [part for part in (_of_one(each) for each in choices or [schema]) if part]
    if schema.get("default") is not None:
        told.append(f"default {json.dumps(schema['default'])}")
    return "; ".join(dict.fromkeys(told))


def _of_one(schema: dict[str, Any]) -> str:
    for low, high, unit in (
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
        ("minProperties", "maxProperties", " entries"),
        ("minimum", "maximum", ""),
    ):
        least, most, above = schema.get(low), schema.get(high), schema.get("exclusiveMinimum")
        if least is not None and most is not None:
            return f"{least:,} to {most:,}{unit}"
        if most is not None:
            more = f"more than {above:,}, " if above is not None and not unit else ""
            return f"{more}at most {most:,}{unit}"
        if least is not None:
            return f"at least {least:,}{unit}"
        if above is not None and not unit:
            return f"more than {above:,}"
    return ""


def _choices(schema: dict[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    """The alternatives of a schema without null, and whether null is one."""
    given: list[dict[str, Any]] = schema.get("anyOf") or schema.get("oneOf") or []
    return [choice for choice in given if choice != _NULL], _NULL in given


def _joined(kinds: list[Kind], between: str) -> Kind:
    """One kind of several; of the objects they name the first is one, the others are words."""
    text = [""]
    ref = ""
    for number, each in enumerate(kinds):
        text[-1] += (between if number else "") + each.before
        if each.ref and not ref:
            ref = each.ref
            text.append(each.after)
        else:
            text[-1] += each.ref + each.after
    return Kind(text[0], ref, text[1] if ref else "")
