"""A disk that fails when it is told to: under the ledger's one writing connection, and under the files of results."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from msgspec import Struct

from tests.stores import Killed
from zsky_box import assets
from zsky_box.db import Store

FileOperation = Literal["mkdir", "rename", "sync"]


class PowerCut(Struct, frozen=True):
    """After so many more effects, on either side, nothing is written any more."""

    after_effects: int


class CommitFails(Struct, frozen=True):
    """The next COMMIT tells of an I/O error, though it may have reached the disk."""

    reached_the_disk: bool


class DiskFull(Struct, frozen=True):
    """The so-manieth change of a row finds no space; SQLite may roll back by itself."""

    at_change: int
    rolls_back: bool


class FileFails(Struct, frozen=True):
    """The next operation of that name on a result's folder fails."""

    operation: FileOperation
    number: int


Fault = PowerCut | CommitFails | DiskFull | FileFails


class Disk:
    """At most one fault at a time. `fired` once it has struck; `is_dead` when only a restart helps."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.fired = False
        self.is_dead = False
        self._effects = 0

    def arm(self, fault: Fault | None) -> None:
        """The next operations meet this fault."""
        self.fault, self.fired, self.is_dead, self._effects = fault, False, False, 0

    def mount(self, store: Store) -> None:
        """Stand between a store and its file."""
        store._writer = FaultyConnection(store._writer, self)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]

    def patch(self, patcher: pytest.MonkeyPatch) -> None:
        """Stand between the results and their files."""
        patcher.setattr(Path, "mkdir", self._guarded(Path.mkdir, "mkdir"))
        patcher.setattr(Path, "rename", self._guarded(Path.rename, "rename"))
        patcher.setattr(Path, "unlink", self._guarded(Path.unlink, None))
        patcher.setattr(shutil, "rmtree", self._guarded(shutil.rmtree, None))
        patcher.setattr(assets, "sync_folder", self._guarded(assets.sync_folder, "sync"))

    def execute(self, connection: sqlite3.Connection, sql: str, parameters: Any) -> sqlite3.Cursor:
        """One statement of the writer."""
        if self._is_cut():
            raise sqlite3.OperationalError("disk I/O error")
        match self.fault:
            case CommitFails(reached_the_disk) if sql == "COMMIT" and not self.fired:
                self.fired = self.is_dead = True
                if reached_the_disk:
                    connection.execute(sql)
                raise sqlite3.OperationalError("disk I/O error")
            case DiskFull(at_change, rolls_back) if sql.startswith(("INSERT", "UPDATE")) and not self.fired:
                self._effects += 1
                if self._effects == at_change:
                    self.fired = True
                    if rolls_back:
                        connection.execute("ROLLBACK")
                    raise sqlite3.OperationalError("database or disk is full")
            case _:
                pass
        return connection.execute(sql, parameters)

    def _guarded(self, original: Callable[..., Any], operation: FileOperation | None) -> Callable[..., Any]:
        def guarded(*arguments: Any, **options: Any) -> Any:
            if self._is_cut():
                raise Killed
            if (
                isinstance(self.fault, FileFails)
                and self.fault.operation == operation
                and not self.fired
                and (operation == "sync" or f"{assets.TMP}/job_" in str(arguments[0]))
            ):
                self.fired = True
                raise OSError(self.fault.number, errno.errorcode[self.fault.number], str(arguments[0]))
            return original(*arguments, **options)

        return guarded

    def _is_cut(self) -> bool:
        if isinstance(self.fault, PowerCut):
            self._effects += 1
            if self._effects > self.fault.after_effects:
                self.fired = self.is_dead = True
        return self.is_dead


class FaultyConnection:
    """The writer's connection, through a disk."""

    def __init__(self, real: sqlite3.Connection, disk: Disk) -> None:
        self._real, self._disk = real, disk

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        return self._disk.execute(self._real, sql, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
