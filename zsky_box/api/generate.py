"""`POST /v1/generate`: one prompt, one job."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from litestar import Request, Response, post
from litestar.params import FromPath
from msgspec.structs import replace

from zsky_box.api.access import caller_of
from zsky_box.api.bodies import idempotency, read_body, read_bytes, room_for_body
from zsky_box.api.deps import Services, services
from zsky_box.api.problems import documented
from zsky_box.errors import FieldError, InvalidFields, Refusal
from zsky_box.idempotency import Answer, Idempotency
from zsky_box.keys import Caller
from zsky_box.picture import of_data_uri
from zsky_box.requests import UPLOAD_ID, Submission, notes_of, resolve
from zsky_box.schemas import GenerateBody, JobAccepted, RerunBody, read_object

TEST_CAP_PROMPT: Final = "test:cap"

OF_EVERY_SUBMIT: Final = (
    "idempotency_conflict",
    "invalid_field",
    "model_not_installed",
    "prompt_blocked",
    "allowance_exhausted",
    "cap_reached",
    "wallet_empty",
    "plan_without_api",
    "queue_full",
    "draining",
    "storage_full",
    "clock_behind",
)
OF_EVERY_BODY: Final = ("malformed_json", "too_large", "unsupported_media", "unknown_field")


@post(
    "/generate",
    status_code=202,
    opt={"scope": "generate", "body": GenerateBody, "idempotent": True},
    operation_id="generate",
    tags=["jobs"],
    summary="Make an image, or a video with its sound",
    responses=documented(*OF_EVERY_BODY, *OF_EVERY_SUBMIT, "unsupported_for_model", "no_model"),
)
async def generate(request: Request[Any, Any, Any]) -> Response[JobAccepted]:
    """Queue one job and answer with its id; poll `job_status`, or listen to its events, until it has ended."""
    async with room_for_body(request):
        return answered(await _generate(request))


async def _generate(request: Request[Any, Any, Any]) -> Answer:
    box, caller = services(request), caller_of(request)
    value = await read_body(request)
    body = read_object(GenerateBody, value)
    key = idempotency(request, value)
    if replayed := await box.desk.replay(caller, key):
        return replayed
    submission = asked_for(box, caller, body)
    if refusal := acted_out(caller, body):
        raise refusal
    picture = await sent_along(body)
    if picture is None:
        return await box.desk.submit(caller, submission, key)
    # To decode a picture is work: what would be refused without it is refused before.
    quote = await box.store.read(lambda: box.desk.quote(caller, body.type, body.n or 1, body.prompt))
    if quote.refusal is not None:
        raise quote.refusal
    async with box.uploads.offered(picture, field="image") as offered:
        return await box.desk.submit(caller, submission, key, offered)


@post(
    "/jobs/{job_id:str}/rerun",
    status_code=202,
    opt={"scope": "generate", "idempotent": True},
    operation_id="rerunJob",
    tags=["jobs"],
    summary="Ask for the same again",
    responses=documented(*OF_EVERY_BODY, *OF_EVERY_SUBMIT, "not_found"),
)
async def rerun(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[JobAccepted]:
    """The same request, seed and model again, as a new job."""
    box, caller = services(request), caller_of(request)
    if await read_bytes(request):
        read_object(RerunBody, await read_body(request))
    return answered(await again(box, caller, job_id, idempotency(request, None)))


async def again(box: Services, caller: Caller, job_id: str, key: Idempotency | None) -> Answer:
    """Submit what a job of the caller's was asked to make once more; raises 404, 422, or what a submit meets."""
    if replayed := await box.desk.replay(caller, key):
        return replayed
    submission: Submission = await box.store.read(lambda: box.reader.submission(caller, job_id))
    spec = box.catalog.specs.get(submission.work.model)
    if spec is None or box.catalog.installed(spec) is None:
        message = f"model: {submission.work.model!r}, which made this job, is not installed any more."
        raise InvalidFields([FieldError("model", "model_not_installed", message)])
    if not caller.key.test:  # what was to be known of the first run, as which model stood in, is not of this one
        submission = replace(submission, notes=tuple(notes_of(spec, submission.work.prompt)))
    return await box.desk.submit(caller, submission, key)


def asked_for(box: Services, caller: Caller, body: GenerateBody, *, bounded: bool = True) -> Submission:
    """What a body asks of this box; raises what is wrong with it, or 503 `no_model`.

    Where it is not `bounded`, whether any device has room for it is not asked.
    """
    real, test = box.settings.require_real_model, caller.key.test
    no_room = box.room.refusal if bounded and not test else None
    return resolve(body, box.catalog, test=test, require_real_model=real, no_room=no_room)


async def sent_along(body: GenerateBody) -> bytes | None:
    """The picture that a body has in it as a data URI, still to be decoded; None where it has an id or none."""
    if body.image is None or UPLOAD_ID.fullmatch(body.image):
        return None
    try:
        return await asyncio.to_thread(of_data_uri, body.image)
    except ValueError as error:
        raise InvalidFields([FieldError("image", "invalid_field", f"image: {error}.")]) from error


def acted_out(caller: Caller, body: GenerateBody) -> Refusal | None:
    """The refusal of a submit that a test key's prompt acts out."""
    if not caller.key.test or body.prompt.strip() != TEST_CAP_PROMPT:
        return None
    detail = "Acted out by a test key: the spend cap of this month is reached."
    return Refusal(429, "cap_reached", detail, headers={"Retry-After": "60"})


def answered(answer: Answer) -> Response[Any]:
    """A kept answer, or one that may be kept."""
    headers = {**answer.headers, "Cache-Control": "no-store"}
    headers |= {"Idempotent-Replayed": "true"} if answer.replayed else {}
    return Response(answer.body, status_code=answer.status, media_type="application/json", headers=headers)
