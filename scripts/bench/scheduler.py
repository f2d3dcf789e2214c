"""The scheduling policy on simulated cards and a virtual clock, beside three plain policies, in one run.

    python -m scripts.bench.scheduler [--seeds 3] [--cards 1,2,4,8]

The product's own `Dispatcher` decides for virtual cards (`virtual_cards.py`). Three accounts: one leaves a backlog of
300 clips, one works with images all day, one sends bursts of both. `beyond bound`: how much longer the trace took than
the sum of all work divided by the cards (or its last arrival and that job's own time, where that is later), no load
counted. `image wait`: of the images of the accounts without a backlog. `least share`: while the greedy account and
another both had jobs waiting, the share of card time of the one that got less, out of what an even split gives it.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable, Sequence
from typing import Final

from scripts.bench.table import quantile, show
from scripts.bench.virtual_cards import (
    Arrival,
    Fifo,
    FifoPerCard,
    Job,
    Model,
    ModelAffine,
    Ours,
    Policy,
    World,
    run,
)

# What the manifests and the counted operations give for an 80 GB card, rounded; the loads are those of a good SSD.
MODELS: Final = (
    Model(name="video", run_seconds=25.0, load_seconds=20.0, held_gib=36.0, working_gib=6.0),
    Model(name="image", run_seconds=1.5, load_seconds=4.0, held_gib=16.0, working_gib=3.0),
    Model(name="fine-image", run_seconds=3.0, load_seconds=6.0, held_gib=20.0, working_gib=4.0),
)
SIZES: Final = (("one model a card (48 GiB)", 48.0), ("all models on a card (96 GiB)", 96.0))
POLICIES: Final[tuple[tuple[str, Callable[[], Policy]], ...]] = (
    ("FIFO", Fifo),
    ("FIFO a card", FifoPerCard),
    ("model-affine round robin", ModelAffine),
    ("ours", Ours),
)
GREEDY: Final = "greedy"
CLIPS: Final = 300


def trace(cards: int, seed: int) -> list[Arrival]:
    """Arrivals in proportion to the cards: a backlog at once, images all along, and bursts of everything."""
    rng = random.Random(seed)  # noqa: S311 - a simulation
    arrivals = [Arrival(at=0.0, account=GREEDY, model="video") for _ in range(CLIPS)]
    work_seconds = CLIPS * MODELS[0].run_seconds / cards
    at = 0.0
    while at < 0.8 * work_seconds:
        at += rng.expovariate(cards / 20.0)
        arrivals.append(Arrival(at=at, account="steady", model="image" if rng.random() < 0.7 else "fine-image"))
    at = 0.0
    while at < 0.8 * work_seconds:
        at += rng.expovariate(cards / 600.0)
        for _ in range(rng.randint(4, 16)):
            model = rng.choices([model.name for model in MODELS], (2, 5, 3))[0]
            arrivals.append(Arrival(at=at + rng.random() * 5, account="bursts", model=model))
    return arrivals


def beyond_bound(jobs: Sequence[Job], cards: int) -> float:
    """Makespan over its lower bound, less 1."""
    run_seconds = {model.name: model.run_seconds for model in MODELS}
    work = sum(run_seconds[job.arrival.model] for job in jobs) / cards
    last = max(job.arrival.at + run_seconds[job.arrival.model] for job in jobs)
    return max(job.ended_at for job in jobs) / max(work, last) - 1


def least_share(jobs: Sequence[Job]) -> float:
    """See the module: the worse of both sides, over the stretches in which both waited; 1 is even."""
    edges = sorted({instant for job in jobs for instant in (job.arrival.at, job.started_at, job.ended_at)})
    served = {True: 0.0, False: 0.0}
    for low, high in zip(edges, edges[1:], strict=False):
        middle = (low + high) / 2
        waiting = {job.arrival.account == GREEDY for job in jobs if job.arrival.at <= middle < job.started_at}
        if len(waiting) == 2:
            for job in jobs:
                if job.started_at <= middle < job.ended_at:
                    served[job.arrival.account == GREEDY] += high - low
    total = sum(served.values())
    return 1.0 if total == 0 else min(1.0, 2 * min(served.values()) / total)


def row(name: str, results: Sequence[tuple[list[Job], World]], cards: int) -> list[str]:
    """The medians over the seeds."""

    def middle(of: Callable[[list[Job], World], float]) -> float:
        return statistics.median(of(jobs, world) for jobs, world in results)

    def waits(jobs: list[Job]) -> list[float]:
        return [job.waited_seconds for job in jobs if job.arrival.account != GREEDY and job.arrival.model != "video"]

    return [
        name,
        f"{100 * middle(lambda jobs, _: beyond_bound(jobs, cards)):.1f} %",
        f"{middle(lambda jobs, _: quantile(waits(jobs), 0.5)):.1f}",
        f"{middle(lambda jobs, _: quantile(waits(jobs), 0.95)):.1f}",
        f"{middle(lambda jobs, _: max(waits(jobs))):.0f}",
        f"{middle(lambda jobs, _: least_share(jobs)):.2f}",
        f"{middle(lambda _, world: sum(card.swaps for card in world.cards)):.0f}",
        f"{100 * middle(lambda jobs, world: sum(c.load_seconds for c in world.cards) / sum(j.ended_at - j.started_at for j in jobs)):.1f} %",
    ]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cards", default="1,2,4,8")
    chosen = parser.parse_args()
    heads = ["policy", "beyond bound", "image wait p50 s", "p95 s", "worst s", "least share", "swaps", "loading"]
    for title, gib in SIZES:
        for cards in (int(part) for part in chosen.cards.split(",")):
            rows = [
                row(
                    name,
                    [run(MODELS, cards, gib, trace(cards, seed), make(), seed) for seed in range(chosen.seeds)],
                    cards,
                )
                for name, make in POLICIES
            ]
            show(f"{title}, {cards} card{'s' if cards > 1 else ''}", heads, rows)


if __name__ == "__main__":
    main()
