"""Usage: what was made, by local day, type, model and key, and what the wallet paid for it."""

from __future__ import annotations

import csv
import io
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.stores import add_account, caller_for
from tests.studio import Studio
from zsky_box import ledger, overage, usage
from zsky_box.accounts import Replenish
from zsky_box.errors import Refusal
from zsky_box.keys import Caller
from zsky_box.limits import BoxLimitView, LimitsView
from zsky_box.pricing import micros
from zsky_box.usage import MEMO_MAX, Memo, UsageView


class Meter(Studio):
    """The studio, and its usage: what was kept of an earlier count never differs from a fresh one."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.memo = Memo()

    def usage(self, key: str | None = None, caller: Caller | None = None) -> UsageView:
        with self.store.snapshot() as rows:
            kept, fresh = (
                usage.view(rows, caller or self.owner, key, self.clock(), self.terms, memo)
                for memo in (self.memo, Memo())
            )
        assert kept == fresh
        return kept


@pytest.fixture
def studio(tmp_path: Path) -> Generator[Meter]:
    rooms = Meter(tmp_path)
    yield rooms
    rooms.close()


def test_jobs_are_added_up_by_day_type_model_and_key(studio: Meter) -> None:
    script = studio.named_key("script")
    studio.make(3)
    studio.make(2, script)
    studio.end(studio.running(n=2))
    studio.new_job()
    studio.clock.set("2026-11-23T09:00:00Z")
    studio.make(1, type="video", prompt="waves")
    found = studio.usage()
    rows = {(row.day, row.type, row.model, row.key.name): row for row in found.data}
    assert list(rows) == sorted(rows)
    assert set(rows) == {
        ("2026-11-22", "image", "leader", ""),
        ("2026-11-22", "image", "leader", "script"),
        ("2026-11-23", "video", "leader", ""),
    }
    own = rows["2026-11-22", "image", "leader", ""]
    assert (own.jobs, own.completed, own.failed, own.units) == (3, 1, 1, 6)
    assert (own.included_units, own.wallet_units, own.amount_usd) == (1, 2, "0.10")
    scripts = rows["2026-11-22", "image", "leader", "script"]
    assert (scripts.jobs, scripts.wallet_units, scripts.amount_usd) == (1, 2, "0.10")
    video = rows["2026-11-23", "video", "leader", ""]
    assert (video.included_units, video.amount_usd) == (1, "0.00")
    totals = found.totals
    assert (totals.jobs, totals.completed, totals.failed, totals.units) == (5, 3, 1, 9)
    assert (totals.included_units, totals.wallet_units, totals.amount_usd) == (2, 4, "0.20")
    assert totals.amount_usd == studio.overage().spend_usd


def test_what_was_paid_back_is_taken_off_where_it_was_spent(studio: Meter) -> None:
    job_id = studio.make(3)
    studio.clock.set("2026-12-05T00:00:00Z")
    studio.store.write(
        lambda tx: ledger.refund(
            tx, job_id, frozenset({1}), actor="ann", why="a smear", now=studio.clock(), terms=studio.terms
        )
    )
    november = studio.usage("2026-11")
    assert (november.totals.wallet_units, november.totals.amount_usd) == (1, "0.05")
    assert november.limits is not None
    assert november.limits.spend_usd == "0.05"
    assert studio.usage().totals.jobs == 0


def test_a_day_is_the_boxs_own(tmp_path: Path) -> None:
    rooms = Meter(tmp_path, timezone="Asia/Kathmandu")  # 5 hours and 45 minutes ahead
    rooms.clock.set("2026-11-23T18:14:59Z")
    rooms.make()
    rooms.clock.set("2026-11-23T18:15:00Z")
    rooms.make()
    found = rooms.usage()
    assert [(row.day, row.jobs) for row in found.data] == [("2026-11-23", 1), ("2026-11-24", 1)]
    assert (found.timezone, found.period.start) == ("Asia/Kathmandu", "2026-10-31T18:15:00Z")
    rooms.close()


def test_a_job_belongs_to_the_month_of_its_reserve(studio: Meter) -> None:
    attempt = studio.running(n=2)
    studio.clock.set("2026-12-01T00:00:00Z")
    studio.complete(attempt)
    november = studio.usage("2026-11")
    assert [(row.day, row.completed, row.amount_usd) for row in november.data] == [("2026-11-22", 1, "0.05")]
    assert studio.usage().data == []


def test_the_limits_in_force_are_told(studio: Meter) -> None:
    account, terms = studio.owner.account, studio.terms
    studio.make(2, studio.named_key("script", "3"))
    rule = Replenish(micros("10"), micros("20"), micros("40"))

    def work(tx: Any) -> None:
        overage.set_cap(tx, account.id, micros("20"), actor="ann", now=studio.clock(), terms=terms)
        overage.set_ceiling(tx, account.id, micros("15"), actor="ann", now=studio.clock(), terms=terms)
        overage.set_rule(tx, account.id, rule, actor="ann", now=studio.clock(), terms=terms)

    studio.store.write(work)
    limits = studio.usage().limits
    assert limits is not None
    assert (limits.enabled, limits.cap_usd, limits.ceiling_usd) == (True, "15.00", "15.00")
    assert (limits.spend_usd, limits.pending_usd, limits.box) == ("0.05", "0.00", None)
    assert [(key.name, key.cap_usd, key.spend_usd) for key in limits.keys] == [("script", "3.00", "0.05")]
    assert msgspec.to_builtins(limits.replenish) == {
        "below_usd": "10.00",
        "add_usd": "20.00",
        "month_usd": "40.00",
        "added_usd": "0.00",
    }
    studio.store.write(lambda tx: overage.set_box_ceiling(tx, micros("1"), actor="ann", now=studio.clock()))
    box = _limits(studio).box
    assert box is not None
    assert (box.ceiling_usd, box.remaining_usd) == ("1.00", "0.95")
    studio.store.write(lambda tx: overage.set_box_ceiling(tx, micros("1000"), actor="ann", now=studio.clock()))
    assert _limits(studio).box is None


def test_a_member_is_not_told_what_the_box_has_left_for_it_would_tell_what_others_spend(studio: Meter) -> None:
    bob = caller_for(studio.store, add_account(studio.store, "bob"))
    studio.store.write(lambda tx: overage.set_box_ceiling(tx, micros("1"), actor="ann", now=studio.clock()))
    before = msgspec.to_builtins(studio.usage(caller=bob))
    studio.make(3)
    assert msgspec.to_builtins(studio.usage(caller=bob)) == before
    assert before["limits"]["box"] is None
    assert _limits(studio).box == BoxLimitView(ceiling_usd="1.00", remaining_usd="0.90")


def _limits(studio: Meter) -> LimitsView:
    limits = studio.usage().limits
    assert limits is not None
    return limits


def test_a_test_key_sees_its_own_jobs_and_no_money(studio: Meter) -> None:
    studio.make(2)
    studio.make(3, studio.tester)
    found = studio.usage(caller=studio.tester)
    assert (found.test, found.limits) == (True, None)
    assert [(row.day, row.jobs, row.units, row.wallet_units, row.amount_usd) for row in found.data] == [
        ("2026-11-22", 1, 3, 0, "0.00")
    ]
    assert studio.usage().totals.jobs == 1


def test_another_accounts_jobs_are_not_counted(studio: Meter) -> None:
    bob = caller_for(studio.store, add_account(studio.store, "bob"))
    studio.make(1, bob)
    assert studio.usage().totals.jobs == 0
    assert studio.usage(caller=bob).totals.jobs == 1


@pytest.mark.parametrize("key", ["2026-12", "2026-10"])
def test_there_is_no_usage_of_a_month_to_come_or_before_the_account(studio: Meter, key: str) -> None:
    with pytest.raises(Refusal) as refused:
        studio.usage(key)
    assert refused.value.code == "not_found"


def test_csv_reads_back_and_adds_up_and_has_no_formula(studio: Meter) -> None:
    studio.make(2, studio.named_key("@SUM(A1)"))
    studio.make(2)
    text = b"".join(usage.csv_pieces(studio.usage())).decode()
    *rows, last = csv.DictReader(io.StringIO(text, newline=""))
    assert {row["key_name"] for row in rows} == {"", "'@SUM(A1)"}
    assert (last["day"], last["jobs"], last["amount_usd"]) == ("total", "2", "0.15")
    assert sum(int(row["wallet_units"]) for row in rows) == int(last["wallet_units"]) == 3


def test_a_month_is_counted_anew_only_when_something_was_added() -> None:
    memo, counted = Memo(), list[int]()
    of = ("acc_1", "2026-11", 0, 1)
    for newest in (7, 7, 7, 8, 8, 7):
        memo.counts(of, newest, lambda: counted.append(0) or {})
    assert len(counted) == 3


def test_what_is_kept_of_usage_is_bounded() -> None:
    memo, counted = Memo(), list[int]()
    for number in (*range(MEMO_MAX + 1), 0):
        memo.counts((f"acc_{number}", "2026-11", 0, 1), 1, lambda: counted.append(0) or {})
    assert len(counted) == MEMO_MAX + 2
