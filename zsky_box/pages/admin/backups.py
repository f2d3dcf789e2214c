"""`/admin/health/backups`: copies of what cannot be made again: made, read anew, downloaded, deleted."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

from litestar import Request, Response, get, post
from litestar.params import FromPath
from litestar.response import Template
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from zsky_box import audit, timeline
from zsky_box.api.deps import Services, services
from zsky_box.api.sending import Sending
from zsky_box.clock import rfc3339
from zsky_box.db import Tx
from zsky_box.errors import Refusal
from zsky_box.pages import frame, sign_in
from zsky_box.pages.admin import places

PATH: Final = "/admin/health/backups"
BACK: Final = "/admin/health#backups"
BLOCK_BYTES: Final = 256 * 1024
MEDIA_TYPE: Final = "application/gzip"
_BUSY: Final = "Another backup is made or read at the moment; try again once that has ended."


class Copy(Struct, frozen=True):
    """A backup of the list."""

    name: str
    made_at: str
    size: str


@get(PATH, opt={"page": "owner"}, include_in_schema=False)
async def backups(request: Request[Any, Any, Any]) -> Template:
    """The backups alone, for the page that waits for one."""
    box = services(request)
    found = await asyncio.to_thread(shown, box)
    return places.page(request, "admin/_backups.html", tab="health", title="Health", **found)


@post(PATH, opt={"page": "owner"}, status_code=303, include_in_schema=False)
async def back_up(request: Request[Any, Any, Any]) -> Response[Any]:
    """Begin a backup; its progress shows on the page."""
    begun = services(request).backups.begin(places.actor(request))
    return frame.done(request, BACK, "" if begun else "A backup is being made already.")


@get(f"{PATH}/{{name:str}}", opt={"page": "owner"}, include_in_schema=False)
async def one(request: Request[Any, Any, Any], name: FromPath[str]) -> Template:
    """One of them, and what can be done with it."""
    box = services(request)
    path = await asyncio.to_thread(box.backups.path, name)
    listed = await asyncio.to_thread(box.backups.listed)
    return places.page(
        request,
        "admin/backup.html",
        tab="health",
        title="A backup",
        name=name,
        is_only=len(listed) == 1,
        path=shlex.quote(str(path)),
        folder=shlex.quote(str(box.backups.folder.parent)),
    )


@post(f"{PATH}/{{name:str}}", opt={"page": "owner"}, status_code=200, include_in_schema=False)
async def act(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[Any] | Sending:
    """Read it anew; or, for the owner in person, download or delete it. It holds what opens this box, so that a session
    is not enough, and who has taken one must not take the way back either.
    """
    box, form, actor = services(request), await frame.form(request), places.actor(request)
    path = await asyncio.to_thread(box.backups.path, name)
    match form.get("do", "download"):
        case "check":
            begun = await asyncio.to_thread(box.backups.begin_check, name)
            return frame.done(request, BACK, "" if begun else _BUSY)
        case "delete":
            await sign_in.in_person(request, form.raw("password"))
            await asyncio.to_thread(box.backups.delete, name, actor)
            return frame.done(request, BACK, f"{name} is deleted.")
        case "download":
            await sign_in.in_person(request, form.raw("password"))
            return await _sent(box, path, actor)
        case _:
            raise Refusal(422, "invalid_field", "A backup is downloaded, read or deleted.", field="do")


async def _sent(box: Services, path: Path, actor: str) -> Sending:
    """The file, on record."""
    size = (await asyncio.to_thread(path.stat)).st_size

    def record(tx: Tx) -> None:
        at = timeline.advance_anyhow(tx, box.clock())
        audit.append(tx, at=at, account_id=None, actor=actor, action="backup.downloaded", subject=path.name)

    await box.store.write_async(record)
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="{path.name}"',
        "Content-Length": str(size),
    }
    return Sending(_blocks(path, size), lambda: None, media_type=MEDIA_TYPE, headers=headers)


async def _blocks(path: Path, size_bytes: int) -> AsyncGenerator[bytes]:
    file = await asyncio.to_thread(path.open, "rb")
    try:
        left = size_bytes
        while left > 0 and (block := await asyncio.to_thread(file.read, min(left, BLOCK_BYTES))):
            left -= len(block)
            yield block
    finally:
        file.close()


def shown(box: Services) -> dict[str, Any]:
    """What the list's template needs."""
    making = box.backups.last()
    return {
        "making": making,
        "backups": [
            Copy(backup.name, rfc3339(backup.made_at), gigabytes(backup.bytes)) for backup in box.backups.listed()
        ],
    }


def gigabytes(count: int) -> str:
    """A size as a person reads it, in powers of a thousand."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit in ("B", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


HANDLERS: Final[list[ControllerRouterHandler]] = [backups, back_up, one, act]
