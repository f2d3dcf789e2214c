"""Everybody as the owner's list shows them: found by name, a page at a time, with when they were last here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from zsky_box import accounts
from zsky_box.accounts import Account
from zsky_box.db import Rows

PAGE: Final = 100


class Page(Struct, frozen=True):
    """Some of the people, and how many there are in all that match."""

    people: list[Account]
    matching: int


def page(rows: Rows, text: str, start: int) -> Page:
    """Those whose name holds `text`, whatever its case, from the index `start` on; the owner first."""
    wanted = text.casefold()
    found = [account for account in accounts.everybody(rows) if wanted in account.name.casefold()]
    return Page(found[start : start + PAGE], len(found))


def last_seen(rows: Rows, account_ids: Sequence[str]) -> dict[str, int]:
    """When each was last here, by a browser or a key, in microseconds; those who never were are not among them."""
    marks = ",".join("?" * len(account_ids))
    found = rows.all(
        "SELECT account_id, max(at) AS at FROM (SELECT account_id, used_at AS at FROM session UNION ALL"  # noqa: S608
        " SELECT account_id, last_used_at FROM api_key) WHERE at IS NOT NULL"
        f" AND account_id IN ({marks}) GROUP BY account_id",
        tuple(account_ids),
    )
    return {row["account_id"]: row["at"] for row in found}
