"""The charge of a job as its client reads it, out of the job's transfers."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from zsky_box.db import Row, Rows, Store

State = Literal["reserved", "posted", "voided", "refunded"]


class Charge(Struct, frozen=True):
    """What a job asked for (`units`), what of it is held or paid from which source, and the transfers that say so."""

    units: int
    included_units: int
    wallet_units: int
    amount_micros: int
    state: State
    ledger_ids: tuple[int, ...]


class Paid(Struct, frozen=True):
    """What was charged for one result of a job, counted from 0, and not paid back: None micros are an included unit."""

    ordinal: int
    amount_micros: int | None


def paid(rows: Rows | Store, job_id: str) -> list[Paid]:
    """What of a job's charge can be paid back, result by result."""
    posts = rows.all(
        "SELECT ordinal, ledger, amount FROM transfer p WHERE job_id = ? AND kind = 'post' AND NOT EXISTS"
        " (SELECT 1 FROM transfer x WHERE x.pending_id = p.id AND x.kind = 'refund') ORDER BY ordinal",
        (job_id,),
    )
    return [Paid(row["ordinal"], row["amount"] if row["ledger"] == "usd" else None) for row in posts]


def charges(store: Rows | Store, job_ids: list[str]) -> dict[str, Charge]:
    """The charge of each job that has one."""
    if not job_ids:
        return {}
    marks = ",".join("?" * len(job_ids))
    by_job: dict[str, list[Row]] = {}
    for row in store.all(
        "SELECT id, kind, ledger, amount, job_id, pending_id FROM transfer"  # noqa: S608 - marks only
        f" WHERE job_id IN ({marks}) ORDER BY id",
        tuple(job_ids),
    ):
        by_job.setdefault(row["job_id"], []).append(row)
    return {job_id: _charge(rows) for job_id, rows in by_job.items()}


def _charge(rows: list[Row]) -> Charge:
    reserves = {row["id"]: row for row in rows if row["kind"] == "reserve"}
    ends = {row["pending_id"]: row for row in rows if row["kind"] in ("post", "void")}
    refunded = {row["pending_id"] for row in rows if row["kind"] == "refund"}
    posted = [number for number, end in ends.items() if end["kind"] == "post"]
    kept = [number for number in posted if ends[number]["id"] not in refunded]
    if len(ends) < len(reserves):
        state, counted = "reserved", list(reserves)
    elif kept:
        state, counted = "posted", kept
    else:
        state, counted = "refunded" if posted else "voided", []
    money = [reserves[number]["amount"] for number in counted if reserves[number]["ledger"] == "usd"]
    return Charge(
        units=len(reserves),
        included_units=len(counted) - len(money),
        wallet_units=len(money),
        amount_micros=sum(money),
        state=state,
        ledger_ids=tuple(row["id"] for row in rows),
    )
