"""What is spent beyond the included units: `/v1/me/overage`, its toggle and its cap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from litestar import Request, Response, get, post
from msgspec import UNSET

from zsky_box import idempotency, overage
from zsky_box.api.access import caller_of
from zsky_box.api.bodies import idempotency as key_of
from zsky_box.api.bodies import read_body, read_bytes
from zsky_box.api.deps import Services, services
from zsky_box.api.generate import OF_EVERY_BODY, answered
from zsky_box.api.problems import documented
from zsky_box.db import Tx
from zsky_box.errors import FieldError, InvalidFields
from zsky_box.idempotency import Answer, Idempotency
from zsky_box.jobs.desk import tell_alerts
from zsky_box.keys import Caller
from zsky_box.ledger import Alert
from zsky_box.pricing import given_micros
from zsky_box.schemas import CapBody, OverageView, ToggleBody, read_object

_OF_EVERY_CHANGE: Final = (*OF_EVERY_BODY, "invalid_field", "idempotency_conflict", "test_key")


@get(
    "/me/overage",
    opt={"scope": "read"},
    operation_id="getOverage",
    tags=["account"],
    summary="What you spend beyond the included units",
    responses=documented(),
)
async def get_overage(request: Request[Any, Any, Any]) -> OverageView:
    """Toggle, cap, spend of this month, wallet, prices and what is left of the included units."""
    return await stands(services(request), caller_of(request))


@post(
    "/me/overage/toggle",
    status_code=200,
    opt={"scope": "billing", "live_only": True, "body": ToggleBody, "body_optional": True, "idempotent": True},
    operation_id="toggleOverage",
    tags=["account"],
    summary="Turn overage on or off",
    responses=documented(*_OF_EVERY_CHANGE),
)
async def toggle(request: Request[Any, Any, Any]) -> Response[OverageView]:
    """Flips it where the body does not say which. It gates new jobs only: what is open finishes."""
    box, caller = services(request), caller_of(request)
    _refuse_query(request)
    value, chosen = None, ToggleBody()
    if await read_bytes(request):
        value = await read_body(request)
        chosen = read_object(ToggleBody, value)
    enabled = None if chosen.enabled is UNSET else chosen.enabled

    def change(tx: Tx, now: int) -> tuple[Alert, ...]:
        return overage.toggle(tx, caller.account.id, enabled, actor=caller.key.id, now=now, terms=box.terms)

    return answered(await _changed(box, caller, key_of(request, value), change))


@post(
    "/me/overage/cap",
    status_code=200,
    opt={"scope": "billing", "live_only": True, "body": CapBody, "idempotent": True},
    operation_id="setCap",
    tags=["account"],
    summary="Set the spend cap",
    responses=documented(*_OF_EVERY_CHANGE),
)
async def set_cap(request: Request[Any, Any, Any]) -> Response[OverageView]:
    """$5 to $1,000 a month. A cap below what is spent is accepted: what is open finishes, and new jobs get 429."""
    box, caller = services(request), caller_of(request)
    _refuse_query(request)
    value = await read_body(request, exact=True)
    cap_micros = _cap_micros(read_object(CapBody, value))

    def change(tx: Tx, now: int) -> tuple[Alert, ...]:
        return overage.set_cap(tx, caller.account.id, cap_micros, actor=caller.key.id, now=now, terms=box.terms)

    return answered(await _changed(box, caller, key_of(request, value), change))


async def stands(box: Services, caller: Caller) -> OverageView:
    """How things stand with the caller's money at this moment, read of one state."""
    now = box.clock()

    def read() -> OverageView:
        with box.store.snapshot() as rows:
            return overage.view(rows, caller.account.id, now, box.terms)

    return await box.store.read(read)


async def _changed(
    box: Services, caller: Caller, key: Idempotency | None, change: Callable[[Tx, int], tuple[Alert, ...]]
) -> Answer:
    """Make a change once, tell what it has reached, and answer with how things stand."""

    def work(tx: Tx, now: int) -> Answer:
        tell_alerts(box.news, tx, caller.account.id, change(tx, now))
        return Answer(200, msgspec.json.encode(overage.view(tx, caller.account.id, now, box.terms)))

    return await idempotency.once(box.store, caller, key, box.clock, work)


def _cap_micros(body: CapBody) -> int:
    """The cap under whichever of its two names; raises 422 for both, none, and what is no amount."""
    given = {name: value for name, value in (("cap_usd", body.cap_usd), ("cap", body.cap)) if value is not UNSET}
    if len(given) != 1:
        told = "cap: send cap_usd or cap, not both." if given else "cap_usd is required."
        raise InvalidFields([FieldError("cap" if given else "cap_usd", "invalid_field", told)])
    ((name, value),) = given.items()
    try:
        return given_micros(value)
    except ValueError:
        message = f'{name}: send US dollars with at most two decimals, such as "25.00" or 25.'
        raise InvalidFields([FieldError(name, "invalid_field", message)]) from None


def _refuse_query(request: Request[Any, Any, Any]) -> None:
    """What was meant for the body must not flip a switch by being overlooked in the address."""
    named = [name[:64] for name in request.query_params]
    if named:
        sentence = f"There is no parameter {named[0]!r} in this address; send it in the body, as JSON."
        raise InvalidFields([FieldError(named[0], "unknown_field", sentence)])
