"""Lists read by keyset, newest first: what is entered meanwhile comes before the first page and moves no later one."""

from __future__ import annotations

from typing import Any, Final

from zsky_box.db import Row, Rows, Store

NEWEST: Final = 2**63 - 1
"""Before this number comes every row."""
SCAN_MAX: Final = 100_000
"""So many are looked through for one page: with a rare filter it may have fewer than asked for, and more to come."""


def floor(rows: Rows | Store, numbers: str, values: dict[str, Any]) -> int | None:
    """The oldest number that a page with filters looks at; None where it may look at all.

    `numbers` is SQL that selects the `id` of all that the filters are held against.
    """
    scanned = rows.one(
        f"SELECT min(id) AS id, count(*) AS n FROM ({numbers} ORDER BY id DESC LIMIT :scan)",  # noqa: S608 - ours
        values | {"scan": SCAN_MAX},
    )
    return int(scanned["id"]) if scanned is not None and scanned["n"] == SCAN_MAX else None


def cut(found: list[Row], limit: int, floor: int | None) -> tuple[list[Row], int | None]:
    """The page of what was read with one row to spare, and the number to go on before; None at the end."""
    if len(found) > limit:
        return found[:limit], int(found[limit - 1]["id"])
    return found, floor
