"""Who asks: the key of a request becomes a Caller before anything else of the request is read. Deny by default."""

from __future__ import annotations

import hmac
import ipaddress
from typing import Any, Final

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from zsky_box import keys
from zsky_box.api.deps import services
from zsky_box.errors import Refusal
from zsky_box.keys import Caller

CONTROL_HEADER: Final = "X-ZSky-Control"
_SECRET_MAX: Final = 200


def authenticate(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar guard: finds the caller, checks the scope that the route names in `opt`, or raises 401 or 403."""
    box = services(connection)
    if CONTROL_HEADER in connection.headers:
        caller = _terminal(connection)
    else:
        now = box.clock()
        caller = keys.verify(box.store, box.secrets.pepper, _presented(connection), now)
        keys.used(box.store, caller.key, now)
    caller.require(handler.opt["scope"])
    if caller.key.test and handler.opt.get("live_only"):
        raise Refusal(403, "test_key", "A test key may not do that; use a live key.")
    connection.scope["user"] = caller


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


def _terminal(connection: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    """The owner at this machine's terminal: this start's token, a loopback peer, no browser."""
    box = services(connection)
    presented = connection.headers.get(CONTROL_HEADER, "")
    client = connection.client
    loopback = client is not None and ipaddress.ip_address(client.host).is_loopback
    right = hmac.compare_digest(presented.encode(), box.control_token.encode())
    caller = keys.caller_of_owner(box.store)
    if not (loopback and right and "origin" not in connection.headers and caller is not None):
        raise Refusal(401, "invalid_key", "This control token is not valid here.")
    return caller
