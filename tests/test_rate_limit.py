from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsky_box.rate_limit import BUCKETS_MAX, SECOND_NS, RateLimit


class Monotonic:
    """A clock in nanoseconds that stands until it is moved."""

    def __init__(self) -> None:
        self.now_ns = 10**18

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND_NS)


@pytest.fixture
def clock() -> Monotonic:
    return Monotonic()


def test_a_burst_is_let_through_and_then_the_steady_rate(clock: Monotonic) -> None:
    limit = RateLimit(50, 1_000, clock)
    assert all(limit.take("key").allowed for _ in range(1_000))
    assert not limit.take("key").allowed
    clock.advance(1)
    assert [limit.take("key").allowed for _ in range(51)] == [True] * 50 + [False]


def test_the_headers_numbers_are_those_of_the_bucket(clock: Monotonic) -> None:
    limit = RateLimit(50, 1_000, clock)
    assert limit.policy == '"requests";q=1000;w=20'
    first = limit.take("key")
    assert (first.remaining, first.full_after_seconds, first.retry_after_seconds) == (999, 1, 0)
    for _ in range(998):
        limit.take("key")
    last = limit.take("key")
    assert (last.remaining, last.full_after_seconds) == (0, 20)
    clock.advance(20)
    assert limit.take("key") == first


def test_who_waits_as_long_as_told_is_let_through(clock: Monotonic) -> None:
    limit = RateLimit(1, 2, clock)
    limit.take("key")
    limit.take("key")
    clock.advance(0.25)
    refused = limit.take("key")
    assert (refused.remaining, refused.retry_after_seconds) == (0, 1)
    clock.advance(refused.retry_after_seconds)
    assert limit.take("key").allowed


def test_a_request_that_is_refused_takes_nothing(clock: Monotonic) -> None:
    limit = RateLimit(1, 1, clock)
    limit.take("key")
    for _ in range(100):
        assert not limit.take("key").allowed
    clock.advance(1)
    assert limit.take("key").allowed


def test_keys_have_a_bucket_each(clock: Monotonic) -> None:
    limit = RateLimit(1, 1, clock)
    assert limit.take("one").allowed
    assert not limit.take("one").allowed
    assert limit.take("other").allowed


def test_more_keys_than_a_box_may_have_do_not_grow_it_and_the_longest_idle_is_forgotten(clock: Monotonic) -> None:
    limit = RateLimit(1, 1, clock)
    limit.take("idle")
    limit.take("busy")
    for number in range(BUCKETS_MAX - 1):
        limit.take(f"key {number}")
    assert not limit.take("busy").allowed
    assert limit.take("idle").allowed


@settings(deadline=None)
@given(
    st.integers(1, 1_000),
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 2 * SECOND_NS), st.booleans()), max_size=200),
)
def test_no_more_is_let_through_in_any_time_than_the_burst_and_what_the_rate_brings(
    per_second: int, burst: int, steps: list[tuple[int, bool]]
) -> None:
    clock = Monotonic()
    limit = RateLimit(per_second, burst, clock)
    let_through: list[int] = []
    for wait_ns, moves in steps:
        clock.now_ns += wait_ns if moves else 0
        standing = limit.take("key")
        assert 0 <= standing.remaining < burst
        if standing.allowed:
            let_through.append(clock.now_ns)
    each = Fraction(SECOND_NS // per_second)
    for first, start in enumerate(let_through):
        for last in range(first, len(let_through)):
            assert last - first + 1 <= burst + (let_through[last] - start) / each
