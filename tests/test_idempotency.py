from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests.stores import PEPPER, START_US, SetClock, add_account, caller_for, opened
from zsky_box import idempotency, keys
from zsky_box.db import Store, Tx
from zsky_box.errors import Refusal
from zsky_box.idempotency import Answer, Idempotency
from zsky_box.keys import Caller

DAY_SECONDS = 86_400
FIRST = Idempotency("key-1", b"a request")


Work = Callable[[Tx, int], Answer]


class Line:
    """Clients of one store, each of whose requests counts how often it was really done."""

    def __init__(self, store: Store) -> None:
        self.store, self.clock, self.done = store, SetClock(), 0
        self.ann = caller_for(store, add_account(store, "ann"))

    def work(self, tx: Tx, now: int) -> Answer:
        """A request that is done: it writes, and answers how many were done before."""
        assert now == self.clock()
        self.done += 1
        tx.execute("INSERT INTO paused (device, unloaded, since) VALUES (?, 0, 0)", (f"cuda:{self.done}",))
        return Answer(202, b"answer %d" % self.done, {"Location": f"/v1/jobs/{self.done}"})

    async def once(
        self, caller: Caller, key: Idempotency | None, work: Callable[[Tx, int], Answer] | None = None
    ) -> Answer:
        return await idempotency.once(self.store, caller, key, self.clock, work or self.work)

    def ask(self, key: Idempotency | None = FIRST, caller: Caller | None = None) -> Answer:
        return asyncio.run(self.once(caller or self.ann, key))

    def kept(self) -> int:
        return len(self.store.all("SELECT * FROM idempotency"))


@pytest.fixture
def line(tmp_path: Path) -> Generator[Line]:
    with opened(tmp_path) as store:
        yield Line(store)


def test_a_repeated_request_is_done_once_and_answered_alike(line: Line) -> None:
    first = line.ask()
    again = line.ask()
    assert not first.replayed
    assert again == Answer(202, b"answer 1", {"Location": "/v1/jobs/1"}, replayed=True)
    assert (line.done, line.kept()) == (1, 1)


def test_requests_without_a_key_are_each_done(line: Line) -> None:
    assert [line.ask(None).body for _ in range(2)] == [b"answer 1", b"answer 2"]
    assert line.kept() == 0


def test_another_key_is_another_request(line: Line) -> None:
    line.ask()
    assert line.ask(Idempotency("key-2", b"a request")).body == b"answer 2"


def test_a_key_with_another_request_is_refused_and_nothing_is_done(line: Line) -> None:
    line.ask()
    with pytest.raises(Refusal) as refused:
        line.ask(Idempotency("key-1", b"another request"))
    assert (refused.value.status, refused.value.code) == (409, "idempotency_conflict")
    assert (line.done, line.kept()) == (1, 1)
    assert line.ask().body == b"answer 1"


def test_a_key_is_the_accounts_and_its_modes_own(line: Line) -> None:
    callers = [
        line.ann,
        caller_for(line.store, line.ann.account, test=True),
        caller_for(line.store, add_account(line.store, "bob")),
    ]
    assert [line.ask(caller=caller).body for caller in callers] == [b"answer 1", b"answer 2", b"answer 3"]
    assert [line.ask(caller=caller).body for caller in callers] == [b"answer 1", b"answer 2", b"answer 3"]


def test_a_key_outlives_the_rotation_of_the_api_key_that_it_was_used_with(line: Line) -> None:
    line.ask()
    rotated, _ = line.store.write(
        lambda tx: keys.rotate(
            tx, PEPPER, line.ann.account.id, line.ann.key.id, overlap_seconds=0, now=START_US, actor="ann"
        )
    )
    assert line.ask(caller=Caller(line.ann.account, rotated)).replayed


def test_a_refused_request_is_undone_keeps_no_key_and_is_decided_anew(line: Line) -> None:
    def refuse(tx: Tx, now: int) -> Answer:
        line.work(tx, now)
        raise Refusal(429, "cap_reached", "no room")

    with pytest.raises(Refusal, match="cap_reached"):
        asyncio.run(line.once(line.ann, FIRST, refuse))
    assert line.kept() == 0
    assert line.store.all("SELECT * FROM paused") == []
    assert not line.ask().replayed


def test_a_hundred_at_once_with_one_key_are_one_request(line: Line) -> None:
    async def storm() -> list[Answer]:
        return await asyncio.gather(*(line.once(line.ann, FIRST) for _ in range(100)))

    answers = asyncio.run(storm())
    assert {answer.body for answer in answers} == {b"answer 1"}
    assert [answer.replayed for answer in answers].count(False) == 1
    assert line.done == 1


def test_an_answer_is_read_back_before_anything_is_begun(line: Line) -> None:
    assert idempotency.replay(line.store, line.ann, FIRST) is None
    assert idempotency.replay(line.store, line.ann, None) is None
    line.ask()
    answer = idempotency.replay(line.store, line.ann, FIRST)
    assert answer is not None
    assert (answer.status, answer.body, answer.replayed) == (202, b"answer 1", True)
    with pytest.raises(Refusal, match="idempotency_conflict"):
        idempotency.replay(line.store, line.ann, Idempotency("key-1", b"another"))


@pytest.mark.parametrize("key", ["x", "k" * idempotency.KEY_MAX, "it's; DROP TABLE --", "%_*"])
def test_a_key_is_taken_as_it_is(line: Line, key: str) -> None:
    line.ask(Idempotency(key, b"a request"))
    assert line.ask(Idempotency(key, b"a request")).replayed
    assert not line.ask(Idempotency(key + " ", b"a request")).replayed


def test_a_key_is_forgotten_after_its_days_and_not_before(line: Line) -> None:
    line.ask()
    line.clock.advance(7 * DAY_SECONDS)
    line.store.write(lambda tx: idempotency.forget(tx, 7, line.clock()))
    assert line.ask().replayed
    line.clock.now_us += 1
    line.store.write(lambda tx: idempotency.forget(tx, 7, line.clock()))
    assert line.ask().body == b"answer 2"


def test_an_answer_survives_the_end_of_the_process(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        line = Line(store)
        line.ask()
    with opened(tmp_path) as store:
        kept = idempotency.replay(store, line.ann, FIRST)
    assert kept == Answer(202, b"answer 1", {"Location": "/v1/jobs/1"}, replayed=True)
