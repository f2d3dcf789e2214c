"""`POST /v1/quote`: what a job would cost, and whether it would be taken."""

from __future__ import annotations

from typing import Any

from litestar import Request, post

from zsky_box.api.access import caller_of
from zsky_box.api.bodies import read_body, room_for_body
from zsky_box.api.deps import services
from zsky_box.api.generate import OF_EVERY_BODY, acted_out, asked_for, sent_along
from zsky_box.api.problems import documented
from zsky_box.errors import InvalidFields, Refusal
from zsky_box.pricing import usd
from zsky_box.schemas import GenerateBody, QuoteView, read_object


@post(
    "/quote",
    status_code=200,
    # A page asks by itself, whenever a price may have changed.
    opt={"scope": "generate", "body": GenerateBody, "asked_by_itself": True},
    operation_id="quote",
    tags=["jobs"],
    summary="What a job would cost",
    responses=documented(*OF_EVERY_BODY, "invalid_field", "model_not_installed", "unsupported_for_model"),
)
async def quote(request: Request[Any, Any, Any]) -> QuoteView:
    """The body of a `generate`, answered with its price and the refusal that it would meet now. Reserves nothing."""
    async with room_for_body(request):
        return await _quote(request)


async def _quote(request: Request[Any, Any, Any]) -> QuoteView:
    box, caller = services(request), caller_of(request)
    body = read_object(GenerateBody, await read_body(request))
    work, refusal, fits, notes = None, acted_out(caller, body), False, list[str]()
    try:
        submission = asked_for(box, caller, body, bounded=False)
        work, notes = submission.work, [*submission.notes]
        no_room = None if caller.key.test else await box.store.read(lambda: box.room.refusal_of(work))
        fits = no_room is None
        if no_room is not None:
            refusal = refusal or Refusal(422, "unsupported_for_model", f"{work.model} {no_room}.")
    except InvalidFields:
        raise
    except Refusal as reason:
        refusal = reason
    if (picture := await sent_along(body)) is not None:
        await box.uploads.check(picture, field="image")
    elif (upload_id := body.image) is not None:
        await box.store.read(lambda: box.uploads.require(box.store, caller, upload_id))
    place = None
    if work is not None and fits:
        batch, account, test = body.priority == "batch", caller.account.id, caller.key.test
        place = await box.store.read(lambda: box.eta.new(work, account, batch=batch, test=test))
    found = await box.store.read(lambda: box.desk.quote(caller, body.type, body.n or 1, body.prompt))
    refusal = refusal or found.refusal
    return QuoteView(
        amount_usd=usd(found.amount_micros),
        included_units=found.included_units,
        wallet_units=found.wallet_units,
        would_accept=refusal is None,
        refusal=None if refusal is None else refusal.code,
        refusal_detail=None if refusal is None else refusal.detail,
        model=None if work is None else work.model,
        fits=fits,
        eta_seconds=None if place is None else place.seconds,
        notes=notes,
    )
