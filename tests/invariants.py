"""What must be true of a box's data folder whenever its service is not running, whatever ended it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec

from tests.machine.replay import Replay
from zsky_box.assets import TMP
from zsky_box.db import Row, Store
from zsky_box.events import File
from zsky_box.instance_lock import InstanceLock
from zsky_box.ledger.verify import verify

OPEN = ("queued", "running")


def check(folder: Path, accepted: set[str], *, at_rest: bool) -> None:
    """Fails with everything that is wrong. `at_rest`: all jobs have ended and the service was stopped properly."""
    lock = InstanceLock(folder)
    lock.acquire()
    store = Store(folder)
    try:
        faults = [*_money(store), *_jobs(store, accepted, at_rest=at_rest), *_files(store, folder / "outputs")]
        if at_rest:
            faults += _orphans(store, folder / "outputs")
    finally:
        store.close()
        lock.release()
    assert not faults, "\n".join(faults)


def processes_marked(mark: str) -> list[int]:
    """Living processes that inherited this variable's value in their environment: a service and all that it started."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return [pid for pid in found if pid != os.getpid()]


def _money(store: Store) -> Iterator[str]:
    """The box's own verification finds nothing, and the ledger told again from its audit comes to the same."""
    with store.snapshot() as rows:
        for fault in verify(rows).faults:
            yield str(fault)
        Replay(rows).check()


def _jobs(store: Store, accepted: set[str], *, at_rest: bool) -> Iterator[str]:
    jobs = {row["id"]: row for row in store.all("SELECT * FROM job")}
    for job_id in accepted - set(jobs):
        yield f"job {job_id} was accepted, but is gone"
    for job in jobs.values():
        if at_rest and job["status"] in OPEN:
            yield f"job {job['id']} is {job['status']} for ever"
        yield from _charge(store, job)


def _charge(store: Store, job: Row) -> Iterator[str]:
    reserves = store.all(
        "SELECT r.ordinal, x.kind FROM transfer r LEFT JOIN transfer x ON x.pending_id = r.id"
        " AND x.kind IN ('post', 'void') WHERE r.kind = 'reserve' AND r.job_id = ?",
        (job["id"],),
    )
    told = f"job {job['id']} ({job['status']}, {job['error_code']})"
    if len(reserves) != (0 if job["test"] else job["n"]):
        yield f"{told} has {len(reserves)} reserves for {job['n']}"
    ends = [row["kind"] for row in reserves]
    results = store.all("SELECT 1 FROM asset WHERE job_id = ? AND kind = 'result'", (job["id"],))
    match job["status"]:
        case "completed":
            if not results:
                yield f"{told} has no result"
            if not job["test"] and (ends.count("post") != len(results) or None in ends):
                yield f"{told} has {len(results)} results and is charged {ends}"
        case "failed":
            began = job["error_code"] == "cancelled" and job["work_begun"]
            charged = job["error_code"] == "safety_blocked" or began
            if any(end != ("post" if charged else "void") for end in ends):
                yield f"{told} is charged {ends}"
            if results:
                yield f"{told} has results"
        case _:
            if any(end is not None for end in ends):
                yield f"{told} is charged {ends} before its end"


def _files(store: Store, outputs: Path) -> Iterator[str]:
    for row in store.all("SELECT * FROM asset WHERE removed_at IS NULL"):
        path, facts = outputs / row["path"], msgspec.json.decode(row["facts"], type=File)
        if not path.is_file():
            yield f"{row['path']} of job {row['job_id']} is not there"
        elif sha256(path.read_bytes()).hexdigest() != facts.sha256:
            yield f"{row['path']} of job {row['job_id']} is not what was recorded"


def _orphans(store: Store, outputs: Path) -> Iterator[str]:
    known = {row["path"] for row in store.all("SELECT path FROM asset WHERE removed_at IS NULL")}
    for path in outputs.rglob("*"):
        relative = path.relative_to(outputs)
        if path.is_file() and str(relative) not in known:
            yield f"{relative} belongs to nobody"
        elif path.is_dir() and relative != Path(TMP) and not any(path.iterdir()):
            yield f"{relative} is an empty folder"
