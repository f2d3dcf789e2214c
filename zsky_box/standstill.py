"""Why no device takes jobs, told to those whose jobs wait. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from zsky_box.slot import SlotView

NAMED_MAX: Final = 8
"""So many devices are named with what keeps each; a box has seldom more."""


def standstill(devices: Sequence[SlotView], *, quiet: bool) -> str | None:
    """A clause without a full stop, or None while some device takes jobs. `quiet` says that these are quiet hours."""
    if any(_takes_jobs(device) for device in devices):
        return None
    if quiet:
        return "these are quiet hours, in which no device takes jobs"
    if all(device.paused for device in devices):
        return "all devices are paused"
    kept = "; ".join(_kept_by(device) for device in devices[:NAMED_MAX])
    return f"no device takes jobs now: {kept}"


def _takes_jobs(device: SlotView) -> bool:
    return not device.paused and device.state in ("ready", "loading", "running")


def _kept_by(device: SlotView) -> str:
    if device.paused:
        return f"{device.label} is paused"
    if device.state == "quarantined":
        return f"{device.label} is quarantined, since it {device.reason}"
    return f"{device.label} is starting"
