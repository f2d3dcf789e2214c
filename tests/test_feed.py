from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from tests.stores import SetClock
from zsky_box import feed
from zsky_box.feed import BACKLOG_MAX, PREVIEW_BACKLOG_MAX, RING_LENGTH, Channel, Event, Feed, Listener

LIVE: Channel = ("acc_ann", False)
TEST: Channel = ("acc_ann", True)
OTHER: Channel = ("acc_bob", False)
WAIT_SECONDS = 60.0


def run(work: Callable[[Feed], Awaitable[None]]) -> None:
    """Run a test on an event loop of its own, with a fresh feed."""

    async def bounded() -> None:
        await asyncio.wait_for(work(Feed(SetClock())), WAIT_SECONDS)

    asyncio.run(bounded())


def tell(live: Feed, number: int, channel: Channel = LIVE, job_id: str = "job_1") -> None:
    live.publish(channel, "progress", job_id, {"number": number})


async def heard(listener: Listener) -> list[int | None]:
    """What waits in a listener's queue by now: the numbers told, None for its end."""
    await asyncio.sleep(0)
    numbers: list[int | None] = []
    while not listener.queue.empty():
        event = listener.queue.get_nowait()
        numbers.append(None if event is None else event.data["number"])
    return numbers


def numbers(events: list[Event] | None) -> list[int] | None:
    return None if events is None else [event.data["number"] for event in events]


def test_a_listener_hears_what_is_told_from_then_on_in_order() -> None:
    async def work(live: Feed) -> None:
        tell(live, 0)
        listener, missed = live.listen(LIVE, None, "")
        assert missed is None
        for number in (1, 2, 3):
            tell(live, number)
        assert await heard(listener) == [1, 2, 3]

    run(work)


def test_other_accounts_and_the_other_mode_are_never_heard() -> None:
    async def work(live: Feed) -> None:
        here, _ = live.listen(LIVE, None, "")
        for number, channel in enumerate((OTHER, LIVE, TEST)):
            tell(live, number, channel)
        assert await heard(here) == [1]
        start = live.position()
        tell(live, 9, OTHER)
        assert numbers(live.listen(LIVE, None, start)[1]) == []

    run(work)


def test_a_listener_of_one_job_hears_only_that_one_live_and_resumed() -> None:
    async def work(live: Feed) -> None:
        start = live.position()
        listener, _ = live.listen(LIVE, "job_1", "")
        tell(live, 1, job_id="job_1")
        tell(live, 2, job_id="job_2")
        assert await heard(listener) == [1]
        assert numbers(live.listen(LIVE, "job_1", start)[1]) == [1]

    run(work)


def test_who_comes_back_gets_what_was_missed() -> None:
    async def work(live: Feed) -> None:
        listener, _ = live.listen(LIVE, None, "")
        for number in range(5):
            tell(live, number)
        await asyncio.sleep(0)
        last = [listener.queue.get_nowait() for _ in range(2)][-1]
        assert last is not None
        live.leave(listener)
        tell(live, 5)
        again, missed = live.listen(LIVE, None, last.id)
        assert numbers(missed) == [2, 3, 4, 5]
        assert await heard(again) == []

    run(work)


def test_a_preview_is_for_those_who_listen_now_and_takes_no_place_in_the_ring() -> None:
    async def work(live: Feed) -> None:
        start = live.position()
        listener, _ = live.listen(LIVE, None, "")
        tell(live, 1)
        for _ in range(RING_LENGTH + 1):
            live.publish(LIVE, "preview", "job_1", {"number": 0})
        tell(live, 2)
        assert numbers(live.listen(LIVE, None, start)[1]) == [1, 2]
        told = await heard(listener)
        assert (told[0], told[-1]) == (1, 2)
        assert told.count(0) == PREVIEW_BACKLOG_MAX - 1, "who is behind is shown no more of them"

    run(work)


def test_who_comes_back_after_a_whole_ring_needs_a_snapshot() -> None:
    async def work(live: Feed) -> None:
        start = live.position()
        for number in range(RING_LENGTH):
            tell(live, number)
        assert numbers(live.listen(LIVE, None, start)[1]) == list(range(RING_LENGTH))
        tell(live, RING_LENGTH)
        assert live.listen(LIVE, None, start)[1] is None

    run(work)


def test_who_comes_back_after_the_ring_was_given_up_needs_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "RINGS_MAX", 2)

    async def work(live: Feed) -> None:
        start = live.position()
        tell(live, 1)
        for account in ("acc_a", "acc_b"):
            tell(live, 0, (account, False))
        assert live.listen(LIVE, None, start)[1] is None
        tell(live, 2)
        assert live.listen(LIVE, None, start)[1] is None
        assert numbers(live.listen(LIVE, None, live.position())[1]) == []

    run(work)


@pytest.mark.parametrize("last_event_id", ["", "x", "-1", "0-1", "deadbeef-1", "9" * 40, "\ud800-1"])
def test_an_id_of_another_start_or_of_none_needs_a_snapshot(last_event_id: str) -> None:
    async def work(live: Feed) -> None:
        tell(live, 1)
        assert live.listen(LIVE, None, last_event_id)[1] is None

    run(work)


@pytest.mark.parametrize("number", ["", "-1", "1.5", "²", "9" * 30, "x"])
def test_a_mangled_number_needs_a_snapshot(number: str) -> None:
    async def work(live: Feed) -> None:
        epoch = live.position().partition("-")[0]
        assert live.listen(LIVE, None, f"{epoch}-{number}")[1] is None

    run(work)


def test_an_id_that_nobody_was_given_needs_a_snapshot() -> None:
    async def work(live: Feed) -> None:
        tell(live, 0)
        epoch, _, number = live.position().partition("-")
        assert numbers(live.listen(LIVE, None, f"{epoch}-{number}")[1]) == []
        assert live.listen(LIVE, None, f"{epoch}-{int(number) + 1}")[1] is None

    run(work)


def test_a_listener_that_cannot_keep_up_is_ended_and_the_others_are_not() -> None:
    async def work(live: Feed) -> None:
        slow, _ = live.listen(LIVE, None, "")
        quick, _ = live.listen(LIVE, None, "")
        for number in range(BACKLOG_MAX + 50):
            tell(live, number)
            assert await heard(quick) == [number]
        assert await heard(slow) == [*range(BACKLOG_MAX), None]

    run(work)


def test_who_has_left_hears_nothing_and_may_leave_twice() -> None:
    async def work(live: Feed) -> None:
        listener, _ = live.listen(LIVE, None, "")
        live.leave(listener)
        live.leave(listener)
        tell(live, 1)
        assert await heard(listener) == []

    run(work)


def test_closing_ends_every_stream_now_and_to_come() -> None:
    async def work(live: Feed) -> None:
        open_now = [live.listen(channel, None, "")[0] for channel in (LIVE, TEST, OTHER)]
        tell(live, 1)
        live.close()
        assert [await heard(listener) for listener in open_now] == [[1, None], [None], [None]]
        assert await heard(live.listen(LIVE, None, "")[0]) == [None]

    run(work)


def test_who_held_what_has_ended_hears_no_more_and_everybody_else_does() -> None:
    async def work(live: Feed) -> None:
        ended = [live.listen(channel, job_id, "", "ses_1")[0] for channel, job_id in ((LIVE, None), (OTHER, "job_1"))]
        others = [live.listen(LIVE, None, "", holder_id)[0] for holder_id in ("ses_2", "key_1", "")]
        await asyncio.to_thread(live.end, "ses_1")
        tell(live, 1)
        for listener in ended:
            assert (await heard(listener))[0] is None
        for listener in others:
            assert await heard(listener) == [1]

    run(work)


def test_a_full_listener_is_ended_once_by_the_close() -> None:
    async def work(live: Feed) -> None:
        listener, _ = live.listen(LIVE, None, "")
        for number in range(BACKLOG_MAX):
            tell(live, number)
        live.close()
        live.close()
        assert await heard(listener) == [*range(BACKLOG_MAX), None]

    run(work)


def test_events_told_from_many_threads_are_all_heard_with_growing_ids() -> None:
    async def work(live: Feed) -> None:
        listener, _ = live.listen(LIVE, None, "")
        threads = [threading.Thread(target=lambda: [tell(live, 1) for _ in range(50)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        await asyncio.to_thread(lambda: [thread.join(WAIT_SECONDS) for thread in threads])
        await asyncio.sleep(0)
        events = [listener.queue.get_nowait() for _ in range(400)]
        ids = [int(event.id.partition("-")[2]) for event in events if event is not None]
        assert len(ids) == 400
        assert ids == sorted(set(ids))

    run(work)
