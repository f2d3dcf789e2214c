"""Files of finished jobs: adopted by one rename, named by rows, served under signed paths, removed on record.

`outputs/.tmp/JOB.TOKEN/` is an attempt's own folder; `outputs/JOB/TOKEN/` holds what it left when it succeeded. No path
ever comes from a client: an id leads to a row, and the row to a file under the root.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import logging
import os
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import Struct

from zsky_box import ids
from zsky_box.clock import SECOND_US
from zsky_box.db import Row, Store, Tx
from zsky_box.errors import JobFailure, Refusal, not_found
from zsky_box.events import File
from zsky_box.secretfile import sync_folder

HOUR_SECONDS: Final = 3_600
_STEM_MAX: Final = 48
_PURGE_BATCH: Final = 500
_QUERY_BATCH: Final = 500
_TO_PURGE: Final = (
    "SELECT id, path FROM asset INDEXED BY asset_to_purge WHERE removed_at IS NOT NULL AND purged_at IS NULL AND id > ?"
    " ORDER BY id LIMIT ?"
)
TMP: Final = ".tmp"


log = logging.getLogger(__name__)


class Asset(Struct, frozen=True):
    """One file of a finished job; `path` is relative to the outputs' root."""

    id: str
    job_id: str
    path: str
    file: File
    created_at: int
    removed_at: int | None


def stem(prompt: str, seed: int) -> str:
    """A readable file name of a prompt's first words and the seed; ASCII, for any file system."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain)[:_STEM_MAX].strip("-")
    return f"{words or 'untitled'}-{seed}"


class Assets:
    """The outputs' folder and the rows that name what is in it."""

    def __init__(self, store: Store, root: Path, signing_key: bytes, url_hours: int) -> None:
        self.root = root
        self._store = store
        self._signing_key = signing_key
        self._url_seconds = url_hours * HOUR_SECONDS
        self._purged_to = ""  # the id that the next purge goes on after
        (root / TMP).mkdir(parents=True, exist_ok=True)

    # Files

    def attempt_folder(self, job_id: str, token: int) -> Path:
        """Where an attempt writes; in the outputs' own file system, so that adopting it is a rename."""
        return self.root / TMP / f"{job_id}.{token}"

    def begin(self, job_id: str, token: int) -> Path:
        """Make the attempt's folder, empty."""
        folder = self.attempt_folder(job_id, token)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def adopt(self, job_id: str, token: int, files: tuple[File, ...]) -> str:
        """Move a finished attempt to its lasting place, durably; returns the folder relative to the root.

        The child has fsynced each file and the folder. Raises JobFailure when a file is not there or not whole. May be
        called again: a store that failed after the first call is asked once more.
        """
        target = self.root / job_id / str(token)
        folder = self.attempt_folder(job_id, token)
        if not folder.exists() and target.is_dir():
            folder = target
        for file in files:
            if Path(file.name).name != file.name or not _is_whole(folder / file.name, file.bytes):
                raise JobFailure("internal_error", f"The worker reported {file.name}, but the file is not whole.")
        try:
            if folder != target:
                _keep_only(folder, {file.name for file in files})
                target.parent.mkdir(exist_ok=True)
                folder.rename(target)
            sync_folder(target.parent)
            sync_folder(self.root)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise JobFailure("storage_full", "The outputs' disk is full.") from error
            raise JobFailure("internal_error", f"The result could not be stored ({error.strerror}).") from error
        return f"{job_id}/{token}"

    def discard(self, job_id: str, token: int | None = None) -> None:
        """Remove what an unsuccessful attempt left (of a job without a result: all of it)."""
        if token is None:
            shutil.rmtree(self.root / job_id, ignore_errors=True)
            for folder in (self.root / TMP).glob(f"{job_id}.*"):
                shutil.rmtree(folder, ignore_errors=True)
            return
        shutil.rmtree(self.attempt_folder(job_id, token), ignore_errors=True)
        shutil.rmtree(self.root / job_id / str(token), ignore_errors=True)
        _remove_empty(self.root / job_id)

    def clear_temporary(self) -> None:
        """At start, when no attempt runs: everything under the temporary folder is a leftover."""
        shutil.rmtree(self.root / TMP, ignore_errors=True)
        (self.root / TMP).mkdir(parents=True, exist_ok=True)

    def remove_unrecorded(self) -> int:
        """At start, when no attempt runs: what the box moved into place and was stopped before it recorded it.

        Only folders of jobs that the ledger knows and that have no file by it; returns how many were removed.
        """
        names = [entry.name for entry in self.root.iterdir() if entry.name.startswith("job_")]
        removed = 0
        for first in range(0, len(names), _QUERY_BATCH):
            batch = names[first : first + _QUERY_BATCH]
            marks = ",".join("?" * len(batch))
            for row in self._store.all(
                f"SELECT id FROM job WHERE id IN ({marks})"  # noqa: S608
                " AND NOT EXISTS (SELECT 1 FROM asset WHERE job_id = job.id AND purged_at IS NULL)",
                tuple(batch),
            ):
                shutil.rmtree(self.root / row["id"], ignore_errors=True)
                removed += 1
        return removed

    def free_bytes(self) -> int:
        """Space left where results are written."""
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    # Rows

    def record(self, tx: Tx, job_id: str, folder: str, files: tuple[File, ...], now: int) -> None:
        """Name the files of a job that completes in this transaction."""
        for file in files:
            tx.execute(
                "INSERT INTO asset (id, job_id, ordinal, kind, path, facts, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    ids.new("file"),
                    job_id,
                    file.ordinal,
                    file.kind,
                    f"{folder}/{file.name}",
                    msgspec.json.encode(file).decode(),
                    now,
                ),
            )

    def of_jobs(self, job_ids: list[str]) -> dict[str, list[Asset]]:
        """The files of each job, results in the order of their ordinals."""
        if not job_ids:
            return {}
        marks = ",".join("?" * len(job_ids))
        found: dict[str, list[Asset]] = {}
        for row in self._store.all(
            f"SELECT * FROM asset WHERE job_id IN ({marks}) ORDER BY ordinal, kind DESC",  # noqa: S608
            tuple(job_ids),
        ):
            found.setdefault(row["job_id"], []).append(_from_row(row))
        return found

    def mark_removed(self, tx: Tx, job_id: str, now: int) -> None:
        """Record the removal; `purge` then unlinks, now or after the next start."""
        tx.execute("UPDATE asset SET removed_at = ? WHERE job_id = ? AND removed_at IS NULL", (now, job_id))

    def purge(self, now: int) -> int:
        """Unlink some of what is recorded as removed; returns how many files, 0 once none is left that can go.

        What cannot go now is passed over, and tried again when the others were.
        """
        begun_after, self._purged_to = self._purged_to, ""
        return self._purge_after(begun_after, now) or (self._purge_after("", now) if begun_after else 0)

    def _purge_after(self, after: str, now: int) -> int:
        """The next batch of files beyond an id of which any can go; how many of them went."""
        while True:
            rows = self._store.all(_TO_PURGE, (after, _PURGE_BATCH))
            purged = self._unlink(rows)
            if purged:
                self._store.write(lambda tx, gone=purged: _mark_purged(tx, gone, now))
            after = rows[-1]["id"] if len(rows) == _PURGE_BATCH else ""
            if purged or not after:
                self._purged_to = after
                return len(purged)

    def _unlink(self, rows: list[Row]) -> list[str]:
        """The ids of those whose files are gone now."""
        gone: list[str] = []
        kept: list[tuple[Path, OSError]] = []
        for row in rows:
            path = self.root / row["path"]
            try:
                path.unlink(missing_ok=True)
                for folder in (path.parent, path.parent.parent):
                    _remove_empty(folder)
            except OSError as error:
                kept.append((path, error))
                continue
            gone.append(row["id"])
        if kept:
            told = "%d files are recorded as removed but could not be unlinked, the first of them %s: %s"
            log.warning(told, len(kept), *kept[0])
        return gone

    # Signed paths

    def signed_path(self, asset: Asset, now: int) -> str:
        """`/files/ID/NAME?expires=…&signature=…`; the expiry is rounded up to the hour: stable across polls."""
        expires = -(-(now // SECOND_US + self._url_seconds) // HOUR_SECONDS) * HOUR_SECONDS
        path = f"/files/{asset.id}/{quote(asset.file.name)}"
        return f"{path}?expires={expires}&signature={self._signature(path, expires)}"

    def open_signed(self, asset_id: str, name: str, expires: str, signature: str, now: int) -> tuple[Asset, Path]:
        """The file behind a signed path; raises 403, 404 or 410."""
        path = f"/files/{asset_id}/{quote(name, errors='replace')}"
        known = expires.isascii() and expires.isdigit() and len(expires) <= 12
        if not (known and signature.isascii() and asset_id.isascii()):
            raise _bad_signature()
        if not hmac.compare_digest(signature, self._signature(path, int(expires))):
            raise _bad_signature()
        if int(expires) * SECOND_US <= now:
            raise Refusal(403, "expired_signature", "This link has expired; ask job_status for a fresh one.")
        row = self._store.one("SELECT * FROM asset WHERE id = ?", (asset_id,))
        if row is None:
            raise not_found("file")
        asset = _from_row(row)
        file = self.root / asset.path
        if asset.removed_at is not None:
            raise Refusal(410, "result_removed", "This result was removed; the job and its charge stay readable.")
        if file.is_symlink() or not file.is_file():
            raise Refusal(410, "result_removed", "This result is no longer on the box's disk.")
        return asset, file

    def _signature(self, path: str, expires: int) -> str:
        return hmac.digest(self._signing_key, f"{path}\n{expires}".encode(), hashlib.sha256).hex()[:43]


def _is_whole(path: Path, size_bytes: int) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size == size_bytes


def _keep_only(folder: Path, names: set[str]) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name not in names:
            entry.unlink()


def _remove_empty(folder: Path) -> None:
    """Two purges may meet in one folder: that it is gone already, or has been filled again, is as good."""
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            raise


def _mark_purged(tx: Tx, asset_ids: list[str], now: int) -> None:
    for asset_id in asset_ids:
        tx.execute("UPDATE asset SET purged_at = ? WHERE id = ?", (now, asset_id))


def _bad_signature() -> Refusal:
    return Refusal(403, "invalid_signature", "This link is not one the box has made; ask job_status for a fresh one.")


def _from_row(row: Row) -> Asset:
    file = msgspec.json.decode(row["facts"], type=File)
    return Asset(row["id"], row["job_id"], row["path"], file, row["created_at"], row["removed_at"])
