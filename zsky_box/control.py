"""What the owner's terminal may ask of the box, the same whether the service runs or the command holds its lock."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from zsky_box import keys
from zsky_box.accounts import Account
from zsky_box.clock import Clock
from zsky_box.db import Store
from zsky_box.keys import SCOPES, Scope
from zsky_box.secretfile import Secrets

ACTOR: Final = "terminal"
FILE_NAME: Final = "control.json"
KeyName = Annotated[str, Meta(max_length=keys.NAME_MAX)]


class Address(Struct, frozen=True):
    """Where the running service listens and the token of this start: `control.json`, mode 0600."""

    url: str
    token: str
    pid: int


class ListKeys(Struct, frozen=True, forbid_unknown_fields=True, tag_field="command", tag="keys.list"):
    """All keys of the owner's account."""


class IssueKey(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="command", tag="keys.issue"):
    """A new key."""

    name: KeyName = ""
    test: bool = False
    scopes: tuple[Scope, ...] = SCOPES


class RotateKey(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="command", tag="keys.rotate"):
    """A successor for a key (the newest live one where none is named)."""

    key_id: str | None = None
    overlap_seconds: int = 0


class RevokeKey(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="command", tag="keys.revoke"):
    """End a key at once."""

    key_id: str


Command = ListKeys | IssueKey | RotateKey | RevokeKey
Name = Literal["keys.list", "keys.issue", "keys.rotate", "keys.revoke"]


def run(command: Command, store: Store, secrets: Secrets, owner: Account, clock: Clock) -> dict[str, Any]:
    """Carry out one command for the owner; raises Refusal where it cannot be done."""
    now, pepper = clock(), secrets.pepper
    match command:
        case ListKeys():
            return {"object": "list", "data": [key.view() for key in keys.listed(store, owner.id)]}
        case IssueKey(name=name, test=test, scopes=scopes):
            key, secret = store.write(
                lambda tx: keys.issue(tx, pepper, owner.id, now=now, actor=ACTOR, name=name, test=test, scopes=scopes)
            )
            return {**key.view(), "api_key": secret}
        case RotateKey(key_id=key_id, overlap_seconds=overlap):
            key, secret = store.write(
                lambda tx: keys.rotate(tx, pepper, owner.id, key_id, overlap_seconds=overlap, now=now, actor=ACTOR)
            )
            return {**key.view(), "api_key": secret}
        case RevokeKey(key_id=key_id):
            return store.write(lambda tx: keys.revoke(tx, owner.id, key_id, now=now, actor=ACTOR)).view()


def decode(body: bytes) -> Command:
    """Raises msgspec.ValidationError for what is not a command."""
    return msgspec.json.decode(body, type=Command)
