"""What time itself calls for, looked at every few seconds: terms of plans, replenishing by rule, closing of months.

Nothing depends on it being in time: a reserve opens its own period and follows the rule itself, and a month that is
looked at late is closed as it was. Where nothing is due, nothing is written.
"""

from __future__ import annotations

import logging
from typing import Final

from zsky_box import accounts, overage, plans, statements, timeline
from zsky_box.accounts import Account
from zsky_box.clock import Clock
from zsky_box.db import Rows, Store, Tx
from zsky_box.errors import ZskyError
from zsky_box.ledger import wallet
from zsky_box.terms import Terms

log = logging.getLogger(__name__)

CALLS_MAX: Final = 50  # of 24 months each: a box that was off for a century


class Bookkeeping:
    """The books of all accounts."""

    def __init__(self, store: Store, terms: Terms, clock: Clock) -> None:
        self._store = store
        self._terms = terms
        self._clock = clock

    def sweep(self) -> None:
        """Do what is due, account by account: one that cannot be done holds up no other."""
        for account in accounts.everybody(self._store):
            try:
                self._keep(account)
            except ZskyError as error:
                log.error("the books of %s are not kept: %s", account.name, error)

    def _keep(self, account: Account) -> None:
        for _ in range(CALLS_MAX):
            with self._store.snapshot() as rows:
                is_due = self._is_due(rows, account)
            if not is_due:
                return
            if not self._store.write(lambda tx: self._do(tx, account.id)):
                return

    def _is_due(self, rows: Rows, account: Account) -> bool:
        now = self._clock()
        period = self._terms.calendar.period_at(timeline.present(rows, now))
        return (
            plans.is_due(account, period.key)
            or wallet.replenishable_micros(rows, account, 0, period.key) > 0
            or statements.is_due(rows, account, now, self._terms)
        )

    def _do(self, tx: Tx, account_id: str) -> bool:
        """Whether something may be left to do."""
        now, account = self._clock(), accounts.get(tx, account_id)
        closed = statements.close_due(tx, account, now, self._terms)
        overage.roll(tx, account_id, now=now, terms=self._terms)
        overage.replenish(tx, account_id, now=now, terms=self._terms)
        return len(closed) == statements.MONTHS_PER_CALL
