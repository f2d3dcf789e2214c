"""Pictures that people send for jobs to begin with: decoded, named by rows, kept while a job may want them.

`uploads/UPLOAD.png` is what the decoder made of a picture, never what was sent; `uploads/.tmp/` holds what is still
being made. No path ever comes from a client: an id leads to a row, and the row to a file under the root. A file is in
its place before a row names it, so that a row never names what is not there; one that no row names goes again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

from zsky_box import ids
from zsky_box.clock import DAY_US
from zsky_box.db import Row, Rows, Store, Tx
from zsky_box.decoder import Decoder
from zsky_box.errors import FieldError, InvalidFields, JobFailure, Refusal, not_found
from zsky_box.keys import Caller
from zsky_box.picture import Clean
from zsky_box.secretfile import sync_folder
from zsky_box.settings import Settings

TMP: Final = ".tmp"
_SUFFIX: Final = ".png"
_PURGE_BATCH: Final = 500
_QUERY_BATCH: Final = 500
_KEPT: Final = "EXISTS (SELECT 1 FROM job WHERE job.upload_id = upload.id AND job.removed_at IS NULL)"

log = logging.getLogger(__name__)


class Upload(Struct, frozen=True):
    """One picture of an account, in live or in test mode; `bytes` are those of the stored PNG."""

    id: str
    width: int
    height: int
    bytes: int
    created_at: int
    removed_at: int | None = None


class Offered(Struct, frozen=True):
    """A picture whose file lies in its place, and that no row names yet."""

    id: str
    picture: Clean


class Uploads:
    """The uploads' folder and the rows that name what is in it."""

    def __init__(self, store: Store, root: Path, decoder: Decoder, settings: Settings) -> None:
        self.root = root
        self._store = store
        self._decoder = decoder
        self._settings = settings
        (root / TMP).mkdir(parents=True, exist_ok=True, mode=0o700)

    # From a client's bytes to a file

    @asynccontextmanager
    async def offered(self, content: bytes, *, field: str) -> AsyncGenerator[Offered]:
        """The picture, decoded and durably in its place, for a write within the block to record.

        Where no write has recorded it by the end of the block, the file is removed. Raises what `check` raises.
        """
        upload_id, picture = await self._decoded(content, field)
        await asyncio.to_thread(self._place, upload_id)
        is_known = False
        try:
            yield Offered(upload_id, picture)
            is_known = True
        except Refusal as refusal:
            # Whether a write has happened that the store could not finish is for the next start to find out.
            is_known = refusal.code != "storage_error"
            raise
        finally:
            if is_known:
                await self._store.read(lambda: self._withdraw(upload_id))

    async def check(self, content: bytes, *, field: str) -> None:
        """Raise what stands against a picture, and keep nothing: 415, 422 for `field`, or 503 `storage_full`."""
        upload_id, _ = await self._decoded(content, field)
        (self.root / TMP / f"{upload_id}{_SUFFIX}").unlink()

    async def _decoded(self, content: bytes, field: str) -> tuple[str, Clean]:
        if len(content) > self._settings.upload_max_bytes:
            most = f"{self._settings.upload_max_bytes:,} bytes"
            raise Refusal(413, "too_large", f"{field}: a picture may have {most}; send a smaller one.", field=field)
        self._check_space()
        upload_id = ids.new("up")
        return upload_id, await self._decoder.clean(content, self.root / TMP / f"{upload_id}{_SUFFIX}", field=field)

    def _check_space(self) -> None:
        status = os.statvfs(self.root)
        if status.f_bavail * status.f_frsize < self._settings.free_space_floor_bytes:
            detail = "The disk for uploads has too little space left; remove results or add space."
            raise Refusal(503, "storage_full", detail, headers={"Retry-After": "300"})

    def _place(self, upload_id: str) -> None:
        name = f"{upload_id}{_SUFFIX}"
        (self.root / TMP / name).rename(self.root / name)
        sync_folder(self.root)

    def _withdraw(self, upload_id: str) -> None:
        if self._store.one("SELECT 1 FROM upload WHERE id = ?", (upload_id,)) is None:
            self._unlink(upload_id)

    # Rows

    def record(self, tx: Tx, caller: Caller, offered: Offered, now: int) -> Upload:
        """Name a picture for jobs to come; raises 429 `queue_full` where too many wait for one already."""
        unused = tx.all(
            "SELECT count(*) AS n, coalesce(sum(bytes), 0) AS bytes FROM upload"
            " WHERE account_id = ? AND test = ? AND used_at IS NULL AND removed_at IS NULL",
            (caller.account.id, int(caller.key.test)),
        )[0]
        most, most_bytes = self._settings.unused_uploads_max, self._settings.unused_uploads_max_bytes
        if unused["n"] >= most or unused["bytes"] + offered.picture.bytes > most_bytes:
            raise Refusal(
                429,
                "queue_full",
                f"{unused['n']} uploads that no job has taken yet fill your room for them; use or delete some first.",
                headers={"Retry-After": "60"},
            )
        return _insert(tx, caller, offered, now, used_at=None)

    def take(self, tx: Tx, caller: Caller, upload_id: str, now: int) -> None:
        """A job begins with this upload, in the write that stores the job; raises 422 where it is not there (now)."""
        changed = tx.execute(
            "UPDATE upload SET used_at = coalesce(used_at, ?)"
            " WHERE id = ? AND account_id = ? AND test = ? AND removed_at IS NULL",
            (now, upload_id, caller.account.id, int(caller.key.test)),
        )
        if changed.rowcount != 1:
            raise no_upload(upload_id)

    def take_offered(self, tx: Tx, caller: Caller, offered: Offered, now: int) -> str:
        """The same for a picture that came with the job; the id of an equal one, where the account has it already."""
        row = tx.one(
            "SELECT id FROM upload WHERE account_id = ? AND test = ? AND sha256 = ? AND removed_at IS NULL",
            (caller.account.id, int(caller.key.test), offered.picture.sha256),
        )
        if row is None:
            return _insert(tx, caller, offered, now, used_at=now).id
        self.take(tx, caller, row["id"], now)
        return str(row["id"])

    def find(self, rows: Rows | Store, caller: Caller, upload_id: str) -> Upload:
        """One of the caller's own, in its mode, removed or not; raises 404."""
        return _upload(_owned(rows, caller, upload_id))

    def content(self, caller: Caller, upload_id: str) -> bytes:
        """The stored PNG of one of the caller's own; raises 404, or 410 where it was removed."""
        upload = self.find(self._store, caller, upload_id)
        path = self.root / f"{upload.id}{_SUFFIX}"
        if upload.removed_at is None and path.is_file() and not path.is_symlink():
            return path.read_bytes()
        raise Refusal(410, "result_removed", "This picture was removed; send it again to begin with it.")

    def require(self, rows: Rows | Store, caller: Caller, upload_id: str) -> None:
        """Raise what `take` would raise now."""
        try:
            is_there = self.find(rows, caller, upload_id).removed_at is None
        except Refusal:
            is_there = False
        if not is_there:
            raise no_upload(upload_id)

    def remove(self, tx: Tx, caller: Caller, upload_id: str, now: int) -> Upload:
        """Record the removal of an upload, whose file `discard` then unlinks; raises 404, or 409 `job_open`.

        Removing it again changes nothing.
        """
        row = _owned(tx, caller, upload_id)
        if row["removed_at"] is None:
            held = tx.one(
                "SELECT 1 FROM job WHERE upload_id = ? AND status IN ('queued', 'running') LIMIT 1", (upload_id,)
            )
            if held is not None:
                raise Refusal(409, "job_open", "An open job begins with this upload; cancel it first.")
            tx.execute("UPDATE upload SET removed_at = ? WHERE id = ?", (now, upload_id))
        return _upload(_owned(tx, caller, upload_id))

    # Files

    def path(self, upload_id: str, now: int) -> Path:
        """The file of an upload that a job has taken; raises JobFailure where it is gone or is not what was stored.

        Then it is recorded as removed, so that no further job is accepted with it.
        """
        row = self._store.one("SELECT path, bytes FROM upload WHERE id = ? AND removed_at IS NULL", (upload_id,))
        if row is not None:
            path = self.root / Path(row["path"]).name
            if path.is_file() and not path.is_symlink() and path.stat().st_size == row["bytes"]:
                return path
            log.error("%s is not what was stored, or is gone", path)
            self._store.write(
                lambda tx: tx.execute(
                    "UPDATE upload SET removed_at = ? WHERE id = ? AND removed_at IS NULL", (now, upload_id)
                )
            )
        told = "The picture that the job begins with is not on the box's disk any more; send it again."
        raise JobFailure("internal_error", told)

    def discard(self, removed: Upload) -> None:
        """Unlink the file of an upload that is recorded as removed."""
        self._unlink(removed.id)

    def expire(self, now: int) -> int:
        """Remove what is old and no job keeps; returns how many. A job keeps its upload until it is deleted itself."""
        until = now - self._settings.unused_upload_days * DAY_US
        late = self._store.all(
            f"SELECT id FROM upload WHERE removed_at IS NULL AND created_at < ? AND NOT {_KEPT} LIMIT ?",  # noqa: S608
            (until, _PURGE_BATCH),
        )
        removed = 0
        for row in late:
            if self._store.write(lambda tx, upload_id=row["id"]: _expire(tx, upload_id, now)):
                self._unlink(row["id"])
                removed += 1
        return removed

    def clear(self) -> int:
        """At start: whatever no row names (any more), and what was being made; returns how many files were removed."""
        shutil.rmtree(self.root / TMP, ignore_errors=True)
        (self.root / TMP).mkdir(mode=0o700)
        found = [entry.stem for entry in self.root.iterdir() if entry.suffix == _SUFFIX]
        removed = 0
        for first in range(0, len(found), _QUERY_BATCH):
            batch = found[first : first + _QUERY_BATCH]
            marks = ",".join("?" * len(batch))
            known = self._store.all(
                f"SELECT id FROM upload WHERE removed_at IS NULL AND id IN ({marks})",  # noqa: S608
                tuple(batch),
            )
            for upload_id in set(batch) - {row["id"] for row in known}:
                self._unlink(upload_id)
                removed += 1
        return removed

    def _unlink(self, upload_id: str) -> None:
        path = self.root / f"{upload_id}{_SUFFIX}"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:  # the next start tries again
            log.warning("%s is no upload any more but could not be removed: %s", path, error)


def no_upload(upload_id: str) -> InvalidFields:
    """422 for a picture that is not there: never was, is another's, or was removed."""
    message = f"image: there is no upload {upload_id}, or it was removed; send the picture again."
    return InvalidFields([FieldError("image", "invalid_field", message)])


def _owned(rows: Rows | Store, caller: Caller, upload_id: str) -> Row:
    row = rows.one(
        "SELECT * FROM upload WHERE id = ? AND account_id = ? AND test = ?",
        (upload_id, caller.account.id, int(caller.key.test)),
    )
    if row is None:
        raise not_found("upload")
    return row


def _insert(tx: Tx, caller: Caller, offered: Offered, now: int, used_at: int | None) -> Upload:
    picture = offered.picture
    tx.execute(
        "INSERT INTO upload (id, account_id, test, path, bytes, sha256, width, height, created_at, used_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            offered.id,
            caller.account.id,
            int(caller.key.test),
            f"{offered.id}{_SUFFIX}",
            picture.bytes,
            picture.sha256,
            picture.width,
            picture.height,
            now,
            used_at,
        ),
    )
    return Upload(offered.id, picture.width, picture.height, picture.bytes, now)


def _expire(tx: Tx, upload_id: str, now: int) -> bool:
    changed = tx.execute(
        f"UPDATE upload SET removed_at = ? WHERE id = ? AND removed_at IS NULL AND NOT {_KEPT}",  # noqa: S608
        (now, upload_id),
    )
    return changed.rowcount == 1


def _upload(row: Row) -> Upload:
    return Upload(row["id"], row["width"], row["height"], row["bytes"], row["created_at"], row["removed_at"])
