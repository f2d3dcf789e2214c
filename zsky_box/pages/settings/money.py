"""The forms of what is spent beyond the included units: the same changes as `/v1/me/overage`, made in person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litestar import Request, Response, post
from litestar.response import Template

from zsky_box import audit, overage
from zsky_box.api.deps import services
from zsky_box.db import Tx
from zsky_box.errors import Refusal
from zsky_box.jobs.desk import tell_alerts
from zsky_box.ledger import Alert
from zsky_box.pages import frame
from zsky_box.pages.settings import view
from zsky_box.pricing import given_micros, usd


@post("/settings/overage", opt={"page": "member"}, status_code=303, include_in_schema=False)
async def toggle(request: Request[Any, Any, Any]) -> Response[Any]:
    """Turn overage on or off, as the button says: a form that is sent twice does not flip back."""
    box, form = services(request), await frame.form(request)
    account_id, chosen = frame.person(request).account.id, form.get("enabled")
    if chosen not in ("on", "off"):
        raise Refusal(422, "invalid_field", "Say whether overage is to be on or off.", field="enabled")
    enabled = chosen == "on"
    await _change(
        request,
        lambda tx, now: overage.toggle(
            tx, account_id, enabled, actor=audit.in_browser(account_id), now=now, terms=box.terms
        ),
    )
    said = "Overage is on: beyond the included units, jobs are paid for from the wallet."
    return frame.done(request, "/settings", said if enabled else "Overage is off; what runs already finishes.")


@post("/settings/overage/cap", opt={"page": "member"}, status_code=303, include_in_schema=False)
async def set_cap(request: Request[Any, Any, Any]) -> Response[Any] | Template:
    """Set the spend cap, within the contract's bounds and the owner's ceiling."""
    box, form = services(request), await frame.form(request)
    account_id = frame.person(request).account.id
    try:
        cap_micros = _cap_micros(form.get("cap_usd", ""))
        await _change(
            request,
            lambda tx, now: overage.set_cap(
                tx, account_id, cap_micros, actor=audit.in_browser(account_id), now=now, terms=box.terms
            ),
        )
    except Refusal as refusal:
        if refusal.field != "cap_usd":
            raise
        sentence = refusal.detail.removeprefix("cap_usd: ")
        wrong = {"cap": sentence[:1].upper() + sentence[1:]}
        return await view.page(request, wrong=wrong, kept=form, status=refusal.status)
    return frame.done(request, "/settings", f"The spend cap is ${usd(cap_micros)} a month.")


async def _change(request: Request[Any, Any, Any], change: Callable[[Tx, int], tuple[Alert, ...]]) -> None:
    """Make a change and tell what it has reached, in one write."""
    box, account_id = services(request), frame.person(request).account.id

    def work(tx: Tx) -> None:
        tell_alerts(box.news, tx, account_id, change(tx, box.clock()))

    await box.store.write_async(work)


def _cap_micros(text: str) -> int:
    try:
        return given_micros(text.removeprefix("$"))
    except ValueError:
        sentence = "Write an amount of dollars with at most two decimals, such as 25 or 25.50."
        raise Refusal(422, "invalid_field", sentence, field="cap_usd") from None
