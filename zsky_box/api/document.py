"""The OpenAPI document: Litestar's own, completed by what the handlers read by themselves (bodies and queries)."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Litestar, Router
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.routes import HTTPRoute

from zsky_box import __version__
from zsky_box.errors import not_found
from zsky_box.idempotency import KEY_MAX

_REF: Final = "#/components/schemas/{name}"
_FILES: Final = ("getFile", "headFile")
_FILE_TYPES: Final = ("video/mp4", "image/png", "image/jpeg")

CLOSED: Final = "/unused"
"""Where Litestar would serve the document by itself: with no renderer it takes its own, whose pages run scripts of
another host, and it has no way to serve none.
"""


def config() -> OpenAPIConfig:
    """What the document is made of; Litestar's own addresses for it are closed. For one application."""
    return OpenAPIConfig(
        title="zsky-box",
        version=__version__,
        summary="One prompt, one job, one URL, on the card in the room.",
        use_handler_docstrings=True,
        openapi_router=Router(CLOSED, guards=[_closed], route_handlers=[], include_in_schema=False),
        render_plugins=[JsonRenderPlugin()],
        components=Components(
            security_schemes={
                "ApiKey": SecurityScheme(type="apiKey", name="X-API-Key", security_scheme_in="header"),
                "Bearer": SecurityScheme(type="http", scheme="bearer"),
            }
        ),
        security=[{"ApiKey": []}, {"Bearer": []}],
    )


def _closed(_: ASGIConnection[Any, Any, Any, Any], __: BaseRouteHandler) -> None:
    raise not_found("page")


def build(app: Litestar) -> dict[str, Any]:
    """The document as a plain dictionary, made once at start."""
    document: dict[str, Any] = msgspec.to_builtins(app.openapi_schema.to_schema())
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        item: dict[str, Any] = document["paths"].get(route.path_format, {})
        for handler in route.route_handlers:
            for method in handler.http_methods:
                if operation := item.get(method.lower()):
                    _complete(document, operation, dict(handler.opt))
    return document


def _complete(document: dict[str, Any], operation: dict[str, Any], opt: dict[str, Any]) -> None:
    # Litestar documents a 400 of its own shape for every handler with a path parameter; none of ours answers so.
    answers = operation["responses"]
    if "application/problem+json" not in answers.get("400", {}).get("content", {}):
        answers.pop("400", None)
    if opt.get("open"):
        operation["security"] = []
    if body := opt.get("body"):
        schemas, components = msgspec.json.schema_components([body], ref_template=_REF)
        document["components"]["schemas"] |= components
        required = not opt.get("body_optional")
        operation["requestBody"] = {"required": required, "content": {"application/json": {"schema": schemas[0]}}}
    if upload := opt.get("upload"):
        operation["requestBody"] = {"required": True, "content": _pictures(*upload)}
    parameters = operation.setdefault("parameters", [])
    parameters += [
        _query(name, schema, required=bool(opt.get("open"))) for name, schema in opt.get("query", {}).items()
    ]
    name = operation["operationId"]
    if opt.get("idempotent"):
        key = {"type": "string", "minLength": 1, "maxLength": KEY_MAX, "pattern": "^[ -~]+$"}
        parameters.append(_header("Idempotency-Key", key))
    if "202" in answers:
        answers["202"]["headers"] = {"Location": {"description": "The job's address", "schema": {"type": "string"}}}
    if opt.get("csv"):
        answers["200"].setdefault("content", {})["text/csv"] = {"schema": {"type": "string"}}
    if name.startswith("stream"):
        parameters.append(_header("Last-Event-ID", {"type": "string"}))
        answers["200"]["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    if name == "streamJob":
        answers["204"] = {"description": "The job has ended, and all of it was told before `Last-Event-ID`"}
    if name in _FILES:
        _complete_file(operation, is_head=name == "headFile")


def _pictures(form: str, field: str, types: tuple[str, ...]) -> dict[str, Any]:
    """A picture's bytes: as the one file of a form, or as they are."""
    file = {"type": "string", "format": "binary"}
    schema = {"type": "object", "required": [field], "properties": {field: file}, "additionalProperties": False}
    return {form: {"schema": schema}} | {kind: {"schema": file} for kind in types}


def _complete_file(operation: dict[str, Any], *, is_head: bool) -> None:
    """What Litestar cannot know of a file: its types, and the answers to conditions and ranges."""
    answers = operation["responses"]
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _FILE_TYPES}
    answers["200"] = {"description": "The file"} | ({} if is_head else {"content": content})
    answers["304"] = {"description": "The file is the one that `If-None-Match` names"}
    operation["parameters"].append(_header("If-None-Match", {"type": "string"}))
    if is_head:
        for answer in answers.values():
            answer.pop("content", None)
        return
    answers["206"] = {"description": "The bytes that `Range` asks for", "content": content}
    answers["416"] = {"description": "The file has no such bytes; `Content-Range` says how many it has"}
    operation["parameters"] += [_header(name, {"type": "string"}) for name in ("Range", "If-Range")]


def _query(name: str, schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    parameter = {"name": name, "in": "query", "required": required, "schema": schema}
    return parameter | ({"style": "deepObject", "explode": True} if schema["type"] == "object" else {})


def _header(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": schema}
