"""Who is told of what: endpoints, and the outbox that an event is put into by the transaction that makes it true.

Delivery is not here yet: until it is, nobody can subscribe, and `webhook_url` is refused.
"""

from __future__ import annotations

from typing import Literal

from zsky_box.db import Tx

Event = Literal["job.completed", "job.failed"]


def stage(tx: Tx, account_id: str, event: Event, job_id: str, at: int, *, test: bool) -> None:
    """Put an event in the outbox for each endpoint of the account; without one, nothing is written.

    Test jobs tell nobody: a test key may not touch webhooks.
    """
    if test:
        return
    tx.execute(
        "INSERT INTO outbox (endpoint_id, event, job_id, created_at)"
        " SELECT id, ?, ?, ? FROM webhook_endpoint WHERE account_id = ? AND ended_at IS NULL",
        (event, job_id, at, account_id),
    )
