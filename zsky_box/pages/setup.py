"""The first run, an invited person's first visit, and a new password: all behind a link that works once.

The link's token stands in the page's address. The pages' `Referrer-Policy: same-origin` keeps it on this box; with
`no-referrer` a browser would send the form with the origin `null`, which is refused.
"""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Response, get, post
from litestar.response import Template

from zsky_box import accounts, invitations, passwords
from zsky_box.accounts import NAME_MAX, Account
from zsky_box.api.deps import services
from zsky_box.db import Tx
from zsky_box.errors import Refusal
from zsky_box.pages import frame
from zsky_box.pages.sign_in import begun

_TOKEN_MAX: Final = 200


@get("/setup", opt={"page": "open"}, include_in_schema=False)
async def setup(request: Request[Any, Any, Any]) -> Template:
    """With a link's token the form for name and password; with another, what to do."""
    token = str(request.query_params.get("token", ""))[:_TOKEN_MAX]
    return await _shown(request, token)


@post("/setup", opt={"page": "open"}, status_code=303, include_in_schema=False)
async def set_up(request: Request[Any, Any, Any]) -> Response[Any] | Template:
    """Use the link: the password is set, and the person is signed in."""
    box, form = services(request), await frame.form(request)
    token, name = form.get("token", "")[:_TOKEN_MAX], form.get("name", "")
    password, again = form.raw("password"), form.raw("again")
    invited = await box.store.read(lambda: invitations.find(box.store, token, box.clock()))
    if invited is None:
        return await _shown(request, token)
    try:
        if password != again:
            raise Refusal(422, "invalid_field", "The two passwords differ; write the same one twice.")
        passwords.check(password, name or invited.name)
        hashed = await passwords.aside(lambda: passwords.hashed(password))
        now = box.clock()
        account = await box.store.write_async(lambda tx: _use(tx, token, name, hashed, now))
    except Refusal as refusal:
        return await _shown(request, token, name=name, wrong=refusal.detail)
    return await begun(request, account, "/settings#api" if account.role == "owner" else "/", now)


def _use(tx: Tx, token: str, name: str, hashed: str, now: int) -> Account:
    account = invitations.use(tx, token, hashed=hashed, now=now)
    if name and accounts.written(name) != account.name:
        account = accounts.rename(tx, account, name, now=now)
    return account


async def _shown(request: Request[Any, Any, Any], token: str, *, name: str = "", wrong: str = "") -> Template:
    box = services(request)

    def known() -> tuple[Account | None, bool]:
        invited = invitations.find(box.store, token, box.clock())
        return invited, invited is not None and passwords.hash_of(box.store, invited.id) is not None

    invited, has_password = await box.store.read(known)
    if invited is None:
        return frame.page(request, "setup_refused.html", title="Not this link", status=403)
    return frame.page(
        request,
        "setup.html",
        title="A new password" if has_password else "Welcome",
        status=422 if wrong else 200,
        token=token,
        invited=invited,
        is_first=not has_password,
        name=name or invited.name,
        name_max=NAME_MAX,
        wrong=wrong,
    )
