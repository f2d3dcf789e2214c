from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.stores import START_US, add_account, opened
from zsky_box import accounts, invitations, passwords, sessions
from zsky_box.clock import SECOND_US
from zsky_box.db import Store
from zsky_box.errors import Refusal

HOUR_US = 3_600 * SECOND_US


@pytest.fixture
def store(tmp_path: Path) -> Generator[Store]:
    with opened(tmp_path) as store:
        yield store


def invite(store: Store, account_id: str, *, now: int = START_US, hours: int | None = 72) -> str:
    return store.write(lambda tx: invitations.invite(tx, account_id, now=now, actor="terminal", hours=hours))


def use(store: Store, token: str, hashed: str = "$hash", now: int = START_US) -> accounts.Account:
    return store.write(lambda tx: invitations.use(tx, token, hashed=hashed, now=now))


def test_a_link_names_its_account_until_it_expires(store: Store) -> None:
    ann = add_account(store, "ann")
    token = invite(store, ann.id)
    assert invitations.find(store, token, START_US) == ann
    assert invitations.find(store, token, START_US + 72 * HOUR_US - 1) == ann
    assert invitations.find(store, token, START_US + 72 * HOUR_US) is None
    for other in ("", token[:-1], token.lower(), "\ud800", "a" * 10**6):
        assert invitations.find(store, other, START_US) is None


def test_the_link_of_init_waits_for_ever(store: Store) -> None:
    ann = add_account(store, "ann")
    token = invite(store, ann.id, hours=None)
    assert invitations.find(store, token, START_US + 10 * 365 * 24 * HOUR_US) == ann


def test_an_account_has_one_link_and_the_older_one_ends(store: Store) -> None:
    ann, bob = add_account(store, "ann"), add_account(store, "bob")
    first, bobs, second = invite(store, ann.id), invite(store, bob.id), invite(store, ann.id)
    assert [invitations.find(store, token, START_US) for token in (first, bobs, second)] == [None, bob, ann]


def test_a_link_sets_a_password_once_and_ends_all_sessions(store: Store) -> None:
    ann, bob = add_account(store, "ann"), add_account(store, "bob")
    for each in (ann, bob):
        store.write(lambda tx, each=each: sessions.begin(tx, each.id, now=START_US, address="", agent=""))
    token = invite(store, ann.id)
    assert use(store, token) == ann
    assert passwords.hash_of(store, ann.id) == "$hash"
    assert [row["account_id"] for row in store.all("SELECT account_id FROM session")] == [bob.id]
    with pytest.raises(Refusal, match="ask the box's owner") as refused:
        use(store, token, "$other")
    assert (refused.value.status, refused.value.code) == (404, "not_found")
    assert passwords.hash_of(store, ann.id) == "$hash"


def test_a_link_that_has_expired_sets_nothing(store: Store) -> None:
    ann = add_account(store, "ann")
    token = invite(store, ann.id)
    with pytest.raises(Refusal):
        use(store, token, now=START_US + 72 * HOUR_US)
    assert passwords.hash_of(store, ann.id) is None


def test_nobody_is_invited_who_is_not_there(store: Store) -> None:
    with pytest.raises(Refusal) as refused:
        invite(store, "acc_nobody")
    assert refused.value.status == 404


def test_links_are_on_record_with_what_they_are_for_and_without_their_tokens(store: Store, tmp_path: Path) -> None:
    owner = store.write(lambda tx: accounts.create_owner(tx, "studio", START_US))
    ann = add_account(store, "ann")
    tokens = [invite(store, owner.id, hours=None), invite(store, ann.id)]
    use(store, tokens[1])
    tokens.append(invite(store, ann.id))
    rows = store.all("SELECT * FROM audit WHERE action = 'invitation.made' ORDER BY id")
    assert [(row["actor"], row["subject"], row["after"]) for row in rows] == [
        ("terminal", owner.id, '{"expires_at":null,"purpose":"setup"}'),
        ("terminal", ann.id, '{"expires_at":"2026-11-25T12:00:00Z","purpose":"invitation"}'),
        ("terminal", ann.id, '{"expires_at":"2026-11-25T12:00:00Z","purpose":"reset"}'),
    ]
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not any(token.encode() in written for token in tokens)
