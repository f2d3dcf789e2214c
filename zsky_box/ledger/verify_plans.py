"""Each account's plan and its paid term, as the audit tells of them change by change."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from zsky_box.db import Row, Rows
from zsky_box.ledger.verify_report import Fault

PLANS: Final = "a plan is what the audit says of it"

# What is not of a movement is found by the index of those that are.
_CHANGES: Final = (
    "SELECT id, action, account_id, after FROM audit WHERE transfer_id IS NULL"
    " AND (action = 'account.created' OR action LIKE 'plan.%') ORDER BY id"
)


class Said(Struct, frozen=True):
    """What an audit row may say of the account after it; what it does not change it leaves out."""

    plan: str | None = None
    renews: str | None = None
    annual: bool | None = None
    paid_until: str | None = None


def first_fault(rows: Rows) -> Fault | None:
    """The first account whose plan is not the one last told of; what the audit has not told of yet is not judged."""
    standing: dict[str, dict[str, str | bool]] = {}
    for row in rows.each(_CHANGES):
        try:
            said = msgspec.json.decode(row["after"], type=Said)
        except msgspec.DecodeError as error:
            return Fault(PLANS, "audit", str(row["id"]), f"cannot be read: {error}")
        _change(standing.setdefault(row["account_id"], {}), row["action"], said)
    for row in rows.each("SELECT id, plan, renews, annual, paid_until FROM account ORDER BY created_at, id"):
        told = _unlike(row, standing.get(row["id"], {}))
        if told is not None:
            return Fault(PLANS, "account", row["id"], told)
    return None


def _change(of: dict[str, str | bool], action: str, said: Said) -> None:
    if action == "account.created":
        of["paid_until"] = ""
    if action == "plan.fee":
        if said.paid_until is None:
            return  # taken back: the account's own change is a row beside it
        # The first term of an account is what it began with.
        of.setdefault("renews", "annual" if said.annual else "monthly")
    columns = {"plan": said.plan, "renews": said.renews, "annual": said.annual, "paid_until": said.paid_until}
    of.update({name: value for name, value in columns.items() if value is not None})


def _unlike(row: Row, said: dict[str, str | bool]) -> str | None:
    for name, value in said.items():
        if row[name] != value:
            return f"has {name} {row[name]!r}, the audit says {value!r}"
    return None
