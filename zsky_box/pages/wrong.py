"""What a browser is shown when a page cannot be: the same refusals as the API's, for a person to read."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.response import Redirect, Template

from zsky_box.api import browser, problems
from zsky_box.api.problems import request_id
from zsky_box.errors import Refusal, StoreError, ZskyError
from zsky_box.pages import frame
from zsky_box.pages.entry import SignedOut, recognise, visitor_of

log = logging.getLogger(__name__)

Handler = Callable[[Request[Any, Any, Any], Any], Response[Any]]

_NOT_FOR_BROWSERS: Final = ("/v1/", "/static/", "/control", "/healthz", "/readyz", "/metrics")
_SENTENCES: Final = {
    404: "There is no such page on this box; what was here may have been deleted, or belongs to somebody else.",
    405: "This address is not a page.",
    500: "The box failed to answer. Its log has the reason under the number below; try again in a moment.",
    503: "The box cannot use its ledger at the moment; try again soon.",
}


def refused(request: Request[Any, Any, Any], refusal: Refusal) -> Response[Any] | Template:
    """A page's own refusal: back to the form that was sent, with the reason; to the sign-in; or a page that says it."""
    to_form = request.method not in browser.SAFE_METHODS
    if isinstance(refusal, SignedOut) and not to_form:
        if "hx-request" in request.headers:  # a part that refreshes itself: the whole page is what one comes back to
            to = f"/sign-in?next={quote(frame.path_here(request, 'hx-current-url'))}"
            return Response(b"", status_code=200, headers={"HX-Redirect": to, "Cache-Control": "no-store"})
        to = f"/sign-in?next={quote(_path_of(request))}"
        if _led_here_by_another_site(request):
            return frame.page(request, "onward.html", title="One moment", to=to)
        return Redirect(to, status_code=303, headers={"Cache-Control": "no-store"})
    back = _page_of(request, frame.path_here(request, "referer"))
    if to_form and back and visitor_of(request) is not None and refusal.code != "cross_site":
        frame.say(request, refusal.detail, kind="bad")
        return Redirect(back, status_code=303, headers={"Cache-Control": "no-store"})
    return _page(request, refusal.status, refusal.detail, refusal.headers)


def of_framework(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any] | Template:
    """Routing, methods and bodies; no guard has seen the request where no page has its address."""
    with contextlib.suppress(sqlite3.Error, ZskyError):
        recognise(request)
    if error.status_code >= 500:
        return of_any(request, error)
    return _page(request, error.status_code, problems.sentence_of(error), dict(error.headers or {}))


def of_store(request: Request[Any, Any, Any], error: StoreError) -> Response[Any] | Template:
    """The store refuses to write."""
    log.error("store error", exc_info=error)
    return _page(request, 503, _SENTENCES[503], {"Retry-After": "5"})


def of_any(request: Request[Any, Any, Any], error: Exception) -> Response[Any] | Template:
    """A fault of ours: logged with its trace, told without one."""
    log.error("request %s failed", request_id(request), exc_info=error)
    return _page(request, 500, _SENTENCES[500])


def for_browsers(problem: Handler, shown: Handler) -> Handler:
    """An application's handler: a page where a browser asked for one, else the problem details of the API."""

    def handle(request: Request[Any, Any, Any], error: Any) -> Response[Any]:
        wants_page = "text/html" in request.headers.get("accept", "")
        if wants_page and not request.url.path.startswith(_NOT_FOR_BROWSERS):
            return shown(request, error)
        return problem(request, error)

    return handle


def _page(request: Request[Any, Any, Any], status: int, detail: str, headers: dict[str, str] | None = None) -> Template:
    return frame.page(
        request,
        "wrong.html",
        title=problems.TITLES.get(status, "Not done"),
        status=status,
        headers=headers,
        detail=_SENTENCES.get(status, detail),
        request_id=request_id(request),
        number=status,
    )


def _led_here_by_another_site(request: Request[Any, Any, Any]) -> bool:
    """Whether a link elsewhere led here: a browser then sends no cookie, nor with what it is redirected to, though
    somebody may be signed in. It does with what a page of ours leads on to.
    """
    fetched = request.headers.get("sec-fetch-site")
    if fetched is not None:
        return fetched in ("cross-site", "same-site")
    return "referer" in request.headers and not frame.path_here(request, "referer")


def _page_of(request: Request[Any, Any, Any], path: str) -> str:
    """The page itself of an address that only takes forms, where a page may have been shown in answer to one."""
    forms: frozenset[str] = request.app.state["forms"]
    while path.partition("?")[0] in forms:
        path = path.partition("?")[0].rpartition("/")[0]
    return path


def _path_of(request: Request[Any, Any, Any]) -> str:
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path
