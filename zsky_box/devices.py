"""Which devices the box uses: named by the owner, or the cards that NVML counts, or the processor."""

from __future__ import annotations

import logging
import os

import pynvml
from msgspec import Struct

from zsky_box.errors import SettingsError

log = logging.getLogger(__name__)


class Card(Struct, frozen=True, kw_only=True):
    """An NVIDIA card as the driver tells of it; `device` is its name here, such as `cuda:1`.

    Cards are numbered by what is there: when one is lost, those behind it move up. The `uuid` stays.
    """

    device: str
    name: str
    total_bytes: int
    capability: float
    uuid: str = ""


def chosen(setting: str) -> list[str]:
    """`auto`, `cpu`, `0,1` or `cpu,cpu` as `cpu` and `cuda:N`, one entry a worker.

    Raises SettingsError for a card that this machine has not, or that is named twice.
    """
    parts = [part.strip() for part in setting.split(",")]
    if parts == ["auto"]:
        return [f"cuda:{number}" for number in range(card_count())] or ["cpu"]
    cards = [part for part in parts if part != "cpu"]
    count = card_count() if cards else 0
    for card in cards:
        if not (card.isascii() and card.isdigit()) or int(card) >= count:
            there = "no NVIDIA card" if count == 0 else "card 0 only" if count == 1 else f"cards 0 to {count - 1}"
            raise SettingsError(f"devices = {setting!r}: this machine has {there}; `cpu` runs on the processor")
        if cards.count(card) > 1:
            raise SettingsError(f"devices = {setting!r}: card {card} is named twice, and a card has one worker")
    return [part if part == "cpu" else f"cuda:{int(part)}" for part in parts]


def card_count() -> int:
    """NVIDIA cards in this machine; 0 where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.debug("no NVIDIA driver: %s", error)
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()


def driver_version() -> str | None:
    """The NVIDIA driver's version, or None where there is none."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()


def cards() -> tuple[Card, ...]:
    """The NVIDIA cards of this machine, with the bytes of their memory and their CUDA compute capability.

    One that the driver has lost is not among them, and keeps its number.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.debug("no NVIDIA driver: %s", error)
        return ()
    try:
        found = (_card(number) for number in range(int(pynvml.nvmlDeviceGetCount())))
        return tuple(card for card in found if card is not None)
    finally:
        pynvml.nvmlShutdown()


def _card(number: int) -> Card | None:
    try:
        return _asked(number)
    except pynvml.NVMLError as error:
        log.error("cuda:%d does not answer, and is not used: %s", number, error)
        return None


def _asked(number: int) -> Card:
    handle = pynvml.nvmlDeviceGetHandleByIndex(number)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Card(
        device=f"cuda:{number}",
        name=str(pynvml.nvmlDeviceGetName(handle)),
        total_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        capability=major + minor / 10,
        uuid=str(pynvml.nvmlDeviceGetUUID(handle)),
    )


def host_memory_bytes() -> int:
    """The machine's memory in all."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
