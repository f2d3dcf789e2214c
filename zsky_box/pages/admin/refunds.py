"""`/admin/people/…/charges`: what a person's jobs were charged, and paying it back as `zsky-box ledger refund` does."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath
from litestar.response import Redirect, Template
from litestar.types import ControllerRouterHandler

from zsky_box import accounts, charged, cursors, idempotency
from zsky_box.accounts import Account
from zsky_box.api.deps import Services, services
from zsky_box.charged import ChargedJob
from zsky_box.clock import rfc3339
from zsky_box.control import REASON_MAX, RefundJob, pay_back, rehearse
from zsky_box.db import Tx
from zsky_box.errors import Refusal
from zsky_box.idempotency import Answer
from zsky_box.ledger import Paid
from zsky_box.pages import frame
from zsky_box.pages.admin import money, places
from zsky_box.pages.entry import Form, only_once
from zsky_box.pricing import usd

PATH: Final = "/admin/people/{account_id:str}/charges"
_ALL: Final = "all"
_CURSOR: Final = "c"
_ID_MAX: Final = 100


@get(PATH, opt={"page": "owner"}, include_in_schema=False)
async def charges(request: Request[Any, Any, Any], account_id: FromPath[str]) -> Template | Redirect:
    """The person's ended jobs, the newest first; `job` leads to one of them."""
    box, query = services(request), request.query_params
    wanted = str(query.get("job", ""))[:_ID_MAX].strip()
    before = cursors.read(_CURSOR, str(query["cursor"])) if query.get("cursor") else None

    def read() -> tuple[Account, bool, list[ChargedJob], int | None]:
        with box.store.snapshot() as rows:
            account = accounts.get(rows, account_id)
            return account, charged.has(rows, account.id, wanted), *charged.page(rows, account.id, before)

    account, is_found, jobs, more = await box.store.read(read)
    if is_found:
        return Redirect(f"{_list(account_id)}/{wanted}", status_code=303)
    return places.page(
        request,
        "admin/charges.html",
        tab="people",
        title=f"Charges of {account.name}",
        account=account,
        jobs=jobs,
        missed=wanted,
        is_first=before is None,
        after=None if more is None else cursors.written(_CURSOR, more),
        at=rfc3339,
        amount=in_words,
    )


@get(f"{PATH}/{{job_id:str}}", opt={"page": "owner"}, include_in_schema=False)
async def ask_to_refund(request: Request[Any, Any, Any], account_id: FromPath[str], job_id: FromPath[str]) -> Template:
    """One of them: what of its charge can be paid back."""
    box = services(request)
    account, job = await box.store.read(lambda: _of(box, account_id, job_id))
    return places.page(
        request,
        "admin/refund.html",
        tab="people",
        title="Pay back",
        account=account,
        job=job,
        back=_list(account_id),
        reason_max=REASON_MAX,
        at=rfc3339,
        amount=in_words,
    )


@post(f"{PATH}/{{job_id:str}}", opt={"page": "owner"}, status_code=200, include_in_schema=False)
async def refund(
    request: Request[Any, Any, Any], account_id: FromPath[str], job_id: FromPath[str]
) -> Response[Any] | Template:
    """Shown first, as it would come, and done once it is confirmed; once, however often the form is sent."""
    box, form, means = services(request), await frame.form(request), frame.means(request)
    account, job = await box.store.read(lambda: _of(box, account_id, job_id))
    command = _command(form, job_id)
    if form.get("sure") == "yes":

        def work(tx: Tx, _: int) -> Answer:
            told = _told(pay_back(tx, command, means), job, account)
            return Answer(200, msgspec.json.encode(told))

        kept = await idempotency.once(box.store, frame.person(request), only_once(form, command), box.clock, work)
        return frame.done(request, _list(account_id), f"Paid back: {msgspec.json.decode(kept.body, type=str)}.")
    found = await box.store.read(lambda: rehearse(command, means))
    return places.sure(
        request,
        form,
        tab="people",
        of=account.name,
        back=f"{_list(account_id)}/{job_id}",
        changes=money.changes(found),
        sentences=[f"This pays back {_told(found.told, job, account)}.", f"Reason on record: {command.reason}"],
    )


def in_words(paid: list[Paid], kind: str) -> str:
    """What such charges come to: `2 included images and $0.05`."""
    units = sum(each.amount_micros is None for each in paid)
    amount = sum(each.amount_micros or 0 for each in paid)
    parts = [f"{units} included {kind}{'' if units == 1 else 's'}"] if units else []
    parts += [f"${usd(amount)}"] if amount else []
    return " and ".join(parts) or "nothing"


def _of(box: Services, account_id: str, job_id: str) -> tuple[Account, ChargedJob]:
    with box.store.snapshot() as rows:
        account = accounts.get(rows, account_id)
        return account, charged.one(rows, account.id, job_id)


def _command(form: Form, job_id: str) -> RefundJob:
    """All of the job's charge, or that of one result, counted from 0; raises 422."""
    which = form.get("result", "")
    if which != _ALL and not (which.isascii() and which.isdigit() and len(which) < 3):
        raise Refusal(422, "invalid_field", "Say what of the job is to be paid back.", field="result")
    if not form.get("reason"):
        raise Refusal(422, "invalid_field", "A refund says why.", field="reason")
    ordinal = None if which == _ALL else int(which)
    return money.checked(RefundJob(job_id=job_id, ordinal=ordinal, reason=form["reason"]))


def _told(answer: dict[str, Any], job: ChargedJob, account: Account) -> str:
    """Where what was paid back goes."""
    units, amount = int(answer["included_units"]), str(answer["amount_usd"])
    parts = [f"{units} included {job.type}{'' if units == 1 else 's'}, good this month"] if units else []
    if amount != usd(0):
        parts.append(f"${amount} into the wallet of {account.name}")
    return " and ".join(parts)


def _list(account_id: str) -> str:
    return PATH.replace("{account_id:str}", account_id)


HANDLERS: Final[list[ControllerRouterHandler]] = [charges, ask_to_refund, refund]
