from __future__ import annotations

import subprocess
import sys

import pytest

from tests.running import ROOT
from zsky_box.worker_meter import Meter, device_name

LARGE_BYTES = 64 * 2**20


def test_it_works() -> None:
    meter = Meter("cpu")
    meter.begin()
    held = meter.bytes_held()
    assert meter.peak_bytes() >= held > 0


PEAK_SCRIPT = f"""
import numpy as np
from zsky_box.worker_meter import Meter
meter = Meter("cpu")
meter.begin()
before = meter.peak_bytes()
np.ones({LARGE_BYTES}, np.uint8)  # filled, and gone at once
peak = meter.peak_bytes()
held = meter.bytes_held()
meter.begin()
print(before, peak, held, meter.peak_bytes())
"""


def test_the_peak_counts_what_was_held_and_given_back_since_it_began() -> None:
    # In a process of its own, as a worker is: this one may hold enough that is free to take the array.
    told = subprocess.run([sys.executable, "-c", PEAK_SCRIPT], cwd=ROOT, check=True, capture_output=True, text=True)
    before, peak, held, anew = map(int, told.stdout.split())
    assert peak >= before + LARGE_BYTES * 0.9
    assert held < peak - LARGE_BYTES * 0.5
    assert anew < peak - LARGE_BYTES * 0.5


def test_a_card_that_nothing_has_used_holds_nothing() -> None:
    meter = Meter("cuda:0")
    meter.begin()
    assert (meter.bytes_held(), meter.peak_bytes()) == (0, 0)


def test_the_processor_has_a_name_and_a_card_without_a_driver_its_number() -> None:
    assert device_name("cpu")
    assert device_name("cuda:97") == "cuda:97"


def test_the_speed_of_the_processor_is_measured_in_a_moment() -> None:
    script = (
        "import time, torch; from zsky_box.worker_meter import measure;"
        "began = time.process_time(); print(measure('cpu'), time.process_time() - began)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    flops, seconds = map(float, done.stdout.split())
    assert 1e8 < flops < 1e15
    assert seconds < 5


class FakeTorch:
    """As much of torch.cuda as is asked."""

    def __init__(self) -> None:
        self.cuda = self
        self.used = False
        self.fraction = 1.0

    def is_initialized(self) -> bool:
        return self.used

    def mem_get_info(self) -> tuple[int, int]:
        return 3 * 2**30, 16 * 2**30

    def set_per_process_memory_fraction(self, fraction: float) -> None:
        self.fraction = fraction

    def memory_allocated(self) -> int:
        assert self.used, "the card is not to be begun to be used for a question"
        return 5

    def max_memory_allocated(self) -> int:
        assert self.used
        return 7

    def reset_peak_memory_stats(self) -> None:
        assert self.used


def test_a_card_is_asked_through_torch_once_it_is_imported_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTorch()
    monkeypatch.setitem(sys.modules, "torch", fake)
    meter = Meter("cuda:0")
    fake.used = True
    assert meter.bytes_held() == 0, "an import that nobody has said to be over may be half done"
    meter.torch_is_there()
    meter.begin()
    assert (meter.bytes_held(), meter.peak_bytes()) == (5, 7)
    fake.used = False
    meter.begin()
    assert (meter.bytes_held(), meter.peak_bytes()) == (0, 0)


@pytest.mark.parametrize(("reserve_gib", "fraction"), [(0, 1.0), (4, 0.75), (16, 0.0), (99, 0.0)])
def test_what_is_reserved_of_a_card_torch_may_never_take(
    monkeypatch: pytest.MonkeyPatch, reserve_gib: int, fraction: float
) -> None:
    """Freed memory stays torch's own: without the bound, the encoder and the desktop would find none."""
    fake = FakeTorch()
    monkeypatch.setitem(sys.modules, "torch", fake)
    Meter("cpu", reserve_gib * 2**30).torch_is_there()
    assert fake.fraction == 1.0
    Meter("cuda:0", reserve_gib * 2**30).torch_is_there()
    assert fake.fraction == fraction
