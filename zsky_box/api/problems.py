"""The one place where errors become HTTP: problem details (RFC 9457) with a stable code and a request id."""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, InternalServerException, MethodNotAllowedException
from litestar.openapi import ResponseSpec
from msgspec import UNSET

from zsky_box.errors import Refusal, StoreError
from zsky_box.schemas import Problem

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

TITLES: Final = {
    400: "Bad request",
    401: "Not authenticated",
    402: "Payment required",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    410: "Gone",
    413: "Too large",
    415: "Unsupported media type",
    422: "Not accepted",
    429: "Too many",
    500: "Internal error",
    503: "Not available now",
}

_FRAMEWORK: Final = {
    400: ("malformed_json", "The request could not be read."),
    401: ("missing_key", "Send your API key in the header X-API-Key."),
    403: ("insufficient_scope", "This key may not do that."),
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not answer that method."),
    413: ("too_large", "The body is larger than this box accepts."),
    415: ("unsupported_media", "Send the body as application/json."),
}


def request_id(request: Request[Any, Any, Any]) -> str:
    """The id that the request was given when it came in."""
    return str(request.scope["state"].get("request_id", ""))


def from_refusal(request: Request[Any, Any, Any], refusal: Refusal) -> Response[bytes]:
    """A refusal as problem details."""
    problem = Problem(
        type=f"urn:zsky-box:problem:{refusal.code}",
        title=TITLES.get(refusal.status, "Not done"),
        status=refusal.status,
        detail=refusal.detail,
        code=refusal.code,
        request_id=request_id(request),
        field=UNSET if refusal.field is None else refusal.field,
        errors=refusal.errors or UNSET,
    )
    headers = {**refusal.headers, "Cache-Control": "no-store"}
    return Response(msgspec.json.encode(problem), status_code=refusal.status, media_type=MEDIA_TYPE, headers=headers)


def from_framework(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Litestar's own refusals (routing, body size) in the same shape; nothing of the request is echoed."""
    if error.status_code >= 500 or isinstance(error, InternalServerException):
        return from_any(request, error)
    code, detail = _FRAMEWORK.get(error.status_code, ("invalid_field", "The request could not be accepted."))
    headers = dict(error.headers or {})
    if isinstance(error, MethodNotAllowedException):
        headers = {"Allow": headers.get("Allow") or headers.get("allow") or _allowed(request)}
    return from_refusal(request, Refusal(error.status_code, code, detail, headers=headers))


def from_store(request: Request[Any, Any, Any], error: StoreError) -> Response[bytes]:
    """The store refuses to write."""
    log.error("store error", exc_info=error)
    return from_refusal(
        request, Refusal(503, "storage_error", "The box could not use its ledger.", headers={"Retry-After": "5"})
    )


def from_any(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A fault of ours: logged with its trace, told without one."""
    log.error("request %s failed", request_id(request), exc_info=error)
    detail = "The box failed to answer; the log has the reason under this request's id."
    return from_refusal(request, Refusal(500, "internal_error", detail))


def _allowed(request: Request[Any, Any, Any]) -> str:
    methods: set[str] = set()
    for route in request.app.routes:
        if getattr(route, "path", None) == request.scope["path"]:
            methods |= set(getattr(route, "methods", ()))
    return ", ".join(sorted(methods)) or "GET"


def documented(*statuses: int) -> dict[int, ResponseSpec]:
    """For a handler's `responses`: the problems it may answer with."""
    return {
        status: ResponseSpec(Problem, description=TITLES[status], media_type=MEDIA_TYPE, generate_examples=False)
        for status in statuses
    }
