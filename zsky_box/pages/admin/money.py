"""The owner's forms about money become commands, and what a command would come to becomes words."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from zsky_box.control import (
    ChoosePlan,
    Command,
    Correct,
    OfAccount,
    Rehearsal,
    SetCap,
    SetCeiling,
    SetOverage,
    SetReplenish,
    TopUp,
)
from zsky_box.errors import Refusal
from zsky_box.pages.usage import month_title
from zsky_box.pages.usage_tables import dollars, micro_dollars
from zsky_box.pricing import given_micros

C = TypeVar("C", bound=Command)

# As people write thousands. A comma anywhere else may be somebody's decimal point: 12,50 is not 1250.
_THOUSANDS: Final = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]{1,2})?")

DONE: Final = {
    "topup": "The wallet is filled.",
    "correct": "The wallet is put right.",
    "plan": "The plan is changed.",
    "cap": "The cap is set.",
    "ceiling": "The ceiling is set.",
    "overage": "Overage is switched.",
    "replenish": "The rule is set.",
    "replenish-end": "The rule is ended.",
}
_LABELS: Final = {
    "wallet_usd": "Wallet",
    "plan": "Plan",
    "term": "Term",
    "renews": "Renews",
    "paid_until": "Paid until",
    "overage": "Overage",
    "cap_usd": "Cap a month",
    "ceiling_usd": "Ceiling a month",
    "remaining_usd": "Left to spend this month",
    "replenish": "Filled by itself",
}


class Change(Struct, frozen=True):
    """One thing that would be another."""

    label: str
    before: str
    after: str


def command(form: dict[str, str], account: str) -> OfAccount:
    """What a form about a person asks for; raises 422 for what it cannot be."""
    match form.get("do", ""):
        case "topup":
            asked: OfAccount = TopUp(
                account=account, amount_micros=micros(form, "amount_usd"), note=form.get("note", "")
            )
        case "correct":
            sign = -1 if form.get("direction") == "out" else 1
            amount = sign * micros(form, "amount_usd")
            asked = Correct(account=account, amount_micros=amount, reason=form.get("reason", ""))
        case "plan":
            plan = form.get("plan", "")
            if plan not in ("max", "max-annual", "free"):
                raise Refusal(422, "invalid_field", "A plan is max, by month or by year, or free.", field="plan")
            asked = ChoosePlan(account=account, plan="free" if plan == "free" else "max", annual=plan == "max-annual")
        case "cap":
            asked = SetCap(account=account, cap_micros=micros(form, "cap_usd"))
        case "ceiling":
            asked = SetCeiling(account=account, ceiling_micros=optional_micros(form, "ceiling_usd"))
        case "overage":
            asked = SetOverage(account=account, enabled=form.get("enabled") == "yes")
        case "replenish":
            asked = SetReplenish(
                account=account,
                below_micros=micros(form, "below_usd"),
                add_micros=micros(form, "add_usd"),
                month_micros=micros(form, "month_usd"),
            )
        case "replenish-end":
            asked = SetReplenish(account=account)
        case _:
            raise Refusal(422, "invalid_field", "The form says nothing that can be done.", field="do")
    return checked(asked)


def checked(asked: C) -> C:
    """The command as it would come over the wire, within the same bounds; raises 422."""
    try:
        return msgspec.json.decode(msgspec.json.encode(asked), type=type(asked))
    except msgspec.ValidationError as error:
        raise Refusal(422, "invalid_field", f"That is out of bounds: {error}.") from error


def micros(form: dict[str, str], field: str) -> int:
    """An amount of a form; raises 422."""
    text = form.get(field, "").removeprefix("$").lstrip()
    try:
        return given_micros(text.replace(",", "") if _THOUSANDS.fullmatch(text) else text)
    except ValueError as error:
        detail = "An amount is in dollars with at most two decimals after a point, such as 25, 12.50 or 1,250."
        raise Refusal(422, "invalid_field", detail, field=field) from error


def optional_micros(form: dict[str, str], field: str) -> int | None:
    """The same, or None where the field is empty."""
    return micros(form, field) if form.get(field) else None


def changes(found: Rehearsal) -> list[Change]:
    """What would be another afterwards, in the order in which a person asks."""
    return [
        Change(label, _said(name, found.before[name]), _said(name, found.after[name]))
        for name, label in _LABELS.items()
        if found.before[name] != found.after[name]
    ]


def sentences(asked: OfAccount, found: Rehearsal) -> list[str]:
    """What the figures do not say."""
    said: list[str] = []
    if found.fees:
        lines = "; ".join(f"{description}: {micro_dollars(amount)}" for description, amount in found.fees)
        said.append(f"Entered on this month's statement (the box itself charges no card): {lines}.")
    if found.before == found.after and not found.fees:
        said.append("Nothing changes: it is so already.")
    if isinstance(asked, ChoosePlan) and found.after["renews"] == "no" and found.after["plan"] == "max":
        said.append(f"The plan goes on until {month_title(found.after['paid_until'])} begins, then it is free.")
    if isinstance(asked, Correct):
        said.append(f"Reason on record: {asked.reason}")
    return said


def _said(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if name.endswith("_usd"):
        return dollars(value)
    if name == "replenish":
        add, below, month = (dollars(value[part]) for part in ("add_usd", "below_usd", "month_usd"))
        return f"{add} when below {below}, at most {month} a month"
    if name == "paid_until" and value:
        return month_title(value)
    return str(value)
