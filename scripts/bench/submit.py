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
from scripts.bench.serving import VARIANTS
from scripts.bench.table import quantile, show
from tests.running import make_owner

BODY: Final = json.dumps({"type": "image", "prompt": "a lighthouse in the fog", "metadata": {"shot": "12"}}).encode()
NO_BOUND: Final = 10**9
WARM_SECONDS: Final = 0.5
FSYNCS: Final = 200


class Submitter(asyncio.Protocol):
    """One client: a submit, its answer, the next submit, until `until` (of `time.perf_counter`)."""

    def __init__(self, box: Box, until: float, waits: list[float]) -> None:
        head = (
            f"POST /v1/generate HTTP/1.1\r\nHost: 127.0.0.1:{box.port}\r\nX-API-Key: {box.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
        )
        self._request = head.encode() + BODY
        self._until = until
        self._waits = waits
        self._answer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0]):
            return
        now = time.perf_counter()
        self._waits.append(now - self._began)
        if not head.startswith(b"HTTP/1.1 202 "):
            self.done.set_exception(RuntimeError(f"a submit was refused: {self._answer!r}"))
            self._transport.close()
        elif now < self._until:
            self._send()
        else:
            self.done.set_result(None)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(f"the service closed the connection ({exc})"))

    def _send(self) -> None:
        self._answer = b""
        self._began = time.perf_counter()
        self._transport.write(self._request)


async def submits(box: Box, clients: int, seconds: float) -> list[float]:
    """How long each submit of a round waited, in seconds."""
    waits: list[float] = []
    until = time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    connected = [
        await loop.create_connection(lambda: Submitter(box, until, waits), "127.0.0.1", box.port)
        for _ in range(clients)
    ]
    await asyncio.gather(*(submitter.done for _, submitter in connected))
    return waits


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
    waits: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
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
            asyncio.run(submits(box, asked.clients, WARM_SECONDS))
        for _ in range(asked.rounds):
            for variant, box in boxes.items():
                began = time.perf_counter()
                waited = asyncio.run(submits(box, asked.clients, asked.seconds))
                rates[variant].append(len(waited) / (time.perf_counter() - began))
                waits[variant] += waited
    bare = rates[VARIANTS[-1]]
    rows = [
        [
            variant,
            f"{statistics.median(rates[variant]):.0f}",
            f"{statistics.median(one / other for one, other in zip(rates[variant], bare, strict=True)):.2f}",
            *(f"{quantile(waits[variant], share) * 1000:.0f}" for share in (0.5, 0.99)),
            f"{rates[variant][0]:.0f} .. {rates[variant][-1]:.0f}",
        ]
        for variant in VARIANTS
    ]
    heads = ["", "submits/s", "ratio", "p50 ms", "p99 ms", "first .. last round"]
    title = f"{asked.clients} clients, medians of {asked.rounds} rounds of {asked.seconds:g} s; fsync {fsync:.2f} ms"
    show(title, heads, rows)
    print(f"open jobs in the durable store at the end: {len(waits['durable']):,} and those of the warm-up")


if __name__ == "__main__":
    main()
