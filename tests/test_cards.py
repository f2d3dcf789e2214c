from __future__ import annotations

import threading

import pynvml
import pytest

from tests.doubles.nvml import FakeNvml
from zsky_box import cards as cards_module
from zsky_box.cards import MISSES_MAX, WELL_SECONDS, CardWatch, Reading

BOUND_SECONDS = 60.0


class Watched:
    """Two cards and the processor, and what was told of them; each look is a second after the last."""

    def __init__(self) -> None:
        self.nvml = FakeNvml(2)
        self.told: list[tuple[str, str]] = []
        self.watch = CardWatch(
            ["cpu", "cuda:0", "cuda:1"], lambda device, fault: self.told.append((device, fault)), self.nvml
        )
        self.now = 100.0

    def look(self, seconds: float = 1.0) -> list[tuple[str, str]]:
        """What one more look tells."""
        self.now += seconds
        before = len(self.told)
        self.watch.look(self.now)
        return self.told[before:]


@pytest.fixture
def watched() -> Watched:
    made = Watched()
    assert made.look() == []
    return made


def test_it_works(watched: Watched) -> None:
    assert watched.look() == []
    assert watched.watch.readings()[0] == Reading(
        device="cuda:0",
        memory_total_bytes=80 * 2**30,
        memory_used_bytes=3 * 2**30,
        utilisation=0.97,
        temperature_celsius=61.0,
        power_watts=None,
    )
    assert [reading.device for reading in watched.watch.readings()] == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED])
def test_a_card_that_the_driver_has_lost_is_told_once_and_again_when_it_has_been_well_for_a_while(
    watched: Watched, error: int
) -> None:
    card = watched.nvml.cards[1]
    card.error = error
    [(device, fault)] = watched.look()
    assert device == "cuda:1"
    assert fault.startswith("does not answer any more")
    assert watched.look() == []
    assert [reading.device for reading in watched.watch.readings()] == ["cuda:0"]
    card.error = None
    assert watched.look() == []
    assert watched.look(WELL_SECONDS - 1) == []
    assert watched.look() == [("cuda:1", "")]
    assert len(watched.watch.readings()) == 2


def test_a_card_that_fails_again_in_that_while_begins_it_anew(watched: Watched) -> None:
    card = watched.nvml.cards[0]
    card.error = pynvml.NVML_ERROR_GPU_IS_LOST
    assert len(watched.look()) == 1
    card.error = None
    watched.look()
    card.error = pynvml.NVML_ERROR_GPU_IS_LOST
    watched.look(WELL_SECONDS / 2)
    card.error = None
    watched.look()
    assert watched.look(WELL_SECONDS - 1) == []
    assert watched.look() == [("cuda:0", "")]


def test_a_card_that_disappears_is_not_taken_for_the_one_behind_it(watched: Watched) -> None:
    watched.nvml.cards[0].gone = True
    assert [device for device, _ in watched.look()] == ["cuda:0"]
    assert [reading.device for reading in watched.watch.readings()] == ["cuda:1"]


def test_new_uncorrectable_memory_errors_are_a_fault_and_old_ones_are_not() -> None:
    watched = Watched()
    watched.nvml.cards[0].uncorrected = 7  # from before the box was started
    assert watched.look() == []
    watched.nvml.cards[0].uncorrected = 9
    assert watched.look() == [("cuda:0", "counted 2 new uncorrectable memory errors")]
    watched.nvml.cards[0].uncorrected = 0  # the driver was loaded anew
    assert watched.look() == []
    assert watched.look(WELL_SECONDS) == [("cuda:0", "")]


def test_a_card_without_such_a_counter_is_well(watched: Watched) -> None:
    watched.nvml.cards[0].uncorrected = None
    assert watched.look() == []


def test_a_card_that_tells_no_events_is_none_that_is_lost() -> None:
    """As under WSL2: of an empty set the driver would say that the argument is wrong, as of a card that is gone."""
    watched = Watched()
    watched.nvml.cards[1].tells_events = False
    for _ in range(MISSES_MAX + 1):
        assert watched.look() == []
    assert [reading.device for reading in watched.watch.readings()] == ["cuda:0", "cuda:1"]
    assert watched.nvml.event_sets == 1


def test_a_critical_xid_is_a_fault_and_one_that_a_program_causes_is_not(watched: Watched) -> None:
    watched.nvml.cards[0].xids = [13, 31, 43]
    assert watched.look() == []
    watched.nvml.cards[1].xids = [31, 79]
    assert watched.look() == [("cuda:1", "reported a critical error (Xid 79)")]


def test_a_driver_that_does_not_answer_for_a_moment_is_no_fault(watched: Watched) -> None:
    watched.nvml.cards[0].error = pynvml.NVML_ERROR_UNKNOWN
    for _ in range(MISSES_MAX - 1):
        assert watched.look() == []
    assert [device for device, _ in watched.look()] == ["cuda:0"]


def test_without_a_driver_nothing_is_watched() -> None:
    nvml = FakeNvml(0, installed=False)
    watch = CardWatch(["cuda:0"], lambda device, fault: pytest.fail(f"told of {device}: {fault}"), nvml)
    watch.start()
    watch.stop()
    assert watch.readings() == ()


def test_it_watches_on_a_thread_of_its_own_and_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards_module, "POLL_SECONDS", 0.01)
    nvml, told = FakeNvml(1), threading.Event()
    watch = CardWatch(["cuda:0"], lambda _device, _fault: told.set(), nvml)
    watch.start()
    nvml.cards[0].error = pynvml.NVML_ERROR_GPU_IS_LOST
    assert told.wait(BOUND_SECONDS)
    watch.stop()
    assert (nvml.opened, nvml.event_sets) == (0, 0)
    assert not [thread for thread in threading.enumerate() if thread.name == "cards"]


def test_a_box_without_cards_starts_no_thread() -> None:
    watch = CardWatch(["cpu", "cpu"], lambda _device, _fault: None, FakeNvml(0))
    watch.start()
    assert not [thread for thread in threading.enumerate() if thread.name == "cards"]
    watch.stop()
