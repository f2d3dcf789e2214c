"""The OpenAPI document: Litestar's own, completed by what the handlers read by themselves (bodies and queries)."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.routes import HTTPRoute

from zsky_box import __version__

_REF: Final = "#/components/schemas/{name}"
CONFIG: Final = OpenAPIConfig(
    title="zsky-box",
    version=__version__,
    summary="One prompt, one job, one URL, on the card in the room.",
    use_handler_docstrings=True,
    path="/unused",
    render_plugins=[],
    components=Components(
        security_schemes={
            "ApiKey": SecurityScheme(type="apiKey", name="X-API-Key", security_scheme_in="header"),
            "Bearer": SecurityScheme(type="http", scheme="bearer"),
        }
    ),
    security=[{"ApiKey": []}, {"Bearer": []}],
)


def build(app: Litestar) -> dict[str, Any]:
    """The document as a plain dictionary, made once at start."""
    document: dict[str, Any] = msgspec.to_builtins(app.openapi_schema.to_schema())
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        item = document["paths"].get(_documented_path(route))
        for handler in route.route_handlers if item else ():
            for method in handler.http_methods:
                operation = item.get(method.lower()) if item else None
                if operation is not None:
                    _complete(document, operation, dict(handler.opt))
    return document


def _documented_path(route: HTTPRoute) -> str:
    return route.path_format


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
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schemas[0]}}}
    for name, schema in opt.get("query", {}).items():
        operation.setdefault("parameters", []).append(
            {"name": name, "in": "query", "required": bool(opt.get("open")), "schema": schema}
        )
    if "body" in opt or operation["operationId"] == "rerunJob":
        operation.setdefault("parameters", []).append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
            }
        )
    if operation["operationId"].startswith("stream"):
        answers["200"]["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
        operation.setdefault("parameters", []).append(
            {"name": "Last-Event-ID", "in": "header", "required": False, "schema": {"type": "string"}}
        )
    if operation["operationId"] == "getFile":
        answers["200"]["content"] = {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("video/mp4", "image/png", "image/jpeg")
        }
