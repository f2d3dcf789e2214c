"""Signed results: no header needed; HEAD, Range, conditional requests and a download name."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from litestar import Request, Response, get, route
from litestar.enums import HttpMethod
from litestar.params import FromPath
from litestar.response import Stream

from zsky_box.api.deps import services
from zsky_box.api.problems import documented
from zsky_box.assets import Asset

CHUNK_BYTES: Final = 256 * 1024
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


_PATH: Final = "/files/{file_id:str}/{name:str}"


@get(
    _PATH,
    operation_id="getFile",
    tags=["files"],
    summary="A result's file",
    responses=documented(403, 404, 410),
    opt={
        "query": {"expires": {"type": "string"}, "signature": {"type": "string"}},
        "open": True,
    },
)
async def get_file(request: Request[Any, Any, Any], file_id: FromPath[str], name: FromPath[str]) -> Response[Any]:
    """The bytes behind a `result_url`; supports one range, and answers 304 to a matching ETag."""
    return await _answer(request, file_id, name)


@route(_PATH, http_method=HttpMethod.HEAD, include_in_schema=False, opt={"open": True})
async def head_file(request: Request[Any, Any, Any], file_id: FromPath[str], name: FromPath[str]) -> Response[Any]:
    """The same headers without the bytes."""
    return await _answer(request, file_id, name)


async def _answer(request: Request[Any, Any, Any], file_id: str, name: str) -> Response[Any]:
    box = services(request)
    query = request.query_params
    expires, signature = str(query.get("expires", "")), str(query.get("signature", ""))
    asset, path = await box.store.read(lambda: box.assets.open_signed(file_id, name, expires, signature, box.clock()))
    headers = _headers(asset, int(expires), box.clock())
    etag = headers["ETag"]
    if _matches(request.headers.get("if-none-match", ""), etag):
        return Response(None, status_code=304, headers=headers)
    size = asset.file.bytes
    first, last, status = 0, size - 1, 200
    wanted = _range(request.headers.get("range", ""), request.headers.get("if-range"), etag, size)
    if wanted == "unsatisfiable":
        return Response(None, status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    if isinstance(wanted, tuple):
        first, last = wanted
        status = 206
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    headers["Content-Length"] = str(last - first + 1)
    if request.method == "HEAD":
        return Response(None, status_code=status, headers=headers, media_type=asset.file.mime)
    return Stream(_chunks(path, first, last), status_code=status, headers=headers, media_type=asset.file.mime)


def _headers(asset: Asset, expires: int, now_us: int) -> dict[str, str]:
    seconds_left = max(0, expires - now_us // 1_000_000)
    return {
        "Accept-Ranges": "bytes",
        "ETag": f'"{asset.file.sha256}"',
        "Last-Modified": formatdate(asset.created_at / 1_000_000, usegmt=True),
        "Cache-Control": f"private, max-age={seconds_left}, immutable",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(asset.file.name)}",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; media-src 'self'; img-src 'self'; style-src 'unsafe-inline'",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }


def _matches(if_none_match: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags


def _range(header: str, if_range: str | None, etag: str, size: int) -> tuple[int, int] | str | None:
    """First and last byte, `unsatisfiable`, or None where the whole file is the answer (RFC 9110, 14.2)."""
    match = _RANGE.fullmatch(header.strip().lower())
    if match is None or not (match[1] or match[2]) or (if_range is not None and if_range.strip() != etag):
        return None
    if match[1]:
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
        if match[2] and int(match[2]) < int(match[1]):
            return None
    else:
        first, last = max(0, size - int(match[2])), size - 1
    return (first, last) if first <= last else "unsatisfiable"


async def _chunks(path: Path, first: int, last: int) -> AsyncIterator[bytes]:
    """The bytes from first to last; the disk is read off the event loop, a chunk at a time."""
    file = await asyncio.to_thread(path.open, "rb")
    try:
        await asyncio.to_thread(file.seek, first)
        left = last - first + 1
        while left > 0:
            chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, left))
            if not chunk:
                raise OSError(f"{path.name} became shorter while it was sent")
            left -= len(chunk)
            yield chunk
    finally:
        file.close()
