"""What the box has learnt about its times is there after a restart, and does not grow for ever."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from tests.doubles.driving import SPEC
from tests.stores import Rooms
from zsky_box import timings
from zsky_box.estimates import KEPT, Estimates, Timing, shape_of
from zsky_box.manifest import WHOLE
from zsky_box.requests import Work
from zsky_box.timings import ROWS_MAX

WORK = Work(
    type="image", model="double", prompt="", negative_prompt="", seed=0, n=1, width=640, height=480, frames=0, fps=0
)
LARGER = msgspec.structs.replace(WORK, width=1280)
DOUBLE = msgspec.structs.replace(SPEC, name="double", bundled=False)


class Kept:
    """A store with timings, and what a start would recall of them."""

    def __init__(self, folder: Path) -> None:
        self.rooms = Rooms(folder)

    def keep(self, *seconds: float, work: Work = WORK, card: str = "card", kind: str = "run") -> None:
        told = {"kind": kind, "model": "double", "recipe": WHOLE.name, "card": card, "operations": 0.0}
        shape = "" if kind == "load" else shape_of(work)
        took = [msgspec.convert({**told, "shape": shape, "seconds": each}, Timing) for each in seconds]
        self.rooms.store.write(lambda tx: timings.keep(tx, took, 1))

    def recalled(self) -> Estimates:
        self.rooms.restart()
        with self.rooms.store.snapshot() as rows:
            return timings.recall(rows)

    def count(self) -> int:
        (row,) = self.rooms.store.all("SELECT count(*) AS count FROM timing")
        return row["count"]


@pytest.fixture
def kept(tmp_path: Path) -> Generator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    kept.rooms.close()


def run_seconds(estimates: Estimates, work: Work = WORK, card: str = "card") -> float:
    return estimates.run_seconds(DOUBLE, WHOLE, card, work, is_cpu=False)


def test_it_works(kept: Kept) -> None:
    kept.keep(3.0, 5.0, 100.0)
    kept.keep(8.0, kind="load")
    estimates = kept.recalled()
    assert run_seconds(estimates) == 5.0
    assert estimates.has_run(DOUBLE, WHOLE, "card", WORK)
    assert estimates.load_seconds(DOUBLE, WHOLE, "card", 10**12, quantises=True) == 8.0


def test_after_a_restart_the_last_times_count_and_older_ones_are_gone(kept: Kept) -> None:
    kept.keep(*(float(seconds) for seconds in range(KEPT + 10)))
    assert run_seconds(kept.recalled()) == 17.0
    assert kept.count() == KEPT


def test_a_busy_size_does_not_push_a_rare_one_out(kept: Kept) -> None:
    kept.keep(9.0, work=LARGER)
    kept.keep(4.0, card="another card")
    for _ in range(5):
        kept.keep(*[2.0] * KEPT)
    estimates = kept.recalled()
    assert (run_seconds(estimates), run_seconds(estimates, LARGER)) == (2.0, 9.0)
    assert run_seconds(estimates, card="another card") == 4.0


def test_however_many_sizes_there_are_the_newest_stay_and_the_oldest_go(kept: Kept) -> None:
    kept.keep(77.0, work=LARGER)
    kept.rooms.store.write(
        lambda tx: tx.execute(
            "WITH RECURSIVE number(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < ?)"
            " INSERT INTO timing (kind, model, recipe, card, shape, operations, seconds, at)"
            " SELECT 'run', 'double', ?, 'card', 'size ' || i, 0, 1, 1 FROM number",
            (ROWS_MAX, WHOLE.name),
        )
    )
    kept.keep(6.0)
    assert kept.count() == ROWS_MAX
    estimates = kept.recalled()
    assert run_seconds(estimates) == 6.0
    assert run_seconds(estimates, LARGER) != 77.0


def test_a_card_is_as_fast_as_it_was_measured_last(kept: Kept) -> None:
    for flops in (1e12, 3e13):
        kept.rooms.store.write(lambda tx, flops=flops: timings.keep_card(tx, "card", flops, 1))
    kept.rooms.store.write(lambda tx: timings.keep_card(tx, "another card", 2e12, 2))
    assert kept.recalled().flops == {"card": 3e13, "another card": 2e12}
