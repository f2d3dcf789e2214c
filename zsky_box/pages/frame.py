"""What all pages share: the frame around them, its headers, and how a form's work is answered."""

from __future__ import annotations

from typing import Any, Final, Literal
from urllib.parse import urlsplit

from litestar import Request, Response
from litestar.response import Redirect, Template
from msgspec import Struct

from zsky_box import audit, control
from zsky_box.api import browser
from zsky_box.api.deps import base_url, services
from zsky_box.clock import rfc3339
from zsky_box.pages.entry import form, person, visitor_of
from zsky_box.pages.files import StaticFiles
from zsky_box.pages.said import Notice, Said
from zsky_box.terms import KINDS

__all__ = ["HEADERS", "done", "form", "local_path", "means", "page", "path_here", "person", "say"]

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:;"
        " connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_PATH_MAX: Final = 2_000


class Place(Struct, frozen=True):
    """An entry of the navigation; it is shown once the box has the page."""

    name: str
    label: str
    path: str
    owner: bool = False


PLACES: Final = (
    Place("create", "Create", "/create"),
    Place("library", "Library", "/library"),
    Place("usage", "Usage", "/usage"),
    Place("settings", "Settings", "/settings"),
    Place("docs", "Docs", "/docs"),
    Place("admin", "Admin", "/admin", owner=True),
)


def page(
    request: Request[Any, Any, Any],
    template: str,
    *,
    place: str = "",
    title: str,
    status: int = 200,
    headers: dict[str, str] | None = None,
    **context: Any,
) -> Template:
    """A page in its frame, for whoever is signed in; what was left to say to the session is said on it."""
    return Template(
        template,
        context={**framed(request, place, title), **context},
        status_code=status,
        headers={**HEADERS, **(headers or {})},
        media_type="text/html",
    )


def framed(request: Request[Any, Any, Any], place: str, title: str) -> dict[str, Any]:
    """What the frame's template needs."""
    box, found = services(request), visitor_of(request)
    files: StaticFiles = request.app.state["static"]
    said: Said = request.app.state["said"]
    me = None if found is None else found.caller.account
    is_owner = me is not None and me.role == "owner"
    # A part of a page that refreshes itself, or a look at its headers, must not take the next whole page's messages.
    whole = "hx-request" not in request.headers and request.method != "HEAD"
    return {
        "me": me,
        "is_owner": is_owner,
        "csrf": "" if found is None else browser.csrf_token(box, found.session),
        "places": [
            entry for entry in PLACES if (is_owner or not entry.owner) and entry.path in request.app.state["paths"]
        ],
        "place": place,
        "title": title,
        "base": base_url(request),
        "static": files.address,
        "said": said.take(found.session.id) if found is not None and whole else [],
        "now": rfc3339(box.clock()),
        "kinds": KINDS,
        "insecure": found is not None and not browser.is_secure(request),
    }


def say(
    request: Request[Any, Any, Any],
    text: str,
    *,
    kind: Literal["good", "bad"] = "good",
    secret: str = "",
    example: str = "",
) -> None:
    """Tell this on the session's next page; `secret` is shown once, to be copied, with a line that uses it."""
    if (found := visitor_of(request)) is not None:
        said: Said = request.app.state["said"]
        said.add(found.session.id, Notice(kind, text, secret, example))


def done(
    request: Request[Any, Any, Any], to: str, text: str = "", *, secret: str = "", example: str = ""
) -> Response[Any]:
    """After a form's work: lead to a page of this box, which says what was done."""
    if text:
        say(request, text, secret=secret, example=example)
    return Redirect(to, status_code=303, headers={"Cache-Control": "no-store"})


def local_path(text: str, otherwise: str) -> str:
    """A path of this box that a client names, such as where to go after sign-in; `otherwise` where it is none."""
    plain = text.isprintable() and "\\" not in text and len(text) <= _PATH_MAX
    return text if plain and text.startswith("/") and not text.startswith("//") else otherwise


def path_here(request: Request[Any, Any, Any], header: str) -> str:
    """Path and query of a page of this box that a header of the request names in full, such as `Referer`; else ""."""
    try:
        named = urlsplit(request.headers.get(header, ""))
    except ValueError:
        return ""
    if named.netloc.lower() != request.headers.get("host", "").lower():
        return ""
    return local_path(f"{named.path}?{named.query}" if named.query else named.path, "")


def means(request: Request[Any, Any, Any]) -> control.Means:
    """What the owner's commands are carried out with, as this person."""
    box = services(request)
    devices = tuple(dict.fromkeys(slot.device for slot in box.scheduler.slots() if not slot.test))
    actor = audit.in_browser(person(request).account.id)
    return control.Means(box.store, box.secrets, box.terms, box.clock, devices, box.scheduler.wake, actor)
