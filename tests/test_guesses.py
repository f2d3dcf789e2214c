from __future__ import annotations

import pytest

from zsky_box import guesses
from zsky_box.errors import Refusal
from zsky_box.guesses import FREE_PER_ACCOUNT, FREE_PER_ADDRESS, SECOND_NS, WAIT_MAX_SECONDS, Guesses, network

HOME, CAFE = "192.168.1.20", "203.0.113.9"


class Door:
    """Guesses on a clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_ns = 10**18
        self.guesses = Guesses(lambda: self.now_ns)

    def advance(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND_NS)

    def wait(self, account: str, address: str) -> int:
        """Seconds that an attempt is told to wait, which are 0 where it is let in: then it counts."""
        try:
            self.guesses.allow(account, address)
        except Refusal as refused:
            answer = refused
        else:
            return 0
        seconds = int(answer.headers["Retry-After"])
        assert (answer.status, answer.code) == (429, "rate_limited")
        assert 1 <= seconds <= WAIT_MAX_SECONDS
        assert f"{seconds} s" in answer.detail
        return seconds

    def wrong(self, account: str, address: str) -> bool:
        """A wrong password: whether it was even looked at."""
        if self.wait(account, address) > 0:
            return False
        self.guesses.wrong(account, address)
        return True

    def right(self, account: str, address: str) -> bool:
        if self.wait(account, address) > 0:
            return False
        self.guesses.right(account, address)
        return True


@pytest.fixture
def door() -> Door:
    return Door()


def test_some_are_free_and_then_the_wait_doubles_up_to_its_most(door: Door) -> None:
    assert all(door.wrong("ann", HOME) for _ in range(FREE_PER_ACCOUNT))
    waits: list[int] = []
    for _ in range(9):
        waits.append(door.wait("ann", HOME))
        door.advance(waits[-1] - 1)
        assert not door.wrong("ann", HOME)
        door.advance(1)
        assert door.wrong("ann", HOME)
    assert waits == [10, 20, 40, 80, 160, 320, 640, 900, 900]


def test_ten_thousand_guesses_at_an_account_let_a_few_through_wherever_they_come_from(door: Door) -> None:
    let_in = 0
    for number in range(10_000):
        let_in += door.wrong("ann", f"203.0.{number % 256}.{number // 256}")
        door.advance(1)
    # Ten for nothing, seven while the wait grows, and one each quarter of an hour of the rest.
    assert FREE_PER_ACCOUNT < let_in <= 17 + 10_000 // WAIT_MAX_SECONDS


def test_ten_thousand_guesses_from_an_address_let_a_few_through_whomever_they_are_at(door: Door) -> None:
    let_in = 0
    for number in range(10_000):
        let_in += door.wrong(f"person {number}", CAFE)
        door.advance(1)
    assert FREE_PER_ADDRESS < let_in <= 37 + 10_000 // WAIT_MAX_SECONDS


def test_ten_thousand_at_once_gain_nothing(door: Door) -> None:
    assert sum(door.wait("ann", CAFE) == 0 for _ in range(10_000)) == FREE_PER_ACCOUNT


def test_whether_there_is_such_an_account_does_not_show(door: Door) -> None:
    for _ in range(FREE_PER_ACCOUNT):
        assert door.wrong("nobody", HOME) == door.wrong("ann", CAFE)
    assert door.wait("nobody", HOME) == door.wait("ann", CAFE) > 0


def test_a_name_is_counted_however_it_is_written(door: Door) -> None:
    for name in ("ann", "Ann", " ANN ", "ann\t", "aNN"):
        assert door.wrong(name, HOME)
        assert door.wrong(name, HOME)
    assert not door.wrong("ann", HOME)


def test_who_signs_in_rightly_is_not_counted_however_often(door: Door) -> None:
    assert all(door.right("ann", HOME) for _ in range(1_000))


def test_a_mistyped_password_is_forgiven(door: Door) -> None:
    for _ in range(FREE_PER_ACCOUNT - 1):
        assert door.wrong("ann", HOME)
    assert door.right("ann", HOME)
    assert door.right("ann", HOME)


def test_strangers_do_not_lock_a_person_out_where_that_person_signed_in(door: Door) -> None:
    assert door.right("ann", HOME)
    for number in range(1_000):
        door.wrong("ann", f"203.0.113.{number % 256}")
        door.wrong(f"person {number}", HOME)
    assert not door.wrong("ann", CAFE)
    assert not door.wrong("bob", HOME)
    assert door.right("ann", HOME)


def test_a_known_address_is_no_free_pass(door: Door) -> None:
    door.right("ann", HOME)
    assert sum(door.wrong("ann", HOME) for _ in range(10_000)) == FREE_PER_ACCOUNT
    assert door.wait("ann", HOME) > 0


def test_an_account_of_ones_own_does_not_clear_the_address(door: Door) -> None:
    let_in = 0
    for number in range(1_000):
        let_in += door.wrong(f"person {number}", CAFE)
        door.right("mallory", CAFE)
    assert let_in <= FREE_PER_ADDRESS


def test_the_wait_runs_from_the_answer(door: Door) -> None:
    for _ in range(FREE_PER_ACCOUNT - 1):
        door.wrong("ann", HOME)
    assert door.wait("ann", HOME) == 0
    door.advance(9)
    door.guesses.wrong("ann", HOME)
    assert door.wait("ann", HOME) == 10


def test_a_verdict_without_an_attempt_changes_nothing(door: Door) -> None:
    for _ in range(100):
        door.guesses.wrong("ann", HOME)
    assert door.wait("ann", HOME) == 0


def test_what_is_long_ago_is_forgotten(door: Door) -> None:
    for _ in range(FREE_PER_ACCOUNT):
        door.wrong("ann", HOME)
    door.advance(guesses.FORGOTTEN_SECONDS - 1)
    assert door.wrong("ann", HOME)
    assert not door.wrong("ann", HOME)
    door.advance(guesses.FORGOTTEN_SECONDS)
    assert all(door.wrong("ann", HOME) for _ in range(FREE_PER_ACCOUNT))


def test_memory_is_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "KEPT_MAX", 100)
    for number in range(1_000):
        door.right(f"person {number}", f"10.0.{number % 200}.{number // 200}")
        door.wrong(f"other {number}", f"10.1.{number % 200}.{number // 200}")
    held = [door.guesses._accounts, door.guesses._addresses, door.guesses._pairs]  # pyright: ignore[reportPrivateUsage]
    assert all(len(counter._kept) <= 100 for counter in held)  # pyright: ignore[reportPrivateUsage]
    assert len(door.guesses._known) == 100  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("unix socket", "unix socket"),
        ("x" * 1_000, "x" * 200),
    ],
)
def test_an_ipv6_address_is_counted_by_the_network_that_one_person_has_whole(address: str, counted: str) -> None:
    assert network(address) == counted


def test_another_address_of_the_same_network_is_no_new_one(door: Door) -> None:
    for number in range(FREE_PER_ADDRESS):
        assert door.wrong(f"person {number}", f"2001:db8::{number:x}")
    assert not door.wrong("another", "2001:db8::ffff:1")
    assert door.wrong("another", "2001:db8:0:1::1")
