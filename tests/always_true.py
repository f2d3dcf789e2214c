"""The rules of the ledger that must hold whatever has happened, checked over the whole store and every file.

The money is told again from its own records (tests/machine/replay.py); the box's own checks are asked besides.
"""

from __future__ import annotations

from collections import Counter

from tests.machine.months import ZoneSince, month_of
from tests.machine.replay import Replay
from tests.stores import Rooms
from zsky_box.db import Row, Rows
from zsky_box.ledger.verify import verify


def check_always_true(rooms: Rooms) -> None:
    """Every rule of the ledger that applies, over the whole store and every file."""
    transfers: dict[str, list[Row]] = {}
    with rooms.store.snapshot() as rows:
        assert verify(rows).faults == ()
        Replay(rows).check()
        _check_grants(rows)
        for row in rows.all("SELECT * FROM transfer WHERE job_id IS NOT NULL ORDER BY id"):
            transfers.setdefault(row["job_id"], []).append(row)
    files = _files_by_job(rooms)
    for job in rooms.store.all("SELECT * FROM job"):
        _check_charge(job, transfers.pop(job["id"], []))
        _check_files(job, files.pop(job["id"], {}), rooms)
    assert transfers == {}
    assert files == {}


def _check_grants(rows: Rows) -> None:
    """A month's figure is granted once; beyond it only what came back late: voided after its month, or refunded."""
    zones = [ZoneSince(row["from_us"], row["period"], row["zone"]) for row in rows.all("SELECT * FROM calendar_zone")]
    accepted = rows.all(
        "SELECT at, json_extract(after, '$.transfer_id') AS id FROM audit WHERE action = 'clock.accepted'"
    )
    came_back, granted = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for row in rows.all("SELECT * FROM transfer WHERE kind IN ('void', 'refund') AND ledger != 'usd'"):
        present = month_of(row["at"], zones)
        if any(row["id"] <= last["id"] and row["at"] > last["at"] for last in accepted):
            # By a clock that was ahead: its months may have been of another zone, and the grant alone tells.
            again = rows.one(
                "SELECT period FROM transfer WHERE id = ? AND kind = 'grant' AND actor != 'plan'", (row["id"] + 1,)
            )
            present = row["period"] if again is None else again["period"]
        if row["kind"] == "refund" or row["period"] < present:
            came_back[row["account_id"], row["ledger"], present] += row["amount"]
    for row in rows.all("SELECT * FROM transfer WHERE kind = 'grant'"):
        granted[row["account_id"], row["ledger"], row["period"]] += row["amount"]
    for row in rows.all('SELECT * FROM "grant"'):
        granted[row["account_id"], row["kind"], row["period"]] -= row["units"]
    assert {key: count for key, count in granted.items() if count} == came_back


def _check_charge(job: Row, transfers: list[Row]) -> None:
    """Each reserve has exactly the resolution that the job's end calls for, and none while the job is open."""
    reserves = {row["id"]: row["ordinal"] for row in transfers if row["kind"] == "reserve"}
    ends = {reserves[row["pending_id"]]: row["kind"] for row in transfers if row["kind"] in ("post", "void")}
    refunds = [row for row in transfers if row["kind"] == "refund"]
    if job["test"]:
        assert transfers == []
        return
    assert sorted(reserves.values()) == list(range(job["n"]))
    assert len(transfers) == len(reserves) + len(ends) + len(refunds)
    for row in transfers:
        if row["kind"] == "reserve" and row["ledger"] == "usd":
            assert row["amount"] == job["price_micros"], "a reserve's price is the one stamped on its job"
    if job["status"] in ("queued", "running"):
        assert ends == {}
        return
    assert len(ends) == len(reserves)
    charged = job["error_code"] == "safety_blocked" or (job["error_code"] == "cancelled" and job["work_begun"])
    if job["status"] == "completed":
        assert "post" in ends.values()
    else:
        assert set(ends.values()) == {"post" if charged else "void"}


def _files_by_job(rooms: Rooms) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for path in rooms.assets.root.glob("job_*/*/*"):
        name = str(path.relative_to(rooms.assets.root))
        found.setdefault(name.partition("/")[0], {})[name] = path.stat().st_size
    return found


def _check_files(job: Row, on_disk: dict[str, int], rooms: Rooms) -> None:
    """No charge without its file, no file without its charge; a removal is on record."""
    recorded = rooms.assets.of_jobs([job["id"]]).get(job["id"], [])
    assert bool(recorded) == (job["status"] == "completed")
    assert {asset.path: asset.file.bytes for asset in recorded if asset.removed_at is None} == on_disk
    assert all((asset.removed_at is not None) == (job["removed_at"] is not None) for asset in recorded)
    if job["status"] == "completed" and not job["test"]:
        posts = rooms.store.all("SELECT ordinal FROM transfer WHERE job_id = ? AND kind = 'post'", (job["id"],))
        results = {asset.file.ordinal for asset in recorded if asset.file.kind == "result"}
        assert {row["ordinal"] for row in posts} == results
