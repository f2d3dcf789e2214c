"""When a card belongs to the artist at the workstation: paused or unloaded by command, and in quiet hours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from zsky_box import audit
from zsky_box.clock import SECOND_US, Clock, rfc3339
from zsky_box.db import Rows, Store, Tx
from zsky_box.errors import Refusal
from zsky_box.hours import parse_hours

ALL: Final = "all"
"""In the table: every device, those that come later too."""


class Pauses:
    """Which devices take no jobs now. `devices` are the box's; quiet hours are those of its zone."""

    def __init__(self, store: Store, devices: Sequence[str], quiet_hours: str, zone: ZoneInfo, clock: Clock) -> None:
        self._store = store
        self._devices = tuple(dict.fromkeys(devices))
        self._spans = parse_hours(quiet_hours)
        self._zone = zone
        self._clock = clock

    def now(self) -> dict[str, bool]:
        """The paused devices, and of each whether its memory is to be free too."""
        if self.is_quiet():
            return dict.fromkeys(self._devices, True)
        kept = {row["device"]: bool(row["unloaded"]) for row in self._store.all("SELECT device, unloaded FROM paused")}
        everywhere = kept.get(ALL)
        return {
            device: bool(everywhere) or kept.get(device, False)
            for device in self._devices
            if everywhere is not None or device in kept
        }

    def is_quiet(self) -> bool:
        """Whether this is a quiet hour."""
        if not self._spans:
            return False
        at = datetime.fromtimestamp(self._clock() / SECOND_US, UTC).astimezone(self._zone)
        return any(span.covers(at.weekday(), at.hour * 60 + at.minute) for span in self._spans)


def pause(tx: Tx, device: str, now: int, *, unload: bool, actor: str) -> None:
    """From now on a device (or `all`) takes no jobs; what was asked of it before is kept where it is more."""
    row = tx.one("SELECT unloaded FROM paused WHERE device = ?", (device,))
    if row is not None and bool(row["unloaded"]) >= unload:
        return
    tx.execute(
        "INSERT INTO paused (device, unloaded, since) VALUES (?, ?, ?)"
        " ON CONFLICT (device) DO UPDATE SET unloaded = excluded.unloaded",
        (device, int(unload), now),
    )
    audit.append(
        tx, at=now, account_id=None, actor=actor, action="device.paused", subject=device, after={"unloaded": unload}
    )


def resume(tx: Tx, device: str, now: int, *, actor: str) -> None:
    """A device takes jobs again; `all` ends every pause. Raises Refusal for one while all are paused together."""
    if device != ALL and tx.one("SELECT 1 FROM paused WHERE device = ?", (ALL,)):
        raise Refusal(422, "invalid_field", "All devices are paused together; resume all of them.", field="device")
    ended = tx.all("SELECT device FROM paused WHERE device = ? OR ? = ? ORDER BY device", (device, device, ALL))
    for row in ended:
        tx.execute("DELETE FROM paused WHERE device = ?", (row["device"],))
        audit.append(tx, at=now, account_id=None, actor=actor, action="device.resumed", subject=row["device"])


def listed(rows: Rows) -> list[dict[str, object]]:
    """The pauses in force by command."""
    found = rows.all("SELECT * FROM paused ORDER BY since, device")
    return [
        {"device": row["device"], "unloaded": bool(row["unloaded"]), "since": rfc3339(row["since"])} for row in found
    ]
