"""The commands as they go over the wire to the running service. Amounts are micros: what a person wrote is read before.

Accounts are named by their name or id; where none is named, the owner's is meant.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from zsky_box import accounts, keys, passwords
from zsky_box.accounts import Plan
from zsky_box.keys import SCOPES, Scope
from zsky_box.pricing import MICROS_PER_USD

REASON_MAX: Final = 500
LIMIT_MAX_MICROS: Final = 1_000_000 * MICROS_PER_USD

KeyName = Annotated[str, Meta(max_length=keys.NAME_MAX)]
AccountName = Annotated[str, Meta(min_length=1, max_length=accounts.NAME_MAX)]
DeviceName = Annotated[str, Meta(pattern=r"^(all|cpu|cuda:[0-9]{1,3})$")]
Reason = Annotated[str, Meta(max_length=REASON_MAX)]
Limit = Annotated[int, Meta(ge=0, le=LIMIT_MAX_MICROS, multiple_of=10_000)]


class Asked(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="command"):
    """One command as it goes over the wire; `command` says which."""


class ListKeys(Asked, frozen=True, tag="keys.list"):
    """All keys of an account."""

    account: AccountName | None = None


class IssueKey(Asked, frozen=True, kw_only=True, tag="keys.issue"):
    """A new key."""

    account: AccountName | None = None
    name: KeyName = ""
    test: bool = False
    scopes: tuple[Scope, ...] = SCOPES
    cap_micros: Limit | None = None


class RotateKey(Asked, frozen=True, kw_only=True, tag="keys.rotate"):
    """A successor for a key (the newest live one where none is named)."""

    account: AccountName | None = None
    key_id: str | None = None
    overlap_seconds: int = 0


class RevokeKey(Asked, frozen=True, kw_only=True, tag="keys.revoke"):
    """End a key at once."""

    account: AccountName | None = None
    key_id: str


class CapKey(Asked, frozen=True, kw_only=True, tag="keys.cap"):
    """Set what a key's line may take from the wallet in a month, or lift it."""

    account: AccountName | None = None
    key_id: str
    cap_micros: Limit | None


class ListAccounts(Asked, frozen=True, tag="accounts.list"):
    """Everybody, with their plans, limits and wallets."""


class AddAccount(Asked, frozen=True, kw_only=True, tag="accounts.add"):
    """A further person."""

    name: str
    plan: Plan = "max"
    annual: bool = False


class SetPassword(Asked, frozen=True, kw_only=True, tag="accounts.password"):
    """Give an account another password, and end its sessions."""

    account: AccountName
    password: Annotated[str, Meta(max_length=passwords.LENGTH_MAX)]

    def __repr__(self) -> str:
        """Without the password, wherever this is shown."""
        return f"SetPassword(account={self.account!r})"


class InviteAccount(Asked, frozen=True, kw_only=True, tag="accounts.invite"):
    """A one-time link with which a person sets a password; an older one of theirs ends."""

    account: AccountName


class ChoosePlan(Asked, frozen=True, kw_only=True, tag="accounts.plan"):
    """Put an account on a plan."""

    account: AccountName
    plan: Plan
    annual: bool = False


class RollPlan(Asked, frozen=True, tag="accounts.roll"):
    """Put the terms of an account's plan on record that have begun or ended by now."""

    account: AccountName | None = None


class TopUp(Asked, frozen=True, kw_only=True, tag="accounts.topup"):
    """Fill a wallet."""

    account: AccountName
    amount_micros: int
    note: Reason = ""


class Correct(Asked, frozen=True, kw_only=True, tag="accounts.correct"):
    """Put a wallet right, either way."""

    account: AccountName
    amount_micros: int
    reason: Reason


class SetCap(Asked, frozen=True, kw_only=True, tag="accounts.cap"):
    """Set the spend cap of an account."""

    account: AccountName
    cap_micros: int


class SetCeiling(Asked, frozen=True, kw_only=True, tag="accounts.ceiling"):
    """Set or lift the owner's ceiling: over one account, or over the whole box where none is named."""

    account: AccountName | None
    ceiling_micros: Limit | None


class SetOverage(Asked, frozen=True, kw_only=True, tag="accounts.overage"):
    """Turn overage on or off."""

    account: AccountName
    enabled: bool


class SetReplenish(Asked, frozen=True, kw_only=True, tag="accounts.replenish"):
    """Set or end the rule that fills a wallet by itself."""

    account: AccountName
    below_micros: Limit | None = None
    add_micros: Annotated[int, Meta(gt=0, le=LIMIT_MAX_MICROS)] | None = None
    month_micros: Limit | None = None


class RefundJob(Asked, frozen=True, kw_only=True, tag="ledger.refund"):
    """Pay back what a job was charged, or one of its results."""

    job_id: str
    ordinal: Annotated[int, Meta(ge=0)] | None = None
    reason: Reason


class PauseDevice(Asked, frozen=True, kw_only=True, tag="devices.pause"):
    """A device, or all, takes no jobs after the running ones; with `unload` its memory is freed at once besides."""

    device: DeviceName = "all"
    unload: bool = False


class ResumeDevice(Asked, frozen=True, kw_only=True, tag="devices.resume"):
    """A device takes jobs again; all do where none is named."""

    device: DeviceName = "all"


class AcceptClock(Asked, frozen=True, tag="clock.accept"):
    """The box's clock is right, though it is behind the ledger."""


Command = (
    ListKeys
    | IssueKey
    | RotateKey
    | RevokeKey
    | CapKey
    | ListAccounts
    | AddAccount
    | SetPassword
    | InviteAccount
    | ChoosePlan
    | RollPlan
    | TopUp
    | Correct
    | SetCap
    | SetCeiling
    | SetOverage
    | SetReplenish
    | RefundJob
    | PauseDevice
    | ResumeDevice
    | AcceptClock
)


def decode(body: bytes) -> Command:
    """Raises msgspec.ValidationError for what is not a command."""
    return msgspec.json.decode(body, type=Command)
