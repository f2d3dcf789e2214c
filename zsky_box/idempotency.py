"""A client's key makes a request happen once: its answer is kept with what it did, and given to whoever repeats it.

The scope of a key is an account and its mode (live or test), so it outlives the API key that was used. Only answers of
success are kept; a refusal has done nothing, and is decided anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from zsky_box.clock import DAY_US, Clock
from zsky_box.db import Rows, Store, Tx
from zsky_box.errors import Refusal
from zsky_box.keys import Caller

KEY_MAX: Final = 255


class Idempotency(Struct, frozen=True):
    """A client's key, and the digest of what it was sent with."""

    key: str
    request: bytes


class Answer(Struct, frozen=True):
    """What a client is told; `replayed` when an earlier request with the same key did what it tells of."""

    status: int
    body: bytes
    headers: dict[str, str] = {}
    replayed: bool = False


def replay(rows: Rows | Store, caller: Caller, idempotency: Idempotency | None) -> Answer | None:
    """The kept answer, None for a key that is new; raises 409 `idempotency_conflict` for another request's key."""
    if idempotency is None:
        return None
    row = rows.one(
        "SELECT * FROM idempotency WHERE account_id = ? AND test = ? AND key = ?",
        (caller.account.id, int(caller.key.test), idempotency.key),
    )
    if row is None:
        return None
    if bytes(row["request"]) != idempotency.request:
        raise Refusal(
            409, "idempotency_conflict", "This Idempotency-Key was used with another request; use a fresh one."
        )
    headers = msgspec.json.decode(row["headers"], type=dict[str, str])
    return Answer(row["status"], bytes(row["body"]), headers, replayed=True)


def keep(tx: Tx, caller: Caller, idempotency: Idempotency | None, answer: Answer, now: int) -> None:
    """Keep an answer of success, in the transaction that does what it tells of."""
    if idempotency is None:
        return
    tx.execute(
        "INSERT INTO idempotency (account_id, test, key, request, status, body, headers, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            caller.account.id,
            int(caller.key.test),
            idempotency.key,
            idempotency.request,
            answer.status,
            answer.body,
            msgspec.json.encode(answer.headers).decode(),
            now,
        ),
    )


async def once(
    store: Store, caller: Caller, idempotency: Idempotency | None, clock: Clock, work: Callable[[Tx, int], Answer]
) -> Answer:
    """Do `work`, which is given the time, in one write, or give the answer of who did it before.

    Requests with the same key wait in line.
    """

    def write(tx: Tx) -> Answer:
        kept = replay(tx, caller, idempotency)
        if kept is None:
            now = clock()
            kept = work(tx, now)
            keep(tx, caller, idempotency, kept, now)
        return kept

    return await store.write_async(write)


def forget(tx: Tx, days: int, now: int) -> None:
    """Drop the keys that are older than they are kept."""
    tx.execute("DELETE FROM idempotency WHERE created_at < ?", (now - days * DAY_US,))
