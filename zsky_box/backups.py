"""Copies of what cannot be made again: ledger, secrets and settings, in one file each, read back before it counts.

A backup is a gzipped tar. `manifest.json`, first in it, says what is in the others and when they were read. The ledger
is one state of it, copied by SQLite beside the running service, and verified as a whole.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from zsky_box import audit, db, secretfile, settings, timeline
from zsky_box.clock import DAY_US, SECOND_US, Clock, rfc3339
from zsky_box.db import Store
from zsky_box.errors import BackupError, ZskyError, not_found
from zsky_box.ledger.verify import verify

log = logging.getLogger(__name__)

FOLDER: Final = "backups"
MANIFEST: Final = "manifest.json"
MANIFEST_MAX_BYTES: Final = 64 * 1024
PAGES_PER_STEP: Final = 2_048
BLOCK_BYTES: Final = 1024 * 1024
STOP_SECONDS: Final = 10.0
LISTED_MAX: Final = 1_000
_LEVEL: Final = 1  # the ledger is packed to a third at any level, and time is what a box lacks
_MAKING: Final = ".making-"
_NAME: Final = re.compile(r"zsky-([0-9]{8}T[0-9]{6}Z)\.tar\.gz", re.ASCII)
_STAMP: Final = "%Y%m%dT%H%M%SZ"

Phase = Literal["copying", "verifying", "packing", "reading back"]
Told = Callable[[Phase, int, int], None]
"""Called now and then with the phase and how much of it is done; raises to give up."""


class Part(Struct, frozen=True):
    """A file of a backup."""

    bytes: int
    sha256: str


class Manifest(Struct, frozen=True, kw_only=True):
    """What a backup holds: of which box's version and schema, up to which row of the audit, and its files."""

    made_at: str
    version: str
    schema: int
    newest_row: int
    files: dict[str, Part]


class Backup(Struct, frozen=True):
    """A backup in the folder: its name, the time that it is of in microseconds, and its size."""

    name: str
    made_at: int
    bytes: int


class Making(Struct, kw_only=True):
    """A backup that is made or read anew, or how that ended: `done` of `of` of its phase; `told` is said last."""

    begun_at: int
    state: Literal["running", "done", "failed"] = "running"
    phase: Phase = "copying"
    done: int = 0
    of: int = 0
    told: str = ""
    ended_at: int | None = None


def write(folder: Path, target: Path, now: int, told: Told) -> Manifest:
    """Copy the box in `folder` into the new file `target`, beside the running service or without one.

    Raises BackupError where the ledger does not verify, or the file cannot be written or does not read back: then there
    is no such file.
    """
    work = Path(tempfile.mkdtemp(prefix=_MAKING, dir=target.parent))
    try:
        ledger = work / db.FILE_NAME
        _copy_ledger(folder / db.FILE_NAME, ledger, told)
        schema, newest = _verify(ledger, told)
        files = [ledger, *(path for name in _BESIDE if (path := folder / name).is_file())]
        parts = {path.name: Part(path.stat().st_size, _sha256(path)) for path in files}
        manifest = Manifest(
            made_at=rfc3339(now), version=version("zsky-box"), schema=schema, newest_row=newest, files=parts
        )
        packed = work / "packed"
        _pack(packed, manifest, files, told)
        check(packed, told)
        packed.rename(target)
        secretfile.sync_folder(target.parent)
    except (OSError, sqlite3.Error, tarfile.TarError) as error:
        raise BackupError(f"the backup could not be made: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def check(path: Path, told: Told) -> Manifest:
    """Read a backup from its first byte to its last; raises BackupError unless all of it is as its manifest says."""
    try:
        with tarfile.open(path, "r|gz") as archive:
            manifest, found = _read(archive, told)
    except (OSError, EOFError, tarfile.TarError, msgspec.DecodeError, ValueError) as error:
        raise BackupError(f"the backup does not read back: {error}") from error
    if found != manifest.files:
        wrong = sorted(name for name in {*found, *manifest.files} if found.get(name) != manifest.files.get(name))
        raise BackupError(f"the backup does not read back: {', '.join(wrong)} is not as it was written")
    return manifest


class Backups:
    """The backups of a running box, at most `kept` of them, and the one that is made now."""

    def __init__(self, folder: Path, store: Store, clock: Clock, kept: int) -> None:
        self.folder = folder / FOLDER
        self._data = folder
        self._store = store
        self._clock = clock
        self._kept = kept
        self._lock = threading.Lock()
        self._making: Making | None = None
        self._thread: threading.Thread | None = None
        self._closing = False

    def last(self) -> Making | None:
        """The one that is made or read, or was last since the start; a copy."""
        with self._lock:
            return None if self._making is None else msgspec.structs.replace(self._making)

    def listed(self) -> list[Backup]:
        """What there is, the newest first."""
        found: list[Backup] = []
        for path in self.folder.glob("zsky-*.tar.gz"):
            if (name := _NAME.fullmatch(path.name)) and path.is_file() and not path.is_symlink():
                at = datetime.strptime(name[1], _STAMP).replace(tzinfo=UTC)
                found.append(Backup(path.name, round(at.timestamp()) * SECOND_US, path.stat().st_size))
        return sorted(found, key=lambda backup: backup.name, reverse=True)[:LISTED_MAX]

    def path(self, name: str) -> Path:
        """Where a backup of the list lies; raises 404."""
        if name not in {backup.name for backup in self.listed()}:
            raise not_found("backup")
        return self.folder / name

    def begin(self, actor: str) -> bool:
        """Begin to make one; False where one is made or read already, or the box stops."""
        return self._begin(lambda making: self._make(making, actor))

    def begin_check(self, name: str) -> bool:
        """Begin to read one from end to end, and to compare it with what is on record; raises 404."""
        path = self.path(name)
        return self._begin(lambda making: self._check(making, path))

    def delete(self, name: str, actor: str) -> None:
        """Remove one, on record; raises 404."""
        path = self.path(name)
        path.unlink(missing_ok=True)
        self._store.write(lambda tx: self._record(tx, "backup.deleted", actor, name, {}))

    def _begin(self, work: Callable[[Making], None]) -> bool:
        with self._lock:
            if self._closing or (self._making is not None and self._making.state == "running"):
                return False
            self._making = Making(begun_at=self._clock())
            self._thread = threading.Thread(target=work, args=(self._making,), name="backup", daemon=True)
            self._thread.start()
            return True

    def begin_if_due(self) -> bool:
        """Begin one where the newest is a day old, or of a time to come."""
        newest = next(iter(self.listed()), None)
        if newest is not None and 0 <= self._clock() - newest.made_at < DAY_US:
            return False
        return self.begin("box")

    def clear(self) -> None:
        """Remove what a start that was cut off left unfinished."""
        for path in self.folder.glob(f"{_MAKING}*"):
            shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Give up what is made, in bounded time."""
        with self._lock:
            self._closing = True
            thread = self._thread
        if thread is not None:
            thread.join(STOP_SECONDS)

    def _make(self, making: Making, actor: str) -> None:
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            stamp = datetime.fromtimestamp(making.begun_at // SECOND_US, UTC).strftime(_STAMP)
            target = self.folder / f"zsky-{stamp}.tar.gz"

            manifest = write(self._data, target, making.begun_at, self._teller(making))
            size, digest = target.stat().st_size, _sha256(target)
            after = {"bytes": size, "sha256": digest, "newest_row": manifest.newest_row}
            self._store.write(lambda tx: self._record(tx, "backup.made", actor, target.name, after))
            self._prune()
        except _Stopped:
            self._end(making, "failed", "The box stopped before it was done.")
        except (ZskyError, OSError) as error:
            log.error("no backup was made: %s", error)
            text = str(error)
            self._end(making, "failed", f"{text[:1].upper()}{text[1:]}.")
        else:
            self._end(making, "done", f"{target.name} is made, verified and read back.")

    def _check(self, making: Making, path: Path) -> None:
        try:
            manifest = check(path, self._teller(making))
            if (recorded := self._recorded_sha256(path.name)) not in (None, _sha256(path)):
                raise BackupError(f"{path.name} is not the one that was made: its sum on record is {recorded}")
        except _Stopped:
            self._end(making, "failed", "The box stopped before it was read.")
        except (ZskyError, OSError) as error:
            log.error("backup %s: %s", path.name, error)
            self._end(making, "failed", f"{path.name}: {error}.")
        else:
            told = f"{path.name} is whole: the ledger up to row {manifest.newest_row:,}, of {manifest.made_at}."
            self._end(making, "done", told)

    def _recorded_sha256(self, name: str) -> str | None:
        """Of the audit, which nobody changes unseen; None for a file that this ledger did not see made."""
        row = self._store.one(
            "SELECT json_extract(after, '$.sha256') AS sha256 FROM audit WHERE action = 'backup.made' AND subject = ?"
            " ORDER BY id DESC LIMIT 1",
            (name,),
        )
        return None if row is None else str(row["sha256"])

    def _record(self, tx: db.Tx, action: str, actor: str, name: str, after: dict[str, int | str]) -> None:
        at = timeline.advance_anyhow(tx, self._clock())
        audit.append(tx, at=at, account_id=None, actor=actor, action=action, subject=name, after=after)

    def _prune(self) -> None:
        for backup in self.listed()[self._kept :]:
            (self.folder / backup.name).unlink(missing_ok=True)

    def _teller(self, making: Making) -> Told:
        return lambda phase, done, of: self._tell(making, phase, done, of)

    def _tell(self, making: Making, phase: Phase, done: int, of: int) -> None:
        with self._lock:
            if self._closing:
                raise _Stopped
            making.phase, making.done, making.of = phase, done, of

    def _end(self, making: Making, state: Literal["done", "failed"], told: str) -> None:
        with self._lock:
            making.state, making.told, making.ended_at = state, told, self._clock()


class _Stopped(Exception):
    """The box stops."""


_BESIDE: Final = (secretfile.FILE_NAME, settings.FILE_NAME)


def _copy_ledger(source: Path, target: Path, told: Told) -> None:
    target.touch(0o600)
    with closing(db.connect(source, read_only=True)) as reader, closing(sqlite3.connect(target)) as copy:
        with db.snapshot(reader) as rows:
            rows.one("SELECT clock_at FROM box")  # the copy is of this moment, whatever is written meanwhile
            reader.backup(copy, pages=PAGES_PER_STEP, progress=lambda _, left, of: told("copying", of - left, of))
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it


def _verify(ledger: Path, told: Told) -> tuple[int, int]:
    """The copy's schema and newest audit row; raises BackupError where it breaks a rule."""
    with closing(db.connect(ledger, read_only=True)) as connection, db.snapshot(connection) as rows:
        of, read = _rows_of(rows), 0

        def read_on(count: int) -> None:
            nonlocal read
            read += count
            told("verifying", min(read, of), of)

        whole = rows.one("PRAGMA quick_check(1)")
        if whole is None or whole[0] != "ok":
            raise BackupError(f"the ledger is damaged: {None if whole is None else whole[0]}")
        if (fault := verify(rows, told=read_on).first) is not None:
            raise BackupError(f"the ledger does not verify, so it was not copied: {fault}")
        newest = rows.one("SELECT coalesce(max(id), 0) AS id FROM audit")
        schema = rows.one("PRAGMA user_version")
        return 0 if schema is None else int(schema[0]), 0 if newest is None else int(newest["id"])


def _rows_of(rows: db.Rows) -> int:
    found = rows.one("SELECT (SELECT count(*) FROM transfer) + (SELECT count(*) FROM audit) AS n")
    return 0 if found is None else int(found["n"])


def _pack(target: Path, manifest: Manifest, files: list[Path], told: Told) -> None:
    of, done = sum(part.bytes for part in manifest.files.values()), 0
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as raw:
        with (
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=_LEVEL, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            text = msgspec.json.format(msgspec.json.encode(manifest))
            archive.addfile(_header(MANIFEST, len(text)), io.BytesIO(text))
            for path in files:
                with path.open("rb") as file:
                    archive.addfile(_header(path.name, manifest.files[path.name].bytes), file)
                done += manifest.files[path.name].bytes
                told("packing", done, of)
        raw.flush()
        os.fsync(raw.fileno())


def _header(name: str, size_bytes: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size_bytes, 0o600
    return header


def _read(archive: tarfile.TarFile, told: Told) -> tuple[Manifest, dict[str, Part]]:
    """The manifest and what the files after it are in truth."""
    first = archive.next()
    content = archive.extractfile(first) if first is not None else None
    if first is None or content is None or first.name != MANIFEST or first.size > MANIFEST_MAX_BYTES:
        raise ValueError("it does not begin with a manifest")
    manifest = msgspec.json.decode(content.read(), type=Manifest)
    of, done = sum(part.bytes for part in manifest.files.values()), 0
    found: dict[str, Part] = {}
    while (member := archive.next()) is not None and len(found) <= len(manifest.files):
        file, digest, size = archive.extractfile(member), hashlib.sha256(), 0
        while file is not None and (block := file.read(BLOCK_BYTES)):
            digest.update(block)
            size += len(block)
            done += len(block)
            told("reading back", done, of)
        found[member.name] = Part(size, digest.hexdigest())
    return manifest, found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
