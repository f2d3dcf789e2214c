"""The pages' own files: styles, scripts and what is vendored, in memory, under an address with their digest.

A file's address changes with any of the files, so that a browser may keep it for ever, and a script's relative import
finds what belongs to it. The same file under another digest, as of an older page, is served as it is now.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any, Final

from litestar import Request, Response, get
from litestar.params import FromPath
from msgspec import Struct

from zsky_box.errors import not_found

TYPES: Final = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
_TEXT: Final = (".css", ".js", ".svg")
_GZIP_LEVEL: Final = 9


class _File(Struct, frozen=True):
    content: bytes
    compressed: bytes | None
    mime: str
    etag: str


class StaticFiles:
    """All files of the folder that a page may use, by their path below it; read once."""

    def __init__(self, folder: Path) -> None:
        self._files = {
            path.relative_to(folder).as_posix(): _read(path)
            for path in sorted(folder.rglob("*"))
            if path.suffix in TYPES and path.is_file()
        }
        every = "".join(f"{name}:{file.etag}\n" for name, file in self._files.items())
        self.digest = hashlib.sha256(every.encode()).hexdigest()[:12]

    def address(self, name: str) -> str:
        """Where a page finds the file; raises KeyError for one that is not there."""
        return f"/static/{self.digest}/{name}" if name in self._files else _missing(name)

    def answer(self, digest: str, name: str, accepts: str, if_none_match: str) -> Response[bytes]:
        """The file; raises 404."""
        file = self._files.get(name)
        if file is None:
            raise not_found("file")
        headers = {
            "Cache-Control": "public, max-age=31536000, immutable" if digest == self.digest else "no-cache",
            "ETag": f'"{file.etag}"',
            "Vary": "Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        if f'"{file.etag}"' in if_none_match:
            return Response(b"", status_code=304, headers=headers, media_type=file.mime)
        if file.compressed is not None and "gzip" in accepts:
            headers["Content-Encoding"] = "gzip"
            return Response(file.compressed, headers=headers, media_type=file.mime)
        return Response(file.content, headers=headers, media_type=file.mime)


def _read(path: Path) -> _File:
    content = path.read_bytes()
    compressed = gzip.compress(content, _GZIP_LEVEL, mtime=0) if path.suffix in _TEXT else None
    return _File(content, compressed, TYPES[path.suffix], hashlib.sha256(content).hexdigest()[:32])


def _missing(name: str) -> str:
    raise KeyError(f"web/static has no {name}")


@get("/static/{digest:str}/{name:path}", include_in_schema=False, opt={"open": True})
async def static_file(request: Request[Any, Any, Any], digest: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """One of the pages' files."""
    files: StaticFiles = request.app.state["static"]
    headers = request.headers
    return files.answer(
        digest, str(name).lstrip("/"), headers.get("accept-encoding", ""), headers.get("if-none-match", "")
    )
