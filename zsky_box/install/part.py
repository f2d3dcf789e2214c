"""A file that is still arriving: bytes on the disk and their hashes, always of the same length."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from zsky_box.errors import InstallError
from zsky_box.install.disk import Disk, full, is_full
from zsky_box.install.listing import Remote
from zsky_box.secretfile import sync_folder

CHUNK_BYTES: Final = 1024 * 1024
SUFFIX: Final = ".part"
_TAG_SUFFIX: Final = ".part-tag"
_TAG_CHARACTERS_MAX: Final = 1_000


class Part:
    """The part of `target` that is here. Use it as a context; it stays on the disk until it is `keep`t or dropped."""

    def __init__(self, target: Path, remote: Remote, disk: Disk) -> None:
        self.remote = remote
        self._target = target
        self._path = target.with_name(target.name + SUFFIX)
        self._tag_path = target.with_name(target.name + _TAG_SUFFIX)
        self._disk = disk

    def __enter__(self) -> Part:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        self._begin()
        if os.fstat(self._fd).st_size > self.remote.bytes:
            self.restart()
        while chunk := os.read(self._fd, CHUNK_BYTES):
            self._note(chunk)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._fd)

    @property
    def is_whole(self) -> bool:
        """Whether as many bytes are here as were announced."""
        return self.length == self.remote.bytes

    @property
    def sha256(self) -> str:
        """Of the bytes that are here."""
        return self._sha256.hexdigest()

    @property
    def is_as_announced(self) -> bool:
        """Whether the bytes hash to what was announced; where nothing was, whatever came is it."""
        if self.remote.sha256:
            return self.sha256 == self.remote.sha256
        return not self.remote.git_sha1 or self._sha1.hexdigest() == self.remote.git_sha1

    @property
    def tag(self) -> str:
        """The server's ETag of the content that these bytes are the beginning of, or empty."""
        try:
            return self._tag_path.read_text("utf-8")[:_TAG_CHARACTERS_MAX]
        except (FileNotFoundError, UnicodeDecodeError):
            return ""

    def set_tag(self, tag: str) -> None:
        """Remember the ETag, before the first byte that it is of."""
        self._tag_path.write_text(tag[:_TAG_CHARACTERS_MAX], "utf-8")

    def add(self, data: bytes) -> None:
        """Add bytes; raises InstallError where the disk is full. The caller sees to it that there are not too many."""
        view = memoryview(data)
        while view:
            try:
                taken = self._disk.write(self._fd, view)
            except OSError as error:
                if is_full(error):
                    raise full(self._target) from error
                raise
            self._note(view[:taken])
            view = view[taken:]

    def restart(self) -> None:
        """Drop all bytes."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._tag_path.unlink(missing_ok=True)
        self._begin()

    def keep(self) -> None:
        """Make it the target, durably; only where it `is_whole`."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise (
                full(self._target) if is_full(error) else InstallError(f"{self._target}: {error.strerror}")
            ) from error
        self._path.replace(self._target)
        self._tag_path.unlink(missing_ok=True)
        sync_folder(self._target.parent)

    def _begin(self) -> None:
        self.length = 0
        self._sha256 = hashlib.sha256()
        self._sha1 = git_blob(self.remote.bytes)

    def _note(self, data: bytes | memoryview) -> None:
        self.length += len(data)
        self._sha256.update(data)
        if self.remote.git_sha1 and not self.remote.sha256:
            self._sha1.update(data)


def git_blob(size: int) -> Any:
    """What makes a git blob's id, by which hubs name small files. No protection rests on SHA-1 alone: see `sha256`."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def part_bytes(target: Path, remote: Remote) -> int:
    """How much of a file is here; a part that is too long is none."""
    path = target.with_name(target.name + SUFFIX)
    size = path.stat().st_size if path.exists() else 0
    return size if size <= remote.bytes else 0
