"""The ended jobs of an account with what each was charged: what its owner looks through to pay some of it back."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from zsky_box import keyset, ledger
from zsky_box.db import Row, Rows
from zsky_box.errors import not_found
from zsky_box.jobs.rows import prompt_shown
from zsky_box.ledger import Charge, Paid
from zsky_box.manifest import JobType

PAGE: Final = 50
_ENDED: Final = "account_id = ? AND test = 0 AND status IN ('completed', 'failed')"  # of test keys nothing is charged


class ChargedJob(Struct, frozen=True, kw_only=True):
    """An ended job; `paid` is what can be paid back of its charge. The time is in microseconds, the prompt is cut."""

    id: str
    seq: int
    type: JobType
    model: str
    n: int
    prompt: str
    status: Literal["completed", "failed"]
    finished_at: int
    charge: Charge | None
    paid: list[Paid]


def page(rows: Rows, account_id: str, before: int | None) -> tuple[list[ChargedJob], int | None]:
    """The newest jobs, from before the number `before` on; and the number to go on before, where there are more."""
    sql = f"SELECT * FROM job WHERE {_ENDED} AND seq < ? ORDER BY seq DESC LIMIT ?"  # noqa: S608 - ours
    found = rows.all(sql, (account_id, keyset.NEWEST if before is None else before, PAGE + 1))
    shown = _charged(rows, found[:PAGE])
    return shown, shown[-1].seq if len(found) > PAGE else None


def has(rows: Rows, account_id: str, job_id: str) -> bool:
    """Whether this is an ended job of the account."""
    return rows.one(f"SELECT 1 FROM job WHERE {_ENDED} AND id = ?", (account_id, job_id)) is not None  # noqa: S608 - ours


def one(rows: Rows, account_id: str, job_id: str) -> ChargedJob:
    """An ended job of this account; raises 404."""
    row = rows.one(f"SELECT * FROM job WHERE {_ENDED} AND id = ?", (account_id, job_id))  # noqa: S608 - ours
    if row is None:
        raise not_found("ended job")
    return _charged(rows, [row])[0]


def _charged(rows: Rows, found: list[Row]) -> list[ChargedJob]:
    charges = ledger.charges(rows, [row["id"] for row in found])
    return [_job(row, charges.get(row["id"]), ledger.paid(rows, row["id"])) for row in found]


def _job(row: Row, charge: Charge | None, paid: list[Paid]) -> ChargedJob:
    return ChargedJob(
        id=row["id"],
        seq=row["seq"],
        type=row["type"],
        model=row["model"],
        n=row["n"],
        prompt=prompt_shown(row),
        status=row["status"],
        finished_at=row["finished_at"],
        charge=charge,
        paid=paid,
    )
