"""`/admin/settings`: what the box runs with and why, and what it is to run with from its next start on."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any, Final

import msgspec
from litestar import Request, Response, get, post
from litestar.response import Template
from litestar.types import ControllerRouterHandler
from markupsafe import Markup
from msgspec import Struct

from zsky_box import inventory, tls
from zsky_box.api import queries
from zsky_box.api.deps import Services, services
from zsky_box.catalog import open_catalog
from zsky_box.errors import Refusal, SettingsError
from zsky_box.pages import frame
from zsky_box.pages.admin import places, settings_words
from zsky_box.settings import Settings, variable
from zsky_box.settings_file import Setting

PATH: Final = "/admin/settings"
LOCKING: Final = {
    "host": "With another address the box may not be reached from where you are now.",
    "port": "The box answers at the new port only: its address in the browser changes.",
    "tls_cert": "From then on the box answers over HTTPS only, and browsers must trust the certificate.",
    "tls_key": "From then on the box answers over HTTPS only, and browsers must trust the certificate.",
    "allowed_hosts": "A name that is taken away opens the box in no browser any more.",
    "public_url": "Its name opens the box in a browser; one that stood here before does so no more.",
}
"""Settings by which an owner can be locked out, each with how."""
LEVELS: Final = ("debug", "info", "warning", "error")
TEXT_MAX: Final = 200


class Row(Struct, frozen=True, kw_only=True):
    """A setting as the page shows it; `field` is what kind of control changes it, with the text in it."""

    setting: Setting
    words: Markup
    value: str
    default: str
    coming: str
    field: str
    text: str
    variable: str
    warning: str


class Wrong(Struct, frozen=True):
    """A value that was refused: of which setting, as it was written, and why."""

    name: str
    text: str
    told: str


@get(PATH, opt={"page": "owner"}, include_in_schema=False)
async def settings(request: Request[Any, Any, Any]) -> Template:
    """The page; `find` narrows it to what has such words, `only=changed` to what is not at its default."""
    return await _page(request, None)


async def _page(request: Request[Any, Any, Any], refused: Wrong | None, status: int = 200) -> Template:
    """The page; a value that was refused stands where it was written, with the reason."""
    box = services(request)
    query = queries.read(
        [(name, value) for name, value in request.query_params.items() if value.strip()],
        {"find": _text, "only": queries.one_of(("changed",))},
    )
    found, wrong = await asyncio.to_thread(box.settings_file.all)
    comments = await asyncio.to_thread(box.settings_file.comments)
    rows = {each.name: each for each in found}
    find, only = query.get("find", "").strip().lower(), query.get("only", "")
    sections: list[tuple[str, list[Row]]] = []
    for section in await asyncio.to_thread(settings_words.read):
        shown = [_row(rows[name], words) for name, words in section.words.items() if name in rows]
        shown = [row for row in shown if _fits(row, find, only)]
        if shown:
            sections.append((section.title, shown))
    return places.page(
        request,
        "admin/settings.html",
        tab="settings",
        title="Settings of the box",
        sections=sections,
        find=query.get("find", ""),
        only=only,
        wrong=wrong,
        refused=refused,
        status=status,
        comments=comments,
        waiting=[each.name for each in found if each.waits],
        levels=LEVELS,
    )


@post(PATH, opt={"page": "owner"}, status_code=303, include_in_schema=False)
async def change(request: Request[Any, Any, Any]) -> Response[Any] | Template:
    """Write one setting, or take it out of the file; the next start reads it."""
    box, form, actor = services(request), await frame.form(request), places.actor(request)
    name, text = form.get("name", ""), None if form.get("do") == "default" else form.get("value", "")
    try:
        await asyncio.to_thread(lambda: box.settings_file.change(name, text, lambda found: _check(box, found), actor))
    except Refusal as refusal:
        if refusal.field != name or text is None:
            raise
        return await _page(request, Wrong(name, text, refusal.detail), refusal.status)
    told = f"{name} is back to its default" if text is None else f"{name} is changed"
    return frame.done(request, f"{PATH}#{name}", f"{told}. It takes effect at the next start of the box.")


def _check(box: Services, found: Settings) -> None:
    """What a start would not begin with; raises SettingsError."""
    tls.files(found)
    _check_address(box.settings, found)
    _check_folder(found.outputs)
    devices = list(box.inventory.cards)
    for name in ("pins", "exclusions"):
        # With other devices the next start knows better than this one.
        if found.devices == box.settings.devices:
            inventory.models_by_device(name, getattr(found, name), devices, box.catalog.specs)
    open_catalog(box.store.path.parent).use_check(found.output_check)


def _check_address(now: Settings, found: Settings) -> None:
    """Listen there for a moment, as a start would; not where the box itself listens now."""
    if (found.host, found.port) == (now.host, now.port):
        return
    port = found.port if found.port != now.port else 0
    family = socket.AF_INET6 if ":" in found.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((found.host, port))
        except OSError as error:
            where = f"port {port} of {found.host}" if port else found.host
            raise SettingsError(f"this machine cannot listen on {where}: {error.strerror or error}") from error


def _check_folder(outputs: str) -> None:
    """The folder of results is there, or can be made."""
    path = Path(outputs).expanduser()
    there = next((each for each in (path, *path.parents) if each.exists()), path)
    if outputs and not (there.is_dir() and os.access(there, os.W_OK)):
        raise SettingsError(f"outputs = {outputs!r}: {there} is no folder that the box may write in")


def _row(setting: Setting, words: Markup) -> Row:
    value, field = setting.coming, "text"
    if isinstance(setting.default, bool):
        field = "switch"
    elif isinstance(setting.default, int | float):
        field = "number" if isinstance(setting.default, int) else "decimal"
    elif isinstance(setting.default, dict):
        field = "rules"
    elif setting.name == "log_level":
        field = "level"
    elif setting.is_secret:
        field = "secret"
    return Row(
        setting=setting,
        words=words,
        value=_shown(setting, setting.value),
        default=_shown(setting, setting.default),
        coming=_shown(setting, value),
        field=field,
        text="" if setting.is_secret else _written(value),
        variable=variable(setting.name),
        warning=LOCKING.get(setting.name, ""),
    )


def _fits(row: Row, find: str, only: str) -> bool:
    if only and row.setting.origin == "default" and not row.setting.waits:
        return False
    return all(word in f"{row.setting.name} {row.words.striptags()}".lower() for word in find.split())


def _shown(setting: Setting, value: Any) -> str:
    if setting.is_secret:
        return "set, and hidden" if value else "empty"
    if isinstance(value, dict):
        rules: dict[str, Any] = value
        return ", ".join(f"{name} ({len(terms)})" for name, terms in rules.items()) or "empty"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return f"{value:,}" if setting.name != "port" else str(value)
    return f"{value:g}" if isinstance(value, float) else str(value) or "empty"


def _written(value: Any) -> str:
    """As the form's control has it."""
    if isinstance(value, dict):
        rules: dict[str, Any] = value
        return msgspec.json.format(msgspec.json.encode(rules), indent=2).decode()
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _text(text: str) -> str:
    if len(text) > TEXT_MAX:
        raise ValueError(f"give at most {TEXT_MAX} characters")
    return text


HANDLERS: Final[list[ControllerRouterHandler]] = [settings, change]
