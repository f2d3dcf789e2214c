"""A model hub's HTTP as far as installing needs it: what a revision is, which files it has, and their bytes.

Spoken as huggingface.co does: `/api/models/REPO/revision/REV`, `/api/models/REPO/tree/COMMIT`, and
`/REPO/resolve/COMMIT/PATH` with Range, which may lead to another host. The token goes to the hub alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from msgspec import Meta, Struct

from zsky_box import __version__
from zsky_box.errors import InstallError
from zsky_box.install.listing import FILES_MAX, Remote

REDIRECTS_MAX: Final = 5
PAGES_MAX: Final = 200
ANSWER_BYTES_MAX: Final = 32 * 1024**2
_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

T = TypeVar("T")


class Patience(Struct, frozen=True, kw_only=True):
    """How long to wait for a hub, and how often to ask again while nothing at all moves."""

    connect_seconds: float = 15.0
    silence_seconds: float = 60.0
    tries_max: int = 8
    first_wait_seconds: float = 1.0
    wait_max_seconds: float = 30.0
    told_wait_max_seconds: float = 600.0


class Hindered(Exception):
    """Something that may be gone at the next try; `wait_seconds` is what the hub asked for."""

    def __init__(self, reason: str, wait_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


class NotThere(InstallError):
    """The hub has no such repository, revision or file."""


class Tries:
    """Counts failures in a row, and waits between them, longer each time; `moved` says that something got on."""

    def __init__(self, patience: Patience, wait: Callable[[float], None]) -> None:
        self._patience = patience
        self._wait = wait
        self._failed = 0

    def moved(self) -> None:
        """Bytes came: whatever fails next is a new trouble."""
        self._failed = 0

    def failed(self, hindrance: Hindered) -> None:
        """Wait before the next try, or raise InstallError when there have been enough, or the hub asks for too long."""
        patience = self._patience
        self._failed += 1
        kept = "What has arrived is kept: run the same command again"
        if self._failed >= patience.tries_max:
            raise InstallError(f"{hindrance} ({self._failed} tries in a row). {kept}.") from hindrance
        seconds = min(patience.first_wait_seconds * 2 ** (self._failed - 1), patience.wait_max_seconds)
        if hindrance.wait_seconds is not None:
            if hindrance.wait_seconds > patience.told_wait_max_seconds:
                raise InstallError(f"{hindrance}, in {hindrance.wait_seconds:.0f} s at the earliest. {kept} then.")
            seconds = max(seconds, hindrance.wait_seconds)
        self._wait(seconds)


class _Revision(Struct, frozen=True):
    sha: Annotated[str, Meta(pattern=r"^[0-9a-f]{7,64}$")]


class _Large(Struct, frozen=True):
    oid: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    size: int


class _Entry(Struct, frozen=True):
    type: str
    path: str
    size: int = 0
    oid: str = ""
    lfs: _Large | None = None


class Hub:
    """One hub; `wait` is what passes the time between tries. Close it when done."""

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        patience: Patience | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.patience = patience or Patience()
        self.wait = wait
        self._url = httpx.URL(url)
        self._token = token
        if token and self._url.scheme != "https" and self._url.host not in _LOOPBACK:
            raise InstallError(f"hub_url = {url!r} is not encrypted, and a token is not sent that way; use https.")
        self._http = httpx.Client(
            follow_redirects=False,
            headers={"User-Agent": f"zsky-box/{__version__}", "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(self.patience.silence_seconds, connect=self.patience.connect_seconds),
        )

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def resolve(self, repository: str, revision: str) -> str:
        """The commit that a revision (a branch, a tag, a commit; empty: the default branch) is now."""
        path = f"/api/models/{quote(repository)}/revision/{quote(revision or 'main', safe='')}"
        body, _ = self._tried(repository, lambda: self._read(repository, self._url.join(path)))
        return _decoded(repository, body, _Revision).sha

    def listing(self, repository: str, commit: str) -> list[Remote]:
        """Every file of a commit, over as many pages as it takes; raises InstallError for more than a bound."""
        files: list[Remote] = []
        url: httpx.URL | None = self._url.join(f"/api/models/{quote(repository)}/tree/{commit}?recursive=true")
        for _ in range(PAGES_MAX):
            if url is None:
                return files
            page = url
            body, response = self._tried(repository, lambda page=page: self._read(repository, page))
            files += [_remote(entry) for entry in _decoded(repository, body, list[_Entry]) if entry.type == "file"]
            following = response.links.get("next", {}).get("url")
            url = page.join(following) if following else None
            if url is not None and not self._is_hub(url):
                raise InstallError(f"{self._url.host} continues its list of files at {url.host}; it is not followed.")
            if len(files) > FILES_MAX:
                break
        raise InstallError(f"{repository} lists more than {FILES_MAX} files; is it the right repository?")

    @contextmanager
    def content(self, repository: str, commit: str, path: str, headers: dict[str, str]) -> Generator[httpx.Response]:
        """One try at a file's bytes, as a response whose body is still to be read; raises Hindered or InstallError."""
        url = self._url.join(f"/{quote(repository)}/resolve/{commit}/{quote(path)}")
        with self._answer(repository, url, headers) as response:
            yield response

    def _tried(self, repository: str, ask: Callable[[], T]) -> T:
        del repository
        tries = Tries(self.patience, self.wait)
        while True:
            try:
                return ask()
            except Hindered as hindrance:
                tries.failed(hindrance)

    def _read(self, repository: str, url: httpx.URL) -> tuple[bytes, httpx.Response]:
        with self._answer(repository, url, {}) as response:
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > ANSWER_BYTES_MAX:
                    raise InstallError(f"{self._url.host} answers with more than {ANSWER_BYTES_MAX} bytes; gave up.")
            return bytes(body), response

    @contextmanager
    def _answer(self, repository: str, url: httpx.URL, headers: dict[str, str]) -> Generator[httpx.Response]:
        """Follow redirects by hand: the token stays with the hub, and what began encrypted stays so."""
        try:
            for _ in range(REDIRECTS_MAX + 1):
                secret = {"Authorization": f"Bearer {self._token}"} if self._token and self._is_hub(url) else {}
                request = self._http.build_request("GET", url, headers={**headers, **secret})
                response = self._http.send(request, stream=True)
                try:
                    if not response.has_redirect_location:
                        self._check(repository, response)
                        yield response
                        return
                    following = url.join(response.headers["Location"])
                finally:
                    response.close()
                if following.scheme not in ("https", url.scheme) or following.scheme not in ("http", "https"):
                    raise InstallError(f"{url.host} leads to an address that is not encrypted; it is not followed.")
                url = following
        except httpx.InvalidURL as error:
            raise InstallError(f"{self._url.host} leads to an address that is none ({error}).") from error
        except httpx.ReadTimeout as error:
            raise Hindered(f"{url.host} sent nothing for {self.patience.silence_seconds:g} s") from error
        except (httpx.TransportError, httpx.StreamError) as error:
            raise Hindered(f"{url.host} cannot be reached ({_reason(error)})") from error
        raise InstallError(f"{self._url.host} leads from one address to the next more than {REDIRECTS_MAX} times.")

    def _is_hub(self, url: httpx.URL) -> bool:
        return (url.scheme, url.host, url.port) == (self._url.scheme, self._url.host, self._url.port)

    def _check(self, repository: str, response: httpx.Response) -> None:
        status = response.status_code
        if response.is_success:
            return
        host = response.url.host
        if status in _RETRIED:
            what = "asks to come back later" if status == 429 else "has trouble of its own"
            raise Hindered(f"{host} {what} ({status})", _told_wait(response))
        if status in (401, 403) and self._is_hub(response.url):
            raise InstallError(self._closed(repository, status))
        if status == 416:
            raise Hindered(f"{host} has no such range of the file ({status})")
        if status == 404:
            raise NotThere(f"{host} has no {_missing(repository, response)} ({status}).")
        if status in (401, 403):  # the address that the hub led to has run out: the hub gives a new one
            raise Hindered(f"{host} does not give the file ({status})")
        raise InstallError(f"{host} answers {status} for {repository}, which was not expected.")

    def _closed(self, repository: str, status: int) -> str:
        page = self._url.join(f"/{repository}")
        if self._token:
            return (
                f"{self._url.host} does not give {repository} to the owner of this token ({status}): accept the licence"
                f" on {page} with the same account, and see that the token may read."
            )
        return (
            f"{self._url.host} gives {repository} only to those it knows ({status}): accept the licence on {page}, make"
            " a token that may read, and give it as HF_TOKEN in the environment or in a file named by the setting"
            " hub_token_file."
        )


def _remote(entry: _Entry) -> Remote:
    if entry.lfs is not None:
        return Remote(path=entry.path, bytes=entry.lfs.size, sha256=entry.lfs.oid)
    return Remote(path=entry.path, bytes=entry.size, git_sha1=entry.oid)


def _decoded(repository: str, body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InstallError(
            f"The hub's answer about {repository} makes no sense ({error}); is hub_url a hub?"
        ) from error


def _missing(repository: str, response: httpx.Response) -> str:
    known = {"RevisionNotFound": "such revision of", "EntryNotFound": "such file in", "RepoNotFound": "repository"}
    return f"{known.get(response.headers.get('X-Error-Code', ''), 'such thing in')} {repository}"


def _told_wait(response: httpx.Response) -> float | None:
    """Retry-After: seconds, or a date."""
    told: str = response.headers.get("Retry-After", "").strip()
    if told.isascii() and told.isdigit() and len(told) < 10:
        return float(told)
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
    except ValueError:
        return None


def _reason(error: Exception) -> Any:
    return str(error) or type(error).__name__
