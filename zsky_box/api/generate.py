"""`POST /v1/generate`: one prompt, one job."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
from litestar import Request, Response, post
from litestar.exceptions import InternalServerException
from litestar.params import FromPath
from msgspec.structs import replace

from zsky_box.api.access import caller_of
from zsky_box.api.deps import Services, services
from zsky_box.api.problems import documented
from zsky_box.errors import FieldError, InvalidFields, Refusal
from zsky_box.idempotency import KEY_MAX, Answer, Idempotency
from zsky_box.keys import Caller
from zsky_box.requests import Submission, resolve
from zsky_box.schemas import GenerateBody, JobAccepted, RerunBody, read_json, read_object

TEST_CAP_PROMPT: Final = "test:cap"
_JSON_TYPES: Final = ("", "application/json", "application/x-www-form-urlencoded")

OF_EVERY_SUBMIT: Final = (
    "idempotency_conflict",
    "invalid_field",
    "model_not_installed",
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
    box, caller = services(request), caller_of(request)
    value = await read_body(request)
    body = read_object(GenerateBody, value)
    key = idempotency(request, value)
    if replayed := await box.desk.replay(caller, key):
        return answered(replayed)
    submission = asked_for(box, caller, body)
    if refusal := acted_out(caller, body):
        raise refusal
    return answered(await box.desk.submit(caller, submission, key))


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
    key = idempotency(request, None)
    if replayed := await box.desk.replay(caller, key):
        return answered(replayed)
    submission: Submission = await box.store.read(lambda: box.reader.submission(caller, job_id))
    spec = box.catalog.specs.get(submission.work.model)
    if spec is None or box.catalog.installed(spec) is None:
        message = f"model: {submission.work.model!r}, which made this job, is not installed any more."
        raise InvalidFields([FieldError("model", "model_not_installed", message)])
    if not caller.key.test:  # what was to be known of the first run, as which model stood in, is not of this one
        submission = replace(submission, notes=())
    return answered(await box.desk.submit(caller, submission, key))


def asked_for(box: Services, caller: Caller, body: GenerateBody, *, bounded: bool = True) -> Submission:
    """What a body asks of this box; raises what is wrong with it, or 503 `no_model`.

    Where it is not `bounded`, whether any device has room for it is not asked.
    """
    real, test = box.settings.require_real_model, caller.key.test
    no_room = box.room.refusal if bounded and not test else None
    return resolve(body, box.catalog, test=test, require_real_model=real, no_room=no_room)


def acted_out(caller: Caller, body: GenerateBody) -> Refusal | None:
    """The refusal of a submit that a test key's prompt acts out."""
    if not caller.key.test or body.prompt.strip() != TEST_CAP_PROMPT:
        return None
    detail = "Acted out by a test key: the spend cap of this month is reached."
    return Refusal(429, "cap_reached", detail, headers={"Retry-After": "60"})


async def read_body(request: Request[Any, Any, Any], *, exact: bool = False) -> Any:
    """The parsed body, `exact` where numbers are money.

    curl's `-d` says form-urlencoded by default; what then parses as JSON is taken as JSON.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refusal(415, "unsupported_media", "Send the body as it is, without a Content-Encoding.")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _JSON_TYPES and not kind.endswith("+json"):
        raise Refusal(415, "unsupported_media", "Send the body as application/json.")
    body = await read_bytes(request)
    if kind == "application/x-www-form-urlencoded" and body and not body.lstrip().startswith(b"{"):
        raise Refusal(415, "unsupported_media", "Send the body as application/json, not as a form.")
    return read_json(body, exact=exact)


async def read_bytes(request: Request[Any, Any, Any]) -> bytes:
    """The whole body, within the setting `body_max_bytes`."""
    try:
        return await request.body()
    except InternalServerException as error:
        # Litestar's word for a client that went away in the middle: that is no fault of the box.
        raise Refusal(400, "malformed_json", "The connection ended before the body did.") from error


def idempotency(request: Request[Any, Any, Any], value: Any) -> Idempotency | None:
    """The client's Idempotency-Key with a digest over method, path and parsed JSON; raises 422 for a bad key."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not (1 <= len(key) <= KEY_MAX and all(32 <= ord(character) < 127 for character in key)):
        message = f"Idempotency-Key: send 1 to {KEY_MAX} printable ASCII characters."
        raise InvalidFields([FieldError("Idempotency-Key", "invalid_field", message)])
    canonical = msgspec.json.encode([request.method, request.url.path, value], order="sorted")
    return Idempotency(key, hashlib.sha256(canonical).digest())


def answered(answer: Answer) -> Response[Any]:
    """A kept answer, or one that may be kept."""
    headers = {**answer.headers, "Cache-Control": "no-store"}
    headers |= {"Idempotent-Replayed": "true"} if answer.replayed else {}
    return Response(answer.body, status_code=answer.status, media_type="application/json", headers=headers)
