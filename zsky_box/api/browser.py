"""A browser's way in: the session behind its cookie, and the proof that a request comes from the box's own pages.

A key proves itself. A cookie is sent by the browser whoever asked for the request, so what counts beside it is where
the request comes from: the Host must be this box, and whatever changes something must come from the same origin
(`Origin`, and `Sec-Fetch-Site` where the browser sends it) and carry the session's CSRF token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any, Final
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from msgspec import Struct

from zsky_box import accounts, keys, sessions
from zsky_box.api.deps import Services, is_from_here, is_loopback, own_url, services
from zsky_box.clock import DAY_US
from zsky_box.errors import Refusal
from zsky_box.keys import Caller
from zsky_box.sessions import Session

CSRF_HEADER: Final = "X-CSRF-Token"
SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
BROWSER: Final = "browser"
"""What stands where a key's id does: with jobs, in the usage by key."""
_SECRET_MAX: Final = 200
_COOKIE: Final = "zsky"
_COOKIE_SECURE: Final = "__Host-zsky"


class Visitor(Struct, frozen=True):
    """Who is signed in: the session, and the caller that it stands for."""

    session: Session
    caller: Caller


def has_cookie(connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
    """Whether a session is presented at all."""
    return _cookie_name(connection) in connection.cookies


def visitor(connection: ASGIConnection[Any, Any, Any, Any]) -> Visitor | None:
    """Who is signed in with the request's cookie; None where nobody is, or the session has ended. Reads the store."""
    box = services(connection)
    secret = connection.cookies.get(_cookie_name(connection), "")
    if not 0 < len(secret) <= _SECRET_MAX:
        return None
    settings = box.settings
    idle_us, whole_us = settings.session_idle_days * DAY_US, settings.session_days * DAY_US
    session = sessions.find(box.store, secret, now=box.clock(), idle_us=idle_us, whole_us=whole_us)
    if session is None:
        return None
    account = accounts.get(box.store, session.account_id)
    return Visitor(session, keys.in_person(account, BROWSER, since=session.created_at, session_id=session.id))


def used(connection: ASGIConnection[Any, Any, Any, Any], session: Session) -> None:
    """Remember that a person used the session: went to a page, or had something done.

    What an open page asks by itself, to stay up to date, is no use: a tab that is left open would never be signed out.
    """
    box = services(connection)
    sessions.used(box.store, session, box.clock())


def require_host(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Raise 421 `wrong_host` unless the request's Host is a name of this box: a page elsewhere may have had its own
    name resolved to this address.
    """
    server = connection.scope.get("server")
    if not services(connection).hosts.is_ours(connection.headers.get("host", ""), server[0] if server else None):
        raise Refusal(
            421,
            "wrong_host",
            "This box does not answer to that name in a browser; use its address, or have its owner list the name in"
            " the setting allowed_hosts.",
        )


def require_same_origin(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Raise 403 `cross_site` for what does not come from one of the box's pages.

    What only looks may be gone to from anywhere, but no page elsewhere may read or embed it. Over plain HTTP browsers
    send no `Sec-Fetch-Site`, and they send the cookie to every port of a host; with what a script there would read they
    send its `Origin`, and with what a page of this box gets they send none.
    """
    fetched = connection.headers.get("sec-fetch-site", "same-origin")
    is_ours = connection.headers.get("origin", "").rstrip("/").lower() in _origins(connection)
    if connection.scope.get("method") in SAFE_METHODS:
        is_elsewhere = fetched in ("cross-site", "same-site") or ("origin" in connection.headers and not is_ours)
        if is_elsewhere and connection.headers.get("sec-fetch-mode") != "navigate":
            raise _cross_site()
    elif fetched not in ("same-origin", "none") or not is_ours:
        raise _cross_site()


def _origins(connection: ASGIConnection[Any, Any, Any, Any]) -> set[str]:
    """How a page of this box may name its origin: as this request was addressed, and as `public_url` says."""
    own = f"{connection.scope['scheme']}://{connection.headers.get('host', '')}".lower()
    public = urlsplit(services(connection).settings.public_url)
    return {own, f"{public.scheme}://{public.netloc}".lower()} - {"://"}


def _cross_site() -> Refusal:
    return Refusal(403, "cross_site", "This request did not come from a page of this box; reload the page, try again.")


def csrf_token(box: Services, session: Session) -> str:
    """What a form of this session must carry; it needs no store, and ends with the session."""
    digest = hmac.digest(box.secrets.signing, f"csrf:{session.id}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def require_token(connection: ASGIConnection[Any, Any, Any, Any], session: Session, token: str) -> None:
    """Raise 403 `cross_site` unless the token is this session's."""
    if not hmac.compare_digest(token.encode(), csrf_token(services(connection), session).encode()):
        raise _cross_site()


def session_cookie(connection: ASGIConnection[Any, Any, Any, Any], secret: str) -> Cookie:
    """The cookie that carries a new session."""
    days = services(connection).settings.session_days
    return _cookie(connection, secret, max_age=days * 86_400)


def ended_cookie(connection: ASGIConnection[Any, Any, Any, Any]) -> Cookie:
    """The same, taken back."""
    return _cookie(connection, "", max_age=0)


def _cookie(connection: ASGIConnection[Any, Any, Any, Any], secret: str, max_age: int) -> Cookie:
    return Cookie(
        key=_cookie_name(connection),
        value=secret,
        max_age=max_age,
        path="/",
        httponly=True,
        secure=is_secure(connection),
        samesite="strict",
    )


def _cookie_name(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    return _COOKIE_SECURE if is_secure(connection) else _COOKIE


def is_secure(connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
    """Whether a browser takes the connection for safe: HTTPS, or this machine by a name that says so.

    HTTPS that ends at a proxy is known by `public_url`, and only where that is how the request came: whoever goes to
    the box by another name may be on plain HTTP, where a browser would keep no Secure cookie.
    """
    address, public = urlsplit(own_url(connection)), urlsplit(services(connection).settings.public_url)
    unsaid = ":443" if public.scheme == "https" else ":80"
    if public.netloc and address.netloc.lower().removesuffix(unsaid) == public.netloc.lower().removesuffix(unsaid):
        return public.scheme == "https"
    return address.scheme == "https" or (
        is_from_here(connection) and (address.hostname == "localhost" or is_loopback(address.hostname or ""))
    )


def address_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The peer's address, for the list of sessions and the limits of sign-in."""
    return connection.client.host if connection.client else ""
