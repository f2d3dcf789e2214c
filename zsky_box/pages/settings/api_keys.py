"""The forms of one's own API keys. They run the same commands as `zsky-box keys`, always for the account signed in."""

from __future__ import annotations

import json
import shlex
from typing import Any, Final

from litestar import Request, Response, post
from litestar.response import Template

from zsky_box import control
from zsky_box.api.deps import base_url, services
from zsky_box.control import CapKey, Command, IssueKey, RevokeKey, RotateKey
from zsky_box.control.asked import LIMIT_MAX_MICROS
from zsky_box.errors import Refusal
from zsky_box.keys import NAME_MAX, OVERLAP_MAX_SECONDS, SCOPES, Scope
from zsky_box.pages import frame
from zsky_box.pages.entry import Form
from zsky_box.pages.settings import view
from zsky_box.pricing import given_micros, usd

_BODY: Final = {"type": "image", "prompt": "an espresso bar at golden hour"}
_ID_MAX: Final = 100


@post("/settings/keys", opt={"page": "member"}, status_code=303, include_in_schema=False)
async def issue(request: Request[Any, Any, Any]) -> Response[Any] | Template:
    """A new key, shown once with a call that uses it; what is wrong with the form is said beside it."""
    form, account_id = await frame.form(request), frame.person(request).account.id
    try:
        command = IssueKey(
            account=account_id,
            name=_name(form),
            test=form.get("mode") == "test",
            scopes=_scopes(form),
            cap_micros=_cap_micros(form),
        )
        issued = await run(request, command)
    except Refusal as refusal:
        return await view.page(request, wrong={"issue": refusal.detail}, kept=form, status=refusal.status)
    return shown_once(request, "/settings", "The new key is", issued)


@post("/settings/keys/rotate", opt={"page": "member"}, status_code=303, include_in_schema=False)
async def rotate(request: Request[Any, Any, Any]) -> Response[Any]:
    """A successor, shown once; the key before it ends at once or after the overlap. Without any key, the first."""
    form, account_id = await frame.form(request), frame.person(request).account.id
    seconds = _overlap_seconds(form)
    key_id = form.get("key_id", "")[:_ID_MAX] or None
    issued = await run(request, RotateKey(account=account_id, key_id=key_id, overlap_seconds=seconds))
    what = "The first key is" if key_id is None else f"The old key ends {_in_words(seconds)}. The new one is"
    return shown_once(request, "/settings", what, issued)


@post("/settings/keys/revoke", opt={"page": "member"}, status_code=303, include_in_schema=False)
async def revoke(request: Request[Any, Any, Any]) -> Response[Any]:
    """End a key at once."""
    form, account_id = await frame.form(request), frame.person(request).account.id
    ended = await run(request, RevokeKey(account=account_id, key_id=form.get("key_id", "")[:_ID_MAX]))
    return frame.done(request, "/settings", f"The key that ends in {ended['last_four']} is revoked.")


@post("/settings/keys/cap", opt={"page": "member"}, status_code=303, include_in_schema=False)
async def set_cap(request: Request[Any, Any, Any]) -> Response[Any]:
    """Limit what a key's jobs may take from the wallet in a month, or lift the limit."""
    form, account_id = await frame.form(request), frame.person(request).account.id
    cap_micros = _cap_micros(form)
    key_id = form.get("key_id", "")[:_ID_MAX]
    limited = await run(request, CapKey(account=account_id, key_id=key_id, cap_micros=cap_micros))
    told = "has no cap of its own" if cap_micros is None else f"may spend ${usd(cap_micros)} a month"
    return frame.done(request, "/settings", f"The key that ends in {limited['last_four']} {told}.")


async def run(request: Request[Any, Any, Any], command: Command) -> dict[str, Any]:
    """Carry out a command about the person's own account, on record as theirs."""
    means = frame.means(request)
    return await services(request).store.read(lambda: control.run(command, means))


def shown_once(request: Request[Any, Any, Any], to: str, what: str, issued: dict[str, Any]) -> Response[Any]:
    """Lead on to a page that shows the new key, and a line for the terminal that uses it."""
    line = curl_line(base_url(request), issued["api_key"], issued["scopes"])
    return frame.done(request, to, f"{what}:", secret=issued["api_key"], example=line)


def curl_line(base: str, secret: str, scopes: list[str]) -> str:
    """A call that a key with these scopes may make."""
    header = f"-H 'X-API-Key: {secret}'"
    if "generate" not in scopes:
        path = "/v1/me" if "read" in scopes else "/v1/me/overage/toggle -X POST"
        return f"curl {shlex.quote(base)}{path} {header}"
    body = shlex.quote(json.dumps(_BODY))
    return f"curl {shlex.quote(base)}/v1/generate {header} -H 'Content-Type: application/json' -d {body}"


def _name(form: Form) -> str:
    name = form.get("name", "")
    if len(name) > NAME_MAX or not (name.isprintable() or not name):
        raise Refusal(422, "invalid_field", f"A key's name has at most {NAME_MAX} printable characters.", field="name")
    return name


def _scopes(form: Form) -> tuple[Scope, ...]:
    asked = form.all("scopes")
    scopes: tuple[Scope, ...] = tuple(scope for scope in SCOPES if asked.count(scope))
    if not scopes:
        raise Refusal(422, "invalid_field", "A key needs at least one scope.", field="scopes")
    return scopes


def _cap_micros(form: Form) -> int | None:
    text = form.get("cap_usd", "").removeprefix("$")
    if not text:
        return None
    try:
        cap_micros = given_micros(text)
    except ValueError:
        cap_micros = LIMIT_MAX_MICROS + 1
    if cap_micros > LIMIT_MAX_MICROS:
        most = usd(LIMIT_MAX_MICROS)
        sentence = f"A key's cap is an amount of dollars from 0 to {most}, such as 25 or 25.50, or nothing."
        raise Refusal(422, "invalid_field", sentence, field="cap_usd")
    return cap_micros


def _overlap_seconds(form: Form) -> int:
    text = form.get("overlap", "")
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(OVERLAP_MAX_SECONDS))):
        raise Refusal(422, "invalid_field", "Choose when the old key ends.", field="overlap")
    return int(text)


def _in_words(seconds: int) -> str:
    return dict(view.OVERLAPS).get(seconds, f"after {seconds} seconds")
