"""Durable reserves a second out of the wallet, beside the same service's cheapest route that wants a key.

    python -m scripts.bench.reserve [--rounds 5] [--seconds 2] [--clients 1,16,64]

One service whose jobs never run, as `zsky-box serve` starts it, whose account has no included units, a full wallet and
no bound of its queue: each submit is a job, a reserve, its audit row and counters, durable before it is answered. The
cheapest route gives out bytes that were made at the start; `/v1/me` stands for those that read the store. The routes
take turns; the clients share the machine, and keep one connection each.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from scripts.bench.box import Box
from scripts.bench.clients import Request, waits
from scripts.bench.submit import NO_BOUND, WARM_SECONDS, fsync_ms, submit
from scripts.bench.table import quantile, show
from tests.running import make_owner
from zsky_box import accounts, overage
from zsky_box.clock import system_clock
from zsky_box.db import Store, Tx
from zsky_box.settings import Settings
from zsky_box.terms import Terms

CANDIDATES: Final = ("/v1/me", "/v1/models", "/v1/openapi.json", "/v1/jobs?limit=1")
READING: Final = "/v1/me"
RATIO_AIM: Final = 0.6
SPREAD_AIM: Final = 5.0
WALLET_MICROS: Final = 900_000 * 1_000_000
PRICE_USD: Final = "0.01"


def fill_wallet(folder: Path) -> None:
    """Money for every submit of the run, and a cap that the least price does not reach."""
    store, terms = Store(folder), Terms.of(Settings())
    owner = accounts.owner(store)
    assert owner is not None

    def work(tx: Tx) -> None:
        now = system_clock()
        overage.topup(tx, owner.id, WALLET_MICROS, actor="bench", now=now, terms=terms)
        overage.set_cap(tx, owner.id, overage.CAP_MAX_MICROS, actor="bench", now=now, terms=terms)
        overage.toggle(tx, owner.id, enabled=True, actor="bench", now=now, terms=terms)

    store.write(work)
    store.close()


def cheapest(box: Box, seconds: float) -> Request:
    """The route of the candidates that answers most often with 16 clients."""
    rates = {path: len(asyncio.run(waits(Request(box, "GET", path), 16, seconds))) / seconds for path in CANDIDATES}
    print("GETs a second:", ", ".join(f"{path} {rate:.0f}" for path, rate in rates.items()))
    return Request(box, "GET", max(rates, key=lambda path: rates[path]))


def measure(box: Box, others: dict[str, Request], clients: int, rounds: int, seconds: float) -> list[str]:
    """One row of the table: the reserves, and their share of what each other route answers in its turns."""
    requests = {"reserve": submit(box), **others}
    rates: dict[str, list[float]] = {name: [] for name in requests}
    waited: list[float] = []
    for _ in range(rounds):
        for name, request in requests.items():
            began = time.perf_counter()
            answers = asyncio.run(waits(request, clients, seconds))
            rates[name].append(len(answers) / (time.perf_counter() - began))
            waited += answers if name == "reserve" else []
    median, late = (quantile(waited, share) for share in (0.5, 0.99))
    shares = [
        statistics.median(one / other for one, other in zip(rates["reserve"], rates[name], strict=True))
        for name in others
    ]
    return [
        str(clients),
        *(f"{statistics.median(rates[name]):.0f}" for name in requests),
        *(f"{share:.2f}" for share in shares),
        f"{median * 1000:.1f}",
        f"{late * 1000:.1f}",
        f"{late / median:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each route in each round")
    parser.add_argument("--clients", default="1,16,64")
    asked = parser.parse_args()
    bounds = dict.fromkeys(("queue_open_max", "queue_open_per_account_max"), NO_BOUND)
    bounds |= {"requests_per_second": 100_000, "requests_burst": 10**6, "included_images": 0}
    with tempfile.TemporaryDirectory(prefix="zsky-bench-") as parent:
        folder = Path(parent) / "data"
        fsync = fsync_ms(Path(parent))
        key = make_owner(folder)["live"]
        fill_wallet(folder)
        command = ("scripts.bench.serving", "durable")
        with Box(folder, key, command=command, image_usd=PRICE_USD, worker_start_timeout_seconds=3600, **bounds) as box:
            asyncio.run(waits(submit(box), 16, WARM_SECONDS))
            others = {"cheapest": cheapest(box, asked.seconds), "reading": Request(box, "GET", READING)}
            rows = [
                measure(box, others, int(clients), asked.rounds, asked.seconds) for clients in asked.clients.split(",")
            ]
    heads = ["clients", "reserves/s", "cheapest/s", f"{READING}/s", "of cheapest", f"of {READING}", "p50 ms", "p99 ms"]
    heads.append("p99/p50")
    show(f"medians of {asked.rounds} rounds of {asked.seconds:g} s; fsync {fsync:.2f} ms", heads, rows)
    print(f"aims: of the cheapest at least {RATIO_AIM:g} with 64 clients, p99 under {SPREAD_AIM:g} times the median")


if __name__ == "__main__":
    main()
