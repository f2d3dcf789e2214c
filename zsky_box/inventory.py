"""What the box has to work with: each worker's device with the bytes that models may use there, and the owner's word
on which models stay and which never come."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from zsky_box import devices
from zsky_box.errors import SettingsError
from zsky_box.manifest import ModelSpec
from zsky_box.placement import GIB, Card, published_bytes
from zsky_box.settings import Settings
from zsky_box.slot import labels

HOST_PART: Final = 0.8
"""Of the machine's memory; the rest is for the service, ffmpeg, the page cache and whoever sits there."""
CHECK_WORKING_BYTES: Final = GIB // 2
"""A classifier's pictures are small: an allowance, not a measurement."""
_CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")


class Inventory(Struct, frozen=True, kw_only=True):
    """`devices` are the workers' in order, `cards` the same by their labels; `uuids` are the NVIDIA cards'."""

    devices: list[str]
    cards: Mapping[str, Card]
    host_total_bytes: int
    uuids: Mapping[str, str] = {}


def take(settings: Settings, check: ModelSpec | None = None) -> Inventory:
    """What is left for models: the output check, where there is one, stays on each card beside them.

    Raises SettingsError for a device that this machine has not.
    """
    chosen = devices.chosen(settings.devices)
    host = settings.host_memory_max_bytes or round(HOST_PART * _host_bytes())
    known = {card.device: card for card in devices.cards()} if any(name != "cpu" for name in chosen) else {}
    beside = 0 if check is None else sum(published_bytes(check).values()) + CHECK_WORKING_BYTES
    cards: dict[str, Card] = {}
    for device, label in zip(chosen, labels(chosen), strict=True):
        card = known.get(device)
        if card is None:
            # A card that the driver has lost has room for nothing; what else is not known is the processor.
            cards[label] = Card(device=label, total_bytes=host if device == "cpu" else 0)
        else:
            usable = max(0, card.total_bytes - settings.card_reserve_bytes - beside)
            cards[label] = Card(device=label, total_bytes=usable, capability=card.capability)
    uuids = {device: card.uuid for device, card in known.items()}
    return Inventory(devices=chosen, cards=cards, host_total_bytes=host, uuids=uuids)


def _host_bytes() -> int:
    """The machine's memory, or what this control group may use of it."""
    total = devices.host_memory_bytes()
    try:
        limit = _CGROUP_LIMIT.read_text("ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def models_by_device(
    setting: str, value: str, known_devices: Sequence[str], known_models: Collection[str]
) -> dict[str, frozenset[str]]:
    """`cuda:0=ltx-2.5, cuda:1=flux2-klein-4b` by device; raises SettingsError naming what is not there."""
    found: dict[str, set[str]] = {}
    for part in (part.strip() for part in value.split(",")):
        if not part:
            continue
        device, sign, model = (piece.strip() for piece in part.partition("="))
        if not sign or device not in known_devices:
            allowed = f"DEVICE=MODEL, with a device among {', '.join(known_devices)}"
            raise SettingsError(f"{setting} = {value!r}: {part!r} is not allowed; write {allowed}")
        if model not in known_models:
            raise SettingsError(f"{setting} = {value!r}: there is no model {model!r} in the catalogue")
        found.setdefault(device, set()).add(model)
    return {device: frozenset(models) for device, models in found.items()}
