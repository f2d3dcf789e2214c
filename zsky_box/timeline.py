"""The ledger's clock, which never runs backwards: what is written now is not of an earlier time than what was before.

A box's clock that falls behind a little is waited for: entries bear the last entry's time. More than `TOLERANCE_US`
behind, nothing new is accepted until the clock is right or the owner says that it is right as it stands. A clock that
lost its battery and tells of another age is told from one that was moved: it is never believed.
"""

from __future__ import annotations

from typing import Final
from zoneinfo import ZoneInfo

from zsky_box import audit
from zsky_box.clock import SECOND_US, rfc3339
from zsky_box.db import Rows, Tx
from zsky_box.errors import Refusal
from zsky_box.periods import Calendar, ZoneFrom

TOLERANCE_US: Final = 600 * SECOND_US
FIRST_US: Final = 1_577_836_800 * SECOND_US
"""2020 began; no box is older."""
END_US: Final = 4_102_444_800 * SECOND_US
"""2100 begins."""


def is_possible(now: int) -> bool:
    """Whether a clock may tell this time."""
    return FIRST_US <= now < END_US


def present(rows: Rows, now: int) -> int:
    """The ledger's time, to read by: the box's, or the last entry's where that is later."""
    last = _last(rows)
    return max(now, last) if is_possible(now) else max(last, FIRST_US)


def behind_us(rows: Rows, now: int) -> int:
    """How far the box's clock is behind the last entry; 0 where it is not."""
    return max(0, _last(rows) - now)


def calendar(rows: Rows) -> Calendar | None:
    """The calendar on record, None in a store that no box has been started over yet."""
    found = rows.all("SELECT * FROM calendar_zone ORDER BY from_us")
    zones = tuple(ZoneFrom(ZoneInfo(row["zone"]), row["from_us"], row["period"]) for row in found)
    return Calendar(zones) if zones else None


def advance(tx: Tx, now: int) -> int:
    """The time of a new entry; raises 503 `clock_behind` when the box's clock is too far behind the last one."""
    _check_possible(now)
    row = tx.one(
        "UPDATE box SET clock_at = max(clock_at, :now) WHERE clock_at <= :now + :tolerance RETURNING clock_at",
        {"now": now, "tolerance": TOLERANCE_US},
    )
    if row is None:
        raise _behind(tx)
    return int(row["clock_at"])


def check(rows: Rows, now: int) -> None:
    """Raise what `advance` would, without advancing."""
    _check_possible(now)
    if behind_us(rows, now) > TOLERANCE_US:
        raise _behind(rows)


def advance_anyhow(tx: Tx, now: int) -> int:
    """The time of an entry that ends what was begun before: that is never refused."""
    last = _last(tx)
    if now <= last or not is_possible(now):
        return max(last, FIRST_US)
    tx.execute("UPDATE box SET clock_at = ?", (now,))
    return now


def accept(tx: Tx, now: int, actor: str) -> bool:
    """The owner says that the box's clock is right though it is behind the ledger; False when it is not behind.

    Raises 503 for a clock that cannot be right.
    """
    _check_possible(now)
    last = _last(tx)
    if now >= last:
        return False
    newest = tx.one("SELECT coalesce(max(id), 0) AS id FROM transfer")
    tx.execute("UPDATE box SET clock_at = ?", (now,))
    audit.append(
        tx,
        at=now,
        account_id=None,
        actor=actor,
        action="clock.accepted",
        subject="clock",
        before={"at": last},
        after={"at": now, "transfer_id": 0 if newest is None else newest["id"]},
    )
    return True


def _check_possible(now: int) -> None:
    if not is_possible(now):
        raise Refusal(
            503,
            "clock_behind",
            f"The box's clock says {rfc3339(now)}, which cannot be: set it.",
            headers={"Retry-After": "60"},
        )


def _behind(rows: Rows) -> Refusal:
    return Refusal(
        503,
        "clock_behind",
        f"The box's clock is behind its ledger, whose last entry is of {rfc3339(_last(rows))}: set the clock, or let"
        " the owner accept it with `zsky-box doctor --accept-clock`.",
        headers={"Retry-After": "60"},
    )


def _last(rows: Rows) -> int:
    row = rows.one("SELECT clock_at FROM box")
    return 0 if row is None else int(row["clock_at"])
