"""A job's row, and what everybody who changes one needs: to find it, and to tell of the change once it is stored."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from zsky_box.db import Row, Tx
from zsky_box.errors import not_found
from zsky_box.feed import Feed
from zsky_box.keys import Caller
from zsky_box.requests import Submission
from zsky_box.turns import Moved

INTERACTIVE: Final = 0
BATCH: Final = 1
TURNS_BETWEEN: Final = 1 << 20
"""A job's turn is its number times this, until it is moved: so many can be moved in between two."""
PROMPT_SHOWN: Final = 160


class News:
    """Tells the listeners of a change after its COMMIT, and rings where there is a job to be taken."""

    def __init__(self, feed: Feed, wake: Callable[[str | None], None]) -> None:
        self._feed = feed
        self._wake = wake

    def tell(
        self,
        tx: Tx,
        channel: tuple[str, bool],
        job_id: str,
        data: dict[str, Any],
        *,
        kind: Literal["status", "progress"] = "status",
        ring: bool = False,
    ) -> None:
        """Once this write is durable."""
        tx.after_commit.append(lambda: self._feed.publish(channel, kind, job_id, {"job_id": job_id, **data}))
        if ring:
            tx.after_commit.append(lambda: self._wake(job_id))

    def show(self, channel: tuple[str, bool], job_id: str, jpeg: bytes) -> None:
        """How a job looks by now, to those who listen at this moment; it waits for no write, and is stored nowhere."""
        image = f"data:image/jpeg;base64,{b64encode(jpeg).decode()}"
        self._feed.publish(channel, "preview", job_id, {"job_id": job_id, "image": image})

    def tell_account(self, tx: Tx, account_id: str, data: dict[str, Any]) -> None:
        """What is of no one job: an alert."""
        tx.after_commit.append(lambda: self._feed.publish((account_id, False), "alert", "", data))

    def wake(self, tx: Tx) -> None:
        """The scheduler has something to look at."""
        tx.after_commit.append(lambda: self._wake(None))


def get(tx: Tx, job_id: str) -> Row:
    """The job's row; raises 404."""
    row = tx.one("SELECT * FROM job WHERE id = ?", (job_id,))
    if row is None:
        raise not_found("job")
    return row


def owned(tx: Tx, caller: Caller, job_id: str) -> Row:
    """The same where it is the caller's own, in its mode."""
    row = tx.one(
        "SELECT * FROM job WHERE id = ? AND account_id = ? AND test = ?",
        (job_id, caller.account.id, int(caller.key.test)),
    )
    if row is None:
        raise not_found("job")
    return row


def moved(row: Row) -> Moved:
    """Whether the owner has moved a job ahead of its account's others (-1), behind them (1), or not (0)."""
    own = row["seq"] * TURNS_BETWEEN
    return -1 if row["turn"] < own else 1 if row["turn"] > own else 0


def prompt_shown(row: Row) -> str:
    """The prompt on one line of a list, no more of it than `PROMPT_SHOWN` characters."""
    prompt = " ".join(row["prompt"].split())
    return prompt if len(prompt) <= PROMPT_SHOWN else f"{prompt[: PROMPT_SHOWN - 1]}…"


def channel(row: Row) -> tuple[str, bool]:
    """Who hears of the job."""
    return row["account_id"], bool(row["test"])


def submission_of(row: Row) -> Submission:
    """What was asked for, as it was stored."""
    return msgspec.json.decode(row["request"], type=Submission)
