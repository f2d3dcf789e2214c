"""A thousand jobs in flight across a month's end, posted, voided and refunded after it: all of it to the micro."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ledger.money import KEY, Money, open_money
from zsky_box import accounts, ids, ledger, statements
from zsky_box.db import Tx
from zsky_box.ledger import Allowance, Payer
from zsky_box.pricing import micros

JOBS = 1_000
PRICE_MICROS = 70_000
INCLUDED = 150
WALLET_MICROS = 500_000_000


@dataclass
class Job:
    """What was asked for, what its reserve took, and which ordinals were posted and paid back."""

    id: str
    account_id: str
    included: int
    wallet: int
    posted: frozenset[int] = frozenset()
    refunded: frozenset[int] = frozenset()

    def count(self, ordinals: frozenset[int]) -> tuple[int, int]:
        """Included and wallet units among these ordinals: included ones come first."""
        included = sum(ordinal < self.included for ordinal in ordinals)
        return included, len(ordinals) - included


@pytest.fixture
def money(tmp_path: Path) -> Generator[Money]:
    with open_money(tmp_path, included_images=INCLUDED, image_usd="0.07") as money:
        yield money


@pytest.fixture
def account_ids(money: Money) -> list[str]:
    """Three accounts with a full wallet each."""
    found = [money.id, money.add("bob"), money.add("cleo")]
    for account_id in found:
        money.id = account_id
        money.spending("500.00", "1000.00")
    return found


def reserved(money: Money, account_ids: list[str], chance: random.Random) -> list[Job]:
    """A thousand jobs of one to four images, in the last second of November."""
    money.clock.set("2026-11-30T23:59:59Z")
    now, asked = (
        money.clock(),
        [(ids.new("job"), chance.choice(account_ids), chance.randint(1, 4)) for _ in range(JOBS)],
    )

    def work(job_id: str, account_id: str, units: int) -> Job:
        def write(tx: Tx) -> Job:
            held = ledger.reserve(tx, Payer(account_id, KEY), "image", units, job_id, now, money.terms)
            return Job(job_id, account_id, held.included_units, held.wallet_units)

        return money.store.write(write)

    return [work(*job) for job in asked]


def ended(money: Money, jobs: list[Job], chance: random.Random) -> None:
    """Each posted, voided or in part, from the first second of December on, in another order than they came."""
    money.clock.set("2026-12-01T00:00:00Z")
    for job in chance.sample(jobs, len(jobs)):
        every = frozenset(range(job.included + job.wallet))
        some = frozenset(ordinal for ordinal in every if chance.random() < 0.5)
        job.posted = chance.choice([every, frozenset[int](), some])
        money.resolve(job.id, job.posted)
        money.clock.advance(1)


def refunded(money: Money, jobs: list[Job], chance: random.Random) -> None:
    """Some of what was posted, paid back in December."""
    for job in jobs:
        job.refunded = frozenset(ordinal for ordinal in job.posted if chance.random() < 0.2)
        if job.refunded:
            assert money.refund(job.id, *job.refunded) == len(job.refunded)


def closings(money: Money, account_id: str) -> list[tuple[str, int]]:
    """Close what is due; month and micros of overage of every closed statement."""
    now = money.clock()
    money.store.write(
        lambda tx: statements.close_due(tx, accounts.get(tx, account_id), now, money.terms),
    )
    rows = money.store.all("SELECT * FROM closing WHERE account_id = ? ORDER BY period", (account_id,))
    return [(row["period"], row["overage_micros"]) for row in rows]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.campaign)])
def test_a_thousand_jobs_in_flight_across_a_months_end_reconcile_to_the_micro(
    money: Money, account_ids: list[str], seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - not a secret
    jobs = reserved(money, account_ids, chance)
    ended(money, jobs, chance)
    refunded(money, jobs, chance)
    for account_id in account_ids:
        money.id = account_id
        mine = [job for job in jobs if job.account_id == account_id]
        units: Counter[str] = Counter()
        for job in mine:
            for name, counted in (
                ("held", (job.included, job.wallet)),
                ("posted", job.count(job.posted)),
                ("refunded", job.count(job.refunded)),
            ):
                units[f"{name} included"] += counted[0]
                units[f"{name} wallet"] += counted[1]
        assert units["held included"] == INCLUDED
        paid, back = units["posted wallet"] * PRICE_MICROS, units["refunded wallet"] * PRICE_MICROS
        assert paid > back > 0
        # The wallet, the counters of both months, and the statement of the month that is over.
        assert micros(money.view().wallet_usd) == WALLET_MICROS - paid + back
        november = money.spent(f"account:{account_id}", "2026-11")
        assert (november.pending, november.posted, november.refunded) == (0, paid, back)
        assert money.stands()[:3] == ("0.00", "0.00", "1000.00")
        assert closings(money, account_id) == [("2026-11", paid)]
        # Included units that lapsed in flight, and those that were paid back, are December's now.
        again = INCLUDED - units["posted included"] + units["refunded included"]
        assert money.allowance() == Allowance(INCLUDED + again, 0, 0)
        assert sum(money.charge(job.id).amount_micros for job in mine) == paid - back
    spent = sum(money.spent(f"account:{account_id}", "2026-11").net_micros for account_id in account_ids)
    assert money.spent("box", "2026-11").net_micros == spent
    money.clock.set("2027-01-01T00:00:00Z")
    for account_id in account_ids:
        back = money.spent(f"account:{account_id}", "2026-11").refunded
        assert closings(money, account_id)[1] == ("2026-12", -back)
