"""The backups of a running box: made each day and when somebody asks, read anew, so many kept, each on record."""

from __future__ import annotations

import logging
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from zsky_box import audit, backup_file, db, timeline
from zsky_box.backup_file import Phase, Told
from zsky_box.clock import DAY_US, SECOND_US, Clock
from zsky_box.db import Store
from zsky_box.errors import BackupError, ZskyError, not_found

log = logging.getLogger(__name__)

FOLDER: Final = "backups"
STOP_SECONDS: Final = 10.0
LISTED_MAX: Final = 1_000
_NAME: Final = re.compile(r"zsky-([0-9]{8}T[0-9]{6}Z)\.tar\.gz", re.ASCII)
_STAMP: Final = "%Y%m%dT%H%M%SZ"


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
        try:
            path.unlink()
        except FileNotFoundError:  # somebody else was faster, and it is on record
            raise not_found("backup") from None
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
        for path in self.folder.glob(f"{backup_file.UNFINISHED}*"):
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
            target = self._free_path(making.begun_at)
            manifest = backup_file.write(self._data, target, making.begun_at, self._teller(making))
            size, digest = target.stat().st_size, backup_file.sha256(target)
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

    def _free_path(self, at: int) -> Path:
        """Where the backup of a time goes: a name says its second, and of two in one second none replaces the other."""
        while True:
            stamp = datetime.fromtimestamp(at // SECOND_US, UTC).strftime(_STAMP)
            path = self.folder / f"zsky-{stamp}.tar.gz"
            if not path.exists():
                return path
            at += SECOND_US

    def _check(self, making: Making, path: Path) -> None:
        try:
            manifest = backup_file.check(path, self._teller(making))
            if (recorded := self._recorded_sha256(path.name)) not in (None, backup_file.sha256(path)):
                raise BackupError(f"{path.name} is not the one that was made: its sum on record is {recorded}")
        except _Stopped:
            self._end(making, "failed", "The box stopped before it was read.")
        except (ZskyError, OSError, sqlite3.Error) as error:
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
