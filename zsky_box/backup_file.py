"""One backup: ledger, secrets and settings in a file, verified before and read back after it is written.

It is a gzipped tar. `manifest.json`, first in it, says what is in the others and when they were read. The ledger is one
state of it, copied by SQLite beside the running service, and verified as a whole.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from zsky_box import db, secretfile, settings
from zsky_box.clock import rfc3339
from zsky_box.errors import BackupError
from zsky_box.ledger.verify import verify

MANIFEST: Final = "manifest.json"
MANIFEST_MAX_BYTES: Final = 64 * 1024
PAGES_PER_STEP: Final = 2_048
BLOCK_BYTES: Final = 1024 * 1024
UNFINISHED: Final = ".making-"
"""How the folder's name begins in which a backup is put together, beside where it will lie."""
_BESIDE: Final = (secretfile.FILE_NAME, settings.FILE_NAME)
_LEVEL: Final = 1  # the ledger is packed to a third at any level, and time is what a box lacks

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


def write(folder: Path, target: Path, now: int, told: Told) -> Manifest:
    """Copy the box in `folder` into the new file `target`, beside the running service or without one.

    Raises BackupError where the ledger does not verify, or the file cannot be written or does not read back: then there
    is no such file.
    """
    work = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=target.parent))
    try:
        ledger = work / db.FILE_NAME
        _copy_ledger(folder / db.FILE_NAME, ledger, told)
        schema, newest = _verify(ledger, told)
        files = [ledger, *(path for name in _BESIDE if (path := folder / name).is_file())]
        parts = {path.name: Part(path.stat().st_size, sha256(path)) for path in files}
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


def sha256(path: Path) -> str:
    """A file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
