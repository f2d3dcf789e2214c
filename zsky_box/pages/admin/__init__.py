"""The owner's pages: the box itself, its queue, its models and its people. Everybody else is told that there are none.

Each page is a file of its own here: its handlers go into `HANDLERS`, its entry of the sub-navigation into
`places.TABS`.
"""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, get
from litestar.response import Redirect
from litestar.types import ControllerRouterHandler

from zsky_box.pages.admin import audit, backups, cards, health, models, people, places, queue, refunds, settings


@get("/admin", opt={"page": "owner"}, include_in_schema=False)
async def overview(request: Request[Any, Any, Any]) -> Redirect:
    """To the first of them."""
    return Redirect(places.shown_tabs(request)[0].path, status_code=303)


HANDLERS: Final[list[ControllerRouterHandler]] = [
    overview,
    *cards.HANDLERS,
    *audit.HANDLERS,
    *health.HANDLERS,
    *backups.HANDLERS,
    *settings.HANDLERS,
    *queue.HANDLERS,
    *models.HANDLERS,
    *people.HANDLERS,
    *refunds.HANDLERS,
]
