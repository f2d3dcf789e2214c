"""`/admin/queue`: everybody's open jobs in the order in which the scheduler takes them, and the owner's hand in it."""

from __future__ import annotations

from typing import Any, Final, get_args
from urllib.parse import urlencode

from litestar import Request, Response, get, post
from litestar.params import FromPath
from litestar.response import Template
from litestar.types import ControllerRouterHandler

from zsky_box import pauses
from zsky_box.api.deps import Services, services
from zsky_box.clock import rfc3339
from zsky_box.errors import Refusal
from zsky_box.jobs.keeper import REASON_MAX, Where
from zsky_box.jobs.lineup import LINE_MAX, PAGE, Filters, Line, OpenJob
from zsky_box.pages import frame
from zsky_box.pages.admin import places

PATH: Final = "/admin/queue"
_FIELD_MAX: Final = 200
_FILTERS: Final = ("person", "type", "model", "priority", "q", "keys")
_TOLD: Final[dict[Where, str]] = {
    "front": "The job goes ahead of its account's others.",
    "end": "The job goes behind its account's others.",
    "batch": "The job waits as a batch job.",
    "interactive": "The job waits as an interactive job.",
}


@get(PATH, opt={"page": "owner"}, include_in_schema=False)
async def queue(request: Request[Any, Any, Any]) -> Template:
    """The page."""
    return places.page(request, "admin/queue.html", tab="queue", title="Queue", **await _found(request))


@get(f"{PATH}/now", opt={"page": "owner"}, include_in_schema=False)
async def queue_now(request: Request[Any, Any, Any]) -> Template:
    """The jobs alone, for the page that refreshes itself."""
    return places.page(request, "admin/queue_now.html", tab="queue", title="Queue", **await _found(request))


@post(PATH, opt={"page": "owner"}, status_code=303, include_in_schema=False)
async def move(request: Request[Any, Any, Any]) -> Response[Any]:
    """Give a job another turn: the button that was pressed says which one, and where to."""
    box, form = services(request), await frame.form(request)
    where: Where | None = next((each for each in get_args(Where) if form.get(each)), None)
    if where is None:
        raise Refusal(422, "invalid_field", "Say which job is to go where.")
    await box.keeper.move(form[where], where, actor=places.actor(request))
    return frame.done(request, frame.local_path(form.get("back", ""), PATH), _TOLD[where])


@get(f"{PATH}/{{job_id:str}}", opt={"page": "owner"}, include_in_schema=False)
async def ask_to_cancel(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Template:
    """One open job, to be cancelled for a reason."""
    box = services(request)
    job = await box.store.read(lambda: box.lineup.one(job_id))
    back = frame.local_path(str(request.query_params.get("back", "")), PATH)
    return places.page(
        request,
        "admin/queue_job.html",
        tab="queue",
        title="Cancel a job",
        job=job,
        back=back,
        reason_max=REASON_MAX,
        at=rfc3339,
    )


@post(f"{PATH}/{{job_id:str}}/cancel", opt={"page": "owner"}, status_code=303, include_in_schema=False)
async def cancel(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[Any]:
    """Cancel anybody's job, on record."""
    box, form = services(request), await frame.form(request)
    back = frame.local_path(form.get("back", ""), PATH)
    try:
        await box.keeper.cancel(job_id, form.get("reason", ""), actor=places.actor(request))
    except Refusal as refusal:
        if refusal.code != "job_finished":
            raise
        frame.say(request, refusal.detail, kind="bad")  # the page that asked is no more: the job has ended meanwhile
        return frame.done(request, back)
    return frame.done(request, back, "The job is cancelled.")


async def _found(request: Request[Any, Any, Any]) -> dict[str, Any]:
    box = services(request)
    asked = {name: str(request.query_params.get(name, ""))[:_FIELD_MAX].strip() for name in _FILTERS}
    start = _start(str(request.query_params.get("start", "")))
    test = asked["keys"] == "test"
    filters = Filters(
        account_id=asked["person"],
        model=asked["model"],
        type=asked["type"],
        priority=asked["priority"],
        text=asked["q"],
    )
    line, running, people, models, stopped = await box.store.read(lambda: _read(box, filters, start, test=test))
    given = {name: value for name, value in asked.items() if value}

    def query(at: int) -> str:
        return urlencode({**given, **({"start": at} if at else {})})

    return {
        "line": line,
        "running": running,
        "people": people,
        "models": models,
        "all_paused": stopped,
        "asked": asked,
        "is_narrowed": bool(given.keys() - {"keys"}),
        "query": query(line.start),
        "here": f"{PATH}?{query(line.start)}" if query(line.start) else PATH,
        "before": None if line.start == 0 else query(max(0, line.start - PAGE)),
        "after": query(line.start + PAGE) if line.start + PAGE < line.matching else None,
        "at": rfc3339,
        "time_left": time_left,
    }


def _read(
    box: Services, filters: Filters, start: int, *, test: bool
) -> tuple[Line, list[OpenJob], list[tuple[str, str]], list[str], bool]:
    with box.store.snapshot() as rows:
        stopped = any(row["device"] == pauses.ALL for row in pauses.listed(rows))
    line = box.lineup.page(filters, start, test=test)
    if line.start and not line.shown:  # the page that was looked at has emptied meanwhile
        line = box.lineup.page(filters, max(0, (line.matching - 1) // PAGE * PAGE), test=test)
    return line, box.lineup.running(test=test), box.lineup.people(test=test), box.lineup.models(test=test), stopped


def _start(text: str) -> int:
    return min(int(text), LINE_MAX) // PAGE * PAGE if text.isascii() and text.isdigit() and len(text) < 10 else 0


def time_left(seconds: float) -> str:
    """About how long, as a person says it."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 3_600:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3_600:.1f} h"


HANDLERS: Final[list[ControllerRouterHandler]] = [queue, queue_now, move, ask_to_cancel, cancel]
