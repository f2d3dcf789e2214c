"""An OpenAPI document as a page reads it: operations by tag, their fields and answers, and the objects they name."""

from __future__ import annotations

import re
from typing import Any, Final

from msgspec import Struct

from zsky_box.pages.docs import examples, wording
from zsky_box.pages.docs.wording import Kind

GROUPS: Final = {
    "jobs": "Jobs",
    "events": "Events",
    "uploads": "Uploads",
    "models": "Models",
    "account": "Account and money",
    "files": "Files",
    "health": "Health",
}
"""How tags are titled, in the order of the page; a tag that is not named here comes after them."""
_METHODS: Final = ("get", "post", "put", "patch", "delete", "head")
_CODES: Final = re.compile(r"`([a-z_]+)`")
_PROBLEM: Final = "application/problem+json"


class Field(Struct, frozen=True, kw_only=True):
    """A parameter, or a field of a body or an object."""

    name: str
    kind: Kind
    bounds: str
    is_required: bool
    text: str = ""
    place: str = ""


class Body(Struct, frozen=True, kw_only=True):
    """What an operation takes: its media types, and the fields where it has any."""

    media: tuple[str, ...]
    is_required: bool
    fields: tuple[Field, ...]


class Answer(Struct, frozen=True, kw_only=True):
    """A success: status, meaning, media types, and the object in it."""

    status: str
    text: str
    media: tuple[str, ...]
    kind: Kind | None


class Refused(Struct, frozen=True, kw_only=True):
    """A status that is a refusal, with its codes."""

    status: str
    title: str
    codes: tuple[str, ...]


class Operation(Struct, frozen=True, kw_only=True):
    """One call."""

    id: str
    method: str
    path: str
    summary: str
    text: str
    needs_key: bool
    parameters: tuple[Field, ...]
    body: Body | None
    answers: tuple[Answer, ...]
    refused: tuple[Refused, ...]
    example: str


class Group(Struct, frozen=True, kw_only=True):
    """The operations of a tag."""

    id: str
    title: str
    operations: tuple[Operation, ...]


class Named(Struct, frozen=True, kw_only=True):
    """An object that answers are made of."""

    name: str
    text: str
    fields: tuple[Field, ...]


class Outline(Struct, frozen=True, kw_only=True):
    """All of the document that the page shows."""

    version: str
    groups: tuple[Group, ...]
    objects: tuple[Named, ...]


def read(document: dict[str, Any]) -> Outline:
    """The outline of a document."""
    schemas: dict[str, Any] = document["components"]["schemas"]
    by_tag: dict[str, list[Operation]] = {name: [] for name in GROUPS}
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                tags: list[str] = item[method].get("tags") or ["health"]
                by_tag.setdefault(tags[0], []).append(_operation(method, path, item[method], schemas))
    bodies = {name for item in document["paths"].values() for name in _body_names(item)}
    return Outline(
        version=document["info"]["version"],
        groups=tuple(
            Group(id=tag, title=GROUPS.get(tag, tag.capitalize()), operations=tuple(found))
            for tag, found in by_tag.items()
            if found
        ),
        objects=tuple(
            Named(name=name, text=schema.get("description", ""), fields=_fields(schema))
            for name, schema in sorted(schemas.items())
            if name not in bodies
        ),
    )


def _operation(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> Operation:
    responses: dict[str, Any] = operation["responses"]
    parameters: list[dict[str, Any]] = operation.get("parameters", [])
    # A refusal may be without a body, as HEAD's is; what is no refusal never has a problem's type.
    good = {status: found for status, found in responses.items() if status < "400"}
    return Operation(
        id=operation["operationId"],
        method=method.upper(),
        path=path,
        summary=operation["summary"],
        text=operation.get("description", ""),
        needs_key=operation.get("security") != [],
        parameters=tuple(
            _field(each["name"], each["schema"], required=each["required"], place=each["in"]) for each in parameters
        ),
        body=_body(operation.get("requestBody"), schemas),
        answers=tuple(_answer(status, found) for status, found in sorted(good.items())),
        refused=tuple(
            Refused(
                status=status,
                title=found["description"].partition(":")[0],
                codes=tuple(_CODES.findall(found["description"])),
            )
            for status, found in sorted(responses.items())
            if status not in good
        ),
        example=examples.curl(method, path, operation, schemas),
    )


def _body(body: dict[str, Any] | None, schemas: dict[str, Any]) -> Body | None:
    if body is None:
        return None
    content: dict[str, Any] = body["content"]
    schema = wording.resolved(next(iter(content.values()))["schema"], schemas)
    return Body(media=tuple(content), is_required=body["required"], fields=_fields(schema))


def _body_names(item: dict[str, Any]) -> list[str]:
    """The objects that are bodies of requests: shown where they are sent."""
    found: list[str] = []
    for operation in item.values():
        for content in operation.get("requestBody", {}).get("content", {}).values():
            found += [name for name in [wording.ref_name(content["schema"])] if name]
    return found


def _answer(status: str, answer: dict[str, Any]) -> Answer:
    content: dict[str, Any] = answer.get("content", {})
    kinds = [wording.kind(each["schema"]) for media, each in content.items() if media == "application/json"]
    return Answer(
        status=status,
        text=_MEANINGS.get(status) or str(answer["description"]),
        media=tuple(media for media in content if media not in ("application/json", _PROBLEM)),
        kind=kinds[0] if kinds else None,
    )


_MEANINGS: Final[dict[str, str]] = {"200": "Done", "201": "Made", "202": "Queued", "204": "Nothing more to tell"}


def _fields(schema: dict[str, Any]) -> tuple[Field, ...]:
    required = set(schema.get("required", []))
    properties: dict[str, Any] = schema.get("properties", {})
    return tuple(_field(name, each, required=name in required) for name, each in properties.items())


def _field(name: str, schema: dict[str, Any], *, required: bool, place: str = "") -> Field:
    return Field(
        name=name,
        kind=wording.kind(schema),
        bounds=wording.bounds(schema),
        is_required=required,
        text=schema.get("description", ""),
        place=place,
    )
