"""Who asks: the key of a request becomes a Caller before anything else of the request is read. Deny by default."""

from __future__ import annotations

import hmac
from typing import Any, Final

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.types import Message, Scope

from zsky_box import keys
from zsky_box.api import browser
from zsky_box.api.browser import Visitor
from zsky_box.api.deps import is_from_here, services
from zsky_box.errors import Refusal
from zsky_box.keys import Caller
from zsky_box.rate_limit import RateLimit
from zsky_box.sessions import Session

CONTROL_HEADER: Final = "X-ZSky-Control"
API_PATH: Final = "/v1/"
_SECRET_MAX: Final = 200
_LIMITS: Final = "rate_limit_headers"
_PRIVATE: Final = (
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)


async def authenticate(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar guard: finds the caller, checks the scope that the route names in `opt`, or raises 401 or 403."""
    box, (caller, session) = services(connection), _found(connection)
    if CONTROL_HEADER not in connection.headers:
        limit(connection, box.rate_limit, caller.limit_id)
        if session is None:
            keys.used(box.store, caller.key, box.clock())
        elif connection.scope.get("method") not in browser.SAFE_METHODS and not handler.opt.get("asked_by_itself"):
            browser.used(connection, session)
    # Litestar answers OPTIONS by itself with the methods of the address: any key may ask that.
    if connection.scope.get("method") != "OPTIONS":
        caller.require(handler.opt["scope"])
    if caller.key.test and handler.opt.get("live_only"):
        raise Refusal(403, "test_key", "A test key may not do that; use a live key.")
    connection.scope["user"] = caller


def limit(connection: ASGIConnection[Any, Any, Any, Any], rate_limit: RateLimit, limit_id: str) -> None:
    """Count the request against its key or session, and keep what its answer tells of that; raises 429 for too many."""
    standing = rate_limit.take(limit_id)
    told = f'"requests";r={standing.remaining};t={standing.full_after_seconds}'
    connection.scope["state"][_LIMITS] = (
        (b"ratelimit-policy", rate_limit.policy.encode()),
        (b"ratelimit", told.encode()),
    )
    if not standing.allowed:
        detail = "This key makes too many requests; wait as long as Retry-After says, and send fewer at once."
        raise Refusal(429, "rate_limited", detail, headers={"Retry-After": str(standing.retry_after_seconds)})


async def tell_limits(message: Message, scope: Scope) -> None:
    """Litestar hook before each message: the answer to a key, whatever it is, begins with how its limit stands."""
    if message["type"] == "http.response.start" and (limits := scope["state"].get(_LIMITS)):
        message["headers"] = [*message["headers"], *limits]


async def keep_private(message: Message, scope: Scope) -> None:
    """Litestar hook before each message: what the API tells is its caller's, and no cache's or other site's."""
    if message["type"] == "http.response.start" and scope["path"].startswith(API_PATH):
        told = {name.lower() for name, _ in message["headers"]}
        message["headers"] = [*message["headers"], *(header for header in _PRIVATE if header[0] not in told)]


def verify(connection: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    """Whom the request's headers name at this moment; raises 401. A long answer asks again: keys are revoked."""
    return _found(connection)[0]


def _found(connection: ASGIConnection[Any, Any, Any, Any]) -> tuple[Caller, Session | None]:
    """The caller, and the session where it is a browser's."""
    if CONTROL_HEADER in connection.headers:
        return _terminal(connection), None
    box, secret = services(connection), _presented(connection)
    if not secret and browser.has_cookie(connection):
        found = _visitor(connection)
        return found.caller, found.session
    return keys.verify(box.store, box.secrets.pepper, secret, box.clock()), None


def control_only(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Litestar guard for the commands' own routes: only the terminal of this machine."""
    connection.scope["user"] = _terminal(connection)


def caller_of(request: Request[Any, Any, Any]) -> Caller:
    """The caller that the guard has found."""
    return request.scope["user"]


def _presented(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    secret = connection.headers.get("x-api-key", "").strip()
    if not secret:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        secret = token.strip() if scheme.lower() == "bearer" else ""
    return secret if len(secret) <= _SECRET_MAX else "too long to be a key"


def _visitor(connection: ASGIConnection[Any, Any, Any, Any]) -> Visitor:
    """The person behind a browser's cookie, for what a page of this box asks."""
    browser.require_host(connection)
    browser.require_same_origin(connection)
    found = browser.visitor(connection)
    if found is None:
        raise Refusal(401, "session_ended", "You are signed out; reload the page to sign in again.")
    if connection.scope.get("method") not in browser.SAFE_METHODS:
        browser.require_token(connection, found.session, connection.headers.get(browser.CSRF_HEADER, ""))
    return found


def _terminal(connection: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    """The owner at this machine's terminal: this start's token, a loopback peer, no browser."""
    box = services(connection)
    presented = connection.headers.get(CONTROL_HEADER, "")
    right = hmac.compare_digest(presented.encode(), box.control_token.encode())
    caller = keys.caller_of_owner(box.store)
    if not (is_from_here(connection) and right and "origin" not in connection.headers and caller is not None):
        raise Refusal(401, "invalid_key", "This control token is not valid here.")
    return caller
