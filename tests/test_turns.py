from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_dispatch import HOST_BYTES, MODELS, Known, card, job
from zsky_box.dispatch import Dispatcher, Waiting
from zsky_box.turns import Standing, in_line


def flows_of(jobs: Sequence[Waiting]) -> list[list[Waiting]]:
    def flow(one: Waiting) -> tuple[bool, str, str]:
        return one.batch, one.account_id, one.model

    urgent = [[one] for one in jobs if one.start_in_seconds is not None]
    ordered = sorted((one for one in jobs if one.start_in_seconds is None), key=lambda one: (flow(one), one.turn))
    return urgent + [list(group) for _, group in groupby(ordered, key=flow)]


def names(jobs: Sequence[Waiting], standing: Standing | None = None) -> list[str]:
    return [one.id for one in in_line(flows_of(jobs), standing or Standing())]


def in_turn(name: str, turn: int, model: str = "image", account: str = "ann", **facts: Any) -> Waiting:
    return job(name, model, account, turn=turn, **facts)


def test_accounts_take_turns_and_batch_comes_last() -> None:
    jobs = [in_turn(f"ann-{n}", n) for n in range(3)] + [in_turn("bob-0", 5, account="bob")]
    jobs += [in_turn("late", 0, account="bob", batch=True), in_turn("bob-1", 6, account="bob")]
    assert names(jobs) == ["ann-0", "bob-0", "ann-1", "bob-1", "ann-2", "late"]


def test_who_has_had_more_waits_for_longer() -> None:
    jobs = [in_turn(f"ann-{n}", n) for n in range(2)] + [in_turn(f"bob-{n}", n, account="bob") for n in range(2)]
    standing = Standing(accounts={"ann": 5.0, "bob": 0.0}, last_seconds={"image": 2.0})
    assert names(jobs, standing) == ["bob-0", "bob-1", "ann-0", "ann-1"]


def test_a_batch_job_that_has_waited_long_stands_among_the_interactive_ones() -> None:
    jobs = [in_turn("old", 0, batch=True, waited_seconds=4_000.0), in_turn("young", 1, batch=True), in_turn("now", 2)]
    assert names(jobs) == ["old", "now", "young"]


def test_what_was_moved_ahead_is_its_accounts_next_whatever_its_model_and_nobody_elses() -> None:
    jobs = [in_turn(f"video-{n}", n, "video") for n in range(2)]
    jobs += [in_turn("first", -1, moved=-1), in_turn("bob", 9, account="bob")]
    standing = Standing(accounts={"ann": 9.0, "bob": 0.0}, models={"ann": {"image": 100.0}})
    assert names(jobs, standing) == ["bob", "first", "video-0", "video-1"]


def test_of_two_that_were_moved_ahead_the_later_moved_goes_first() -> None:
    assert names([in_turn("a", -1, moved=-1), in_turn("b", -2, "video", moved=-1), in_turn("c", 0)]) == ["b", "a", "c"]


def test_what_was_moved_behind_waits_for_all_that_were_there_and_for_nobody_who_comes_later() -> None:
    jobs = [in_turn(f"video-{n}", n, "video") for n in range(3)]
    jobs += [in_turn("moved", 10, moved=1), in_turn("later", 11, "other")]
    standing = Standing(models={"ann": {"video": 100.0, "other": 200.0}})
    assert names(jobs, standing) == ["video-0", "video-1", "video-2", "moved", "later"]


LINES = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "cyd"]),
        st.sampled_from(sorted(MODELS)),
        st.booleans(),
        st.sampled_from([1.0, 4_000.0]),
        st.sampled_from([None, 30.0]),
        st.sampled_from([-1, 0, 0, 1]),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(LINES)
def test_the_line_is_the_order_in_which_one_card_takes_the_jobs(line: list[tuple[Any, ...]]) -> None:
    """Of one card that holds all models, so that only turns decide."""
    jobs = [
        job(f"{n}", model, account, batch=batch, waited_seconds=waited - n / 1_000, start_in_seconds=due)
        for n, (account, model, batch, waited, due, _) in enumerate(line)
    ]
    # As the keeper does it: ahead of all that there are, or behind them.
    turns = [n * 1_000 if not moved else moved * 10**6 + n * moved for n, (*_, moved) in enumerate(line)]
    jobs = [
        msgspec.structs.replace(one, turn=turn, moved=facts[5])
        for one, turn, facts in zip(jobs, turns, line, strict=True)
    ]
    told = names(jobs, Dispatcher(Known()).standing())
    dispatcher, taken, left = Dispatcher(Known()), list[str](), list(jobs)
    while left:
        flows = [[one] for one in left if one.start_in_seconds is not None]
        flows += flows_of([one for one in left if one.start_in_seconds is None])
        only = card(0, *MODELS, gib=999)
        (start,) = dispatcher.decide(flows_of(left), [only], HOST_BYTES, 1000.0)
        dispatcher.ended(start.job.account_id, start.job.model, expected_seconds=start.way.run_seconds, seconds=1.0)
        left.remove(start.job)
        taken.append(start.job.id)
        # What the line counts with: each runs for as long as its model's last one did, here a second.
        dispatcher._last_seconds.clear()  # pyright: ignore[reportPrivateUsage]
    assert told == taken
