"""`/admin/cards`: what each device holds and runs, and whether it is the box's or the artist's."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Response, get, post
from litestar.response import Template
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from zsky_box import pauses
from zsky_box.api.deps import Services, services
from zsky_box.cards import Reading
from zsky_box.control import PauseDevice, ResumeDevice, run
from zsky_box.errors import Refusal
from zsky_box.jobs.lineup import OpenJob
from zsky_box.pages import frame
from zsky_box.pages.admin import places
from zsky_box.slot import SlotView

PATH: Final = "/admin/cards"


class DeviceView(Struct, frozen=True, kw_only=True):
    """One device of the box as the page shows it. Bytes are of its own memory, for the processor of the machine's that
    models may use. `mood` is the badge's colour, `said` its word, and `why` a sentence about it, where there is one.
    """

    slot: SlotView
    title: str
    total_bytes: int
    used_bytes: int
    reading: Reading | None
    jobs: list[OpenJob]
    paused: bool
    unloaded: bool
    with_all: bool
    mood: str
    said: str
    why: str


@get(PATH, opt={"page": "owner"}, include_in_schema=False)
async def cards(request: Request[Any, Any, Any]) -> Template:
    """The page."""
    return places.page(request, "admin/cards.html", tab="cards", title="Cards", **await _found(request))


@get(f"{PATH}/now", opt={"page": "owner"}, include_in_schema=False)
async def cards_now(request: Request[Any, Any, Any]) -> Template:
    """The devices alone, for the page that refreshes itself."""
    return places.page(request, "admin/cards_now.html", tab="cards", title="Cards", **await _found(request))


@post(PATH, opt={"page": "owner"}, status_code=303, include_in_schema=False)
async def change_card(request: Request[Any, Any, Any]) -> Response[Any]:
    """Free a device, pause it, or have it take jobs again; `all` of them too."""
    box, form = services(request), await frame.form(request)
    device, wish = form.get("device", ""), form.get("do", "")
    known = {pauses.ALL, *(slot.device for slot in box.scheduler.slots() if not slot.test)}
    if device not in known:
        raise Refusal(422, "invalid_field", f"This box has no device {device!r}.", field="device")
    if wish not in _TOLD:
        raise Refusal(422, "invalid_field", "A device is freed, paused or resumed.", field="do")
    command = ResumeDevice(device=device) if wish == "resume" else PauseDevice(device=device, unload=wish == "free")
    means = frame.means(request)
    await box.store.read(lambda: run(command, means))
    back = frame.local_path(form.get("back", ""), PATH)
    told = _TOLD_OF_ALL[wish] if device == pauses.ALL else _TOLD[wish].format(device)
    return frame.done(request, back, told)


_TOLD: Final = {
    "free": "{} is freed: what ran there goes back to the queue, uncharged.",
    "pause": "{} takes no more jobs after the running one.",
    "resume": "{} takes jobs again.",
}
_TOLD_OF_ALL: Final = {
    "free": "All cards are freed: what ran there goes back to the queue, uncharged.",
    "pause": "All cards are paused: what runs now is finished first.",
    "resume": "All cards take jobs again.",
}


async def _found(request: Request[Any, Any, Any]) -> dict[str, Any]:
    box, mine = services(request), frame.person(request).account.id
    running, kept = await box.store.read(lambda: _read(box))
    slots = [slot for slot in box.scheduler.slots() if not slot.test]
    quiet = box.pauses.is_quiet()
    devices = [_view(box, slot, running, kept, quiet=quiet) for slot in slots]
    return {
        "devices": devices,
        "has_cards": any(slot.device.startswith("cuda:") for slot in slots),
        "all_paused": pauses.ALL in kept,
        "quiet": quiet,
        "quiet_hours": box.settings.quiet_hours,
        "timezone": box.settings.timezone,
        "shown_in_library": [
            job.id for view in devices for job in view.jobs if job.account_id == mine and _has_library(request)
        ],
    }


def _read(box: Services) -> tuple[list[OpenJob], dict[str, bool]]:
    """What runs, and which devices are paused by hand: of each whether it is freed besides."""
    with box.store.snapshot() as rows:
        kept = {str(row["device"]): bool(row["unloaded"]) for row in pauses.listed(rows)}
    return box.lineup.running(test=False), kept


def _has_library(request: Request[Any, Any, Any]) -> bool:
    return any(path.startswith("/library/") for path in request.app.state["paths"])


def _view(box: Services, slot: SlotView, running: list[OpenJob], kept: dict[str, bool], *, quiet: bool) -> DeviceView:
    reading = next((each for each in box.cards.readings() if each.device == slot.device), None)
    card = box.inventory.cards[slot.label]
    paused = slot.device in kept or pauses.ALL in kept
    unloaded = kept.get(slot.device, False) or kept.get(pauses.ALL, False)
    mood, said, why = state_of(slot, paused=paused, unloaded=unloaded, quiet=quiet)
    on_cpu = not slot.device.startswith("cuda:")
    return DeviceView(
        slot=slot,
        title=slot.name or ("The processor" if on_cpu else "NVIDIA card"),
        total_bytes=card.total_bytes if reading is None else reading.memory_total_bytes,
        used_bytes=slot.bytes_held if reading is None else reading.memory_used_bytes,
        reading=reading,
        jobs=[job for job in running if job.id in slot.job_ids],
        paused=paused,
        unloaded=unloaded,
        with_all=pauses.ALL in kept,
        mood=mood,
        said=said,
        why=why,
    )


def state_of(slot: SlotView, *, paused: bool, unloaded: bool, quiet: bool) -> tuple[str, str, str]:
    """The badge's colour and word, and what a person should know of it."""
    busy = slot.job_id is not None
    if slot.state == "quarantined":
        return "bad", "Quarantined", f"It {slot.reason}. Its jobs go elsewhere; it serves again once it is well."
    if quiet:
        return "busy", "Quiet hours", "It is the artist's until the quiet hours end. Jobs queue up meanwhile."
    if unloaded:
        freed = slot.state == "dead"
        return "busy", "Freed" if freed else "Letting go", "Its memory is yours. Jobs queue up until you resume it."
    if paused:
        after = "It takes no more jobs after the running one." if busy else "It takes no jobs; what it holds stays."
        return "busy", "Pausing" if busy else "Paused", after
    words = {
        "starting": ("busy", "Starting"),
        "dead": ("busy", "Starting"),
        "draining": ("busy", "Stopping"),
        "loading": ("busy", "Loading"),
        "running": ("good", "Working"),
        "ready": ("good", "Ready"),
    }
    mood, said = words.get(slot.state, ("", slot.state.capitalize()))
    return mood, said, ""


HANDLERS: Final[list[ControllerRouterHandler]] = [cards, cards_now, change_card]
