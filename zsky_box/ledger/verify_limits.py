"""The limits on spending as the audit tells of them, change by change, and whether a charge was within them.

Every change of a cap, a ceiling, a toggle or a rule is an audit row. Replayed in order beside the movements they say
which limit was in force at each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from zsky_box.db import Row, Rows
from zsky_box.ledger import spend
from zsky_box.ledger.verify_report import Fault
from zsky_box.pricing import micros

_Name = TypeVar("_Name", str, str | None)

LIMITS: Final = "a limit is what the audit says of it"
CAP_AT_FIRST_MICROS: Final = 5_000_000

_CHANGES: Final = (
    "SELECT id, action, account_id, subject, after FROM audit WHERE action IN ('overage.cap', 'overage.ceiling',"
    " 'overage.toggled', 'overage.replenish', 'key.issued', 'key.cap') ORDER BY id"
)


class Said(Struct, frozen=True):
    """What an audit row of a limit may say of the state after it."""

    cap_usd: str | None = None
    ceiling_usd: str | None = None
    enabled: bool = False
    below_usd: str | None = None
    add_usd: str | None = None
    month_usd: str | None = None
    budget_id: str | None = None


class Limits:
    """The limits in force, moved on from change to change."""

    def __init__(self, rows: Rows) -> None:
        self.fault: Fault | None = None
        self._caps: dict[str, int] = {}
        self._ceilings: dict[str | None, int] = {}
        self._lines: dict[str, int] = {}
        self._enabled: set[str] = set()
        self._rules: dict[str, tuple[int, int, int]] = {}
        self._changes: Iterator[Row] = rows.each(_CHANGES)
        self._next = next(self._changes, None)

    def reach(self, audit_id: int) -> None:
        """Make every change that was before this audit row."""
        while self._next is not None and self._next["id"] < audit_id:
            self._change(self._next)
            self._next = next(self._changes, None)

    def scope_micros(self, scope: str) -> int | None:
        """The most that a counter of spending may come to, None where it has no limit."""
        kind, _, name = scope.partition(":")
        if kind == "account":
            cap = self._caps.get(name, CAP_AT_FIRST_MICROS)
            return min(cap, self._ceilings.get(name, cap))
        return self._ceilings.get(None) if scope == spend.BOX else self._lines.get(name)

    def month_micros(self, account_id: str) -> int:
        """The most that the account's rule may add in a month: nothing where it has none."""
        return self._rules.get(account_id, (0, 0, 0))[2]

    def is_enabled(self, account_id: str) -> bool:
        """Whether overage is on."""
        return account_id in self._enabled

    def first_fault(self, rows: Rows) -> Fault | None:
        """The first limit in the store that is not the one last told of in the audit."""
        self.reach(2**63)
        if self.fault is not None:
            return self.fault
        for row in rows.each("SELECT * FROM account ORDER BY created_at, id"):
            name = row["id"]
            kept = (bool(row["overage"]), row["cap_micros"], row["ceiling_micros"])
            said = (name in self._enabled, self._caps.get(name, CAP_AT_FIRST_MICROS), self._ceilings.get(name))
            if kept != said:
                return Fault(LIMITS, "account", name, f"has overage, cap and ceiling {kept}, the audit says {said}")
            rule = (row["replenish_below_micros"], row["replenish_add_micros"], row["replenish_month_micros"])
            if rule != (said_rule := self._rules.get(name, (None, None, None))):
                return Fault(LIMITS, "account", name, f"is replenished by {rule}, the audit says {said_rule}")
        for row in rows.each("SELECT id, budget_id, cap_micros FROM api_key ORDER BY created_at, id"):
            if row["cap_micros"] != self._lines.get(row["budget_id"]):
                said_cap = self._lines.get(row["budget_id"])
                return Fault(
                    LIMITS, "api_key", row["id"], f"has a cap of {row['cap_micros']}, the audit says {said_cap}"
                )
        ceiling = spend.box_ceiling_micros(rows)
        if ceiling != self._ceilings.get(None):
            return Fault(LIMITS, "box", "1", f"has a ceiling of {ceiling}, the audit says {self._ceilings.get(None)}")
        return None

    def _change(self, row: Row) -> None:
        try:
            said = msgspec.json.decode(row["after"], type=Said)
            self._apply(row["action"], row["account_id"], row["subject"], said)
        except (msgspec.DecodeError, ValueError) as error:
            if self.fault is None:
                self.fault = Fault(LIMITS, "audit", str(row["id"]), f"cannot be read: {error}")

    def _apply(self, action: str, account_id: str, subject: str, said: Said) -> None:
        match action:
            case "overage.cap":
                _keep(self._caps, account_id, said.cap_usd)
            case "overage.ceiling":
                _keep(self._ceilings, account_id, said.ceiling_usd)
            case "overage.replenish":
                self._replenish(account_id, said)
            case "overage.toggled":
                (self._enabled.add if said.enabled else self._enabled.discard)(account_id)
            case _:
                _keep(self._lines, said.budget_id or subject, said.cap_usd)

    def _replenish(self, account_id: str, said: Said) -> None:
        amounts = [amount for amount in (said.below_usd, said.add_usd, said.month_usd) if amount is not None]
        if not amounts:
            self._rules.pop(account_id, None)
            return
        below, add, month = map(micros, amounts)  # fewer are no rule: ValueError
        self._rules[account_id] = (below, add, month)


def _keep(limits: dict[_Name, int], name: _Name, amount_usd: str | None) -> None:
    if amount_usd is None:
        limits.pop(name, None)
    else:
        limits[name] = micros(amount_usd)
