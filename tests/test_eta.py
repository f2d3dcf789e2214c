from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.stores import Rooms
from zsky_box.dispatch import Outlook
from zsky_box.eta import Chance, Flow, ahead, filled, placed
from zsky_box.placement import Card


@pytest.fixture
def rooms(tmp_path: Path) -> Generator[Rooms]:
    rooms = Rooms(tmp_path)
    yield rooms
    rooms.close()


def test_work_is_given_to_whichever_device_is_free_first() -> None:
    assert filled([5.0], 0.0) == 5.0
    assert filled([0.0, 10.0], 4.0) == 4.0
    assert filled([0.0, 10.0], 14.0) == 12.0


def test_under_fair_shares_a_long_backlog_of_others_counts_as_much_as_ones_own() -> None:
    flows = [Flow("greedy", "video", 0, 300, 7_500.0), Flow("me", "image", 0, 4, 8.0)]
    count, seconds = ahead(flows, (0, "me", "image"), 4, 8.0)
    assert seconds == 16.0
    assert count == 4


def test_interactive_jobs_come_before_batch_jobs() -> None:
    flows = [Flow("other", "image", 0, 10, 20.0), Flow("me", "video", 1, 2, 50.0)]
    assert ahead(flows, (1, "me", "video"), 2, 50.0) == (12, 70.0)
    assert ahead(flows, (0, "me", "image"), 0, 0.0) == (0, 0.0)


def test_a_job_is_told_when_it_will_be_done_once_a_device_takes_jobs(rooms: Rooms) -> None:
    first, second = rooms.new_job(), rooms.new_job()
    assert rooms.view(first).eta_seconds is None
    rooms.outlook.append(Outlook(card=Card(device="cpu", total_bytes=1 << 40), name="cpu", free_at=0.0, paused=False))
    one, two = rooms.view(first).eta_seconds, rooms.view(second).eta_seconds
    assert one is not None
    assert two is not None
    assert 0 < one < two


def test_only_a_model_that_others_wait_for_is_waited_for() -> None:
    own, chance = (
        (0, "me", "video"),
        Chance(free_in_seconds=0.0, load_seconds=20.0, work_seconds=25.0, in_the_way={"image": 4.0}),
    )
    others = [Flow("other", "image", 0, 2, 3.0)]
    assert placed([], own, 0, 0.0, [chance], 10.0).seconds == 45.0
    assert placed(others, own, 0, 0.0, [chance], 10.0).seconds == 5 * 24.0 - 10.0 + 45.0
    assert placed(others, own, 0, 0.0, [chance], 500.0).seconds == 45.0
    assert placed([Flow("other", "image", 1, 2, 3.0)], own, 0, 0.0, [chance], 10.0).seconds == 45.0


def test_a_device_that_the_model_never_goes_to_gives_no_hope(rooms: Rooms) -> None:
    job_id = rooms.new_job()
    large = Card(device="cpu", total_bytes=1 << 40)
    rooms.outlook[:] = [
        Outlook(card=large, name="cpu", free_at=0.0, paused=False, excluded=frozenset({rooms.view(job_id).model}))
    ]
    assert rooms.view(job_id).eta_seconds is None
    rooms.outlook[:] = [Outlook(card=large, name="cpu", free_at=0.0, paused=False)]
    assert rooms.view(job_id).eta_seconds is not None
