"""The replay: all movements once more, in their order, against what is kept beside them and the limits of their time.

Memory holds what there is one of per balance, per counter and per plan's grant, and nothing per job or movement.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from zsky_box.clock import rfc3339
from zsky_box.db import Rows
from zsky_box.ledger import spend
from zsky_box.ledger.transfers import FUNDING, ISSUER
from zsky_box.ledger.verify_limits import Limits
from zsky_box.ledger.verify_report import Fault
from zsky_box.ledger.wallet import BY_RULE
from zsky_box.periods import Calendar, Period
from zsky_box.pricing import usd

BALANCES: Final = "a balance is what its movements say"
OVERDRAWN: Final = "no wallet and no allowance is ever overdrawn"
COUNTERS: Final = "a counter of spending is what its movements say"
WITHIN: Final = "no charge goes beyond a limit in force"
PERIODS: Final = "a movement bears its period"
FURTHER: Final = "further units are granted only for what is given back"

_MOVEMENTS: Final = """
    SELECT t.id, t.kind, t.ledger, t.debit, t.credit, t.amount, t.account_id, t.period, t.actor, t.at, t.budget_id,
        p.period AS reserved_in, a.id AS audit_id
    FROM transfer t LEFT JOIN transfer p ON p.id = t.pending_id LEFT JOIN audit a ON a.transfer_id = t.id ORDER BY t.id
"""

_ACCEPTED: Final = (
    "SELECT at, coalesce(json_extract(after, '$.transfer_id'), 0) AS transfer_id FROM audit"
    " WHERE action = 'clock.accepted' AND EXISTS (SELECT 1 FROM audit WHERE action = 'calendar.zone')"
    " ORDER BY id LIMIT 10000"
)

# How a movement changes what its balances hold and have moved, in units of its amount.
_EFFECTS: Final = {"reserve": (1, 0), "post": (-1, 1), "void": (-1, 0)}


class Movement(NamedTuple):
    """A transfer as the replay needs it, in the order of its query's columns: a tuple, since there are millions."""

    id: int
    kind: str
    ledger: str
    debit: str
    credit: str
    amount: int
    account_id: str
    period: str
    actor: str
    at: int
    budget_id: str | None
    reserved_in: str | None
    audit_id: int | None


class Replay:
    """All movements of one state of the store, with the first fault of each rule."""

    def __init__(self, rows: Rows, calendar: Calendar | None) -> None:
        self.count = 0
        self._rows = rows
        self._calendar = calendar
        self._limits = Limits(rows)
        self._faults: dict[str, Fault] = {}
        self._balances: dict[tuple[str, str], list[int]] = {}
        self._counters: dict[tuple[str, str], list[int]] = {}
        self._now: Period | None = None
        self._given_back: Movement | None = None
        box = rows.one("SELECT kept_since_audit_id FROM box")
        self._kept_since = 0 if box is None else int(box["kept_since_audit_id"])
        self._accepted = [(int(row["transfer_id"]), int(row["at"])) for row in rows.all(_ACCEPTED)]

    def faults(self) -> list[Fault]:
        """Replay everything; the first broken row of each broken rule."""
        for row in map(Movement._make, self._rows.each(_MOVEMENTS)):
            self.count += 1
            if row.audit_id is not None:
                self._limits.reach(row.audit_id)
            self._balance(row)
            self._count(row)
            self._date(row)
            self._give_back(row)
        self._miss_grant()
        self._compare_balances()
        self._compare_counters()
        if (fault := self._limits.first_fault(self._rows)) is not None:
            self._faults[fault.rule] = fault
        return list(self._faults.values())

    def _fault(self, rule: str, table: str, row: str | int, told: str) -> None:
        self._faults.setdefault(rule, Fault(rule, table, str(row), told))

    # Balances

    def _balance(self, row: Movement) -> None:
        ledger, amount = row.ledger, row.amount
        holds, moves = _EFFECTS.get(row.kind, (0, 1))
        debit = self._balances.setdefault((row.debit, ledger), [0, 0, 0, 0])
        debit[0] += holds * amount
        debit[1] += moves * amount
        credit = self._balances.setdefault((row.credit, ledger), [0, 0, 0, 0])
        credit[2] += holds * amount
        credit[3] += moves * amount
        if debit[0] + debit[1] > debit[3] and row.debit not in (FUNDING, ISSUER):
            told = f"leaves {row.debit} with {debit[3] - debit[1] - debit[0]} {ledger}"
            self._fault(OVERDRAWN, "transfer", row.id, told)

    def _compare_balances(self) -> None:
        for row in self._rows.each("SELECT * FROM balance ORDER BY name, ledger"):
            kept = [row["debits_pending"], row["debits_posted"], row["credits_pending"], row["credits_posted"]]
            said = self._balances.pop((row["name"], row["ledger"]), [0, 0, 0, 0])
            if kept != said:
                told = f"is {kept}, its transfers say {said}"
                self._fault(BALANCES, "balance", f"{row['name']}/{row['ledger']}", told)
        for (name, ledger), said in self._balances.items():
            self._fault(BALANCES, "balance", f"{name}/{ledger}", f"is not there, its transfers say {said}")

    # Counters of spending and their limits

    def _count(self, row: Movement) -> None:
        if row.ledger != "usd":
            return
        kind, amount, account_id = row.kind, row.amount, row.account_id
        if kind == "topup" and row.actor == BY_RULE:
            counter = self._counter(spend.account_scope(account_id), row.period)
            counter[3] += amount
            if counter[3] > (most := self._limits.month_micros(account_id)):
                told = f"makes ${usd(counter[3])} by a rule that adds ${usd(most)} a month"
                self._fault(WITHIN, "transfer", row.id, told)
        if kind not in ("reserve", "post", "void", "refund"):
            return
        period = (row.reserved_in or row.period) if kind == "refund" else row.period
        for scope in (spend.account_scope(account_id), spend.key_scope(row.budget_id or ""), spend.BOX):
            counter = self._counter(scope, period)
            if kind == "refund":
                counter[2] += amount
                continue
            holds, moves = _EFFECTS[kind]
            counter[0] += holds * amount
            counter[1] += moves * amount
            if kind == "reserve":
                self._limit(row, scope, counter[0] + counter[1] - counter[2])
        if kind == "reserve" and not self._limits.is_enabled(account_id):
            self._fault(WITHIN, "transfer", row.id, "takes from a wallet while overage is off")

    def _counter(self, scope: str, period: str) -> list[int]:
        return self._counters.setdefault((scope, period), [0, 0, 0, 0])

    def _limit(self, row: Movement, scope: str, committed_micros: int) -> None:
        most = self._limits.scope_micros(scope)
        if most is not None and committed_micros > most:
            told = f"makes ${usd(committed_micros)} of {scope} in {row.period}, whose limit then was ${usd(most)}"
            self._fault(WITHIN, "transfer", row.id, told)

    def _compare_counters(self) -> None:
        for row in self._rows.each("SELECT * FROM spend ORDER BY period, scope"):
            kept = [row["pending"], row["posted"], row["refunded"], row["replenished"]]
            said = self._counters.pop((row["scope"], row["period"]), [0, 0, 0, 0])
            if kept != said:
                told = f"is {kept}, its transfers say {said}"
                self._fault(COUNTERS, "spend", f"{row['scope']}/{row['period']}", told)
        for (scope, period), said in self._counters.items():
            self._fault(COUNTERS, "spend", f"{scope}/{period}", f"is not there, its transfers say {said}")

    # Periods, and what is granted again

    def _date(self, row: Movement) -> None:
        period = self._period_at(row.at)
        if period is None or row.kind in ("post", "void") or row.period == period.key or self._is_disowned(row):
            return
        told = f"bears the period {row.period} and was made {rfc3339(row.at)}, in {period.key}"
        self._fault(PERIODS, "transfer", row.id, told)

    def _period_at(self, at: int) -> Period | None:
        if self._calendar is not None and (self._now is None or not self._now.start_us <= at < self._now.end_us):
            self._now = self._calendar.period_at(at)
        return self._now

    def _give_back(self, row: Movement) -> None:
        if row.kind == "grant" and row.actor != "plan":
            before = self._given_back
            self._given_back = None
            if before is None or _unit(before) != _unit(row):
                self._fault(FURTHER, "transfer", row.id, "grants units that nothing gave back")
            return
        self._miss_grant()
        if row.ledger != "usd" and (row.kind == "refund" or (row.kind == "void" and self._is_lapsed(row))):
            self._given_back = row

    def _is_lapsed(self, void: Movement) -> bool:
        now = self._period_at(void.at)
        return now is not None and (void.period < now.key or self._is_disowned(void))

    def _is_disowned(self, row: Movement) -> bool:
        """Made by a clock that was ahead and has been set back since, or before the ledger had a clock and a calendar.

        Its months may have been of another zone.
        """
        if row.audit_id is not None and row.audit_id <= self._kept_since:
            return True
        return any(row.id <= number and row.at > at for number, at in self._accepted)

    def _miss_grant(self) -> None:
        if self._given_back is not None and not self._is_disowned(self._given_back):
            self._fault(FURTHER, "transfer", self._given_back.id, "gives units back that are not granted again")
        self._given_back = None


def _unit(row: Movement) -> tuple[str, str, int]:
    return row.account_id, row.ledger, row.amount
