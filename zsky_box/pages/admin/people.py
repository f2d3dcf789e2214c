"""`/admin/people`: who is on the box, what they may spend, and their way in."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath
from litestar.response import Template
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from zsky_box import access, accounts, idempotency, keys, overage, people, sessions
from zsky_box.accounts import NAME_MAX, Account, Plan
from zsky_box.api.deps import Services, base_url, services
from zsky_box.clock import DAY_US, rfc3339
from zsky_box.control import (
    AddAccount,
    InviteAccount,
    OfAccount,
    Rehearsal,
    RevokeKey,
    SetCeiling,
    account_view,
    on_account,
    rehearse,
    run,
)
from zsky_box.db import Rows, Tx
from zsky_box.errors import Refusal
from zsky_box.idempotency import Answer
from zsky_box.ledger import spend
from zsky_box.pages import agents, frame
from zsky_box.pages.admin import money, places
from zsky_box.pages.entry import Form, only_once, signed_in
from zsky_box.pricing import MICROS_PER_USD, usd
from zsky_box.schemas import OverageView

PATH: Final = "/admin/people"
_FIELD_MAX: Final = 200


class PersonRow(Struct, frozen=True):
    """One line of the list."""

    account: Account
    stands: OverageView
    seen: str | None


@get(PATH, opt={"page": "owner"}, include_in_schema=False)
async def list_people(request: Request[Any, Any, Any]) -> Template:
    """Everybody."""
    box, text = services(request), str(request.query_params.get("q", ""))[:_FIELD_MAX].strip()
    given = str(request.query_params.get("start", ""))
    start = int(given) // people.PAGE * people.PAGE if given.isascii() and given.isdigit() and len(given) < 6 else 0

    def read() -> tuple[list[PersonRow], int, int | None]:
        with box.store.snapshot() as rows:
            page = people.page(rows, text, start)
            seen = people.last_seen(rows, [account.id for account in page.people])
            found = [_row(rows, box, account, seen.get(account.id)) for account in page.people]
            return found, page.matching, spend.box_ceiling_micros(rows)

    found, matching, ceiling = await box.store.read(read)
    return places.page(
        request,
        "admin/people.html",
        tab="people",
        title="People",
        people=found,
        matching=matching,
        start=start,
        after=start + people.PAGE if start + people.PAGE < matching else None,
        q=text,
        ceiling=None if ceiling is None else usd(ceiling),
        name_max=NAME_MAX,
    )


@post(PATH, opt={"page": "owner"}, status_code=200, include_in_schema=False)
async def add_or_bound(request: Request[Any, Any, Any]) -> Response[Any] | Template:
    """A further person, or the ceiling of the whole box."""
    box, form = services(request), await frame.form(request)
    means = frame.means(request)
    if form.get("do") == "box-ceiling":
        ceiling = money.optional_micros(form, "ceiling_usd")
        told = "no ceiling" if ceiling is None else f"at most ${usd(ceiling)} a month over all accounts together"
        if form.get("sure") != "yes":
            sentences = [f"The box gets {told}."]
            return places.sure(request, form, tab="people", of="The ceiling of the box", back=PATH, sentences=sentences)
        await box.store.read(lambda: run(money.checked(SetCeiling(account=None, ceiling_micros=ceiling)), means))
        return frame.done(request, PATH, f"The box has {told}.")
    plan: Plan = "free" if form.get("plan") == "free" else "max"
    name = form.get("name", "")
    command = AddAccount(name=name, plan=plan, annual=form.get("plan") == "max-annual")

    def work() -> dict[str, Any]:
        added = run(command, means)
        return run(InviteAccount(account=added["id"]), means)

    invited = await box.store.read(work)
    return frame.done(
        request,
        f"{PATH}/{invited['id']}",
        f"{name} is added. Give them this link: it works once, for three days, and sets their password.",
        secret=f"{base_url(request)}{invited['path']}",
    )


@get(f"{PATH}/{{account_id:str}}", opt={"page": "owner"}, include_in_schema=False)
async def person(request: Request[Any, Any, Any], account_id: FromPath[str]) -> Template:
    """One of them."""
    box, means = services(request), frame.means(request)

    def read() -> dict[str, Any]:
        with box.store.snapshot() as rows:
            account = accounts.get(rows, account_id)
            seen = people.last_seen(rows, [account.id]).get(account.id)
            return {
                "account": account,
                "view": account_view(rows, account, means),
                "stands": overage.view(rows, account.id, box.clock(), box.terms),
                "seen": None if seen is None else rfc3339(seen),
                "ways": access.ways(rows, account, now=box.clock()),
                "sessions": _sessions(rows, box, account.id),
                "keys": [key.view() for key in keys.listed(rows, account.id)],
            }

    found = await box.store.read(read)
    return places.page(
        request,
        "admin/person.html",
        tab="people",
        title=found["account"].name,
        at=rfc3339,
        in_words=agents.in_words,
        cap_min=f"{overage.CAP_MIN_MICROS // MICROS_PER_USD:,}",
        cap_max=f"{overage.CAP_MAX_MICROS // MICROS_PER_USD:,}",
        **found,
    )


@post(f"{PATH}/{{account_id:str}}", opt={"page": "owner"}, status_code=200, include_in_schema=False)
async def change_person(request: Request[Any, Any, Any], account_id: FromPath[str]) -> Response[Any] | Template:
    """What changes money or a plan is shown first, as it would come, and done once it is confirmed."""
    form = await frame.form(request)
    back = f"{PATH}/{account_id}"
    wish = form.get("do", "")
    if wish in ("invite", "end-sessions", "revoke"):
        return await _access(request, account_id, wish, form.get("key", ""))
    if wish == "close":
        return await _close(request, form, account_id)
    command = money.command(form, account_id)
    if form.get("sure") == "yes":
        await _carry_out(request, form, command)
        return frame.done(request, back, money.DONE[wish])
    return await _confirm(request, form, command, back)


async def _confirm(request: Request[Any, Any, Any], form: Form, command: OfAccount, back: str) -> Template:
    box, means = services(request), frame.means(request)
    found: Rehearsal = await box.store.read(lambda: rehearse(command, means))
    return places.sure(
        request,
        form,
        tab="people",
        of=found.before["name"],
        back=back,
        changes=money.changes(found),
        sentences=money.sentences(command, found),
    )


async def _carry_out(request: Request[Any, Any, Any], form: Form, command: OfAccount) -> None:
    """Once, however often the form is sent: nobody's wallet is filled twice by a second click."""
    box, means = services(request), frame.means(request)

    def work(tx: Tx, _: int) -> Answer:
        return Answer(200, msgspec.json.encode(on_account(tx, command, means)["id"]))

    key = only_once(form, command)
    await idempotency.once(box.store, frame.person(request), key, box.clock, work)


async def _access(
    request: Request[Any, Any, Any], account_id: str, wish: Literal["invite", "end-sessions", "revoke"], key_id: str
) -> Response[Any]:
    """A new link, all sessions ended, or a key."""
    box, means, back = services(request), frame.means(request), f"{PATH}/{account_id}"
    if wish == "invite":
        account = await box.store.read(lambda: accounts.get(box.store, account_id))
        if account.id == frame.person(request).account.id:
            # A link sets a password without the present one: whoever has a session only would have the account.
            detail = "Your own password is changed in the settings; if it is lost, with `zsky-box accounts password`."
            raise Refusal(422, "invalid_field", detail)
        told = await box.store.read(lambda: run(InviteAccount(account=account.id), means))
        sentence = f"A link for {told['name']}: it works once, for three days, and sets their password."
        return frame.done(request, back, sentence, secret=f"{base_url(request)}{told['path']}")
    if wish == "revoke":
        await box.store.read(lambda: run(RevokeKey(account=account_id, key_id=key_id), means))
        return frame.done(request, back, "The key is revoked: it opens nothing any more.")
    own = signed_in(request).session

    def work(tx: Tx) -> int:
        account = accounts.get(tx, account_id)
        return sessions.end_all(tx, account.id, but=own.id, now=box.clock(), actor=means.actor)

    count = await box.store.write_async(work)
    return frame.done(request, back, f"{count} sessions are ended." if count != 1 else "One session is ended.")


async def _close(request: Request[Any, Any, Any], form: Form, account_id: str) -> Response[Any] | Template:
    """Everything that lets the person in: for who has left, or whose password is known to somebody."""
    box, means, back = services(request), frame.means(request), f"{PATH}/{account_id}"
    if form.get("sure") == "yes":

        def work(tx: Tx) -> None:
            access.close(tx, accounts.get(tx, account_id), now=box.clock(), actor=means.actor)

        await box.store.write_async(work)
        return frame.done(request, back, "All ways in are closed. A new link opens one again.")

    def read() -> tuple[Account, access.Ways]:
        with box.store.snapshot() as rows:
            account = accounts.get(rows, account_id)
            return account, access.ways(rows, account, now=box.clock())

    account, there = await box.store.read(read)
    parts = [
        "the password goes" if there.has_password else "there is no password",
        f"{there.sessions} session{'' if there.sessions == 1 else 's'} end{'s' if there.sessions == 1 else ''}",
        f"{there.keys} key{' is' if there.keys == 1 else 's are'} revoked",
    ]
    sentences = [
        f"{account.name} can neither sign in nor call the API any more: {', '.join(parts)}.",
        "Jobs under way go on; results, wallet and record stay. The plan stays, too: change it if it is not to renew.",
        "A new link lets them in again.",
    ]
    return places.sure(request, form, tab="people", of=account.name, back=back, sentences=sentences)


def _row(rows: Rows, box: Services, account: Account, seen: int | None) -> PersonRow:
    stands = overage.view(rows, account.id, box.clock(), box.terms)
    return PersonRow(account, stands, None if seen is None else rfc3339(seen))


def _sessions(rows: Rows, box: Services, account_id: str) -> list[sessions.Session]:
    idle_us, whole_us = box.settings.session_idle_days * DAY_US, box.settings.session_days * DAY_US
    return sessions.listed(rows, account_id, now=box.clock(), idle_us=idle_us, whole_us=whole_us)


HANDLERS: Final[list[ControllerRouterHandler]] = [list_people, add_or_bound, person, change_person]
