"""What a command would come to: carried out in full, told, and undone before anybody else sees it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from zsky_box import accounts, plans, timeline
from zsky_box.accounts import Account
from zsky_box.control.hand import Means, OfAccount, account_view, on_account
from zsky_box.db import Tx


class Rehearsal(Struct, frozen=True):
    """The account's views before and after, and the lines that its statement of this month would get: what for, and
    how many micros.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    fees: list[tuple[str, int]]


class _Undone(Exception):
    """Carries what was found out of the write that it undoes."""

    def __init__(self, found: Rehearsal) -> None:
        super().__init__()
        self.found = found


def rehearse(command: OfAccount, means: Means) -> Rehearsal:
    """Raises the Refusal that the command itself would meet now; nothing is stored either way."""

    def work(tx: Tx) -> None:
        account = accounts.named(tx, command.account or "")
        before, known = account_view(tx, account, means), _fees(tx, account, means)
        on_account(tx, command, means)
        account = accounts.get(tx, account.id)
        fees = _fees(tx, account, means)[len(known) :]
        raise _Undone(Rehearsal(before, account_view(tx, account, means), fees))

    try:
        means.store.write(work)
    except _Undone as undone:
        return undone.found
    raise AssertionError("a rehearsal is always undone")


def _fees(tx: Tx, account: Account, means: Means) -> list[tuple[str, int]]:
    period = means.terms.calendar.period_at(timeline.present(tx, means.clock())).key
    return plans.fees(tx, account.id, period)
