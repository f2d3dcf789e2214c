"""`/library`: the wall of what was made, and what is done with several results at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, date, datetime, tzinfo
from typing import Any, Final
from urllib.parse import urlencode

from litestar import Request, Response, get, post
from litestar.response import Template

from zsky_box import archive
from zsky_box.api.deps import Services, services
from zsky_box.api.sending import Sending
from zsky_box.archive import Entry
from zsky_box.clock import SECOND_US, rfc3339
from zsky_box.errors import Refusal
from zsky_box.keys import Caller
from zsky_box.library import CHOSEN_MAX, COUNT_MAX, Show, Tile, Wanted
from zsky_box.manifest import JobType
from zsky_box.pages import frame, narrowing
from zsky_box.prompt_words import TEXT_MAX

_SHOWS: Final[dict[str, Show]] = {"failed": "failed", "removed": "removed"}
_TYPES: Final[dict[str, JobType]] = {"image": "image", "video": "video"}
_MODEL_MAX: Final = 64
_SHAPES: Final = {"21x9": 21 / 9, "16x9": 16 / 9, "4x3": 4 / 3, "1x1": 1.0, "3x4": 3 / 4, "9x16": 9 / 16}


@get("/library", opt={"page": "member"}, include_in_schema=False)
async def library(request: Request[Any, Any, Any]) -> Template:
    """A page of the wall; `part` asks for its tiles only, to be put below those that are there."""
    box, caller = services(request), frame.person(request)
    asked = {name: str(value) for name, value in request.query_params.items()}
    wanted, told = read_wanted(asked, box.settings.zone(), shared=box.library.is_shared)
    wall = await box.store.read(lambda: box.library.page(caller, wanted, asked.get("cursor")))
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
        text_max=TEXT_MAX,
        **context,
    )


@post("/library/archive", opt={"page": "member"}, status_code=200, include_in_schema=False)
async def save(request: Request[Any, Any, Any]) -> Response[Any]:
    """The files of the chosen results as one archive, made while it is sent."""
    box, caller = services(request), frame.person(request)
    job_ids = await chosen_ids(request)
    zone = box.settings.zone()
    found = await box.store.read(lambda: box.library.files(box.library.chosen(caller, job_ids)))
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
    """Remove the files of one's own among the chosen; whoever did not say that they are sure is asked first."""
    box, caller = services(request), frame.person(request)
    form = await frame.form(request)
    back = frame.local_path(form.get("back", ""), "/library")
    tiles = await _own(box, caller, await chosen_ids(request))
    if not tiles:
        raise Refusal(422, "invalid_field", "None of the chosen is yours to delete.")
    if form.get("sure") != "yes":
        return frame.page(
            request, "library_delete.html", place="library", title="Delete?", tiles=tiles, back=back, **HELPERS
        )
    await box.desk.delete_all(caller, [tile.job_id for tile in tiles])
    return frame.done(request, back, f"{'1 result was' if len(tiles) == 1 else f'{len(tiles)} results were'} deleted.")


async def chosen_ids(request: Request[Any, Any, Any]) -> list[str]:
    """The jobs that a form names; raises 422 for none or too many."""
    job_ids = list(dict.fromkeys((await frame.form(request)).all("job")))
    if not job_ids:
        raise Refusal(422, "invalid_field", "Choose at least one result first.")
    if len(job_ids) > CHOSEN_MAX:
        raise Refusal(422, "invalid_field", f"At most {CHOSEN_MAX} results at once; choose fewer.")
    return job_ids


def read_wanted(asked: dict[str, str], zone: tzinfo, *, shared: bool) -> tuple[Wanted, dict[str, str]]:
    """What an address asks the wall for, and the same as its form shows it again; what cannot be read is left out."""
    text = asked.get("q", "").strip()[:TEXT_MAX]
    show: Show = _SHOWS.get(asked.get("show", ""), "results")
    kind: JobType | None = _TYPES.get(asked.get("type", ""))
    model = asked.get("model", "")[:_MODEL_MAX] or None
    first, last = _day(asked.get("from", "")), _day(asked.get("to", ""))
    after, before = narrowing.span_us(first, last, zone)
    team = shared and asked.get("whose") == "team"
    wanted = Wanted(
        text=text,
        show=show,
        type=kind,
        model=model,
        after=after,
        before=before,
        team=team,
    )
    told = {
        "whose": "team" if team else "",
        "q": text,
        "show": "" if show == "results" else show,
        "type": kind or "",
        "model": model or "",
        "from": "" if first is None else first.isoformat(),
        "to": "" if last is None else last.isoformat(),
    }
    return wanted, {name: value for name, value in told.items() if value}


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


def _why_empty(wanted: Wanted, told: dict[str, str], *, later: bool) -> str:
    """Which words stand where no tile does."""
    if later:
        return "end"
    if told.keys() == {"show"}:
        return wanted.show
    return "narrowed" if told.keys() - {"whose"} else "nothing"


def _day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if date(1971, 1, 1) <= day <= date(9000, 1, 1) else None


async def _own(box: Services, caller: Caller, job_ids: list[str]) -> list[Tile]:
    tiles = await box.store.read(lambda: box.library.chosen(caller, job_ids))
    return [tile for tile in tiles if tile.mine and tile.removed_at is None]


async def _sent(pieces: Iterator[bytes]) -> AsyncGenerator[bytes]:
    """The disk is read off the event loop, a piece at a time."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece
