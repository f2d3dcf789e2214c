"""`ledger verify` over many transfers, and the statement of a month with many lines: time, and memory that stays flat.

    python -m scripts.bench.books [--sizes 10000,100000,1000000] [--lines 1000,10000,100000]

The stores are filled through the rooms that write money. `verify` is the command in a process of its own; a statement
asked of a running service, as JSON and as CSV, by a client that reads as fast as it can. A line is a unit of $0.01, so
that 100,000 of them are the highest cap.
"""

from __future__ import annotations

import argparse
import http.client
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from scripts.bench.box import Box
from scripts.bench.filled import spend
from scripts.bench.table import show
from tests.running import ROOT
from zsky_box.settings import Settings

PAID_SHARE: Final = 5
PAID_MAX: Final = 100_000
READ_BYTES: Final = 64 * 1024


def verified(folder: Path, settings: Settings) -> list[str]:
    """One row: how long the command takes, and the most memory that it holds."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "ZSKY_INCLUDED_IMAGES": str(settings.included_images),
        "ZSKY_IMAGE_USD": settings.image_usd,
    }
    command = [sys.executable, "-m", "zsky_box", "--data", str(folder), "ledger", "verify", "--json"]
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the ledger does not verify: {told.decode()}")
    with closing(sqlite3.connect(folder / "ledger.db")) as connection:
        transfers = connection.execute("SELECT count(*) FROM transfer").fetchone()[0]
    mib = (folder / "ledger.db").stat().st_size / 2**20
    return [
        f"{transfers:,}",
        f"{mib:.0f}",
        f"{seconds:.1f}",
        f"{transfers / seconds:,.0f}",
        f"{used.ru_maxrss / 1024:.0f}",
    ]


def stated(box: Box, suffix: str) -> tuple[float, int, int]:
    """Seconds to the first byte, seconds to the last, and bytes of a month's statement."""
    connection = http.client.HTTPConnection("127.0.0.1", box.port, timeout=600)
    path = f"/v1/me/statements/{datetime.now(UTC):%Y-%m}{suffix}"
    began = time.perf_counter()
    connection.request("GET", path, headers={"X-API-Key": box.key})
    answer = connection.getresponse()
    if answer.status != http.HTTPStatus.OK:
        raise RuntimeError(f"{path} answered {answer.status}: {answer.read().decode()}")
    size = 0
    while piece := answer.read(READ_BYTES):
        size += len(piece)
    connection.close()
    return time.perf_counter() - began, size, answer.status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000", help="transfers to verify")
    parser.add_argument("--lines", default="1000,10000,100000", help="lines of a statement")
    asked = parser.parse_args()
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="zsky-bench-") as parent:
        for size in map(int, asked.sizes.split(",")):
            folder = Path(parent) / f"verify-{size}"
            units = size // 2  # a reserve and a post each
            paid = min(PAID_MAX, units // PAID_SHARE)
            _, settings = spend(folder, units - paid, paid)
            rows.append(verified(folder, settings))
    show("ledger verify", ["transfers", "store MiB", "seconds", "transfers/s", "peak MiB"], rows)
    rows = []
    with tempfile.TemporaryDirectory(prefix="zsky-bench-") as parent:
        for lines in map(int, asked.lines.split(",")):
            folder = Path(parent) / f"statement-{lines}"
            keys, settings = spend(folder, 0, lines)
            bounds = {"included_images": settings.included_images, "image_usd": settings.image_usd}
            command = ("scripts.bench.serving", "durable")
            with Box(folder, keys["live"], command=command, worker_start_timeout_seconds=3600, **bounds) as box:
                stated(box, "")  # what is loaded once is loaded
                before = box.resident_mib()
                as_json, json_bytes, _ = stated(box, "")
                as_csv, csv_bytes, _ = stated(box, ".csv")
                rows.append(
                    [
                        f"{lines:,}",
                        f"{as_json:.2f}",
                        f"{json_bytes / 2**20:.1f}",
                        f"{as_csv:.2f}",
                        f"{csv_bytes / 2**20:.1f}",
                        f"{before:.0f}",
                        f"{box.resident_mib():.0f}",
                    ]
                )
    heads = ["lines", "JSON s", "MiB", "CSV s", "MiB", "parent MiB before", "after"]
    show("a month's statement, streamed", heads, rows)


if __name__ == "__main__":
    main()
