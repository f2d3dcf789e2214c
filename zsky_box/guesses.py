"""How often a password may be guessed: waits that grow, per account and per address. No locks, no I/O.

The first wrong ones cost nothing; after them each makes the next wait twice as long, up to a quarter of an hour. An
attempt counts when it is let in, so that many at once gain nothing, and stops counting when it turns out right.

Nobody can lock a person out for ever: where an account was signed in to rightly from an address, attempts from there
are counted by themselves, and what strangers do elsewhere does not matter. That is kept in memory only: after a restart
a person who is being attacked may have to wait once as a stranger does. An IPv6 address counts by its /64, which one
household or machine has whole.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from zsky_box.errors import Refusal

SECOND_NS: Final = 1_000_000_000
FREE_PER_ACCOUNT: Final = 10
FREE_PER_ADDRESS: Final = 30
FIRST_WAIT_SECONDS: Final = 10
WAIT_MAX_SECONDS: Final = 900
FORGOTTEN_SECONDS: Final = 4 * 3_600
"""So long after its last wrong attempt, an account or address is as one that never had any."""
KEPT_MAX: Final = 10_000
"""Of each kind. Who would push an account out of memory by naming others needs as many attempts from new addresses."""

_NAME_MAX: Final = 200


class _Tries(Struct):
    """Attempts that were wrong or are not decided, when the last was, and when the next may be."""

    count: int = 0
    last_ns: int = 0
    next_ns: int = 0


class _Counter:
    """The attempts of many subjects of one kind, each with some that are free; forgets the longest idle."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._kept: OrderedDict[str, _Tries] = OrderedDict()

    def wait_ns(self, subject: str, now: int) -> int:
        """How long until the subject may try; 0 for now."""
        tries = self._kept.get(subject)
        return 0 if tries is None else max(tries.next_ns - now, 0)

    def count(self, subject: str, now: int) -> None:
        """One more attempt."""
        tries = self._kept.get(subject)
        if tries is None or now - tries.last_ns >= FORGOTTEN_SECONDS * SECOND_NS:
            tries = self._kept[subject] = _Tries()
        tries.count += 1
        self._kept.move_to_end(subject)
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        self._delay(tries, now)

    def confirm(self, subject: str, now: int) -> None:
        """An attempt was wrong: the wait runs from the answer, however long that took."""
        tries = self._kept.get(subject)
        if tries is not None:
            self._delay(tries, now)

    def undo(self, subject: str, now: int) -> None:
        """An attempt was right: it does not count, and there is no wait after it."""
        tries = self._kept.get(subject)
        if tries is not None:
            tries.count = max(tries.count - 1, 0)
            tries.next_ns = min(tries.next_ns, now)

    def _delay(self, tries: _Tries, now: int) -> None:
        tries.last_ns = now
        over = tries.count - self._free
        if over >= 0:
            # 2 to the power of a number without a bound is a number without a bound.
            seconds = min(FIRST_WAIT_SECONDS << min(over, 16), WAIT_MAX_SECONDS)
            tries.next_ns = now + seconds * SECOND_NS


class Guesses:
    """The attempts at signing in to one box. To be asked from one thread: the event loop's.

    `account` is what was typed as the name, whether there is such an account or not; `address` the client's.
    `monotonic_ns` is a clock in nanoseconds that never runs backwards.
    """

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        self._monotonic_ns = monotonic_ns
        self._accounts = _Counter(FREE_PER_ACCOUNT)
        self._addresses = _Counter(FREE_PER_ADDRESS)
        self._pairs = _Counter(FREE_PER_ACCOUNT)
        self._known: OrderedDict[str, None] = OrderedDict()
        """Accounts with addresses from which they were signed in to rightly."""

    def allow(self, account: str, address: str) -> None:
        """Count an attempt, before anything is looked up or hashed; raises 429 `rate_limited` where it has to wait."""
        now = self._monotonic_ns()
        subjects = self._subjects(account, address)
        wait_ns = max(counter.wait_ns(subject, now) for counter, subject in subjects)
        if wait_ns > 0:
            seconds = -(-wait_ns // SECOND_NS)
            raise Refusal(
                429,
                "rate_limited",
                f"Too many wrong passwords; try again in {seconds} s.",
                headers={"Retry-After": str(seconds)},
            )
        for counter, subject in subjects:
            counter.count(subject, now)

    def wrong(self, account: str, address: str) -> None:
        """The attempt that was let in has been refused."""
        now = self._monotonic_ns()
        for counter, subject in self._subjects(account, address):
            counter.confirm(subject, now)

    def right(self, account: str, address: str) -> None:
        """The attempt that was let in was right: it does not count, and the account knows the address from now on."""
        now = self._monotonic_ns()
        for counter, subject in self._subjects(account, address):
            counter.undo(subject, now)
        pair = _pair(account, address)
        self._known[pair] = None
        self._known.move_to_end(pair)
        if len(self._known) > KEPT_MAX:
            self._known.popitem(last=False)

    def _subjects(self, account: str, address: str) -> list[tuple[_Counter, str]]:
        pair = _pair(account, address)
        if pair in self._known:
            return [(self._pairs, pair)]
        return [(self._accounts, _name(account)), (self._addresses, network(address))]


def network(address: str) -> str:
    """What an address is counted by: an IPv4 address itself, of an IPv6 address its /64, anything else as it is."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:_NAME_MAX]
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _name(account: str) -> str:
    return account.strip().casefold()[:_NAME_MAX]


def _pair(account: str, address: str) -> str:
    return f"{network(address)} {_name(account)}"
