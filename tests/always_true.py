"""The rules of the ledger that must hold whatever has happened, checked over the whole store and every file."""

from __future__ import annotations

from collections import Counter

from tests.stores import Rooms
from zsky_box import audit, ledger
from zsky_box.db import Row, Store
from zsky_box.periods import period_at


def check_always_true(rooms: Rooms) -> None:
    """Every rule of the ledger that applies, over the whole store and every file."""
    assert ledger.first_wrong_balance(rooms.store) is None
    assert audit.first_broken_row(rooms.store) is None
    _check_double_entry(rooms.store)
    _check_grants(rooms)
    transfers: dict[str, list[Row]] = {}
    for row in rooms.store.all("SELECT * FROM transfer WHERE job_id IS NOT NULL ORDER BY id"):
        transfers.setdefault(row["job_id"], []).append(row)
    files = _files_by_job(rooms)
    for job in rooms.store.all("SELECT * FROM job"):
        _check_charge(job, transfers.pop(job["id"], []))
        _check_files(job, files.pop(job["id"], {}), rooms)
    assert transfers == {}
    assert files == {}


def _check_double_entry(store: Store) -> None:
    for row in store.all(
        "SELECT ledger, sum(debits_posted) - sum(credits_posted) AS posted, sum(debits_pending) - sum(credits_pending)"
        " AS pending FROM balance GROUP BY ledger"
    ):
        assert (row["posted"], row["pending"]) == (0, 0)
    for row in store.all("SELECT * FROM balance WHERE overdraft = 0"):
        assert row["debits_posted"] + row["debits_pending"] <= row["credits_posted"]
    unaudited = store.one(
        "SELECT count(*) AS n FROM transfer t WHERE (SELECT count(*) FROM audit WHERE transfer_id = t.id) != 1"
    )
    assert unaudited is not None
    assert unaudited["n"] == 0


def _check_grants(rooms: Rooms) -> None:
    """A month's figure is granted once; beyond it only what was voided after its own month had ended."""
    zone, lapsed, granted = rooms.settings.zone(), Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for row in rooms.store.all("SELECT * FROM transfer WHERE kind = 'void'"):
        present = period_at(row["at"], zone).key
        if row["period"] < present:
            lapsed[row["account_id"], row["ledger"], present] += row["amount"]
    for row in rooms.store.all("SELECT * FROM transfer WHERE kind = 'grant'"):
        granted[row["account_id"], row["ledger"], row["period"]] += row["amount"]
    for row in rooms.store.all('SELECT * FROM "grant"'):
        granted[row["account_id"], row["kind"], row["period"]] -= row["units"]
    assert +granted == lapsed


def _check_charge(job: Row, transfers: list[Row]) -> None:
    """Each reserve has exactly the resolution that the job's end calls for, and none while the job is open."""
    reserves = {row["id"]: row["ordinal"] for row in transfers if row["kind"] == "reserve"}
    ends = {reserves[row["pending_id"]]: row["kind"] for row in transfers if row["kind"] in ("post", "void")}
    if job["test"]:
        assert transfers == []
        return
    assert sorted(reserves.values()) == list(range(job["n"]))
    assert len(transfers) == len(reserves) + len(ends)
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
