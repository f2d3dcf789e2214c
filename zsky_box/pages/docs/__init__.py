"""`/docs`: the quick start and the reference of the API, drawn from the box's own OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from litestar import Litestar, Request, Response, get, post
from litestar.response import Template
from markupsafe import Markup
from msgspec import Struct

from zsky_box import keys, timeline
from zsky_box.api.deps import services
from zsky_box.control import IssueKey
from zsky_box.errors import Refusal
from zsky_box.pages import frame
from zsky_box.pages.docs import codes, examples, outline
from zsky_box.pages.docs.outline import Outline
from zsky_box.pages.settings import api_keys

NO_KEY: Final = "YOUR_KEY"
"""What stands in the examples until there is a key to put there."""
_NAME: Final = "from the docs"


class Drawn(Struct, frozen=True):
    """The reference as it is on every page, but for address and key."""

    outline: Outline
    reference: Markup


def draw(app: Litestar, document: dict[str, Any]) -> Drawn:
    """Draw the reference of a document once, at start; there is no page to show it on without templates."""
    if app.template_engine is None:
        raise TypeError("the application has no templates")
    found = outline.read(document)
    html = app.template_engine.get_template("docs/_reference.html").render(
        outline=found, refusals=codes.REFUSALS, ends=codes.ENDS
    )
    return Drawn(found, Markup(html))  # noqa: S704 - the template has escaped what is in it


@get("/docs", opt={"page": "member"}, include_in_schema=False)
async def docs(request: Request[Any, Any, Any]) -> Template:
    """Quick start and reference, with this box's address; after `Create test key` with that key in every example."""
    box, account = services(request), frame.person(request).account

    def has_api() -> bool:
        with box.store.snapshot() as rows:
            period = box.terms.calendar.period_at(timeline.present(rows, box.clock())).key
            try:
                keys.require_api(rows, account, period)
            except Refusal:
                return False
            return True

    drawn: Drawn = request.app.state["docs"]
    return frame.page(
        request,
        "docs.html",
        place="docs",
        title="Docs",
        outline=drawn.outline,
        reference=drawn.reference,
        no_key=NO_KEY,
        base_mark=examples.BASE,
        key_mark=examples.KEY,
        has_api=await box.store.read(has_api),
    )


@post("/docs/test-key", opt={"page": "member"}, status_code=303, include_in_schema=False)
async def create_test_key(request: Request[Any, Any, Any]) -> Response[Any]:
    """A key that costs nothing, shown once, on the page whose examples then use it."""
    account_id = frame.person(request).account.id
    issued = await api_keys.run(request, IssueKey(account=account_id, name=_NAME, test=True))
    return frame.done(request, "/docs", "Your test key; the examples of this page use it:", secret=issued["api_key"])
