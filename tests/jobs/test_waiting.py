from __future__ import annotations

from tests.stores import Rooms
from zsky_box.clock import SECOND_US
from zsky_box.jobs import waiting
from zsky_box.jobs.waiting import Line


def test_the_line_is_counted_with_what_runs_whether_or_not_anything_waits(rooms: Rooms) -> None:
    assert waiting.line(rooms.store, rooms.clock()) == Line(waiting=0, running=0, waited_us=0)
    rooms.running()
    assert waiting.line(rooms.store, rooms.clock()) == Line(waiting=0, running=1, waited_us=0)
    rooms.new_job()
    rooms.clock.advance(3)
    rooms.new_job()
    rooms.new_job(caller=rooms.tester)
    assert waiting.line(rooms.store, rooms.clock()) == Line(waiting=2, running=1, waited_us=3 * SECOND_US)
