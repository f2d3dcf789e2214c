"""Where a model comes from: a repository of a hub, or a folder of this machine such as a USB disk."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, Protocol

import httpx

from zsky_box.errors import InstallError
from zsky_box.install.hub import Hindered, Hub, Tries
from zsky_box.install.listing import FILES_MAX, Remote
from zsky_box.install.part import CHUNK_BYTES, Part, git_blob
from zsky_box.install.stock import Inventory, read_inventory
from zsky_box.manifest import FULL

SPOILED_MAX: Final = 3
_FOLDER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_COMMIT: Final = re.compile(r"[0-9a-f]{7,64}")

Advance = Callable[[int], None]
"""Told how many bytes more are here; fewer than none where bytes had to be dropped."""


class Source(Protocol):
    """A place to install from; `name` is what the record says of it."""

    name: str

    def resolve(self) -> str:
        """The revision that will be installed; empty where nobody knows."""
        ...

    def listing(self, revision: str) -> list[Remote]:
        """All files that may be needed."""
        ...

    def fetch(self, revision: str, part: Part, advance: Advance) -> None:
        """Complete a part: afterwards it is whole, and as announced. Raises InstallError."""
        ...

    def close(self) -> None: ...


class HubSource:
    """A repository of a hub at one revision."""

    def __init__(self, hub: Hub, url: str, repository: str, revision: str) -> None:
        self.name = f"{url.rstrip('/')}/{repository}"
        self._hub = hub
        self._repository = repository
        self._revision = revision

    def resolve(self) -> str:
        return self._hub.resolve(self._repository, self._revision)

    def listing(self, revision: str) -> list[Remote]:
        files = self._hub.listing(self._repository, revision)
        for file in files:
            if not file.identity:
                raise InstallError(f"The hub gives no hash of {file.path}; nothing is taken that cannot be checked.")
        return files

    def fetch(self, revision: str, part: Part, advance: Advance) -> None:
        tries = Tries(self._hub.patience, self._hub.wait)
        for _ in range(SPOILED_MAX):
            while not part.is_whole:
                before = part.length
                try:
                    self._try(revision, part, advance)
                except Hindered as hindrance:
                    if part.length > before:
                        tries.moved()
                    tries.failed(hindrance)
            if part.is_as_announced:
                return
            advance(-part.length)
            part.restart()
        raise InstallError(
            f"{part.remote.path} arrived {SPOILED_MAX} times with other content than its hash says; nothing is"
            " installed. Something between here and the hub changes it."
        )

    def _try(self, revision: str, part: Part, advance: Advance) -> None:
        """One request for what is missing; returns when the part is whole, and raises Hindered when it is not."""
        if part.remote.bytes == 0:
            return
        headers: dict[str, str] = {}
        tag = part.tag
        if part.length:
            headers["Range"] = f"bytes={part.length}-"
            if tag and not tag.startswith("W/"):
                headers["If-Range"] = tag
        with self._hub.content(self._repository, revision, part.remote.path, headers) as response:
            if part.length and not _continues(response, part, tag):
                advance(-part.length)
                part.restart()
                if response.status_code == 206:
                    raise Hindered(f"{response.url.host} has other content than before")
            part.set_tag(response.headers.get("ETag", ""))
            self._pour(response, part, advance)
        if not part.is_whole:
            raise Hindered(f"{response.url.host} ended {part.remote.path} early")

    def _pour(self, response: httpx.Response, part: Part, advance: Advance) -> None:
        try:
            for chunk in response.iter_raw():
                if part.length + len(chunk) > part.remote.bytes:
                    advance(-part.length)
                    part.restart()
                    raise Hindered(f"{response.url.host} sends more of {part.remote.path} than it announced")
                part.add(chunk)
                advance(len(chunk))
        except httpx.ReadTimeout as error:
            raise Hindered(f"{response.url.host} fell silent in the middle of {part.remote.path}") from error
        except httpx.TransportError as error:
            raise Hindered(f"{response.url.host} broke off in the middle of {part.remote.path}") from error

    def close(self) -> None:
        self._hub.close()


def _continues(response: httpx.Response, part: Part, tag: str) -> bool:
    """Whether the answer goes on where the part ends, with the content that it began with."""
    expected = f"bytes {part.length}-{part.remote.bytes - 1}/{part.remote.bytes}"
    same = not tag or response.headers.get("ETag", tag) == tag
    return response.status_code == 206 and same and response.headers.get("Content-Range") == expected


class FolderSource:
    """A folder in the diffusers layout, or the folder of a model as a box keeps it, from which its full weights come.

    No network is used. Of another box's folder the hashes are known and compared; of any other they are recorded.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.expanduser().absolute()
        if not self._folder.is_dir():
            raise InstallError(f"{folder} is no folder; --from names one in the diffusers layout.")
        self.name = str(self._folder)
        self._inventory = read_inventory(self._folder)
        if self._inventory is not None:
            record = self._inventory.record.variants.get(FULL)
            if record is None:
                raise InstallError(
                    f"{folder} holds only quantised weights, made for the cards of another box; install there with"
                    " --keep-full and copy the folder again."
                )
            if not _FOLDER.fullmatch(record.folder):
                raise InstallError(f"{folder} has a record that names a folder {record.folder!r}; copy it again.")
            self._folder = self._folder / record.folder

    def resolve(self) -> str:
        revision = "" if self._inventory is None else self._inventory.record.revision
        return revision if _COMMIT.fullmatch(revision) else ""

    def listing(self, revision: str) -> list[Remote]:  # noqa: ARG002 - a folder has one
        known = {} if self._inventory is None else known_hashes(self._inventory)
        found: list[Remote] = []
        for folder in (self._folder, *sorted(path for path in self._folder.iterdir() if path.is_dir())):
            for path in sorted(folder.iterdir()):
                name = path.relative_to(self._folder).as_posix()
                if path.name.startswith(".") or not path.is_file():
                    continue
                about = path.stat()
                mark = f"{about.st_size}-{about.st_mtime_ns}"
                found.append(Remote(path=name, bytes=about.st_size, sha256=known.get(name, ""), mark=mark))
                if len(found) > FILES_MAX:
                    raise InstallError(f"{self._folder} holds more than {FILES_MAX} files; is it the right folder?")
        return found

    def fetch(self, revision: str, part: Part, advance: Advance) -> None:  # noqa: ARG002
        if part.length:  # nothing tells whether it began with the same content
            advance(-part.length)
            part.restart()
        path = self._folder / part.remote.path
        with path.open("rb") as file:
            while chunk := _read(file, path):
                if part.length + len(chunk) > part.remote.bytes:
                    break
                part.add(chunk)
                advance(len(chunk))
        if path.stat().st_size != part.remote.bytes or not part.is_whole:
            raise InstallError(f"{path} changed while it was copied; run the command again.")
        if not part.is_as_announced:
            raise InstallError(f"{path} is not what its record says (its SHA-256 differs): copy the folder again.")

    def close(self) -> None:
        """Nothing is open."""


def _read(file: IO[bytes], path: Path) -> bytes:
    try:
        return file.read(CHUNK_BYTES)
    except OSError as error:  # a disk that was pulled out; the error itself names no file
        raise InstallError(f"{path} cannot be read ({error.strerror}); run the command again once it can.") from error


def known_hashes(inventory: Inventory) -> dict[str, str]:
    """The hashes of the full weights by their path below them."""
    prefix = f"{inventory.record.variants[FULL].folder}/"
    return {file.path.removeprefix(prefix): file.sha256 for file in inventory.files if file.path.startswith(prefix)}


def is_same_blob(path: Path, remote: Remote, advance: Advance) -> bool:
    """Whether a file that is here already is what the source announces; it is read to know."""
    try:
        if path.stat().st_size != remote.bytes or not (remote.sha256 or remote.git_sha1):
            return False
        digest = hashlib.sha256() if remote.sha256 else git_blob(remote.bytes)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                advance(len(chunk))
        return digest.hexdigest() == (remote.sha256 or remote.git_sha1)
    except OSError:
        return False
