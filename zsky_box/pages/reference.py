"""The picture that a job begins with, as the page of `/create` handles it: one's own upload, or of one's own result."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from litestar import Request, Response, get, post
from litestar.params import FromPath
from msgspec import Struct

from zsky_box.api.deps import Services, services
from zsky_box.api.problems import from_refusal
from zsky_box.assets import Asset
from zsky_box.db import Tx
from zsky_box.errors import Refusal, not_found
from zsky_box.keys import Caller
from zsky_box.pages import frame
from zsky_box.uploads import Upload

RESULTS_MAX: Final = 10


class Borrowed(Struct, frozen=True):
    """A picture of a result: an image itself, of a clip its poster. `view` is what the page shows of it."""

    asset_id: str
    path: Path
    mime: str
    view: dict[str, Any]

    @property
    def as_data_uri_prefix(self) -> str:
        """Stands for the picture in a body while the model's limits are asked; it is recorded with the job."""
        return f"data:{self.mime};base64,"

    def read(self) -> bytes:
        """The file's bytes; raises 410 where it is gone."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise _gone() from error


def borrowed(box: Services, caller: Caller, job_id: str, number: int) -> Borrowed:
    """Result `number`, from 1, of one's own job, to begin another with; raises 404, or 410 where it was removed."""
    row = box.reader.row(caller, job_id)
    assets = [asset for asset in box.assets.of_jobs([job_id]).get(job_id, []) if row["status"] == "completed"]
    results = [asset for asset in assets if asset.file.kind == "result"]
    if not 1 <= number <= len(results):
        raise not_found("result")
    result = results[number - 1]
    picture = result
    if not result.file.mime.startswith("image/"):
        posters = [asset for asset in assets if asset.file.kind == "poster"]
        picture = next((asset for asset in posters if asset.file.ordinal == result.file.ordinal), result)
    path = box.assets.root / picture.path
    if picture.removed_at is not None or (picture is result and row["type"] == "video") or not path.is_file():
        raise _gone()
    view = {"job_id": job_id, "number": number, "type": row["type"], **_addresses(box, result, picture)}
    return Borrowed(picture.id, path, picture.file.mime, view)


def chosen_result(text: str) -> int:
    """The number of a result, from 1, as an address names it; raises 404."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(RESULTS_MAX))):
        raise not_found("result")
    return int(text)


@post(
    "/create/reference",
    opt={"page": "member"},
    status_code=201,
    include_in_schema=False,
    exception_handlers={Refusal: from_refusal},
)
async def take_reference(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Make an upload of a result's picture (fields `job` and `result`), to begin other jobs with."""
    box, caller, form = services(request), frame.person(request), await frame.form(request)
    job_id, number = form.get("job", ""), chosen_result(form.get("result", "1"))
    content = await box.store.read(lambda: borrowed(box, caller, job_id, number).read())
    async with box.uploads.offered(content, field="image") as offered:

        def record(tx: Tx) -> Upload:
            return box.uploads.record(tx, caller, offered, box.clock())

        stored = await box.store.write_async(record)
    return {"id": stored.id, "width": stored.width, "height": stored.height}


@get(
    "/create/pictures/{upload_id:str}",
    opt={"page": "member"},
    include_in_schema=False,
    exception_handlers={Refusal: from_refusal},
)
async def picture(request: Request[Any, Any, Any], upload_id: FromPath[str]) -> Response[bytes]:
    """One's own upload, to be looked at."""
    box, caller = services(request), frame.person(request)
    content = await box.store.read(lambda: box.uploads.content(caller, upload_id))
    headers = {"Cache-Control": "private, max-age=3600", "Content-Security-Policy": "default-src 'none'"}
    return Response(content, media_type="image/png", headers=headers)


def _addresses(box: Services, result: Asset, picture: Asset) -> dict[str, str]:
    now = box.clock()
    return {"url": box.assets.signed_path(result, now), "picture_url": box.assets.signed_path(picture, now)}


def _gone() -> Refusal:
    return Refusal(410, "result_removed", "This result was removed; there is no picture of it to begin with.")
