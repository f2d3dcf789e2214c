"""A model hub on loopback: one repository, served as huggingface.co does, with faults that a test names.

Large files lie on another port, as on a content network: the hub redirects there, and no token may follow.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

HOLD_SECONDS: Final = 300.0
PIECE_BYTES: Final = 16 * 1024


@dataclass
class Faults:
    """What goes wrong; counts run down to nothing, and a count below zero never does."""

    down: int = 0
    too_many: list[str] = field(default_factory=list[str])
    corrupt: Counter[str] = field(default_factory=Counter[str])
    truncate: Counter[str] = field(default_factory=Counter[str])
    too_much: Counter[str] = field(default_factory=Counter[str])
    hold_after: int | None = None
    """After so many bytes of files in all the hub sends nothing more, but keeps the connections."""
    ignore_range: bool = False
    tag_salt: str = ""
    redirects: int = 0
    redirect_to: str = ""
    next_page_at: str = ""
    closed_to: tuple[str, ...] = ()
    """Tokens that are known, but have not accepted the licence."""
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    contents: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """What the files really hold, in place of what was announced."""
    entries: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    answer: bytes | None = None
    expired: int = 0


@dataclass(frozen=True)
class Asked:
    """One request as it came: `port` tells the hub from the content network."""

    port: int
    path: str
    headers: dict[str, str]


class HubDouble:
    """`files` by path; `token` closes the repository to others. `pages` is how many files a page of the list holds."""

    def __init__(
        self, repository: str, files: dict[str, bytes], *, token: str = "", large_bytes: int = 4_096, pages: int = 5
    ) -> None:
        self.repository = repository
        self.files = files
        self.token = token
        self.large_bytes = large_bytes
        self.page_files = pages
        self.faults = Faults()
        self.asked: list[Asked] = []
        self.served: Counter[str] = Counter()
        self.holding = threading.Event()
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._servers = [_Server(("127.0.0.1", 0), self._handler()) for _ in range(2)]
        self.hub_port, self.content_port = (server.server_address[1] for server in self._servers)
        self.url = f"http://127.0.0.1:{self.hub_port}"
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def commit(self) -> str:
        """The name of the repository's only commit: it changes with the files."""
        ids = sorted((path, hashlib.sha256(content).hexdigest()) for path, content in self.files.items())
        return hashlib.sha1(json.dumps(ids).encode()).hexdigest()  # noqa: S324 - as git names commits

    @property
    def bytes(self) -> int:
        """All bytes of file content that left the hub so far."""
        return self.served.total()

    def close(self) -> None:
        """Let go of everything that waits, and stop."""
        self.released.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def paths(self, part: str) -> list[str]:
        """The requests whose path holds `part`."""
        return [asked.path for asked in self.asked if part in asked.path]

    def take(self, path: str, size: int) -> int:
        """How many of so many bytes may be sent; they are counted as sent. None where the hub holds."""
        with self._lock:
            if self.faults.hold_after is not None:
                size = max(0, min(size, self.faults.hold_after - self.served.total()))
            self.served[path] += size
            return size

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(_Handler):
            double = hub

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is nothing to tell of."""


class _Handler(BaseHTTPRequestHandler):
    double: HubDouble
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Nothing: the test looks at `asked`."""

    def do_GET(self) -> None:
        hub, faults = self.double, self.double.faults
        port = cast(tuple[str, int], self.server.server_address)[1]
        hub.asked.append(Asked(port, self.path, dict(self.headers)))
        split = urlsplit(self.path)
        path = unquote(split.path)
        if port == hub.content_port:
            self._content(path.removeprefix("/objects/"), hashlib.md5(path.encode()).hexdigest())  # noqa: S324
        elif faults.down:
            faults.down -= 1
            self._refuse(503, "Down")
        elif faults.too_many:
            self._refuse(429, "TooMany", {"Retry-After": faults.too_many.pop(0)})
        elif faults.answer is not None:
            self._send(200, faults.answer, {"Content-Type": "text/html"})
        elif not path.startswith((f"/api/models/{hub.repository}/", f"/{hub.repository}/resolve/")):
            self._refuse(404, "RepoNotFound")
        elif hub.token and self._token() != hub.token:
            self._refuse(403 if self._token() in faults.closed_to else 401, "GatedRepo")
        elif path.startswith("/api/models/"):
            self._about(path.removeprefix(f"/api/models/{hub.repository}/"), parse_qs(split.query))
        else:
            commit, _, name = path.removeprefix(f"/{hub.repository}/resolve/").partition("/")
            self._resolve(commit, name)

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _about(self, rest: str, query: dict[str, list[str]]) -> None:
        hub = self.double
        kind, _, revision = rest.partition("/")
        if revision not in ("main", hub.commit):
            self._refuse(404, "RevisionNotFound")
        elif kind == "revision":
            self._json({"id": hub.repository, "sha": hub.commit}, {})
        else:
            assert query["recursive"] == ["true"]
            entries = [{"type": "directory", "path": "a folder"}, *self._entries(), *hub.faults.entries]
            begin = int(query.get("cursor", ["0"])[0])
            end = begin + hub.page_files
            links: dict[str, str] = {}
            if end < len(entries):
                base = hub.faults.next_page_at or hub.url
                following = f"{base}/api/models/{hub.repository}/tree/{revision}?recursive=true&cursor={end}"
                links = {"Link": f'<{following}>; rel="next"'}
            self._json(entries[begin:end], links)

    def _entries(self) -> list[dict[str, Any]]:
        hub, found = self.double, []
        for path, content in hub.files.items():
            size = hub.faults.sizes.get(path, len(content))
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 - git's
            entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": blob}
            if len(content) >= hub.large_bytes:
                sha256 = hashlib.sha256(content).hexdigest()
                entry |= {"oid": "0" * 40, "lfs": {"oid": sha256, "size": size, "pointerSize": 134}}
            found.append(entry)
        return found

    def _resolve(self, commit: str, name: str) -> None:
        hub, faults = self.double, self.double.faults
        if commit != hub.commit:
            self._refuse(404, "RevisionNotFound")
        elif name not in hub.files:
            self._refuse(404, "EntryNotFound")
        elif faults.redirects:
            faults.redirects -= 1
            self._redirect(faults.redirect_to or self.path)
        elif len(hub.files[name]) >= hub.large_bytes:
            self._redirect(f"http://127.0.0.1:{hub.content_port}/objects/{quote(name)}?signature=s3cr3t")
        else:
            self._content(name, hashlib.sha1(hub.files[name]).hexdigest())  # noqa: S324

    def _redirect(self, to: str) -> None:
        name = unquote(urlsplit(self.path).path).rpartition("/")[2]
        self._send(302, f"moved: {name}".encode(), {"Location": to, "X-Repo-Commit": self.double.commit})

    def _content(self, name: str, tag: str) -> None:
        hub, faults = self.double, self.double.faults
        content = faults.contents.get(name, hub.files[name])
        tag = f'"{tag}{faults.tag_salt}"'
        begin, status = 0, 200
        asked = self.headers.get("Range")
        if faults.expired and urlsplit(self.path).query:
            faults.expired -= 1
            self._refuse(403, "Expired")
            return
        if asked is not None and not faults.ignore_range and self.headers.get("If-Range", tag) == tag:
            begin, status = int(asked.removeprefix("bytes=").removesuffix("-")), 206
        if begin >= len(content) and status == 206:
            self._refuse(416, "Range")
            return
        body, length = content[begin:], len(content) - begin
        if faults.corrupt[name]:
            faults.corrupt[name] -= 1
            body = body[:-1] + bytes([body[-1] ^ 1])
        if faults.too_much[name]:
            faults.too_much[name] -= 1
            body, length = body + b"more", length + 4
        cut = None
        if faults.truncate[name]:
            faults.truncate[name] -= 1
            cut = length // 2
        self.send_response(status)
        self.send_header("ETag", tag)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(length))
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self._pour(name, body[:cut])
        if cut is not None:
            self.close_connection = True

    def _pour(self, name: str, body: bytes) -> None:
        hub, at = self.double, 0
        while at < len(body):
            piece = body[at : at + hub.take(name, min(PIECE_BYTES, len(body) - at))]
            if not piece:
                hub.holding.set()
                hub.released.wait(HOLD_SECONDS)
                self.close_connection = True
                return
            try:
                self.wfile.write(piece)
            except OSError:
                self.close_connection = True  # the client is gone
                return
            at += len(piece)

    def _json(self, value: Any, headers: dict[str, str]) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, code.encode(), {"X-Error-Code": code, **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def a_hub(repository: str, files: dict[str, bytes], **options: Any) -> Generator[HubDouble]:
    """A hub that runs for as long as the block."""
    hub = HubDouble(repository, files, **options)
    try:
        yield hub
    finally:
        hub.close()


def files_of(folder: Path) -> dict[str, bytes]:
    """A checkpoint's files as a repository holds them, without a box's own record."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "installed.json"
    }
