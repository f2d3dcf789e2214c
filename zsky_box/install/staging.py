"""Where a model is put together before it appears: `weights/.NAME.installing`, its lock, its journal, and the rename.

.NAME.lock          held by whoever installs, verifies or removes the model; the kernel lets go of it
.NAME.installing/   pin.json: what is being installed; done.jsonl: which files are whole; tree/: the folder to be
.NAME.old/          the installation before, between the two renames of a replacement
.NAME.removing/     what was removed, while its files go
NAME/               the model, complete with its record
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from zsky_box.catalog import RECORD_NAME
from zsky_box.errors import InstallError
from zsky_box.install.listing import Remote
from zsky_box.install.stock import FileRecord, write_durable
from zsky_box.secretfile import sync_folder

_TAG_BYTES: Final = 4
_JOURNAL_LINES_MAX: Final = 100_000

log = logging.getLogger(__name__)


class Pin(Struct, frozen=True, kw_only=True):
    """What an unfinished installation is of. `tag` makes the folders of each installation new ones.

    A worker that holds the model knows it by its folder, so it loads anew what was installed anew.
    """

    source: str
    requested: str
    revision: str
    tag: str


class _Done(Struct, frozen=True):
    """A line of the journal: a file that is whole, durable, and was looked into."""

    file: FileRecord
    identity: str


class Staging:
    """One model's unfinished installation; use it under the model's lock."""

    def __init__(self, weights: Path, name: str) -> None:
        self.target = weights / name
        self.folder = weights / f".{name}.installing"
        self.tree = self.folder / "tree"
        self._old = weights / f".{name}.old"
        self._removing = weights / f".{name}.removing"
        self._journal = self.folder / "done.jsonl"

    def pinned(self) -> Pin | None:
        """What is unfinished here, or None."""
        try:
            return msgspec.json.decode((self.folder / "pin.json").read_bytes(), type=Pin)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def begin(self, source: str, requested: str, revision: str) -> Pin:
        """Drop whatever is unfinished, and begin anew."""
        self.clear()
        self.tree.mkdir(parents=True)
        pin = Pin(source=source, requested=requested, revision=revision, tag=secrets.token_hex(_TAG_BYTES))
        write_durable(self.folder / "pin.json", msgspec.json.encode(pin))
        return pin

    def clear(self) -> None:
        """Drop whatever is unfinished; the pin goes first, so that a half of it is never gone on with."""
        (self.folder / "pin.json").unlink(missing_ok=True)
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def done(self) -> dict[str, tuple[str, FileRecord]]:
        """The files that need no work any more: path to the identity that was announced, and the record."""
        found: dict[str, tuple[str, FileRecord]] = {}
        if not self._journal.exists():
            return found
        with self._journal.open("rb") as lines:
            for line, _ in zip(lines, range(_JOURNAL_LINES_MAX), strict=False):
                try:
                    entry = msgspec.json.decode(line, type=_Done)
                except msgspec.DecodeError:
                    break  # the line that a kill cut off
                found[entry.file.path] = (entry.identity, entry.file)
        return {path: entry for path, entry in found.items() if _is_there(self.tree / path, entry[1].bytes)}

    def note(self, file: FileRecord, remote: Remote) -> None:
        """Remember that a file is whole, which `keep` has made durable before."""
        with self._journal.open("ab") as journal:
            journal.write(msgspec.json.encode(_Done(file, remote.identity)) + b"\n")
            journal.flush()
            os.fsync(journal.fileno())

    def keep_only(self, below: str, paths: set[str]) -> None:
        """Drop what else lies there: files of a source that held more when an interrupted command began."""
        for path in (self.tree / below).rglob("*"):
            if not path.is_dir() and path.relative_to(self.tree).as_posix() not in paths:
                path.unlink()

    def reopen(self) -> None:
        """Before a command goes on: no record yet, and the journal without the line that a kill cut off."""
        (self.tree / RECORD_NAME).unlink(missing_ok=True)
        entries = self.done().values()
        lines = [msgspec.json.encode(_Done(file, identity)) + b"\n" for identity, file in entries]
        write_durable(self._journal, b"".join(lines))

    def publish(self) -> None:
        """Let the tree, which holds its record, be the model in place of what was installed before."""
        sync_tree(self.tree)
        if os.path.lexists(self.target):
            self.target.rename(self._old)
        self.tree.rename(self.target)
        sync_folder(self.target.parent)
        _drop(self._old)
        self.clear()

    def repair(self) -> None:
        """Finish a replacement that was killed between its renames, or go back where it cannot be finished."""
        if os.path.lexists(self._old) and not os.path.lexists(self.target):
            ready = (self.tree / RECORD_NAME).is_file()
            (self.tree if ready else self._old).rename(self.target)
            sync_folder(self.target.parent)
        _drop(self._old)
        _drop(self._removing)

    def remove(self) -> bool:
        """Remove the model and whatever is unfinished; False where there was neither."""
        was_there = os.path.lexists(self.target) or self.folder.exists()
        if os.path.lexists(self.target):
            self.target.rename(self._removing)  # gone from the catalogue at once, from the disk in a while
            sync_folder(self.target.parent)
            _drop(self._removing)
        self.clear()
        return was_there


def sync_tree(folder: Path) -> None:
    """Make all names below a folder, and the content of its files, durable."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            sync_folder(path)
        else:
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


@contextmanager
def locked(weights: Path, name: str) -> Generator[Staging]:
    """The model's lock, and its staging, any interrupted replacement repaired. Raises InstallError where it is held."""
    weights.mkdir(parents=True, exist_ok=True)
    fd = os.open(weights / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise InstallError(
                f"{name} is being installed, verified or removed by process {holder}; wait for it."
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        staging = Staging(weights, name)
        staging.repair()
        yield staging
    finally:
        os.close(fd)


def repair_all(weights: Path) -> list[str]:
    """At a start of the service: mend what a kill left between two renames; the names of the models that are back.

    A model that somebody installs right now is left to them, and what cannot be mended is logged: the box starts.
    """
    mended: list[str] = []
    for left in sorted([*weights.glob(".*.old"), *weights.glob(".*.removing")]):
        name = left.name.removeprefix(".").rpartition(".")[0]
        was_gone = not (weights / name).exists()
        try:
            with locked(weights, name):
                pass
        except InstallError:
            continue
        except OSError as error:
            log.error("%s was left by an interrupted command and cannot be cleared: %s", left, error)
            continue
        if was_gone and (weights / name).exists():
            mended.append(name)
    return mended


def _drop(folder: Path) -> None:
    """A link, by which an owner has put a model on another disk, goes without what it leads to."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
