"""The case table of money, row by row: each test is named after its row, whose rule it has for a docstring."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from tests.always_true import check_always_true
from tests.ledger.money import check_books
from tests.stores import PEPPER, Rooms, add_account, caller_for
from zsky_box import accounts, keys, overage, plans, statements
from zsky_box.accounts import Account, Plan
from zsky_box.db import Tx
from zsky_box.errors import Refusal
from zsky_box.events import Phase
from zsky_box.keys import Caller
from zsky_box.pricing import micros
from zsky_box.schemas import UnitsView


class Studio(Rooms):
    """Two images a month are included; the owner has $50, overage on, and a cap of $20. Images cost a dollar."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, included_images=2, included_videos=1, free_images=3, image_usd="1.00")
        self.fund(self.owner.account, "50.00", "20.00")

    def fund(self, account: Account, wallet_usd: str, cap_usd: str) -> None:
        now = self.clock()

        def work(tx: Tx) -> None:
            overage.topup(tx, account.id, micros(wallet_usd), actor="owner", now=now, terms=self.terms)
            overage.set_cap(tx, account.id, micros(cap_usd), actor=account.id, now=now, terms=self.terms)

        self.store.write(work)
        self.toggle(enabled=True, account=account)

    def toggle(self, *, enabled: bool, account: Account | None = None) -> None:
        whose, now = (account or self.owner.account).id, self.clock()
        self.store.write(lambda tx: overage.toggle(tx, whose, enabled, actor=whose, now=now, terms=self.terms))

    def cap(self, usd: str) -> None:
        whose, now = self.owner.account.id, self.clock()
        self.store.write(lambda tx: overage.set_cap(tx, whose, micros(usd), actor=whose, now=now, terms=self.terms))

    def choose(self, plan: Plan, *, annual: bool = False, account: Account | None = None) -> None:
        whose, at = (account or self.owner.account).id, self.clock()

        def work(tx: Tx) -> None:
            period = self.terms.calendar.period_at(at).key
            plans.choose(
                tx,
                accounts.get(tx, whose),
                plan,
                annual=annual,
                period=period,
                at=at,
                actor=whose,
                terms=self.terms,
            )

        self.store.write(work)

    def refusal(self, caller: Caller | None = None, n: int = 1) -> tuple[int, str]:
        with pytest.raises(Refusal) as refused:
            self.new_job(caller, n=n)
        return refused.value.status, refused.value.code

    def closed(self) -> list[tuple[str, int]]:
        """Close the statements that are due; month and micros of overage of each that is closed by now."""
        now = self.clock()

        def work(tx: Tx) -> None:
            statements.close_due(tx, accounts.get(tx, self.owner.account.id), now, self.terms)

        self.store.write(work)
        rows = self.store.all("SELECT * FROM closing WHERE voided_at IS NULL ORDER BY period")
        return [(row["period"], row["overage_micros"]) for row in rows]

    def stands(self, account: Account | None = None) -> tuple[str, str, str]:
        """Spent, pending, and in the wallet."""
        view = self.overage(account)
        return view.spend_usd, view.pending_usd, view.wallet_usd

    def charge(self, job_id: str) -> tuple[str, str]:
        charge = self.view(job_id).charge
        return charge.state, charge.amount_usd


@pytest.fixture
def studio(tmp_path: Path) -> Generator[Studio]:
    studio = Studio(tmp_path)
    yield studio
    check_always_true(studio)
    check_books(studio.store)
    studio.close()


# in flight at month end


def test_in_flight_at_month_end(studio: Studio) -> None:
    """charged to the period of its reserve; the statement closes when nothing is pending"""
    studio.clock.set("2026-11-30T23:59:59Z")
    attempt, other = studio.running(n=5), studio.running(n=1)
    studio.clock.set("2026-12-01T00:00:00Z")
    assert studio.closed() == []
    studio.complete(attempt)
    assert studio.closed() == []
    studio.clock.set("2026-12-03T00:00:00Z")
    studio.complete(other)
    assert studio.closed() == [("2026-11", 4_000_000)]
    assert studio.stands() == ("0.00", "0.00", "46.00")
    assert studio.overage().included["image"] == UnitsView(granted=2, used=0, pending=0, left=2)
    posts = studio.store.all("SELECT DISTINCT period FROM transfer WHERE kind = 'post'")
    assert [row["period"] for row in posts] == ["2026-11"]


# void after the boundary


def test_void_after_the_boundary_of_the_wallets_money(studio: Studio) -> None:
    """money back to the wallet; a lapsed included unit is granted again in the current period, audited"""
    studio.clock.set("2026-11-30T23:59:59Z")
    attempt = studio.running(n=5)
    assert studio.stands() == ("0.00", "3.00", "47.00")
    studio.clock.set("2026-12-01T00:00:00Z")
    assert studio.end(attempt)
    assert studio.stands() == ("0.00", "0.00", "50.00")
    assert studio.charge(attempt.job_id) == ("voided", "0.00")
    assert studio.closed() == [("2026-11", 0)]


def test_void_after_the_boundary_of_included_units(studio: Studio) -> None:
    """money back to the wallet; a lapsed included unit is granted again in the current period, audited"""
    studio.clock.set("2026-11-30T23:59:59Z")
    attempt = studio.running(n=2)
    studio.clock.set("2026-12-01T00:00:00Z")
    assert studio.end(attempt)
    image = studio.overage().included["image"]
    assert (image.granted, image.left) == (4, 4)
    grants = studio.store.all(
        "SELECT t.period, t.amount, a.after FROM transfer t JOIN audit a ON a.transfer_id = t.id"
        " WHERE t.kind = 'grant' AND t.period = '2026-12'"
    )
    assert [(row["period"], row["amount"]) for row in grants] == [("2026-12", 1), ("2026-12", 1)]
    assert all("given back after 2026-11 had ended" in row["after"] for row in grants)
    studio.new_job(n=4)
    assert studio.stands() == ("0.00", "0.00", "50.00")


# cap set below what is spent


def test_cap_set_below_what_is_spent(studio: Studio) -> None:
    """accepted; jobs in flight finish; new ones get 429"""
    studio.complete(studio.running(n=10))
    attempt = studio.running(n=3)
    studio.cap("5.00")
    view = studio.overage()
    assert (view.cap_usd, view.spend_usd, view.pending_usd, view.remaining_usd) == ("5.00", "8.00", "3.00", "0.00")
    assert studio.refusal() == (429, "cap_reached")
    studio.complete(attempt)
    assert studio.stands() == ("11.00", "0.00", "39.00")
    assert studio.refusal() == (429, "cap_reached")


# plan cancelled


def test_plan_cancelled_takes_effect_at_the_paid_months_end(studio: Studio) -> None:
    """takes effect at the paid term's end (annual: the year's), then `free`"""
    studio.choose("free")
    studio.clock.set("2026-11-30T23:59:59Z")
    assert studio.overage().plan == "max"
    studio.new_job(n=2)
    assert studio.stands() == ("0.00", "0.00", "50.00")
    studio.clock.set("2026-12-01T00:00:00Z")
    assert studio.overage().plan == "free"


def test_plan_cancelled_takes_effect_at_the_paid_years_end(studio: Studio) -> None:
    """takes effect at the paid term's end (annual: the year's), then `free`"""
    studio.choose("max", annual=True)
    studio.choose("free")
    studio.clock.set("2027-10-31T23:59:59Z")
    assert studio.overage().plan == "max"
    studio.new_job(n=2)
    studio.clock.set("2027-11-01T00:00:00Z")
    assert studio.overage().plan == "free"
    assert [row["amount_micros"] for row in studio.store.all("SELECT * FROM plan_fee")] == [
        99_000_000,
        -99_000_000,
        948_000_000,
    ]


def test_plan_cancelled_leaves_the_api_the_wallet_alone_until_it_is_empty(studio: Studio) -> None:
    """the API then works on the wallet alone, with overage on, until it is empty (402 when short, 403
    `plan_without_api` at zero)
    """
    studio.choose("free")
    studio.clock.set("2026-12-01T00:00:00Z")
    studio.complete(studio.running(n=10))
    assert studio.stands() == ("10.00", "0.00", "40.00")
    studio.toggle(enabled=False)
    assert studio.refusal() == (429, "allowance_exhausted")
    studio.toggle(enabled=True)
    studio.cap("1000.00")
    for _ in range(3):
        studio.new_job(n=10)
    studio.clock.set("2027-01-01T00:00:00Z")
    studio.new_job(n=8)
    assert studio.refusal(n=3) == (402, "wallet_empty")
    studio.new_job(n=2)
    assert studio.stands()[2] == "0.00"
    assert studio.refusal() == (403, "plan_without_api")


# key rotated while a job runs


def test_key_rotated_while_a_job_runs(studio: Studio) -> None:
    """the job belongs to the account: the new key reads it"""
    attempt = studio.running(n=3)
    account, old = studio.owner.account, studio.owner.key
    key, secret = studio.store.write(
        lambda tx: keys.rotate(tx, PEPPER, account.id, old.id, overlap_seconds=0, now=studio.clock(), actor=account.id)
    )
    rotated = keys.verify(studio.store, PEPPER, secret, studio.clock())
    assert rotated.key.id == key.id != old.id
    assert studio.view(attempt.job_id, rotated).status == "running"
    studio.complete(attempt)
    assert studio.view(attempt.job_id, rotated).charge.state == "posted"
    studio.delete(attempt.job_id, rotated)


# overage turned off


def test_overage_turned_off(studio: Studio) -> None:
    """gates new reserves only"""
    finishing, failing = studio.running(n=4), studio.running(n=1)
    waiting = studio.new_job(n=1)
    studio.toggle(enabled=False)
    assert studio.refusal() == (429, "allowance_exhausted")
    studio.complete(finishing)
    studio.end(failing)
    studio.complete(studio.claimed(waiting))
    assert studio.stands() == ("3.00", "0.00", "47.00")


# cancel


def test_cancel_while_queued(studio: Studio) -> None:
    """while queued, loading or encoding text: void"""
    job_id = studio.new_job(n=3)
    studio.cancel(job_id)
    assert studio.charge(job_id) == ("voided", "0.00")
    assert studio.stands() == ("0.00", "0.00", "50.00")


@pytest.mark.parametrize(("phase", "step"), [("loading", 3), ("denoising", 0)])
def test_cancel_while_loading_or_encoding_text(studio: Studio, phase: Phase, step: int) -> None:
    """while queued, loading or encoding text: void"""
    attempt = studio.running(n=3)
    studio.book.progress(attempt.job_id, attempt.token, phase, step, 8)
    studio.cancel(attempt.job_id)
    assert studio.end(attempt, "cancelled")
    assert studio.charge(attempt.job_id) == ("voided", "0.00")
    assert studio.stands() == ("0.00", "0.00", "50.00")


def test_cancel_once_the_first_denoising_step_is_stored(studio: Studio) -> None:
    """Once the first denoising step is stored: posted"""
    attempt = studio.running(n=3)
    studio.step(attempt, 1)
    studio.cancel(attempt.job_id)
    assert studio.end(attempt, "cancelled")
    assert studio.charge(attempt.job_id) == ("posted", "1.00")
    assert studio.stands() == ("1.00", "0.00", "49.00")


# the wordmark


def test_the_wordmark_is_on_a_free_plans_units_and_not_on_what_the_wallet_paid(studio: Studio) -> None:
    """is on exactly what a free plan's unit paid for"""
    account = add_account(studio.store, "bob", "free")
    studio.fund(account, "9.00", "20.00")
    through_the_api = caller_for(studio.store, account)
    in_person = msgspec.structs.replace(through_the_api, in_person=True)
    first, across = studio.new_job(in_person, n=2), studio.new_job(in_person, n=4)
    beyond, api = studio.new_job(in_person, n=1), studio.new_job(through_the_api, n=1)
    assert [studio.row(job_id)["wordmarked"] for job_id in (first, across, beyond, api)] == [2, 1, 0, 0]
    assert studio.claimed(across).work.wordmarked == 1
    assert studio.stands(account)[1:] == ("5.00", "4.00")


def test_the_wordmark_is_on_nothing_of_a_paid_plan(studio: Studio) -> None:
    """is on exactly what a free plan's unit paid for"""
    in_person = msgspec.structs.replace(studio.owner, in_person=True)
    job_ids = [studio.new_job(caller, n=2) for caller in (studio.owner, in_person)]
    assert [studio.row(job_id)["wordmarked"] for job_id in job_ids] == [0, 0]
    assert studio.left() == 0
