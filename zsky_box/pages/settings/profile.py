"""The forms of one's password and sessions."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Response, post
from litestar.response import Template

from zsky_box import audit, passwords, sessions
from zsky_box.api.deps import services
from zsky_box.db import Tx
from zsky_box.errors import Refusal
from zsky_box.pages import frame, sign_in
from zsky_box.pages.entry import Form, signed_in
from zsky_box.pages.settings import view

_ID_MAX: Final = 100


@post("/settings/password", opt={"page": "member"}, status_code=303, include_in_schema=False)
async def change_password(request: Request[Any, Any, Any]) -> Response[Any] | Template:
    """Another password, for who knows the present one; guesses at it count as those at the sign-in do."""
    form = await frame.form(request)
    try:
        ended = await _change(request, form)
    except Refusal as refusal:
        wrong = {"password": refusal.detail}
        return await view.page(request, wrong=wrong, status=refusal.status, headers=refusal.headers)
    others = "" if not ended else " Your other session has ended." if ended == 1 else f" {ended} other sessions ended."
    return frame.done(request, "/settings", f"The password is changed.{others}")


@post("/settings/sessions/end", opt={"page": "member"}, status_code=303, include_in_schema=False)
async def end_session(request: Request[Any, Any, Any]) -> Response[Any]:
    """End one session; one's own is the sign-out's affair."""
    box, found, form = services(request), signed_in(request), await frame.form(request)
    account_id, session_id = found.caller.account.id, form.get("session_id", "")[:_ID_MAX]
    if session_id == found.session.id:
        raise Refusal(422, "invalid_field", "This is the session you are in: sign out to end it.", field="session_id")

    def work(tx: Tx) -> bool:
        return sessions.end(tx, account_id, session_id, now=box.clock(), actor=audit.in_browser(account_id))

    if not await box.store.write_async(work):
        return frame.done(request, "/settings", "That session had ended already.")
    return frame.done(request, "/settings", "The session has ended; its browser is signed out.")


@post("/settings/sessions/end-others", opt={"page": "member"}, status_code=303, include_in_schema=False)
async def end_others(request: Request[Any, Any, Any]) -> Response[Any]:
    """End all sessions but this one."""
    box, found = services(request), signed_in(request)
    account_id, this = found.caller.account.id, found.session.id

    def work(tx: Tx) -> int:
        return sessions.end_all(tx, account_id, but=this, now=box.clock(), actor=audit.in_browser(account_id))

    ended = await box.store.write_async(work)
    told = "There is no other session." if not ended else f"Ended: {ended} session{'' if ended == 1 else 's'}."
    return frame.done(request, "/settings", told)


async def _change(request: Request[Any, Any, Any], form: Form) -> int:
    """Check and set the password; how many other sessions ended with the old one. Raises 422, or 429 to wait."""
    box, found = services(request), signed_in(request)
    account = found.caller.account
    present, password = form.raw("present"), form.raw("password")
    if password != form.raw("again"):
        raise Refusal(422, "invalid_field", "The two new passwords differ; write the same one twice.")
    passwords.check(password, account.name)
    stored = await sign_in.in_person(request, present)
    hashed = await passwords.aside(lambda: passwords.hashed(password))

    def work(tx: Tx) -> int:
        if passwords.hash_of(tx, account.id) != stored:
            raise Refusal(422, "invalid_field", "The password was changed elsewhere meanwhile; try again.")
        now, actor = box.clock(), audit.in_browser(account.id)
        passwords.set_for(tx, account.id, hashed, now=now, actor=actor)
        return sessions.end_all(tx, account.id, but=found.session.id, now=now, actor=actor)

    return await box.store.write_async(work)
