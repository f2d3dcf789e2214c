"""Submits a second and how long each waits, durable, beside the same route without the database.

    python -m scripts.bench.submit [--rounds 5] [--seconds 2] [--clients 32]

Each variant (see `scripts.bench.serving`) is a service of its own whose jobs never run; the others wait while one is
measured, and they take turns. The clients are kept-alive connections in this process that send their next submit when
the last is answered; the store is on the disk of the temporary folder (TMPDIR), whose fsync is told. The bounds of the
queue are lifted, so the durable store goes on from round to round with ever more open jobs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from scripts.bench.box import Box
from scripts.bench.clients import Request, waits
from scripts.bench.serving import VARIANTS
from scripts.bench.table import quantile, show
from tests.running import make_owner

BODY: Final = json.dumps({"type": "image", "prompt": "a lighthouse in the fog", "metadata": {"shot": "12"}}).encode()
NO_BOUND: Final = 10**9
WARM_SECONDS: Final = 0.5
FSYNCS: Final = 200


def submit(box: Box) -> Request:
    """The submit that a client sends again and again."""
    return Request(box, "POST", "/v1/generate", BODY, status=202)


def fsync_ms(folder: Path) -> float:
    """The median of an fsync after 4 KiB more, in milliseconds."""
    seconds: list[float] = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(FSYNCS):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each variant in each round")
    parser.add_argument("--clients", type=int, default=32)
    asked = parser.parse_args()
    rates: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    waited_all: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    bounds = dict.fromkeys(("included_images", "queue_open_max", "queue_open_per_account_max"), NO_BOUND)
    with tempfile.TemporaryDirectory(prefix="zsky-bench-") as parent, contextlib.ExitStack() as running:
        fsync = fsync_ms(Path(parent))
        boxes: dict[str, Box] = {}
        for variant in VARIANTS:
            folder = Path(parent) / variant
            key = make_owner(folder)["live"]
            box = Box(
                folder, key, command=("scripts.bench.serving", variant), worker_start_timeout_seconds=3600, **bounds
            )
            boxes[variant] = running.enter_context(box)
            asyncio.run(waits(submit(box), asked.clients, WARM_SECONDS))
        for _ in range(asked.rounds):
            for variant, box in boxes.items():
                began = time.perf_counter()
                waited = asyncio.run(waits(submit(box), asked.clients, asked.seconds))
                rates[variant].append(len(waited) / (time.perf_counter() - began))
                waited_all[variant] += waited
    bare = rates[VARIANTS[-1]]
    rows = [
        [
            variant,
            f"{statistics.median(rates[variant]):.0f}",
            f"{statistics.median(one / other for one, other in zip(rates[variant], bare, strict=True)):.2f}",
            *(f"{quantile(waited_all[variant], share) * 1000:.0f}" for share in (0.5, 0.99)),
            f"{rates[variant][0]:.0f} .. {rates[variant][-1]:.0f}",
        ]
        for variant in VARIANTS
    ]
    heads = ["", "submits/s", "ratio", "p50 ms", "p99 ms", "first .. last round"]
    title = f"{asked.clients} clients, medians of {asked.rounds} rounds of {asked.seconds:g} s; fsync {fsync:.2f} ms"
    show(title, heads, rows)
    print(f"open jobs in the durable store at the end: {len(waited_all['durable']):,} and those of the warm-up")


if __name__ == "__main__":
    main()
