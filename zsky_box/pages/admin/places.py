"""The frame of the owner's pages: the sub-navigation, and who is on record for what is done there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from litestar import Request
from litestar.response import Template
from msgspec import Struct

from zsky_box.pages import frame
from zsky_box.pages.entry import ONCE_FIELD, Form, new_once


class Tab(Struct, frozen=True):
    """An entry of the sub-navigation; it is shown once the box has the page."""

    name: str
    label: str
    path: str


TABS: Final = (
    Tab("cards", "Cards", "/admin/cards"),
    Tab("queue", "Queue", "/admin/queue"),
    Tab("models", "Models", "/admin/models"),
    Tab("people", "People", "/admin/people"),
    Tab("settings", "Settings", "/admin/settings"),
    Tab("audit", "Audit", "/admin/audit"),
    Tab("health", "Health", "/admin/health"),
)


def shown_tabs(request: Request[Any, Any, Any]) -> list[Tab]:
    """Those whose pages this box has."""
    return [tab for tab in TABS if tab.path in request.app.state["paths"]]


def page(request: Request[Any, Any, Any], template: str, *, tab: str, title: str, **context: Any) -> Template:
    """One of the owner's pages in its frame; templates extend `admin/frame.html` and fill `content`."""
    return frame.page(request, template, place="admin", title=title, tab=tab, tabs=shown_tabs(request), **context)


def sure(
    request: Request[Any, Any, Any],
    form: Form,
    *,
    tab: str,
    of: str,
    back: str,
    sentences: Sequence[str],
    changes: Sequence[Struct] = (),
) -> Template:
    """The page that asks whether this is meant, with what would change; its form sends the same again to `back`."""
    kept = {name: value[:1_000] for name, value in form.items() if name not in ("csrf", "sure", ONCE_FIELD)}
    return page(
        request,
        "admin/sure.html",
        tab=tab,
        title="Confirm",
        of=of,
        back=back,
        kept=kept,
        sentences=sentences,
        changes=changes,
        once=new_once(),
    )


def actor(request: Request[Any, Any, Any]) -> str:
    """Who is on record for what is done here."""
    return frame.means(request).actor
