"""`/admin/health`: what is well and what is not, what lies where, and the backups."""

from __future__ import annotations

import asyncio
import platform
import sqlite3
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
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
from zsky_box.checkup import Finding, bad, good, note, of_clock, of_devices
from zsky_box.clock import DAY_US, SECOND_US, rfc3339
from zsky_box.db import Tx
from zsky_box.pages import frame, sign_in
from zsky_box.pages.admin import places
from zsky_box.pages.admin.audit import PATH as AUDIT_PATH

PATH: Final = "/admin/health"
BLOCK_BYTES: Final = 256 * 1024
MEDIA_TYPE: Final = "application/gzip"
_PACKAGES: Final = ("zsky-box", "torch", "diffusers", "transformers", "litestar")
_OLD_US: Final = 2 * DAY_US


class Shown(Struct, frozen=True):
    """A finding as the page shows it, with where more can be seen."""

    name: str
    state: str
    told: str
    link: str = ""


class Copy(Struct, frozen=True):
    """A backup of the list."""

    name: str
    made_at: str
    size: str


@get(PATH, opt={"page": "owner"}, include_in_schema=False)
async def health(request: Request[Any, Any, Any]) -> Template:
    """The page."""
    box = services(request)
    look = await asyncio.to_thread(box.checkup.look)
    found = await box.store.read(lambda: _found(box))
    findings = [Shown(name, of["state"], of["told"]) for name, of in look.findings]
    wrong = [each for each in (*findings, *found) if each.state == "bad"]
    record = box.record
    return places.page(
        request,
        "admin/health.html",
        tab="health",
        title="Health",
        findings=[*found, *findings],
        wrong=wrong,
        disks=[{"of": disk, "free": gigabytes(disk.free), "total": gigabytes(disk.total)} for disk in look.disks],
        sizes={name: gigabytes(size) for name, size in look.sizes.items()},
        slots=[slot for slot in box.scheduler.slots() if not slot.test],
        versions=_versions(),
        started_at=rfc3339(record.started_at),
        running_for=spoken_seconds((box.clock() - record.started_at) // SECOND_US),
        repairs=record.repairs,
        warned=[(_at(line.at_seconds), line) for line in record.warned()],
        kept=box.settings.backups_kept,
        **await asyncio.to_thread(_backups, box),
    )


@get(f"{PATH}/backups", opt={"page": "owner"}, include_in_schema=False)
async def backups(request: Request[Any, Any, Any]) -> Template:
    """The backups alone, for the page that waits for one."""
    box = services(request)
    found = await asyncio.to_thread(_backups, box)
    return places.page(request, "admin/_backups.html", tab="health", title="Health", **found)


@post(f"{PATH}/backups", opt={"page": "owner"}, status_code=303, include_in_schema=False)
async def back_up(request: Request[Any, Any, Any]) -> Response[Any]:
    """Begin a backup; its progress shows on the page."""
    begun = services(request).backups.begin(places.actor(request))
    return frame.done(request, f"{PATH}#backups", "" if begun else "A backup is being made already.")


@get(f"{PATH}/backups/{{name:str}}", opt={"page": "owner"}, include_in_schema=False)
async def ask_to_download(request: Request[Any, Any, Any], name: FromPath[str]) -> Template:
    """Who wants one of them: it holds what opens this box, so that a session is not enough."""
    box = services(request)
    await asyncio.to_thread(box.backups.path, name)
    return places.page(request, "admin/backup.html", tab="health", title="Download a backup", name=name)


@post(f"{PATH}/backups/{{name:str}}", opt={"page": "owner"}, status_code=200, include_in_schema=False)
async def download(request: Request[Any, Any, Any], name: FromPath[str]) -> Sending:
    """One of them, to the owner in person, on record."""
    box, actor = services(request), places.actor(request)
    path = await asyncio.to_thread(box.backups.path, name)
    await sign_in.in_person(request, (await frame.form(request)).raw("password"))
    size = (await asyncio.to_thread(path.stat)).st_size

    def record(tx: Tx) -> None:
        at = timeline.advance_anyhow(tx, box.clock())
        audit.append(tx, at=at, account_id=None, actor=actor, action="backup.downloaded", subject=name)

    await box.store.write_async(record)
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="{name}"',
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


def _found(box: Services) -> list[Shown]:
    """What the running service knows of itself."""
    slots = [slot for slot in box.scheduler.slots() if not slot.test]
    quarantined = {slot.label: f"It {slot.reason}." for slot in slots if slot.state == "quarantined"}
    with box.store.snapshot() as rows:
        clock = of_clock(rows, box.clock())
    status = "draining" if box.desk.draining else "ready" if box.scheduler.is_ready() else "starting"
    return [
        _shown("devices", of_devices(quarantined, status), "/admin/cards"),
        _shown("ledger", _ledger(box), AUDIT_PATH),
        _shown("clock", clock),
        _shown("backups", _newest(box), f"{PATH}#backups"),
    ]


def _shown(name: str, of: Finding, link: str = "") -> Shown:
    return Shown(name, of["state"], of["told"], link)


def _ledger(box: Services) -> Finding:
    ended = box.verifier.ended()
    if ended is None or ended.ended_at is None:
        return note("is being verified")
    if ended.state == "holds":
        return good(f"verifies up to row {ended.newest_row:,}, as of {rfc3339(ended.ended_at)}")
    return bad(next(iter(ended.faults), "could not be verified"))


def _newest(box: Services) -> Finding:
    newest = next(iter(box.backups.listed()), None)
    if newest is None:
        return note("none yet; one is made within the hour, and every day")
    told = f"the newest is of {rfc3339(newest.made_at)}"
    return good(told) if box.clock() - newest.made_at < _OLD_US else bad(f"{told}: no newer one could be made")


def _backups(box: Services) -> dict[str, Any]:
    making = box.backups.last()
    return {
        "making": making,
        "backups": [
            Copy(backup.name, rfc3339(backup.made_at), gigabytes(backup.bytes)) for backup in box.backups.listed()
        ],
    }


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version(), "SQLite": sqlite3.sqlite_version}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def gigabytes(count: int) -> str:
    """A size as a person reads it, in powers of a thousand."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit in ("B", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def spoken_seconds(seconds: int) -> str:
    """A length of time as a person says it: 3 days 4 hours."""
    days, hours, minutes = seconds // 86_400, seconds // 3_600 % 24, seconds // 60 % 60
    parts = ((days, "day"), (hours, "hour"), (minutes, "minute"))
    told = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in parts if n]
    return " ".join(told[:2]) or "less than a minute"


HANDLERS: Final[list[ControllerRouterHandler]] = [health, backups, back_up, ask_to_download, download]
