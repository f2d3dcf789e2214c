"""The files that the ledger's charges paid for: on disk, of the size on record, and with their content if asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from zsky_box.db import Row, Rows
from zsky_box.events import File
from zsky_box.ledger.verify_report import Fault

FILES: Final = "a result that is not removed on record is on disk"
_BLOCK_BYTES: Final = 1024 * 1024


class Files(Struct, frozen=True):
    """Where results lie and how closely to look.

    `is_removed` tells of an asset's id whether its removal is on record by now: files go while the service runs.
    """

    root: Path
    content: bool
    is_removed: Callable[[str], bool]


def first_fault(rows: Rows, files: Files) -> tuple[int, Fault | None]:
    """How many files were looked at, and the first that is not as recorded."""
    count = 0
    for row in rows.each("SELECT id, job_id, path, facts FROM asset WHERE removed_at IS NULL ORDER BY rowid"):
        count += 1
        told = _wrong(row, files)
        if told is not None and not files.is_removed(row["id"]):
            return count, Fault(FILES, "asset", row["id"], f"of {row['job_id']} {told}")
    return count, None


def _wrong(row: Row, files: Files) -> str | None:
    path = files.root / row["path"]
    try:
        facts = msgspec.json.decode(row["facts"], type=File)
        size_bytes = path.stat().st_size if path.is_file() else None
        if size_bytes is None:
            return f"is not on disk: {row['path']}"
        if size_bytes != facts.bytes:
            return f"has {size_bytes} bytes on disk, {facts.bytes} on record: {row['path']}"
        if files.content and _sha256(path) != facts.sha256:
            return f"is not what was recorded: {row['path']}"
    except (OSError, msgspec.DecodeError) as error:
        return f"cannot be read: {error}"
    return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
