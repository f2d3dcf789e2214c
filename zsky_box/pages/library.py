"""`/library`: the wall of what was made, and what is done with several results at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from litestar import Request, Response, get, post
from litestar.background_tasks import BackgroundTask
from litestar.response import Template

from zsky_box import archive
from zsky_box.api.deps import services
from zsky_box.api.sending import Sending
from zsky_box.archive import Entry
from zsky_box.clock import SECOND_US, rfc3339
from zsky_box.errors import Refusal
from zsky_box.library import CHOSEN_MAX, COUNT_MAX, PAGE_MAX, Wanted
from zsky_box.pages import chosen, frame
from zsky_box.prompt_words import TEXT_MAX

TILES_MAX: Final = 960
"""So many tiles can be asked for at once as a part of the wall."""
SHOWN_MAX: Final = 48
"""So many of what is to be deleted are shown beside the question."""
_SHAPES: Final = {"21x9": 21 / 9, "16x9": 16 / 9, "4x3": 4 / 3, "1x1": 1.0, "3x4": 3 / 4, "9x16": 9 / 16}


@get("/library", opt={"page": "member"}, include_in_schema=False)
async def library(request: Request[Any, Any, Any]) -> Template:
    """A page of the wall; `part` asks for its tiles only, to be put below those that are there."""
    box, caller = services(request), frame.person(request)
    asked = {name: str(value) for name, value in request.query_params.items()}
    wanted, told = chosen.read_wanted(asked, box.settings.zone(), shared=box.library.is_shared)
    now, limit = box.clock(), _tiles_asked(asked)
    wall = await box.store.read(lambda: box.library.page(caller, wanted, asked.get("cursor"), limit))
    further = f"/library?{urlencode({**told, 'cursor': wall.next_cursor})}" if wall.next_cursor else ""
    context: dict[str, Any] = {"wall": wall, "further": further, "wanted": wanted, **HELPERS}
    if "part" in asked:
        return Template("library/_tiles.html", context=context, headers=frame.HEADERS)
    models = await box.store.read(lambda: box.library.models(caller, team=wanted.team))
    return frame.page(
        request,
        "library.html",
        place="library",
        title="Library",
        told=told,
        narrowed=bool(told.keys() - {"whose"}),
        empty=_why_empty(wanted, told, later="cursor" in asked),
        back=f"/library?{urlencode(told)}" if told else "/library",
        models=models,
        shared=box.library.is_shared,
        count_max=COUNT_MAX,
        chosen_max=CHOSEN_MAX,
        as_of=now,
        text_max=TEXT_MAX,
        **context,
    )


@post("/library/archive", opt={"page": "member"}, status_code=200, include_in_schema=False)
async def save(request: Request[Any, Any, Any]) -> Response[Any]:
    """The files of the chosen results as one archive, made while it is sent."""
    box, caller = services(request), frame.person(request)
    form, zone = await frame.form(request), box.settings.zone()
    tiles = await box.store.read(lambda: chosen.to_save(box, caller, form))
    found = await box.store.read(lambda: box.library.files(tiles))
    if not found:
        raise Refusal(422, "invalid_field", "None of the chosen has a file to download.")
    names = archive.unique(archive.name_of(asset.file.name, tile.created_at, zone) for tile, asset in found)
    entries = [
        Entry(name=name, path=box.assets.root / asset.path, bytes=asset.file.bytes, created_at=asset.created_at)
        for name, (_, asset) in zip(names, found, strict=True)
    ]
    day = datetime.fromtimestamp(box.clock() // SECOND_US, UTC).astimezone(zone).strftime("%Y-%m-%d")
    pieces = archive.pieces(entries, zone)
    return Sending(
        _sent(pieces),
        lambda: None,  # a thread may still be reading for it: who lets go of it last closes its file
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="zsky-{day}.zip"', "Cache-Control": "no-store"},
    )


@post("/library/delete", opt={"page": "member"}, status_code=303, include_in_schema=False)
async def delete(request: Request[Any, Any, Any]) -> Response[Any] | Template:
    """Remove the files of one's own among the chosen; whoever did not say that they are sure is asked first.

    All that match are removed only when they are as many as was said on the page that asked.
    """
    box, caller = services(request), frame.person(request)
    form = await frame.form(request)
    back = frame.local_path(form.get("back", ""), "/library")
    job_ids = await box.store.read(lambda: chosen.to_delete(box, caller, form))
    every = chosen.is_every(form)
    others = every and form.get("sure") == "yes" and form.get("count") != str(len(job_ids))
    if form.get("sure") != "yes" or others:
        tiles = await box.store.read(lambda: box.library.chosen(caller, job_ids[:SHOWN_MAX]))
        return frame.page(
            request,
            "library_delete.html",
            place="library",
            title="Delete?",
            tiles=tiles,
            job_ids=job_ids,
            every=chosen.fields(box, form) if every else None,
            others=others,
            back=back,
            **HELPERS,
        )
    count = len(job_ids)
    for first in range(0, count, CHOSEN_MAX):
        await box.desk.delete_all(caller, job_ids[first : first + CHOSEN_MAX])
    answer = frame.done(request, back, f"{'1 result was' if count == 1 else f'{count:,} results were'} deleted.")
    answer.background = BackgroundTask(box.desk.purge)  # a disk takes its time over thousands of files
    return answer


def shape(width: int, height: int) -> str:
    """The shape that a picture's box on the wall has: the nearest of those that pictures here are made in."""
    ratio = width / height if width > 0 and height > 0 else 1.0
    return min(_SHAPES, key=lambda name: abs(_SHAPES[name] / ratio - 1) + abs(ratio / _SHAPES[name] - 1))


def length(seconds: float) -> str:
    """Minutes and seconds as a player shows them; under a second it is none."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


HELPERS: Final[dict[str, Any]] = {"shape": shape, "length": length, "rfc3339": rfc3339}
"""What the templates of tiles call."""


def _tiles_asked(asked: dict[str, str]) -> int:
    """How many tiles a part is to have: who comes back to a place far down asks for many at once."""
    many = asked.get("tiles", "") if "part" in asked else ""
    is_number = many.isascii() and many.isdigit() and len(many) <= len(str(TILES_MAX))
    return min(int(many), TILES_MAX) if is_number and int(many) else PAGE_MAX


def _why_empty(wanted: Wanted, told: dict[str, str], *, later: bool) -> str:
    """Which words stand where no tile does."""
    if later:
        return "end"
    if told.keys() == {"show"}:
        return wanted.show
    return "narrowed" if told.keys() - {"whose"} else "nothing"


async def _sent(pieces: Iterator[bytes]) -> AsyncGenerator[bytes]:
    """The disk is read off the event loop, a piece at a time."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece
