"""`/admin/health`: what is well and what is not, and what lies where."""

from __future__ import annotations

import asyncio
import platform
import sqlite3
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from litestar import Request, get
from litestar.response import Template
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from zsky_box.api.deps import Services, services
from zsky_box.checkup import Finding, bad, good, note, of_clock, of_devices
from zsky_box.clock import DAY_US, SECOND_US, rfc3339
from zsky_box.jobs import waiting
from zsky_box.pages.admin import backups, places
from zsky_box.pages.admin.audit import PATH as AUDIT_PATH
from zsky_box.slot import SlotView
from zsky_box.standstill import standstill

PATH: Final = "/admin/health"
_PACKAGES: Final = ("zsky-box", "torch", "diffusers", "transformers", "litestar")
_OLD_US: Final = 2 * DAY_US
_STUCK_US: Final = 600 * SECOND_US
"""So long nothing waits for a card that is free."""
_RESTARTS_MANY: Final = 2


class Shown(Struct, frozen=True):
    """A finding as the page shows it, with where more can be seen."""

    name: str
    state: str
    told: str
    link: str = ""


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
        disks=[
            {"of": disk, "free": backups.gigabytes(disk.free), "total": backups.gigabytes(disk.total)}
            for disk in look.disks
        ],
        sizes={name: backups.gigabytes(size) for name, size in look.sizes.items()},
        slots=[slot for slot in box.scheduler.slots() if not slot.test],
        versions=_versions(),
        started_at=rfc3339(record.started_at),
        running_for=spoken_seconds((box.clock() - record.started_at) // SECOND_US),
        repairs=record.repairs,
        warned=[(_at(line.at_seconds), line) for line in record.warned()],
        kept=box.settings.backups_kept,
        **await asyncio.to_thread(backups.shown, box),
    )


def _found(box: Services) -> list[Shown]:
    """What the running service knows of itself."""
    slots = [slot for slot in box.scheduler.slots() if not slot.test]
    with box.store.snapshot() as rows:
        clock, line = of_clock(rows, box.clock()), waiting.line(rows, box.clock())
    status = "draining" if box.desk.draining else "ready" if box.scheduler.is_ready() else "starting"
    return [
        _shown("devices", of_slots(slots, status), "/admin/cards"),
        _shown("ledger", _ledger(box), AUDIT_PATH),
        _shown("clock", clock),
        _shown("backups", _newest(box), f"{PATH}#backups"),
        _shown("queue", of_queue(line, slots, quiet=box.pauses.is_quiet()), "/admin/queue"),
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


def of_slots(slots: list[SlotView], status: str) -> Finding:
    """Whether every device serves, or would: one that begins over and over does not, however slowly it fails."""
    quarantined = {slot.label: f"It {slot.reason}." for slot in slots if slot.state == "quarantined"}
    failing = [
        slot for slot in slots if slot.state == "starting" and slot.restarts >= _RESTARTS_MANY and not slot.paused
    ]
    if failing and not quarantined:
        return bad("; ".join(f"{slot.label} does not come up: restarted {slot.restarts} times" for slot in failing))
    return of_devices(quarantined, status)


def of_queue(line: waiting.Line, slots: list[SlotView], *, quiet: bool) -> Finding:
    """Whether those who wait will be served: a pause and quiet hours are the owner's wish, anything else is not."""
    if line.waiting == 0:
        return good("nothing waits")
    told = f"{line.waiting:,} jobs wait" if line.waiting > 1 else "1 job waits"
    if (kept := standstill(slots, quiet=quiet)) is not None:
        return (note if quiet or all(slot.paused for slot in slots) else bad)(f"{told}: {kept}")
    if line.running == 0 and line.waited_us > _STUCK_US:
        return bad(f"{told}, the oldest for {spoken_seconds(line.waited_us // SECOND_US)}, and none runs")
    return good(f"{told}, {line.running} run")


def _newest(box: Services) -> Finding:
    newest, last = next(iter(box.backups.listed()), None), box.backups.last()
    if last is not None and last.state == "failed":
        return bad(f"the last one that was tried failed: {last.told.rstrip('.')}")
    if newest is None:
        return note("none yet; one is made within the hour, and every day")
    told = f"the newest is of {rfc3339(newest.made_at)}"
    return good(told) if box.clock() - newest.made_at < _OLD_US else bad(f"{told}: no newer one could be made")


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


def spoken_seconds(seconds: int) -> str:
    """A length of time as a person says it: 3 days 4 hours."""
    days, hours, minutes = seconds // 86_400, seconds // 3_600 % 24, seconds // 60 % 60
    parts = ((days, "day"), (hours, "hour"), (minutes, "minute"))
    told = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in parts if n]
    return " ".join(told[:2]) or "less than a minute"


HANDLERS: Final[list[ControllerRouterHandler]] = [health]
