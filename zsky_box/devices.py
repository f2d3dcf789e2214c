"""Which devices the box uses: named by the owner, or the cards that NVML counts, or the processor."""

from __future__ import annotations

import logging

import pynvml

log = logging.getLogger(__name__)


def chosen(setting: str) -> list[str]:
    """`auto`, `cpu`, `0,1` or `cpu,cpu` as `cpu` and `cuda:N`, one entry a worker."""
    parts = [part.strip() for part in setting.split(",")]
    if parts == ["auto"]:
        return [f"cuda:{number}" for number in range(card_count())] or ["cpu"]
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
