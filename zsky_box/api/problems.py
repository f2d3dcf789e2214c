"""The one place where errors become HTTP: problem details (RFC 9457) with a stable code and a request id."""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, InternalServerException, MethodNotAllowedException
from litestar.openapi import ResponseSpec
from msgspec import UNSET

from zsky_box.api.deps import services
from zsky_box.errors import PromptBlocked, Refusal, StoreError
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
    421: "Not this host",
    422: "Not accepted",
    429: "Too many",
    500: "Internal error",
    503: "Not available now",
}

STATUS_OF: Final = {
    "malformed_json": 400,
    "missing_key": 401,
    "invalid_key": 401,
    "revoked_key": 401,
    "session_ended": 401,
    "wallet_empty": 402,
    "plan_without_api": 403,
    "insufficient_scope": 403,
    "test_key": 403,
    "invalid_signature": 403,
    "expired_signature": 403,
    "cross_site": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "idempotency_conflict": 409,
    "idempotency_in_progress": 409,  # of the contract; here a repeated key waits in line for its answer
    "job_finished": 409,
    "job_open": 409,
    "result_removed": 410,
    "too_large": 413,
    "unsupported_media": 415,
    "wrong_host": 421,
    "invalid_field": 422,
    "unknown_field": 422,
    "unsupported_for_model": 422,
    "model_not_installed": 422,
    "prompt_blocked": 422,
    "allowance_exhausted": 429,
    "cap_reached": 429,
    "queue_full": 429,
    "rate_limited": 429,
    "internal_error": 500,
    "no_model": 503,
    "draining": 503,
    "storage_full": 503,
    "storage_error": 503,
    "clock_behind": 503,
}
OF_EVERY_CALL: Final = (
    "missing_key",
    "invalid_key",
    "revoked_key",
    "insufficient_scope",
    "rate_limited",
    "internal_error",
    "storage_error",
)

_FRAMEWORK: Final = {
    400: ("malformed_json", "The request could not be read."),
    401: ("missing_key", "Send your API key in the header X-API-Key."),
    403: ("insufficient_scope", "This key may not do that."),
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not answer that method."),
    413: (
        "too_large",
        "The body is larger than this box accepts; its owner may raise body_max_bytes, for pictures upload_max_bytes.",
    ),
    415: ("unsupported_media", "Send the body as application/json."),
}


def request_id(request: Request[Any, Any, Any]) -> str:
    """The id that the request was given when it came in."""
    return str(request.scope["state"].get("request_id", ""))


def from_refusal(request: Request[Any, Any, Any], refusal: Refusal) -> Response[bytes]:
    """A refusal as problem details."""
    services(request).metrics.refused(refusal.code if refusal.code in STATUS_OF else "other")
    if isinstance(refusal, PromptBlocked):  # for the owner, who may find the rule too wide; the prompt stays unsaid
        log.info("request %s: its prompt is refused by the rule %r", request_id(request), refusal.rule)
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
        allowed = headers.get("allow") or "GET, HEAD"  # static files name none
        headers = {"Allow": ", ".join(sorted(allowed.split(", ")))}
    return from_refusal(request, Refusal(error.status_code, code, detail, headers=headers))


def sentence_of(error: HTTPException) -> str:
    """What is said of one of Litestar's own refusals."""
    return _FRAMEWORK.get(error.status_code, ("", "The request could not be accepted."))[1]


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


def documented(*codes: str, key: bool = True) -> dict[int, ResponseSpec]:
    """For a handler's `responses`: the problems it may answer with, and where it wants a `key` those of every call."""
    by_status: dict[int, list[str]] = {}
    for code in (*(OF_EVERY_CALL if key else ("internal_error", "storage_error")), *codes):
        by_status.setdefault(STATUS_OF[code], []).append(f"`{code}`")
    return {
        status: ResponseSpec(
            Problem,
            description=f"{TITLES[status]}: {', '.join(names)}",
            media_type=MEDIA_TYPE,
            generate_examples=False,
        )
        for status, names in sorted(by_status.items())
    }
