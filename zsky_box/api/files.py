"""Signed results: no header needed; HEAD, Range, conditional requests and a download name."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator
from email.utils import formatdate
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

from litestar import Request, Response, get, route
from litestar.enums import HttpMethod
from litestar.params import FromPath

from zsky_box.api.deps import services
from zsky_box.api.problems import documented
from zsky_box.api.sending import Sending
from zsky_box.assets import Asset
from zsky_box.errors import Refusal

CHUNK_BYTES: Final = 256 * 1024
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_PATH: Final = "/files/{file_id:str}/{name:str}"
_QUERY: Final = {"expires": {"type": "string"}, "signature": {"type": "string"}}
_REFUSALS: Final = documented("invalid_signature", "expired_signature", "not_found", "result_removed", key=False)


@get(
    _PATH,
    operation_id="getFile",
    tags=["files"],
    summary="A result's file",
    responses=_REFUSALS,
    opt={"open": True, "query": _QUERY},
)
async def get_file(request: Request[Any, Any, Any], file_id: FromPath[str], name: FromPath[str]) -> Response[Any]:
    """The bytes behind a `result_url`; supports one range, and answers 304 to a matching ETag."""
    return await _answer(request, file_id, name)


@route(
    _PATH,
    http_method=HttpMethod.HEAD,
    operation_id="headFile",
    tags=["files"],
    summary="A result's facts",
    responses=_REFUSALS,
    opt={"open": True, "query": _QUERY},
)
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
    if request.method == "HEAD":  # a Range means something to GET only (RFC 9110, 14.2)
        (await asyncio.to_thread(_opened, path, size)).close()
        headers["Content-Length"] = str(size)
        return Response(b"", status_code=200, headers=headers, media_type=asset.file.mime)
    wanted = _range(request.headers.get("range", ""), request.headers.get("if-range"), etag, size)
    if wanted == "unsatisfiable":
        headers |= {"Content-Range": f"bytes */{size}", "Cache-Control": "no-store"}
        return Response(b"", status_code=416, headers=headers, media_type=asset.file.mime)
    if isinstance(wanted, tuple):
        first, last = wanted
        status = 206
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    headers["Content-Length"] = str(last - first + 1)
    file = await asyncio.to_thread(_opened, path, size)
    pieces = _chunks(file, first, last)
    return Sending(pieces, file.close, status_code=status, headers=headers, media_type=asset.file.mime)


def _headers(asset: Asset, expires: int, now_us: int) -> dict[str, str]:
    seconds_left = max(0, expires - now_us // 1_000_000)
    return {
        "Accept-Ranges": "bytes",
        "ETag": f'"{asset.file.sha256}"',
        "Last-Modified": formatdate(asset.created_at / 1_000_000, usegmt=True),
        "Cache-Control": f"private, max-age={seconds_left}, immutable",
        "Content-Disposition": _disposition(asset.file.name),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; media-src 'self'; img-src 'self'; style-src 'unsafe-inline'",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }


def _disposition(name: str) -> str:
    """Shown in a browser, saved under its name; curl's `-J` reads the plain form only."""
    plain = f' filename="{name}";' if _PLAIN_NAME.fullmatch(name) else ""
    return f"inline;{plain} filename*=UTF-8''{quote(name)}"


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


def _opened(path: Path, size: int) -> BinaryIO:
    """The file, before the answer begins: what is gone or cut short is told by its status, not by a broken body."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
    except FileNotFoundError:
        raise Refusal(410, "result_removed", "This result is no longer on the box's disk.") from None
    if os.fstat(file.fileno()).st_size != size:
        file.close()
        raise Refusal(410, "result_removed", "This result was changed on the box's disk; it is not what was made.")
    return file


async def _chunks(file: BinaryIO, first: int, last: int) -> AsyncGenerator[bytes]:
    """The bytes from first to last; the disk is read off the event loop, a chunk at a time."""
    await asyncio.to_thread(file.seek, first)
    left = last - first + 1
    while left > 0:
        chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, left))
        if not chunk:
            raise OSError(f"{file.name} became shorter while it was sent")
        left -= len(chunk)
        yield chunk
