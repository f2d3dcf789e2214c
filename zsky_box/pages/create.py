"""`/create`: asking for videos and images, and watching them come to be. The same desk as the API's, the same jobs."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath
from litestar.response import Template
from markupsafe import Markup
from msgspec.structs import replace

from zsky_box.api.account import model_views
from zsky_box.api.deps import Services, base_url, services
from zsky_box.api.generate import asked_for
from zsky_box.api.overage import stands
from zsky_box.api.problems import from_refusal
from zsky_box.catalog import FALLBACKS
from zsky_box.errors import FieldError, InvalidFields, Refusal
from zsky_box.formats import ASPECT_RATIOS, RESOLUTIONS
from zsky_box.idempotency import Idempotency
from zsky_box.jobs.views import PAGE_MAX, Filters
from zsky_box.keys import Caller
from zsky_box.pages import frame
from zsky_box.pages.entry import is_once, new_once
from zsky_box.pages.reference import Borrowed, borrowed, chosen_result
from zsky_box.requests import DEFAULT_STRENGTH, Submission, asked_again
from zsky_box.schemas import PROMPT_MAX, SEED_MAX, GenerateBody, JobView, ModelView, OverageView, read_object
from zsky_box.terms import KINDS

SHOWN_JOBS: Final = 16
"""So many of the newest jobs the page begins with, beside all that are open."""
_NUMBERS: Final = {"seed": int, "fps": int, "n": int, "duration": float, "strength": float}
_TEXTS: Final = ("type", "prompt", "model", "aspect_ratio", "resolution", "image", "priority")
_ONLY_FOR: Final = {"video": ("duration", "fps"), "image": ("n",)}


@get("/create", opt={"page": "member"}, include_in_schema=False)
async def create(request: Request[Any, Any, Any]) -> Template:
    """The page; `rerun`, `vary` or `reference` name one's own job to begin with, `type` and `prompt` what to ask."""
    box, caller = services(request), frame.person(request)
    query = {name: str(value) for name, value in request.query_params.items()}
    asked: dict[str, Any] = {"type": query["type"]} if query.get("type") in KINDS else {}
    if query.get("prompt"):
        asked["prompt"] = query["prompt"][:PROMPT_MAX]
    before = query.get("rerun") or query.get("vary")
    if before:
        asked = await box.store.read(lambda: _again(box, caller, before))
        if not query.get("rerun"):
            asked.pop("seed", None)
    begins_with: Borrowed | None = None
    if job_id := query.get("reference"):
        number = chosen_result(query.get("result", "1"))
        begins_with = await box.store.read(lambda: borrowed(box, caller, job_id, number))
    return await _shown(request, asked, is_prefilled=bool(asked), begins_with=begins_with)


@post("/create", opt={"page": "member"}, status_code=303, include_in_schema=False)
async def submit(request: Request[Any, Any, Any]) -> Response[Any] | Template:
    """The form as a browser sends it by itself: the same job; a refusal brings the form back as it was filled in."""
    box, caller, form = services(request), frame.person(request), await frame.form(request)
    asked: dict[str, Any] = {"type": form.get("type", "video")}
    begins_with: Borrowed | None = None
    try:
        asked = asked_by(form)
        body = read_object(GenerateBody, asked)
        if job_id := form.get("from_job"):
            number = chosen_result(form.get("from_result", "1"))
            begins_with = await box.store.read(lambda: borrowed(box, caller, job_id, number))
            body = replace(body, image=None)
        await _submit(box, caller, body, begins_with, form.get("once", ""))
    except Refusal as refusal:
        kept = {**asked, "prompt": form.get("prompt", "")}
        return await _shown(request, kept, is_prefilled=True, begins_with=begins_with, refusal=refusal)
    return frame.done(request, f"/create?type={body.type}", "It is in the queue.")


@get(
    "/create/jobs/{job_id:str}",
    opt={"page": "member"},
    include_in_schema=False,
    exception_handlers={Refusal: from_refusal},
)
async def job_request(request: Request[Any, Any, Any], job_id: FromPath[str]) -> dict[str, Any]:
    """The body of a `generate` that asks for one's own job again: to vary it, and to copy it as code."""
    box, caller = services(request), frame.person(request)
    return await box.store.read(lambda: _again(box, caller, job_id))


def asked_by(form: dict[str, str]) -> dict[str, Any]:
    """The body that a form asks for: what is empty is left to the model, and what the type has none of is not sent."""
    kind = form.get("type", "")
    others = {name for other, names in _ONLY_FOR.items() if other != kind for name in names}
    asked: dict[str, Any] = {name: form[name] for name in _TEXTS if form.get(name)}
    if form.get("negative_prompt"):
        asked["negative_prompt"] = form["negative_prompt"]
    errors: list[FieldError] = []
    if "prompt" not in asked:
        errors.append(FieldError("prompt", "invalid_field", "prompt: say what to make; it is empty."))
    for name, number in _NUMBERS.items():
        if not form.get(name) or name in others or (name == "strength" and not _has_picture(form)):
            continue
        try:
            asked[name] = number(form[name])
        except ValueError:
            errors.append(FieldError(name, "invalid_field", f"{name}: {form[name][:40]!r} is not a number."))
    if errors:
        raise InvalidFields(errors)
    return asked


def _has_picture(form: dict[str, str]) -> bool:
    return bool(form.get("image") or form.get("from_job"))


async def _submit(box: Services, caller: Caller, body: GenerateBody, begins_with: Borrowed | None, once: str) -> None:
    """Queue the job, once for each token of a form and what it was filled with; raises a Refusal."""
    key = None
    if is_once(once):
        digest = hashlib.sha256(msgspec.json.encode([body, begins_with and begins_with.asset_id])).digest()
        key = Idempotency(f"create:{once}:{digest.hex()}", digest)
    if await box.desk.replay(caller, key) is not None:
        return
    if begins_with is None:
        await box.desk.submit(caller, asked_for(box, caller, body), key)
        return
    submission: Submission = asked_for(box, caller, replace(body, image=begins_with.as_data_uri_prefix))
    content = await box.store.read(begins_with.read)
    async with box.uploads.offered(content, field="image") as offered:
        await box.desk.submit(caller, submission, key, offered)


def _again(box: Services, caller: Caller, job_id: str) -> dict[str, Any]:
    submission = box.reader.submission(caller, job_id)
    body = asked_again(submission, box.catalog.specs.get(submission.work.model))
    return {name: value for name, value in msgspec.to_builtins(body).items() if value is not None}


async def _shown(
    request: Request[Any, Any, Any],
    asked: dict[str, Any],
    *,
    is_prefilled: bool,
    begins_with: Borrowed | None = None,
    refusal: Refusal | None = None,
) -> Template:
    box, caller = services(request), frame.person(request)
    models = [model for model in await model_views(box) if model.makes]
    kind = asked.get("type", _first_kind(models))
    model = _model_of(models, kind, asked.get("model"))
    money = await stands(box, caller)
    jobs = await box.store.read(lambda: _jobs(box, caller))
    state = {
        "account": caller.account.id,
        "base": base_url(request),
        "models": models,
        "money": money,
        "jobs": jobs,
        "asked": asked if is_prefilled else None,
        "from": begins_with and begins_with.view,
        "stand_ins": FALLBACKS,
        "is_owner": caller.account.role == "owner",
    }
    return frame.page(
        request,
        "create.html",
        place="create",
        title="Create",
        status=200 if refusal is None else refusal.status,
        headers=None if refusal is None else dict(refusal.headers),
        state=_data_block(state),
        asked=asked,
        kind=kind,
        model=model,
        models=models,
        missing=[each for each in models if not each.installed],
        has_models_page="/admin/models" in request.app.state["paths"],
        has_library="/library" in request.app.state["paths"],
        money=money,
        left=_left(money, kind),
        jobs=jobs,
        begins_with=begins_with,
        refusal=refusal,
        ratios=ASPECT_RATIOS,
        resolutions=RESOLUTIONS,
        once=new_once(),
        prompt_max=PROMPT_MAX,
        seed_max=SEED_MAX,
        default_strength=DEFAULT_STRENGTH,
    )


def _data_block(value: dict[str, Any]) -> Markup:
    """JSON for a script element of data: no text in it can end the element, whatever it holds."""
    return Markup(msgspec.json.encode(value).decode().replace("<", "\\u003c"))  # noqa: S704


def _jobs(box: Services, caller: Caller) -> list[JobView]:
    """What the page begins with, newest first, its addresses of the host that the page is looked at by; receipts are
    left to the library.
    """
    newest = box.reader.page(caller, Filters(), SHOWN_JOBS, None, "").data
    known = {view.job_id for view in newest}
    older = [view for view in box.reader.open_jobs(caller, PAGE_MAX, "").data if view.job_id not in known]
    return [replace(view, receipt=None) for view in (*newest, *older) if view.removed_at is None]


def _first_kind(models: list[ModelView]) -> str:
    """Video, unless only images can be made by more than a stand-in."""
    real = {kind for model in models if model.installed and model.id not in FALLBACKS for kind in model.default_for}
    return "image" if real == {"image"} else "video"


def _model_of(models: list[ModelView], kind: str, name: str | None) -> ModelView | None:
    """The model whose limits the form shows: the one that is asked for, where it can be, else the default."""
    able = [model for model in models if model.installed and kind in model.makes]
    asked = [model for model in able if model.id == name]
    return (asked or [model for model in able if kind in model.default_for] or [None])[0]


def _left(money: OverageView, kind: str) -> int:
    return money.included["image" if kind == "image" else "video"].left
