"""What can be said of the machine and of the data folder: each finding with its state and a sentence, and the sizes."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from zsky_box import devices, settings, timeline
from zsky_box.clock import SECOND_US, rfc3339
from zsky_box.db import FILE_NAME, Rows, Store
from zsky_box.errors import SettingsError

FRESH_SECONDS: Final = 60.0

Finding = dict[str, str]
"""`state` (`good`, `note`, `bad`) and `told`."""

# https://sqlite.org/releaselog/3_51_3.html: the WAL-reset fault needs two connections that write or checkpoint at once;
# the box has one, so an affected version is worth a note, not an alarm.
_WAL_RESET_FIXED: Final = ((3, 44, 6), (3, 50, 7), (3, 51, 3))


class Disk(Struct, frozen=True):
    """A file system that the box writes to, in bytes; `holds` says what of the box lies there."""

    holds: str
    path: str
    total: int
    free: int


class Look(Struct, frozen=True):
    """What was found, and the sizes in bytes of what the box keeps, at a time in seconds of the monotonic clock."""

    at: float
    findings: list[tuple[str, Finding]]
    disks: list[Disk]
    sizes: dict[str, int]


class Checkup:
    """The same of a running box, looked at no more often than every minute."""

    def __init__(self, folder: Path, outputs: Path, weights: Path, store: Store) -> None:
        self._folder = folder
        self._outputs = outputs
        self._weights = weights
        self._store = store
        self._lock = threading.Lock()
        self._last: Look | None = None

    def look(self) -> Look:
        """What there is to see; takes a moment, and is not for an event loop."""
        with self._lock:
            now = time.monotonic()
            if self._last is None or now - self._last.at >= FRESH_SECONDS:
                self._last = Look(now, of_machine(self._folder), disks_of(self._folder, self._outputs), self._sizes())
            return self._last

    def _sizes(self) -> dict[str, int]:
        results = self._store.one(
            "SELECT coalesce(sum(json_extract(facts, '$.bytes')), 0) AS n FROM asset WHERE removed_at IS NULL"
        )
        return {
            "results": 0 if results is None else int(results["n"]),
            "models": _bytes_in(self._weights.rglob("*")),
            "uploads": _bytes_in((self._folder / "uploads").rglob("*")),
            "ledger": _bytes_in(self._folder.glob(f"{FILE_NAME}*")),
            "backups": _bytes_in((self._folder / "backups").glob("*")),
        }


def disks_of(folder: Path, outputs: Path) -> list[Disk]:
    """The file systems of the data folder and of the results, which may be one. Raises OSError."""
    data, results = _existing(folder), _existing(outputs)
    if data.stat().st_dev == results.stat().st_dev:
        return [_disk("data and results", data)]
    return [_disk("data", data), _disk("results", results)]


def of_space(disks: list[Disk], floor_bytes: int) -> Finding:
    """Whether there is room on each: without it no job is taken for the results, and no write for the data."""
    told = ", ".join(f"{disk.free / 1e9:.1f} GB" + (f" for {disk.holds}" if len(disks) > 1 else "") for disk in disks)
    full = [disk for disk in disks if disk.free < floor_bytes]
    if not full:
        return good(told)
    after = "no job is taken" if any("results" in disk.holds for disk in full) else "soon nothing can be written"
    return bad(f"{told}, below the floor of {floor_bytes / 1e9:.1f} GB: {after}")


def _disk(holds: str, path: Path) -> Disk:
    found = shutil.disk_usage(path)
    return Disk(holds, str(path), found.total, found.free)


def _bytes_in(paths: Iterable[Path]) -> int:
    total = 0
    for path in paths:
        with suppress(OSError):  # gone meanwhile
            found = path.lstat()
            total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


def of_machine(folder: Path) -> list[tuple[str, Finding]]:
    """All that needs no ledger, in the order in which a person would look. It starts a program, and takes its time."""
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("python", _python),
        ("torch", _torch),
        ("sqlite", _sqlite),
        ("driver", _driver),
        ("settings", lambda: _settings(folder)),
        ("ffmpeg", lambda: _ffmpeg(folder)),
        ("data folder", lambda: _folder(folder)),
        ("free space", lambda: _space(folder)),
        ("models", lambda: _models(folder)),
    )
    return [(name, check()) for name, check in checks]


def of_clock(rows: Rows, now: int) -> Finding:
    """Whether the box's clock is where the ledger's is: far behind it, no money moves."""
    if not timeline.is_possible(now):
        return bad(f"says {rfc3339(now)}, which cannot be: set it")
    behind_us = timeline.behind_us(rows, now)
    told = f"{behind_us // SECOND_US} s behind the ledger's last entry"
    if behind_us > timeline.TOLERANCE_US:
        return bad(
            f"{told}, so nothing is accepted: set the clock or, if it is right, run: zsky-box doctor --accept-clock"
        )
    return note(told) if behind_us >= SECOND_US else good("not behind the ledger")


def of_devices(quarantined: dict[str, str], status: str) -> Finding:
    """What the running service says of its devices."""
    if quarantined:
        return bad("; ".join(f"{device} is quarantined: {reason}" for device, reason in quarantined.items()))
    return good(f"none is quarantined, the box is {status}")


def good(told: str) -> Finding:
    return {"state": "good", "told": told}


def note(told: str) -> Finding:
    return {"state": "note", "told": told}


def bad(told: str) -> Finding:
    return {"state": "bad", "told": told}


def _python() -> Finding:
    told = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.platform != "linux":
        return bad(f"{told}; the box runs on Linux and WSL2 only")
    return good(told)


def _torch() -> Finding:
    try:
        return good(importlib.metadata.version("torch"))
    except importlib.metadata.PackageNotFoundError:
        return bad("not installed; run ./install.sh again")


def _sqlite() -> Finding:
    version = sqlite3.sqlite_version_info
    fixed = version >= _WAL_RESET_FIXED[-1] or any(
        version[:2] == release[:2] and version >= release for release in _WAL_RESET_FIXED
    )
    if fixed:
        return good(sqlite3.sqlite_version)
    return note(f"{sqlite3.sqlite_version}, older than 3.51.3; safe here, since one connection alone writes")


def _driver() -> Finding:
    version = devices.driver_version()
    if version is None:
        return note("no NVIDIA driver: the processor is used")
    return good(f"NVIDIA {version}, {devices.card_count()} cards")


def _settings(folder: Path) -> Finding:
    try:
        settings.load(folder)
    except SettingsError as error:
        return bad(str(error))
    path = folder / settings.FILE_NAME
    sources = [str(path)] if path.exists() else []
    sources += sorted(name for name in os.environ if name.startswith("ZSKY_") and name != "ZSKY_DATA")
    return good(f"from {', '.join(sources)}" if sources else "all at their defaults")


def _ffmpeg(folder: Path) -> Finding:
    import imageio_ffmpeg

    try:
        binary = settings.load(folder).ffmpeg or imageio_ffmpeg.get_ffmpeg_exe()
        answer = subprocess.run([binary, "-version"], capture_output=True, text=True, timeout=20, check=True)
    except (SettingsError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        return bad(f"does not run: {error}")
    return good(answer.stdout.partition(" Copyright")[0].partition("\n")[0])


def _folder(folder: Path) -> Finding:
    if not folder.is_dir():
        return bad(f"{folder} is not there; run `zsky-box init`")
    if not os.access(folder, os.W_OK):
        return bad(f"{folder} cannot be written by this user")
    for name in ("secrets.json", "ledger.db"):
        path = folder / name
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            return bad(f"{path} can be read by other users; run: chmod 600 {path}")
    return good(str(folder))


def _space(folder: Path) -> Finding:
    try:
        configured = settings.load(folder)
        outputs = Path(configured.outputs).expanduser() if configured.outputs else folder
        return of_space(disks_of(folder, outputs), configured.free_space_floor_bytes)
    except (SettingsError, OSError) as error:
        return bad(str(error))


def _existing(path: Path) -> Path:
    """The nearest folder that is there already: the disk is the same."""
    return next(folder for folder in (path, *path.resolve().parents) if folder.is_dir())


def _models(folder: Path) -> Finding:
    from zsky_box.catalog import open_catalog

    catalog = open_catalog(folder)
    if catalog.refused:
        return bad("; ".join(catalog.refused))
    installed = [name for name, spec in catalog.specs.items() if catalog.installed(spec) is not None]
    return good(f"{len(catalog.specs)} known, installed: {', '.join(installed)}")
