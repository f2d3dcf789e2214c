"""What a command would come to: carried out in full, told, and undone before anybody else sees it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from zsky_box import accounts, plans, timeline
from zsky_box.accounts import Account
from zsky_box.control.asked import RefundJob
from zsky_box.control.hand import Means, OfAccount, account_view, on_account, pay_back
from zsky_box.db import Tx
from zsky_box.errors import not_found


class Rehearsal(Struct, frozen=True):
    """The account's views before and after, and the lines that its statement of this month would get: what for, and
    how many micros; `told` is what the command itself would answer.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    fees: list[tuple[str, int]]
    told: dict[str, Any]


class _Undone(Exception):
    """Carries what was found out of the write that it undoes."""

    def __init__(self, found: Rehearsal) -> None:
        super().__init__()
        self.found = found


def rehearse(command: OfAccount | RefundJob, means: Means) -> Rehearsal:
    """Raises the Refusal that the command itself would meet now; nothing is stored either way."""

    def work(tx: Tx) -> None:
        account = _whose(tx, command)
        before, known = account_view(tx, account, means), _fees(tx, account, means)
        told = pay_back(tx, command, means) if isinstance(command, RefundJob) else on_account(tx, command, means)
        account = accounts.get(tx, account.id)
        fees = _fees(tx, account, means)[len(known) :]
        raise _Undone(Rehearsal(before, account_view(tx, account, means), fees, told))

    try:
        means.store.write(work)
    except _Undone as undone:
        return undone.found
    raise AssertionError("a rehearsal is always undone")


def _whose(tx: Tx, command: OfAccount | RefundJob) -> Account:
    if not isinstance(command, RefundJob):
        return accounts.named(tx, command.account or "")
    job = tx.one("SELECT account_id FROM job WHERE id = ?", (command.job_id,))
    if job is None:
        raise not_found("job")
    return accounts.get(tx, job["account_id"])


def _fees(tx: Tx, account: Account, means: Means) -> list[tuple[str, int]]:
    period = means.terms.calendar.period_at(timeline.present(tx, means.clock())).key
    return plans.fees(tx, account.id, period)
