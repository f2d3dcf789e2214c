"""How many requests a key may make: a bucket per key that holds a burst and fills at a steady rate. No locks, no I/O.

Each bucket is one number, the instant at which it will be full again: a request moves it on by the time that one
request takes to come back. A bucket that is full is the same as none, so what is forgotten is lost to nobody.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from msgspec import Struct

SECOND_NS: Final = 1_000_000_000
BUCKETS_MAX: Final = 20_000
"""As many as all keys of all accounts that a box may have."""


class Standing(Struct, frozen=True):
    """How a key stands after a request: whether that was let through, and what it may still do.

    `remaining` requests can be made at once; the bucket is full again in `full_after_seconds`; one that was not let
    through may come again in `retry_after_seconds` (0 where it was).
    """

    remaining: int
    full_after_seconds: int
    retry_after_seconds: int = 0

    @property
    def allowed(self) -> bool:
        """Whether the request may go on."""
        return self.retry_after_seconds == 0


class RateLimit:
    """The buckets of one box, all of one size. To be asked from one thread: the event loop's.

    `monotonic_ns` is a clock in nanoseconds that never runs backwards.
    """

    def __init__(self, per_second: int, burst: int, monotonic_ns: Callable[[], int]) -> None:
        self.policy: Final = f'"requests";q={burst};w={-(-burst // per_second)}'
        """For the header `RateLimit-Policy`: the burst, and the seconds in which an empty bucket fills."""
        self._each_ns = SECOND_NS // per_second
        self._burst_ns = burst * self._each_ns
        self._monotonic_ns = monotonic_ns
        self._full_at: OrderedDict[str, int] = OrderedDict()

    def take(self, key_id: str) -> Standing:
        """Count one request of a key; one that is not let through takes nothing."""
        now = self._monotonic_ns()
        missing = max(self._full_at.get(key_id, now) - now, 0)
        over = missing + self._each_ns - self._burst_ns
        if over > 0:
            return Standing(0, _seconds(missing), _seconds(over))
        missing += self._each_ns
        self._full_at[key_id] = now + missing
        self._full_at.move_to_end(key_id)
        if len(self._full_at) > BUCKETS_MAX:
            self._full_at.popitem(last=False)
        return Standing((self._burst_ns - missing) // self._each_ns, _seconds(missing))


def _seconds(nanoseconds: int) -> int:
    """Whole seconds, rounded up: who waits so long has waited long enough."""
    return -(-nanoseconds // SECOND_NS)
