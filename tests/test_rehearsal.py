from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.always_true import check_always_true
from tests.stores import PEPPER, SIGNING, Rooms
from zsky_box.control import ChoosePlan, Correct, Means, OfAccount, SetCap, SetReplenish, TopUp, rehearse, run
from zsky_box.errors import Refusal
from zsky_box.secretfile import Secrets


@pytest.fixture
def rooms(tmp_path: Path) -> Generator[Rooms]:
    rooms = Rooms(tmp_path)
    yield rooms
    check_always_true(rooms)
    rooms.close()


def means_of(rooms: Rooms) -> Means:
    return Means(rooms.store, Secrets(PEPPER, SIGNING), rooms.terms, rooms.clock, actor="browser:ann")


def everything(rooms: Rooms) -> list[list[tuple[object, ...]]]:
    tables = ("account", "audit", "transfer", "plan_fee", "balance", "box", "spend", "alert")
    return [[tuple(row) for row in rooms.store.all(f"SELECT * FROM {table}")] for table in tables]  # noqa: S608 - ours


@pytest.mark.parametrize(
    "command",
    [
        TopUp(account="owner", amount_micros=25_000_000, note="cash"),
        SetCap(account="owner", cap_micros=50_000_000),
        ChoosePlan(account="owner", plan="max", annual=True),
        SetReplenish(account="owner", below_micros=5_000_000, add_micros=10_000_000, month_micros=20_000_000),
    ],
)
def test_it_tells_what_the_command_then_does_and_leaves_nothing(rooms: Rooms, command: OfAccount) -> None:
    means = means_of(rooms)
    before = everything(rooms)
    told = rehearse(command, means)
    assert everything(rooms) == before
    assert told.before != told.after
    done = run(command, means)
    assert {name: done[name] for name in told.after} == told.after


def test_the_lines_of_the_statement_are_told(rooms: Rooms) -> None:
    told = rehearse(ChoosePlan(account="owner", plan="max", annual=True), means_of(rooms))
    assert [amount for _, amount in told.fees][-1] == rooms.terms.fee_micros(annual=True)


def test_it_meets_the_refusal_that_the_command_would(rooms: Rooms) -> None:
    before = everything(rooms)
    for command in (
        Correct(account="owner", amount_micros=-1_000_000, reason="wrong"),
        SetCap(account="owner", cap_micros=1),
        TopUp(account="nobody", amount_micros=1_000_000),
    ):
        with pytest.raises(Refusal):
            rehearse(command, means_of(rooms))
    assert everything(rooms) == before
