"""Signing in and out, and the address `/`."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Response, get, post
from litestar.response import Redirect, Template

from zsky_box import accounts, audit, passwords, sessions
from zsky_box.accounts import NAME_MAX, Account
from zsky_box.api import browser
from zsky_box.api.deps import Services, services
from zsky_box.db import Tx
from zsky_box.errors import Refusal
from zsky_box.pages import frame
from zsky_box.pages.entry import signed_in, visitor_of
from zsky_box.sessions import Session

_WRONG: Final = "Name and password do not belong together; try again, or ask the box's owner for a new link."
_AGENT_MAX: Final = 200


@get("/", opt={"page": "open"}, include_in_schema=False)
async def home(request: Request[Any, Any, Any]) -> Redirect:
    """To the page where work begins."""
    return Redirect(_first_place(request) if visitor_of(request) else "/sign-in", status_code=303)


@get("/sign-in", opt={"page": "open"}, include_in_schema=False)
async def sign_in(request: Request[Any, Any, Any]) -> Response[Any] | Template:
    """The form; whoever is signed in already goes on."""
    onward = frame.local_path(str(request.query_params.get("next", "")), "")
    if visitor_of(request) is not None:
        return Redirect(onward or _first_place(request), status_code=303)
    return await _shown(request, onward=onward)


@post("/sign-in", opt={"page": "open"}, status_code=303, include_in_schema=False)
async def try_sign_in(request: Request[Any, Any, Any]) -> Response[Any] | Template:
    """Check name and password and begin a session; wrong ones are counted, per account and per address."""
    box, form = services(request), await frame.form(request)
    name, password = accounts.written(form.get("name", ""))[:NAME_MAX], form.raw("password")
    onward = frame.local_path(form.get("next", ""), "")
    address = browser.address_of(request)
    try:
        box.guesses.allow(name, address)
        account, stored, chosen_at = await box.store.read(lambda: _known(box, name))
        is_right = await passwords.aside(lambda: passwords.matches(stored, password))
    except Refusal as refusal:
        return await _shown(
            request, onward=onward, name=name, wrong=refusal.detail, status=refusal.status, headers=refusal.headers
        )
    if not is_right or account is None or stored is None:
        box.guesses.wrong(name, address)
        return await _shown(request, onward=onward, name=name, wrong=_WRONG, status=422)
    box.guesses.right(name, address)
    await _strengthen(box, account, stored, password)
    try:
        return await begun(request, account, onward or _first_place(request), chosen_at)
    except Refusal as refusal:
        return await _shown(request, onward=onward, name=name, wrong=refusal.detail, status=refusal.status)


@post("/sign-out", opt={"page": "member"}, status_code=303, include_in_schema=False)
async def sign_out(request: Request[Any, Any, Any]) -> Redirect:
    """End the session; its cookie opens nothing any more."""
    box, found = services(request), signed_in(request)
    account_id, session_id = found.caller.account.id, found.session.id

    def work(tx: Tx) -> None:
        sessions.end(tx, account_id, session_id, now=box.clock(), actor=audit.in_browser(account_id))

    await box.store.write_async(work)
    return Redirect("/sign-in", status_code=303, cookies=[browser.ended_cookie(request)])


async def begun(request: Request[Any, Any, Any], account: Account, onward: str, chosen_at: int | None) -> Response[Any]:
    """A fresh session for this browser, whatever cookie it came with; the one before ends.

    Raises 422 where the password that let the person in, chosen at that time, has been changed since it was looked at:
    with a password end all the sessions that it began, and no other begins with it.
    """
    box, before = services(request), visitor_of(request)
    agent = request.headers.get("user-agent", "")[:_AGENT_MAX]
    address, now = browser.address_of(request), box.clock()

    def work(tx: Tx) -> tuple[Session, str]:
        if passwords.set_at(tx, account.id) != chosen_at:
            raise Refusal(422, "invalid_field", "The password was changed at this moment; sign in with the new one.")
        if before is not None:
            owner = before.session.account_id
            sessions.end(tx, owner, before.session.id, now=now, actor=audit.in_browser(owner))
        return sessions.begin(tx, account.id, now=now, address=address, agent=agent)

    _, secret = await box.store.write_async(work)
    cookies = [browser.session_cookie(request, secret)]
    return Redirect(onward, status_code=303, cookies=cookies, headers={"Cache-Control": "no-store"})


async def in_person(request: Request[Any, Any, Any], password: str) -> str:
    """Whoever is signed in proves anew that it is they, not only their browser; the hash of their password.

    Raises 422 for another password, whose guesses count as those at the sign-in do, and 429 where they have to wait.
    """
    box, account, address = services(request), signed_in(request).caller.account, browser.address_of(request)
    box.guesses.allow(account.name, address)
    stored = await box.store.read(lambda: passwords.hash_of(box.store, account.id))
    if stored is None or not await passwords.aside(lambda: passwords.matches(stored, password)):
        box.guesses.wrong(account.name, address)
        raise Refusal(422, "invalid_field", "The present password is another one; nothing was done.", field="password")
    box.guesses.right(account.name, address)
    return stored


def _known(box: Services, name: str) -> tuple[Account | None, str | None, int | None]:
    with box.store.snapshot() as rows:
        try:
            account = accounts.named(rows, name)
        except Refusal:
            return None, None, None
        if account.name != name:  # an id is another name for the same guesses, which are counted by name
            return None, None, None
        return account, passwords.hash_of(rows, account.id), passwords.set_at(rows, account.id)


async def _strengthen(box: Services, account: Account, stored: str, password: str) -> None:
    """A hash made with weaker parameters than today's is made anew, now that the password is at hand."""
    if passwords.is_outdated(stored):
        fresh = await passwords.aside(lambda: passwords.hashed(password))
        await box.store.write_async(lambda tx: passwords.renew(tx, account.id, stored, fresh))


async def _shown(
    request: Request[Any, Any, Any],
    *,
    onward: str,
    name: str = "",
    wrong: str = "",
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Template:
    box = services(request)
    has_people = await box.store.read(lambda: passwords.exist(box.store))
    return frame.page(
        request,
        "sign_in.html",
        title="Sign in",
        status=status,
        headers=headers,
        onward=onward,
        name=name,
        wrong=wrong,
        has_people=has_people,
    )


def _first_place(request: Request[Any, Any, Any]) -> str:
    return "/create" if "/create" in request.app.state["paths"] else "/settings"
