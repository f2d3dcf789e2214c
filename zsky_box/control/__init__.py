"""What the owner's terminal may ask of the box, the same whether the service runs or the command holds its lock."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from zsky_box.control.asked import (
    REASON_MAX,
    AcceptClock,
    AddAccount,
    CapKey,
    ChoosePlan,
    Command,
    Correct,
    DeviceName,
    InviteAccount,
    IssueKey,
    ListAccounts,
    ListKeys,
    PauseDevice,
    RefundJob,
    ResumeDevice,
    RevokeKey,
    RollPlan,
    RotateKey,
    SetCap,
    SetCeiling,
    SetOverage,
    SetPassword,
    SetReplenish,
    TopUp,
    decode,
)
from zsky_box.control.hand import Means, OfAccount, account_view, on_account, pay_back, run
from zsky_box.control.rehearsal import Rehearsal, rehearse

FILE_NAME: Final = "control.json"


class Address(Struct, frozen=True):
    """Where the running service listens and the token of this start: `control.json`, mode 0600.

    `certificate` is what it shows itself with, in PEM; empty without TLS.
    """

    url: str
    token: str
    pid: int
    certificate: str = ""


__all__ = [
    "FILE_NAME",
    "REASON_MAX",
    "AcceptClock",
    "AddAccount",
    "Address",
    "CapKey",
    "ChoosePlan",
    "Command",
    "Correct",
    "DeviceName",
    "InviteAccount",
    "IssueKey",
    "ListAccounts",
    "ListKeys",
    "Means",
    "OfAccount",
    "PauseDevice",
    "RefundJob",
    "Rehearsal",
    "ResumeDevice",
    "RevokeKey",
    "RollPlan",
    "RotateKey",
    "SetCap",
    "SetCeiling",
    "SetOverage",
    "SetPassword",
    "SetReplenish",
    "TopUp",
    "account_view",
    "decode",
    "on_account",
    "pay_back",
    "rehearse",
    "run",
]
