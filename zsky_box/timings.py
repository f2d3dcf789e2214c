"""How long things took here, kept over restarts: the last of each kind, and what each card was measured to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from zsky_box.db import Rows, Tx
from zsky_box.estimates import KEPT, Estimates, Timing

ROWS_MAX: Final = 20_000


def keep(tx: Tx, timings: Iterable[Timing], now: int) -> None:
    """Append what was measured; what is too old to count any more goes."""
    for timing in timings:
        where = (timing.kind, timing.model, timing.recipe, timing.card, timing.shape)
        tx.execute(
            "INSERT INTO timing (kind, model, recipe, card, shape, operations, seconds, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*where, timing.operations, timing.seconds, now),
        )
        tx.execute(
            "DELETE FROM timing WHERE id <= (SELECT id FROM timing WHERE kind = ? AND model = ? AND recipe = ?"
            " AND card = ? AND shape = ? ORDER BY id DESC LIMIT 1 OFFSET ?)"
            " AND kind = ? AND model = ? AND recipe = ? AND card = ? AND shape = ?",
            (*where, KEPT, *where),
        )
    tx.execute("DELETE FROM timing WHERE id <= (SELECT id FROM timing ORDER BY id DESC LIMIT 1 OFFSET ?)", (ROWS_MAX,))


def keep_card(tx: Tx, card: str, flops: float, now: int) -> None:
    """The last measure of a card counts."""
    tx.execute("INSERT OR REPLACE INTO card (name, flops, measured_at) VALUES (?, ?, ?)", (card, flops, now))


def recall(rows: Rows) -> Estimates:
    """What was learnt in earlier runs of the service."""
    columns = "kind, model, recipe, card, shape, operations, seconds"
    timings = [
        msgspec.convert(dict(row), Timing)
        for row in rows.all(f"SELECT {columns} FROM timing ORDER BY id")  # noqa: S608
    ]
    return Estimates(timings, {row["name"]: row["flops"] for row in rows.all("SELECT name, flops FROM card")})
