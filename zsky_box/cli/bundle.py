"""`zsky-box doctor --bundle FILE`: what whoever is asked for help would ask for, in a file that its sender can read.

It holds no secret and nobody's words: of a setting that is free text it says only that it is set, and of a job nothing
that a person has written.
"""

from __future__ import annotations

import json
import os
import sqlite3
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec

from zsky_box import __version__, db, devices, settings
from zsky_box.checkup import Finding
from zsky_box.cli.command import CommandError
from zsky_box.cli.session import open_reader
from zsky_box.clock import rfc3339, system_clock
from zsky_box.errors import SettingsError
from zsky_box.settings import Settings

JOBS_MAX: Final = 200
PACKAGES_MAX: Final = 1_000
SHOWN_TEXTS: Final = frozenset(
    {"devices", "timezone", "log_level", "pins", "exclusions", "quiet_hours", "output_check"}
    | {"video_usd", "image_usd", "plan_month_usd", "plan_year_usd", "low_wallet_usd"}
)
"""The settings among those of text whose values are told: names of models and devices, hours and prices."""
_SET: Final = "(set)"


def gather(folder: Path, findings: list[Finding]) -> dict[str, Any]:
    """The doctor's findings, and what they are to be read with: settings, cards, packages and the newest jobs."""
    return {
        "object": "doctor.bundle",
        "made_at": rfc3339(system_clock()),
        "version": __version__,
        "checks": findings,
        "settings": _settings(folder),
        "cards": [_card(card) for card in devices.cards()],
        "host_memory_bytes": devices.host_memory_bytes(),
        "packages": _packages(),
        "jobs": _jobs(folder),
    }


def write(path: Path, bundle: dict[str, Any]) -> None:
    """Into a new file that its owner alone reads; raises OSError where there is one, or none can be."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(bundle, file, indent=2, ensure_ascii=False)
        file.write("\n")


def _settings(folder: Path) -> dict[str, Any] | None:
    """Those that are not at their defaults; None where they cannot be read, of which a finding tells."""
    try:
        found = settings.load(folder)
    except SettingsError:
        return None
    chosen: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        value = getattr(found, field.name)
        if value != getattr(Settings(), field.name):
            is_told = isinstance(value, bool | int | float) or field.name in SHOWN_TEXTS
            chosen[field.name] = value if is_told else _SET
    return chosen


def _card(card: devices.Card) -> dict[str, Any]:
    return {name: getattr(card, name) for name in ("device", "name", "total_bytes", "capability")}


def _packages() -> dict[str, str]:
    found = {package.name.lower(): package.version for package in metadata.distributions()}
    return dict(sorted(found.items())[:PACKAGES_MAX])


def _jobs(folder: Path) -> dict[str, Any] | None:
    """How many jobs of each state there are, and the newest; None without a ledger that can be read."""
    try:
        with open_reader(folder) as connection, db.snapshot(connection) as rows:
            counts = rows.all("SELECT status, count(*) AS n FROM job GROUP BY status ORDER BY status")
            newest = rows.all(_NEWEST, (JOBS_MAX,))
    except (CommandError, sqlite3.DatabaseError):
        return None
    return {"counts": {row["status"]: row["n"] for row in counts}, "newest": [_job(row) for row in newest]}


def _job(row: db.Row) -> dict[str, Any]:
    job = dict(row)
    return job | {name: None if job[name] is None else rfc3339(job[name]) for name in _TIMES}


_TIMES: Final = ("created_at", "started_at", "finished_at")
_NEWEST: Final = (
    "SELECT id, test, type, model, n, status, phase, progress, attempts, error_code, device, created_at, started_at,"
    " finished_at FROM job ORDER BY seq DESC LIMIT ?"
)
