from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from tests.stores import START_US, add_account, opened
from zsky_box import audit, invitations, passwords
from zsky_box.errors import Refusal

GOOD = "a lake at dawn"


@pytest.mark.parametrize(
    "password",
    [GOOD, "xK3!xK3!xK3!", "é" * 5 + "ü" * 5, "ann likes lakes", "19281746350", "a" * 199 + "b", "my passwords here"],
)
def test_an_ordinary_password_will_do(password: str) -> None:
    passwords.check(password, "ann", "")


@pytest.mark.parametrize(
    ("password", "names"),
    [
        ("", ()),
        ("ninechars", ()),
        ("e\u0301" * 9, ()),
        ("a" * 200 + "b", ()),
        ("a" * 12, ()),
        ("1234567890", ()),
        ("9012345678", ()),
        ("qwertyuiop", ()),
        ("Password2026!", ()),
        ("  password  !!", ()),
        ("CHANGEME!!!!", ()),
        ("p\uff41ssword123", ()),
        ("Studio North", ("studio north",)),
        ("i am Studio North!", ("owner", "Studio North")),
        ("annannanna", ("annannanna",)),
    ],
)
def test_a_weak_password_is_refused_with_what_is_allowed(password: str, names: tuple[str, ...]) -> None:
    with pytest.raises(Refusal, match="10 to 200 characters") as refused:
        passwords.check(password, *names)
    assert (refused.value.status, refused.value.code, refused.value.field) == (422, "invalid_field", "password")
    assert not password or password not in refused.value.detail


def test_a_hash_matches_its_password_alone_however_that_was_typed() -> None:
    made = passwords.hashed("caf\u00e9 at night")
    assert made.startswith("$argon2id$")
    assert passwords.matches(made, "caf\u00e9 at night")
    assert passwords.matches(made, "cafe\u0301 at night")
    assert not passwords.matches(made, "cafe at night")
    assert not passwords.matches(made, "")
    assert passwords.hashed(GOOD) != passwords.hashed(GOOD)


def test_nobodys_password_is_never_matched() -> None:
    assert not passwords.matches(None, GOOD)
    assert not passwords.matches(None, "")
    made = passwords.hashed("a" * 199 + "b")
    assert not passwords.matches(made, "a" * 199 + "b" + "c" * 10**6)
    assert not passwords.matches("not a hash", GOOD)


def test_who_is_unknown_is_hashed_with_the_same_parameters() -> None:
    assert not passwords.is_outdated(passwords._NOBODYS)  # pyright: ignore[reportPrivateUsage]
    assert not passwords.is_outdated(passwords.hashed(GOOD))
    assert passwords.is_outdated(PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1).hash(GOOD))


def test_a_storm_is_hashed_two_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(passwords.HASHING_MAX)

    class Counting:
        def verify(self, _: str, __: bytes) -> bool:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            both.wait(30)  # both places are taken; a third that came in would be counted
            with lock:
                running -= 1
            return True

    monkeypatch.setattr(passwords, "_hasher", Counting())
    threads = [threading.Thread(target=passwords.matches, args=("hash", GOOD)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == passwords.HASHING_MAX


def test_guessing_is_made_slow() -> None:
    best = 60.0
    for _ in range(3):
        started = time.perf_counter()
        passwords.matches(None, GOOD)
        best = min(best, time.perf_counter() - started)
    assert best > 0.02


def test_a_password_is_set_replaced_and_on_record_without_its_hash(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        ann, bob = add_account(store, "ann"), add_account(store, "bob")
        assert passwords.hash_of(store, ann.id) is None
        for made in ("$first", "$second"):
            store.write(lambda tx, made=made: passwords.set_for(tx, ann.id, made, now=START_US, actor="terminal"))
            assert passwords.hash_of(store, ann.id) == made
        assert passwords.hash_of(store, bob.id) is None
        rows = store.all("SELECT * FROM audit WHERE action = 'password.set'")
        assert [(row["account_id"], row["actor"], row["before"], row["after"]) for row in rows] == [
            (ann.id, "terminal", "{}", "{}")
        ] * 2
        assert audit.first_broken_row(store) is None


def test_setting_a_password_ends_a_link_that_would_set_another(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        ann, bob = add_account(store, "ann"), add_account(store, "bob")
        tokens = [
            store.write(lambda tx, each=each: invitations.invite(tx, each.id, now=START_US, actor="terminal"))
            for each in (ann, bob)
        ]
        store.write(lambda tx: passwords.set_for(tx, ann.id, "$hash", now=START_US, actor="terminal"))
        assert [invitations.find(store, token, START_US) for token in tokens] == [None, bob]


def test_an_outdated_hash_is_renewed_unless_the_password_was_changed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        ann = add_account(store, "ann")
        store.write(lambda tx: passwords.set_for(tx, ann.id, "$old", now=START_US, actor="terminal"))
        store.write(lambda tx: passwords.renew(tx, ann.id, "$old", "$anew"))
        assert passwords.hash_of(store, ann.id) == "$anew"
        store.write(lambda tx: passwords.renew(tx, ann.id, "$old", "$late"))
        assert passwords.hash_of(store, ann.id) == "$anew"


def test_a_storm_of_sign_ins_waits_for_itself_alone_and_has_a_bound() -> None:
    let_go = threading.Event()

    async def storm() -> list[bool | BaseException]:
        waiting = [asyncio.ensure_future(passwords.aside(let_go.wait)) for _ in range(passwords.WAITING_MAX)]
        await asyncio.sleep(0)  # each has its place by now
        with pytest.raises(Refusal) as refused:
            await passwords.aside(lambda: True)
        assert (refused.value.status, refused.value.code) == (429, "rate_limited")
        assert int(refused.value.headers["Retry-After"]) > 0
        assert await asyncio.to_thread(lambda: "a file's next piece") == "a file's next piece"
        waiting.pop().cancel()
        let_go.set()
        return await asyncio.gather(*waiting, return_exceptions=True)

    assert asyncio.run(storm()) == [True] * (passwords.WAITING_MAX - 1)
    assert asyncio.run(passwords.aside(lambda: passwords.matches(None, GOOD))) is False
