"""Which results are meant: those that a wall is narrowed to by its address, and those that a form has chosen of them.

A form names its jobs one by one, or says `all`: then it carries the wall's filters, and in `as_of` when that wall was
read. What has ended since is not among them: nobody has seen it.
"""

from __future__ import annotations

from datetime import date, tzinfo
from typing import Final

from msgspec.structs import replace

from zsky_box.api.deps import Services
from zsky_box.errors import Refusal
from zsky_box.keys import Caller
from zsky_box.library import CHOSEN_MAX, MATCHING_MAX, Show, Tile, Wanted
from zsky_box.manifest import JobType
from zsky_box.pages import narrowing
from zsky_box.pages.entry import Form
from zsky_box.prompt_words import TEXT_MAX

_SHOWS: Final[dict[str, Show]] = {"failed": "failed", "removed": "removed"}
_TYPES: Final[dict[str, JobType]] = {"image": "image", "video": "video"}
_MODEL_MAX: Final = 64
_AS_OF_DIGITS: Final = 18
_FILTERS: Final = ("whose", "q", "show", "type", "model", "from", "to")


def is_every(form: Form) -> bool:
    """Whether a form is about all that match, not about the jobs that it names."""
    return form.get("all") == "yes"


def to_save(box: Services, caller: Caller, form: Form) -> list[Tile]:
    """The chosen that the caller may see, newest first; raises 422 for none or too many. For a thread that reads."""
    if not is_every(form):
        return box.library.chosen(caller, _named(form))
    job_ids = box.library.matching(caller, _every(box, form), CHOSEN_MAX + 1)
    if len(job_ids) > CHOSEN_MAX:
        told = f"At most {CHOSEN_MAX} results go into one archive and more than these match; narrow them, by days say."
        raise Refusal(422, "invalid_field", told)
    return box.library.chosen(caller, job_ids)


def to_delete(box: Services, caller: Caller, form: Form) -> list[str]:
    """The caller's own among the chosen that have not been removed; raises 422 for none or too many. As `to_save`."""
    if is_every(form):
        # What others made can be looked at by this filter, and is not the caller's to delete.
        wanted = replace(_every(box, form), team=False)
        job_ids = [] if wanted.show == "removed" else box.library.matching(caller, wanted, MATCHING_MAX + 1)
        if len(job_ids) > MATCHING_MAX:
            told = f"More than {MATCHING_MAX:,} match, the most that go at once; narrow them, by days say."
            raise Refusal(422, "invalid_field", told)
    else:
        tiles = box.library.chosen(caller, _named(form))
        job_ids = [tile.job_id for tile in tiles if tile.mine and tile.removed_at is None]
    if not job_ids:
        raise Refusal(422, "invalid_field", "None of the chosen is yours to delete.")
    return job_ids


def fields(box: Services, form: Form) -> dict[str, str]:
    """What another form has to carry to be about all that match, too."""
    _, told = read_wanted(form, box.settings.zone(), shared=box.library.is_shared)
    return {**told, "all": "yes", "as_of": form.get("as_of", "")}


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


def _named(form: Form) -> list[str]:
    """The jobs that a form names; raises 422 for none or too many."""
    job_ids = list(dict.fromkeys(form.all("job")))
    if not job_ids:
        raise Refusal(422, "invalid_field", "Choose at least one result first.")
    if len(job_ids) > CHOSEN_MAX:
        raise Refusal(422, "invalid_field", f"At most {CHOSEN_MAX} results at once; choose fewer.")
    return job_ids


def _every(box: Services, form: Form) -> Wanted:
    """All that the form's wall was narrowed to, when it was read; raises 422 where the form does not say it exactly.

    An address may have a filter left out that cannot be read; here that would be more than anybody meant.
    """
    as_of = form.get("as_of", "")
    is_time = as_of.isascii() and as_of.isdigit() and len(as_of) <= _AS_OF_DIGITS
    wanted, told = read_wanted(form, box.settings.zone(), shared=box.library.is_shared)
    if not is_time or any(form.get(name, "") != told.get(name, "") for name in _FILTERS):
        raise Refusal(422, "invalid_field", "The form could not be read; reload the page and send it again.")
    return replace(wanted, ended_by=int(as_of))


def _day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if date(1971, 1, 1) <= day <= date(9000, 1, 1) else None
