"""The first page, behind the one-time token of `init`: what runs, what is missing, and a first call to copy."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, get
from litestar.response import Template

from zsky_box import accounts, invitations
from zsky_box.api.deps import base_url, services

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the token stands in the address
    "X-Content-Type-Options": "nosniff",
}
_TOKEN_MAX: Final = 200


@get("/setup", include_in_schema=False, opt={"open": True})
async def setup(request: Request[Any, Any, Any]) -> Template:
    """With the right token the state of the box; with another, what to do."""
    box = services(request)
    token = str(request.query_params.get("token", ""))[:_TOKEN_MAX]
    if await box.store.read(lambda: invitations.find(box.store, token, box.clock())) is None:
        return Template("setup_refused.html", status_code=403, headers=_HEADERS)
    owner = await box.store.read(lambda: accounts.owner(box.store))
    context = {
        "owner": "" if owner is None else owner.name,
        "base": base_url(request),
        "slots": [slot for slot in box.scheduler.slots() if not slot.test],
        "models": [
            (
                spec,
                box.catalog.installed(spec) is not None,
                [kind for kind in spec.makes if box.catalog.default(kind) is spec],
            )
            for spec in box.catalog.specs.values()
        ],
    }
    return Template("setup.html", context=context, headers=_HEADERS)
