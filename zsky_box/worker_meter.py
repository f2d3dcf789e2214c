"""What a worker child's device is called, holds and can do: bytes, and operations a second.

torch is asked only once its import is over: another thread may be in the middle of it, and half a module is of no use.
"""

from __future__ import annotations

import logging
import os
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Final

import pynvml

MEASURE_SECONDS: Final = 0.2
MEASURE_RUNS_MAX: Final = 5
CARD_SIDES: Final = (2_048, 8_192)
"""A card is asked with the smaller product, and again with the larger one where that is quick: it fills a big card."""
PROCESSOR_SIDE: Final = 1_024

_STATM: Final = Path("/proc/self/statm")
_STATUS: Final = Path("/proc/self/status")
_CLEAR_REFS: Final = Path("/proc/self/clear_refs")
_PEAK: Final = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)

log = logging.getLogger("zsky_box.worker")


class Meter:
    """Bytes of the device that a child works on: allocated on the card, or resident in the process on the processor.

    `device` is `cpu` or `cuda:0`, as the child sees it. All methods are cheap, and but for `torch_is_there` none begins
    to use the card.
    """

    def __init__(self, device: str, reserve_bytes: int = 0) -> None:
        self._on_card = device != "cpu"
        self._reserve_bytes = reserve_bytes
        self._torch: Any = None

    def torch_is_there(self) -> None:
        """An import of torch has ended; called where a family that needs it was warmed or loaded.

        From here on torch leaves the reserve of the card alone: what it has freed it keeps for itself, and would grow
        into all that the desktop and the encoder need.
        """
        known, self._torch = self._torch, sys.modules.get("torch")
        if known is None and self._torch is not None and self._on_card:
            _, total_bytes = self._torch.cuda.mem_get_info()
            self._torch.cuda.set_per_process_memory_fraction(max(0.0, 1.0 - self._reserve_bytes / total_bytes))

    def bytes_held(self) -> int:
        """What is held now; 0 on a card that nothing has used yet."""
        if not self._on_card:
            return int(_STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return int(self._torch.cuda.memory_allocated()) if self._uses_card() else 0

    def begin(self) -> None:
        """From here on the peak counts anew."""
        if not self._on_card:
            try:
                _CLEAR_REFS.write_text("5", "ascii")  # proc_pid_clear_refs(5): the peak is what is resident now
            except OSError:
                return  # a kernel without it tells the peak since the start
        elif self._uses_card():
            self._torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        """The most that was held since `begin`."""
        if not self._on_card:
            peak = _PEAK.search(_STATUS.read_text("ascii"))
            return int(peak[1]) * 1024 if peak else 0
        return int(self._torch.cuda.max_memory_allocated()) if self._uses_card() else 0

    def _uses_card(self) -> bool:
        return self._torch is not None and self._torch.cuda.is_initialized()


def device_name(device: str) -> str:
    """What the card or the processor calls itself; the device's own name where it cannot be asked."""
    if device.startswith("cuda:"):
        try:
            pynvml.nvmlInit()
            return str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(int(device.removeprefix("cuda:")))))
        except pynvml.NVMLError as error:
            log.warning("%s has no name: %s", device, error)
            return device
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), device)


def measure(device: str) -> float:
    """Floating-point operations a second of one large matrix product: bfloat16 on a card, float32 on the processor.

    A product of two n x n matrices counts 2·n³. The median of a few, in about 0.2 s after the libraries' first use.
    """
    import torch

    sides = (PROCESSOR_SIDE,) if device == "cpu" else CARD_SIDES
    flops = 0.0
    for side in sides:
        if flops and 2 * side**3 * 2 > flops * MEASURE_SECONDS:
            break  # not even two of the large ones fit into the time
        flops = _median_flops(torch, device, side)
    if device != "cpu":
        torch.cuda.empty_cache()
    return flops


def _median_flops(torch: Any, device: str, side: int) -> float:
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    left, right = (torch.rand((side, side), device=device).to(dtype) for _ in range(2))
    product = torch.empty((side, side), device=device, dtype=dtype)
    wait = (lambda: None) if device == "cpu" else torch.cuda.synchronize
    seconds: list[float] = []
    with torch.inference_mode():
        torch.matmul(left, right, out=product)  # the first one also loads the kernel
        wait()
        give_up_at = time.perf_counter() + MEASURE_SECONDS
        while len(seconds) < MEASURE_RUNS_MAX and time.perf_counter() < give_up_at:
            began = time.perf_counter()
            torch.matmul(left, right, out=product)
            wait()
            seconds.append(time.perf_counter() - began)
    return 2 * side**3 / statistics.median(seconds)
