"""`zsky-box doctor`: what a person would check by hand when the box does not do what it should."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from zsky_box import db, devices, settings, timeline
from zsky_box.cli.command import CommandError
from zsky_box.cli.session import Session, open_reader
from zsky_box.clock import SECOND_US, rfc3339, system_clock
from zsky_box.errors import SettingsError, StoreError
from zsky_box.ledger.verify import verify

Finding = dict[str, str]

# https://sqlite.org/releaselog/3_51_3.html: the WAL-reset fault needs two connections that write or checkpoint at once;
# the box has one, so an affected version is worth a note, not an alarm.
_WAL_RESET_FIXED: Final = ((3, 44, 6), (3, 50, 7), (3, 51, 3))


def examine(folder: Path) -> list[Finding]:
    """All findings, in the order in which a person would look."""
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
        ("service", lambda: _service(folder)),
        ("devices", lambda: _devices(folder)),
        ("clock", lambda: _clock(folder)),
        ("ledger", lambda: _ledger(folder)),
    )
    return [{"name": name, **check()} for name, check in checks]


def _good(told: str) -> Finding:
    return {"state": "good", "told": told}


def _note(told: str) -> Finding:
    return {"state": "note", "told": told}


def _bad(told: str) -> Finding:
    return {"state": "bad", "told": told}


def _python() -> Finding:
    told = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.platform != "linux":
        return _bad(f"{told}; the box runs on Linux and WSL2 only")
    return _good(told)


def _torch() -> Finding:
    try:
        return _good(importlib.metadata.version("torch"))
    except importlib.metadata.PackageNotFoundError:
        return _bad("not installed; run ./install.sh again")


def _sqlite() -> Finding:
    version = sqlite3.sqlite_version_info
    fixed = version >= _WAL_RESET_FIXED[-1] or any(
        version[:2] == release[:2] and version >= release for release in _WAL_RESET_FIXED
    )
    if fixed:
        return _good(sqlite3.sqlite_version)
    return _note(f"{sqlite3.sqlite_version}, older than 3.51.3; safe here, since one connection alone writes")


def _driver() -> Finding:
    version = devices.driver_version()
    if version is None:
        return _note("no NVIDIA driver: the processor is used")
    return _good(f"NVIDIA {version}, {devices.card_count()} cards")


def _settings(folder: Path) -> Finding:
    try:
        settings.load(folder)
    except SettingsError as error:
        return _bad(str(error))
    path = folder / settings.FILE_NAME
    sources = [str(path)] if path.exists() else []
    sources += sorted(name for name in os.environ if name.startswith("ZSKY_") and name != "ZSKY_DATA")
    return _good(f"from {', '.join(sources)}" if sources else "all at their defaults")


def _ffmpeg(folder: Path) -> Finding:
    import imageio_ffmpeg

    try:
        binary = settings.load(folder).ffmpeg or imageio_ffmpeg.get_ffmpeg_exe()
        answer = subprocess.run([binary, "-version"], capture_output=True, text=True, timeout=20, check=True)
    except (SettingsError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        return _bad(f"does not run: {error}")
    return _good(answer.stdout.partition(" Copyright")[0].partition("\n")[0])


def _folder(folder: Path) -> Finding:
    if not folder.is_dir():
        return _bad(f"{folder} is not there; run `zsky-box init`")
    if not os.access(folder, os.W_OK):
        return _bad(f"{folder} cannot be written by this user")
    for name in ("secrets.json", "ledger.db"):
        path = folder / name
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            return _bad(f"{path} can be read by other users; run: chmod 600 {path}")
    return _good(str(folder))


def _space(folder: Path) -> Finding:
    try:
        configured = settings.load(folder)
        outputs = Path(configured.outputs).expanduser() if configured.outputs else folder
        free = shutil.disk_usage(_existing(outputs)).free
    except (SettingsError, OSError) as error:
        return _bad(str(error))
    floor = configured.free_space_floor_bytes
    told = f"{free / 1e9:.1f} GB"
    return _good(told) if free >= floor else _bad(f"{told}, below the floor of {floor / 1e9:.1f} GB: no job is taken")


def _existing(path: Path) -> Path:
    """The nearest folder that is there already: the disk is the same."""
    return next(folder for folder in (path, *path.resolve().parents) if folder.is_dir())


def _models(folder: Path) -> Finding:
    from zsky_box.catalog import open_catalog

    catalog = open_catalog(folder)
    if catalog.refused:
        return _bad("; ".join(catalog.refused))
    installed = [name for name, spec in catalog.specs.items() if catalog.installed(spec) is not None]
    return _good(f"{len(catalog.specs)} known, installed: {', '.join(installed)}")


def _service(folder: Path) -> Finding:
    try:
        url = Session(folder).url
    except StoreError as error:
        return _bad(f"{error}; remove that file while the service is stopped")
    return _note("not running; start it with `zsky-box serve`") if url is None else _good(f"answers on {url}")


def _devices(folder: Path) -> Finding:
    """What the running service says of its devices."""
    try:
        session = Session(folder)
        ready = session.readiness() if session.is_running() else None
    except (StoreError, httpx.HTTPError, ValueError) as error:
        return _bad(str(error))
    if ready is None:
        return _note("asked of the running service only")
    if quarantined := ready.get("quarantined"):
        return _bad("; ".join(f"{device} is quarantined: {reason}" for device, reason in quarantined.items()))
    return _good(f"none is quarantined, the box is {ready['status']}")


def _clock(folder: Path) -> Finding:
    """Whether the box's clock is where the ledger's is: far behind it, no money moves."""
    if not timeline.is_possible(now := system_clock()):
        return _bad(f"says {rfc3339(now)}, which cannot be: set it")
    if not (folder / db.FILE_NAME).exists():
        return _note("no ledger yet to compare it with")
    try:
        with open_reader(folder) as connection, db.snapshot(connection) as rows:
            behind_us = timeline.behind_us(rows, now)
    except (CommandError, sqlite3.DatabaseError) as error:
        return _bad(str(error))
    told = f"{behind_us // SECOND_US} s behind the ledger's last entry"
    if behind_us > timeline.TOLERANCE_US:
        return _bad(
            f"{told}, so nothing is accepted: set the clock or, if it is right, run: zsky-box doctor --accept-clock"
        )
    return _note(told) if behind_us >= SECOND_US else _good("not behind the ledger")


def _ledger(folder: Path) -> Finding:
    """All rules that the store can show, read beside the running service; the results' files are `ledger verify`'s."""
    if not (folder / db.FILE_NAME).exists():
        return _note("none yet")
    try:
        with open_reader(folder) as connection, db.snapshot(connection) as rows:
            report = verify(rows)
    except (CommandError, sqlite3.DatabaseError) as error:
        return _bad(str(error))
    if report.first is not None:
        return _bad(str(report.first))
    return _good(f"verifies: {report.transfers} transfers, {report.audit_rows} audit rows, {report.jobs} jobs")
