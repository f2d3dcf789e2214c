"""Who may see a page: the guard of all pages, and the form that a page was sent.

A page's handler names its audience in `opt["page"]`: `open` (signed in or not), `member` (whoever is signed in) or
`owner`. A handler that names none is closed.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from zsky_box.api import browser
from zsky_box.api.access import limit
from zsky_box.api.bodies import content_type, read_bytes
from zsky_box.api.browser import Visitor
from zsky_box.api.deps import services
from zsky_box.errors import Refusal, not_found
from zsky_box.idempotency import Idempotency
from zsky_box.keys import Caller

FORM_MAX_BYTES: Final = 256 * 1024
FIELDS_MAX: Final = 2_000
CSRF_FIELD: Final = "csrf"
ONCE_FIELD: Final = "once"
_ONCE_MAX: Final = 64
_FORM: Final = "application/x-www-form-urlencoded"
_VISITOR: Final = "visitor"


class Form(dict[str, str]):
    """The fields of a form by name, each with its last value and without spaces around it."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__((name, value.strip()) for name, value in pairs)
        self._pairs = pairs

    def raw(self, name: str) -> str:
        """A field exactly as it was written: a password may have spaces around it."""
        return next((value for given, value in reversed(self._pairs) if given == name), "")

    def all(self, name: str) -> list[str]:
        """All values of a field that may come more than once, as checkboxes do."""
        return [value for given, value in self._pairs if given == name]


class SignedOut(Refusal):
    """401 for a page that wants somebody signed in: a browser is led to the sign-in."""

    def __init__(self) -> None:
        super().__init__(401, "session_ended", "You are signed out; sign in to go on.")


async def enter(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar guard of all pages: this box's name, the page's own origin, the right person, the session's token."""
    browser.require_host(connection)
    browser.require_same_origin(connection)
    if connection.scope.get("method") == "OPTIONS":
        return  # Litestar answers it by itself, with nothing but the methods of the address
    audience, found = handler.opt["page"], recognise(connection)
    is_safe = connection.scope.get("method") in browser.SAFE_METHODS
    if found is not None:
        limit(connection, services(connection).rate_limit, found.session.id)
        # A part of a page that refreshes itself is asked for by nobody.
        if is_safe and "hx-request" not in connection.headers:
            browser.used(connection, found.session)
    if audience == "open":
        return
    if found is None:
        raise SignedOut
    if audience != "member" and found.caller.account.role != "owner":
        raise not_found("page")
    if not is_safe:
        token = connection.headers.get(browser.CSRF_HEADER) or (await form(_request(connection))).get(CSRF_FIELD, "")
        browser.require_token(connection, found.session, token)
        browser.used(connection, found.session)


def recognise(connection: ASGIConnection[Any, Any, Any, Any]) -> Visitor | None:
    """Find who is signed in, for all that comes after; None where nobody is."""
    found = browser.visitor(connection)
    connection.scope["state"][_VISITOR] = found
    return found


def visitor_of(request: ASGIConnection[Any, Any, Any, Any]) -> Visitor | None:
    """Who was found to be signed in."""
    return request.scope.get("state", {}).get(_VISITOR)


def signed_in(request: ASGIConnection[Any, Any, Any, Any]) -> Visitor:
    """The same of a page that only somebody signed in may see."""
    found = visitor_of(request)
    if found is None:
        raise SignedOut
    return found


def person(request: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    """Their account, with all that they may do."""
    return signed_in(request).caller


async def form(request: Request[Any, Any, Any]) -> Form:
    """The fields of the form that was sent; empty where none was. Raises 413, 415 or 422."""
    if content_type(request) not in ("", _FORM):
        return Form([])
    body = await read_bytes(request)
    if len(body) > FORM_MAX_BYTES:
        raise Refusal(413, "too_large", f"A form has at most {FORM_MAX_BYTES:,} bytes.")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
    except ValueError as error:
        raise Refusal(422, "invalid_field", "The form could not be read; reload the page and send it again.") from error
    return Form(pairs)


def only_once(form: Form, *asked: Any) -> Idempotency:
    """The key under which a form is carried out, once for each page that was shown, however often it is sent; `asked`
    is what it asks for. Raises 422 for a form without its page's `once`.
    """
    once = form.get(ONCE_FIELD, "")
    if not is_once(once):
        raise Refusal(422, "invalid_field", "The form could not be read; reload the page and send it again.")
    return Idempotency(f"page:{once}", hashlib.sha256(msgspec.json.encode(asked)).digest())


def new_once() -> str:
    """What a page writes into such a form."""
    return secrets.token_urlsafe(16)


def is_once(text: str) -> bool:
    """Whether this can be what a page wrote into its form."""
    return 0 < len(text) <= _ONCE_MAX and text.isascii() and text.isprintable()


def _request(connection: ASGIConnection[Any, Any, Any, Any]) -> Request[Any, Any, Any]:
    """Litestar gives the guards of an HTTP route the request itself, whose body the handler reads again."""
    if not isinstance(connection, Request):
        raise TypeError(f"the guard of a page was given a {type(connection).__name__}")
    return connection
