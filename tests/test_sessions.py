from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.stores import SetClock, add_account, opened
from zsky_box import audit, sessions
from zsky_box.clock import SECOND_US
from zsky_box.db import Store
from zsky_box.sessions import SESSIONS_MAX, Session

DAY = 86_400
IDLE_US, WHOLE_US = 14 * DAY * SECOND_US, 90 * DAY * SECOND_US


class Door:
    """Two people's sessions, over a store and a clock."""

    def __init__(self, store: Store) -> None:
        self.store, self.clock = store, SetClock()
        self.ann, self.bob = add_account(store, "ann").id, add_account(store, "bob").id

    def begin(self, account_id: str, address: str = "10.0.0.7", agent: str = "Firefox") -> tuple[Session, str]:
        return self.store.write(
            lambda tx: sessions.begin(tx, account_id, now=self.clock(), address=address, agent=agent)
        )

    def find(self, secret: str) -> Session | None:
        return sessions.find(self.store, secret, now=self.clock(), idle_us=IDLE_US, whole_us=WHOLE_US)

    def end(self, account_id: str, session_id: str) -> bool:
        return self.store.write(lambda tx: sessions.end(tx, account_id, session_id, now=self.clock(), actor=account_id))

    def end_all(self, account_id: str, but: str | None = None) -> int:
        return self.store.write(
            lambda tx: sessions.end_all(tx, account_id, but=but, now=self.clock(), actor=account_id)
        )

    def use(self, session: Session) -> None:
        sessions.used(self.store, session, self.clock())
        self.store.write(lambda tx: tx.one("SELECT 1"))  # what was queued before is stored

    def listed(self, account_id: str) -> list[str]:
        found = sessions.listed(self.store, account_id, now=self.clock(), idle_us=IDLE_US, whole_us=WHOLE_US)
        return [session.id for session in found]

    def forget(self) -> int:
        self.store.write(lambda tx: sessions.forget(tx, self.clock(), idle_us=IDLE_US, whole_us=WHOLE_US))
        return len(self.store.all("SELECT * FROM session"))


@pytest.fixture
def door(tmp_path: Path) -> Generator[Door]:
    with opened(tmp_path) as store:
        yield Door(store)


def test_a_session_is_found_by_its_secret_alone(door: Door) -> None:
    session, secret = door.begin(door.ann)
    assert session == Session(session.id, door.ann, door.clock(), door.clock(), "10.0.0.7", "Firefox")
    assert session.id.startswith("ses_")
    assert door.find(secret) == session
    for other in ("", secret[:-1], secret + "a", secret.upper(), session.id, "\ud800", "a" * 10**6):
        assert door.find(other) is None


def test_the_secret_is_kept_nowhere_and_each_has_256_bits(door: Door, tmp_path: Path) -> None:
    secrets = {door.begin(door.ann)[1] for _ in range(5)}
    assert len(secrets) == 5
    assert all(len(secret) == 43 for secret in secrets)
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not any(secret.encode() in written for secret in secrets)


def test_what_a_browser_says_of_itself_is_bounded(door: Door) -> None:
    session, secret = door.begin(door.ann, address="a" * 500, agent="é" * 10_000)
    assert (len(session.address), session.agent) == (sessions.ADDRESS_MAX, "é" * 200)
    assert door.find(secret) == session


def test_a_session_ends_when_it_is_not_used_for_long(door: Door) -> None:
    _, secret = door.begin(door.ann)
    door.clock.advance(14 * DAY - 1)
    session = door.find(secret)
    assert session is not None
    door.use(session)
    door.clock.advance(14 * DAY - 1)
    assert door.find(secret) is not None
    door.clock.advance(1)
    assert door.find(secret) is None
    assert door.listed(door.ann) == []


def test_a_session_ends_when_it_is_old_however_much_it_is_used(door: Door) -> None:
    session, secret = door.begin(door.ann)
    for _ in range(89):
        door.clock.advance(DAY)
        door.use(session)
    door.clock.advance(DAY - 1)
    assert door.find(secret) is not None
    door.clock.advance(1)
    assert door.find(secret) is None


def test_the_use_is_remembered_at_most_once_a_minute(door: Door) -> None:
    session, secret = door.begin(door.ann)
    for seconds, kept in ((59, 0), (1, 60)):
        door.clock.advance(seconds)
        door.use(session)
        found = door.find(secret)
        assert found is not None
        assert found.used_at == session.created_at + kept * SECOND_US


def test_the_use_of_a_session_that_has_ended_does_not_bring_it_back(door: Door) -> None:
    session, secret = door.begin(door.ann)
    door.end(door.ann, session.id)
    door.clock.advance(3_600)
    door.use(session)
    assert door.find(secret) is None


def test_a_person_ends_own_sessions_only(door: Door) -> None:
    session, secret = door.begin(door.ann)
    assert not door.end(door.bob, session.id)
    assert door.find(secret) == session
    assert door.end(door.ann, session.id)
    assert not door.end(door.ann, session.id)
    assert door.find(secret) is None


def test_all_sessions_end_but_the_one_that_asks(door: Door) -> None:
    kept, _ = door.begin(door.ann)
    others = [door.begin(door.ann)[1] for _ in range(3)]
    bobs, _ = door.begin(door.bob)
    assert door.end_all(door.ann, but=kept.id) == 3
    assert [door.find(secret) for secret in others] == [None] * 3
    assert (door.listed(door.ann), door.listed(door.bob)) == ([kept.id], [bobs.id])
    assert door.end_all(door.ann) == 1
    assert door.listed(door.ann) == []


def test_an_account_has_fifty_and_the_one_that_is_idle_for_longest_ends(door: Door) -> None:
    first, first_secret = door.begin(door.ann)
    begun = [first.id]
    for _ in range(SESSIONS_MAX - 1):
        door.clock.advance(60)
        begun.append(door.begin(door.ann)[0].id)
    door.use(first)
    door.begin(door.bob)
    newest, _ = door.begin(door.ann)
    assert door.find(first_secret) is not None
    assert set(door.listed(door.ann)) == {newest.id, first.id, *begun[2:]}
    assert len(door.listed(door.bob)) == 1


def test_they_are_listed_with_the_last_used_first(door: Door) -> None:
    begun: list[Session] = []
    for _ in range(3):
        begun.append(door.begin(door.ann)[0])
        door.clock.advance(60)
    door.use(begun[0])
    assert door.listed(door.ann) == [begun[0].id, begun[2].id, begun[1].id]


def test_rows_of_ended_sessions_are_dropped_and_no_others(door: Door) -> None:
    door.begin(door.ann)
    door.clock.advance(7 * DAY)
    _, secret = door.begin(door.bob)
    assert door.forget() == 2
    door.clock.advance(7 * DAY)
    assert door.forget() == 1
    assert door.find(secret) is not None


def test_beginning_and_ending_are_on_record(door: Door) -> None:
    session, secret = door.begin(door.ann)
    door.end(door.ann, session.id)
    rows = door.store.all("SELECT * FROM audit WHERE action LIKE 'session.%' ORDER BY id")
    assert [(row["action"], row["subject"], row["account_id"], row["actor"]) for row in rows] == [
        ("session.begun", session.id, door.ann, f"browser:{door.ann}"),
        ("session.ended", session.id, door.ann, door.ann),
    ]
    assert rows[0]["after"] == '{"address":"10.0.0.7"}'
    assert secret not in str([tuple(row) for row in rows])
    assert audit.first_broken_row(door.store) is None
