"""`/v1/uploads`: pictures for jobs to begin with. What is stored is made anew of them, and is given to jobs alone."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.datastructures import UploadFile
from litestar.exceptions import ClientException, ValidationException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.params import FromPath
from msgspec import UNSET

from zsky_box import idempotency
from zsky_box.api.access import caller_of
from zsky_box.api.bodies import arriving, content_type, read_bytes, refuse_encoded, room_for_body
from zsky_box.api.bodies import idempotency as key_of
from zsky_box.api.deps import services
from zsky_box.api.generate import answered
from zsky_box.api.problems import documented
from zsky_box.clock import rfc3339
from zsky_box.db import Tx
from zsky_box.errors import FieldError, InvalidFields, Refusal
from zsky_box.idempotency import Answer
from zsky_box.picture import TYPES
from zsky_box.schemas import UploadView, malformed
from zsky_box.uploads import Upload

FIELD: Final = "file"
FORM: Final = "multipart/form-data"
PARTS_MAX: Final = 8
FORM_MAX_BYTES: Final = 64 * 1024
"""What a form may have around its file: boundaries, headers, and no other field."""


@post(
    "/uploads",
    status_code=201,
    opt={"scope": "generate", "idempotent": True, "upload": (FORM, FIELD, TYPES)},
    operation_id="uploadPicture",
    tags=["uploads"],
    summary="Send a picture for jobs to begin with",
    responses=documented(
        *("malformed_json", "idempotency_conflict", "too_large", "unsupported_media"),
        *("invalid_field", "unknown_field", "queue_full", "storage_full"),
    ),
)
async def upload(request: Request[Any, Any, Any]) -> Response[UploadView]:
    """A PNG, JPEG or WebP, as the body itself or as the field `file` of a form; its id is `image` of a `generate`."""
    async with room_for_body(request):
        return answered(await _upload(request))


async def _upload(request: Request[Any, Any, Any]) -> Answer:
    box, caller = services(request), caller_of(request)
    content = await _content(request)
    # Not over the form, whose boundary is drawn anew by each try.
    key = key_of(request, hashlib.sha256(content).hexdigest())
    if replayed := await box.desk.replay(caller, key):
        return replayed
    async with box.uploads.offered(content, field=FIELD) as offered:

        def record(tx: Tx, now: int) -> Answer:
            stored = box.uploads.record(tx, caller, offered, now)
            return Answer(201, msgspec.json.encode(_view(stored)), {"Location": f"/v1/uploads/{stored.id}"})

        return await idempotency.once(box.store, caller, key, box.clock, record)


@get(
    "/uploads/{upload_id:str}",
    opt={"scope": "read"},
    operation_id="getUpload",
    tags=["uploads"],
    summary="One picture's facts",
    responses=documented("not_found"),
)
async def get_upload(request: Request[Any, Any, Any], upload_id: FromPath[str]) -> UploadView:
    """The picture as it is stored; `removed_at` is there once it was removed."""
    box, caller = services(request), caller_of(request)
    return _view(await box.store.read(lambda: box.uploads.find(box.store, caller, upload_id)))


@delete(
    "/uploads/{upload_id:str}",
    status_code=200,
    opt={"scope": "generate", "live_only": True},
    operation_id="deleteUpload",
    tags=["uploads"],
    summary="Remove a picture",
    responses=documented("not_found", "job_open", "test_key"),
)
async def delete_upload(request: Request[Any, Any, Any], upload_id: FromPath[str]) -> UploadView:
    """Removes the file, on record; jobs that began with it keep their results, and cannot be run again."""
    box, caller = services(request), caller_of(request)
    removed = await box.store.write_async(lambda tx: box.uploads.remove(tx, caller, upload_id, box.clock()))
    await box.store.read(lambda: box.uploads.discard(removed))
    return _view(removed)


async def _content(request: Request[Any, Any, Any]) -> bytes:
    """The picture's bytes, wherever in the body they are; raises 400, 413, 415 or 422."""
    refuse_encoded(request)
    kind = content_type(request)
    if kind == FORM:
        content = await _of_form(request)
    elif kind in TYPES:
        content = await read_bytes(request)
    else:
        told = f"Send the picture as {', '.join(TYPES[:-1])} or {TYPES[-1]}, or as the field `{FIELD}` of {FORM}."
        raise Refusal(415, "unsupported_media", told)
    if not content:
        raise InvalidFields([FieldError(FIELD, "invalid_field", f"{FIELD}: is empty; send a picture.")])
    return content


async def _of_form(request: Request[Any, Any, Any]) -> bytes:
    try:
        async with arriving():
            form = await request.form()
    except RequestEntityTooLarge:  # which is a ClientException as well
        raise
    except (ClientException, ValidationException, UnicodeDecodeError, LookupError):
        told = f"The form cannot be read; send the picture as a file in its field `{FIELD}`."
        raise malformed(told) from None
    given = list(form.multi_items())
    try:
        errors = [
            FieldError(name, "unknown_field", f"There is no field {name!r}; the picture is in `{FIELD}`.")
            for name in sorted({str(name)[:64] for name, _ in given} - {FIELD})
        ]
        files = [value for name, value in given if name == FIELD]
        if len(files) != 1 or not isinstance(files[0], UploadFile):
            errors.append(FieldError(FIELD, "invalid_field", f"{FIELD}: send one picture, as a file with a name."))
        if errors:
            raise InvalidFields(errors)
        return await files[0].read()
    finally:
        for _, value in given:
            if isinstance(value, UploadFile):
                await value.close()


def _view(upload: Upload) -> UploadView:
    return UploadView(
        id=upload.id,
        width=upload.width,
        height=upload.height,
        bytes=upload.bytes,
        created_at=rfc3339(upload.created_at),
        removed_at=UNSET if upload.removed_at is None else rfc3339(upload.removed_at),
    )
