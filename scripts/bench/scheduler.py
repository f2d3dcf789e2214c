"""The scheduling policy on simulated cards and a virtual clock, beside three plain policies, in one run.

    python -m scripts.bench.scheduler [--seeds 3] [--cards 1,2,4,8]

The product's own `Dispatcher` decides for virtual cards (`virtual_cards.py`); the same code decides in the service.

Mixed trace: one account leaves a backlog of 300 clips, one works with images of two models all along, one sends bursts
of everything. `beyond bound`: how much longer it took than all work divided by the cards, no load counted (or than the
last arrival and that job's own time, where that is later). `image wait`: from submit to start, of the images of the
accounts without a backlog. `loading`: the share of busy card time. `ETA off`, median and p90: how far the time that a
client is told at its submit lies from the time that it then takes, as a share of the latter.

Fairness: three accounts that each have more than enough from the first second. `least share`: the card time, loading
counted, of the account that got least while all three waited, beside an even third.

Decision: the queue's heads read from a store with so many open jobs, and what starts decided, with one card free.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from scripts.bench.table import quantile, show
from scripts.bench.virtual_cards import (
    HOST_BYTES,
    WORK,
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
from tests.running import make_owner
from zsky_box import accounts, keys
from zsky_box.clock import system_clock
from zsky_box.db import Store, Tx
from zsky_box.dispatch import CardView, Dispatcher
from zsky_box.jobs.queue import Queue
from zsky_box.placement import GIB, Card
from zsky_box.requests import Submission
from zsky_box.starter import SPARE_HEADS

# What the manifests and the counted operations give for an 80 GB card, rounded; the loads are those of a good SSD.
MODELS: Final = (
    Model(name="video", run_seconds=25.0, load_seconds=20.0, held_gib=36.0, working_gib=6.0),
    Model(name="image", run_seconds=1.5, load_seconds=4.0, held_gib=16.0, working_gib=3.0),
    Model(name="fine-image", run_seconds=3.0, load_seconds=6.0, held_gib=20.0, working_gib=4.0),
)
RUN_SECONDS: Final = {model.name: model.run_seconds for model in MODELS}
SIZES: Final = (("video or images on a card (48 GiB)", 48.0), ("all models on a card (96 GiB)", 96.0))
POLICIES: Final[tuple[tuple[str, Callable[[], Policy]], ...]] = (
    ("FIFO", Fifo),
    ("FIFO a card", FifoPerCard),
    ("model-affine round robin", ModelAffine),
    ("ours", Ours),
)
GREEDY: Final = "greedy"
CLIPS: Final = 300
OPEN_JOBS: Final = (10, 10_000)
DECISIONS: Final = 200

Result = tuple[list[Job], World]


def mixed(cards: int, seed: int) -> list[Arrival]:
    """Arrivals in proportion to the cards: a backlog at once, images all along, and bursts of everything."""
    rng = random.Random(seed)  # noqa: S311 - a simulation
    arrivals = [Arrival(at=0.0, account=GREEDY, model="video") for _ in range(CLIPS)]
    work_seconds = CLIPS * RUN_SECONDS["video"] / cards
    at = 0.0
    while at < 0.8 * work_seconds:
        at += rng.expovariate(cards / 20.0)
        arrivals.append(Arrival(at=at, account="steady", model="image" if rng.random() < 0.7 else "fine-image"))
    at = 0.0
    while at < 0.8 * work_seconds:
        at += rng.expovariate(cards / 600.0)
        for _ in range(rng.randint(4, 16)):
            model = rng.choices(list(RUN_SECONDS), (2, 5, 3))[0]
            arrivals.append(Arrival(at=at + rng.random() * 5, account="bursts", model=model))
    return arrivals


def crowded(cards: int) -> list[Arrival]:
    """Three accounts with the same work each, all of it at once; the first has sent it first."""
    arrivals: list[Arrival] = []
    for place, (account, model) in enumerate((("clips", "video"), ("images", "image"), ("fine", "fine-image"))):
        count = round(60 * cards * RUN_SECONDS["video"] / RUN_SECONDS[model])
        arrivals += [Arrival(at=place * 0.01, account=account, model=model) for _ in range(count)]
    return arrivals


def beyond_bound(jobs: Sequence[Job], cards: int) -> float:
    """Makespan over its lower bound, less 1."""
    work = sum(RUN_SECONDS[job.arrival.model] for job in jobs) / cards
    last = max(job.arrival.at + RUN_SECONDS[job.arrival.model] for job in jobs)
    return max(job.ended_at for job in jobs) / max(work, last) - 1


def least_share(jobs: Sequence[Job]) -> float:
    """See the module; 1 is even."""
    last_start = {name: max(j.started_at for j in jobs if j.arrival.account == name) for name in accounts_of(jobs)}
    until = min(last_start.values())
    served = dict.fromkeys(last_start, 0.0)
    for job in jobs:
        served[job.arrival.account] += max(0.0, min(job.ended_at, until) - min(job.started_at, until))
    return min(served.values()) * len(served) / sum(served.values())


def accounts_of(jobs: Sequence[Job]) -> set[str]:
    """Whose jobs these are."""
    return {job.arrival.account for job in jobs}


def waits(jobs: Sequence[Job]) -> list[float]:
    """Of the images of the accounts without a backlog."""
    return [job.waited_seconds for job in jobs if job.arrival.account != GREEDY and job.arrival.model != "video"]


def eta_errors(jobs: Sequence[Job]) -> list[float]:
    """See the module."""
    took = [(job, job.ended_at - job.arrival.at) for job in jobs]
    return [abs(job.expected_at - job.ended_at) / seconds for job, seconds in took]


def loading(world: World, jobs: Sequence[Job]) -> float:
    """The share of busy card time in which models were read."""
    return sum(card.load_seconds for card in world.cards) / sum(job.ended_at - job.started_at for job in jobs)


def mixed_row(name: str, results: Sequence[Result], cards: int) -> list[str]:
    """The medians over the seeds."""

    def middle(of: Callable[[list[Job], World], float]) -> float:
        return statistics.median(of(jobs, world) for jobs, world in results)

    told = name == "ours"
    return [
        name,
        f"{100 * middle(lambda jobs, _: beyond_bound(jobs, cards)):.1f} %",
        f"{middle(lambda jobs, _: quantile(waits(jobs), 0.5)):.1f}",
        f"{middle(lambda jobs, _: quantile(waits(jobs), 0.95)):.1f}",
        f"{middle(lambda jobs, _: max(waits(jobs))):.0f}",
        f"{middle(lambda _, world: sum(card.swaps for card in world.cards)):.0f}",
        f"{100 * middle(lambda jobs, world: loading(world, jobs)):.1f} %",
        f"{100 * middle(lambda jobs, _: quantile(eta_errors(jobs), 0.5)):.0f} %" if told else "",
        f"{100 * middle(lambda jobs, _: quantile(eta_errors(jobs), 0.9)):.0f} %" if told else "",
    ]


def fair_row(name: str, results: Sequence[Result]) -> list[str]:
    """The medians over the seeds."""
    shares = [least_share(jobs) for jobs, _ in results]
    swaps = [sum(card.swaps for card in world.cards) for _, world in results]
    return [name, f"{statistics.median(shares):.2f}", f"{statistics.median(swaps):.0f}"]


def decision_row(open_jobs: int) -> list[str]:
    """Median and 99th percentile of a decision with so many jobs waiting, in milliseconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_owner(folder)
        store = Store(folder)
        try:
            store.write(lambda tx: _queue_up(tx, open_jobs))
            queue, ours = Queue(store, system_clock), Ours()
            ours.choose(World({model.name: model for model in MODELS}, []))
            dispatcher = Dispatcher(ours)
            times = [_decision_ms(queue, dispatcher) for _ in range(DECISIONS)]
        finally:
            store.close()
    return [f"{open_jobs:,}", f"{statistics.median(times):.2f}", f"{quantile(times, 0.99):.2f}"]


def _queue_up(tx: Tx, count: int) -> None:
    """Three accounts, three models, both priorities: eighteen flows."""
    owner = accounts.named(tx, "owner")
    people = [owner, *(accounts.add_member(tx, name, "max", annual=False, now=1) for name in ("ann", "bob"))]
    key = keys.listed(tx, owner.id)[0].id
    for number, (person, model, priority) in zip(
        range(count), itertools.cycle(itertools.product(people, RUN_SECONDS, (0, 1)))
    ):
        work = msgspec.structs.replace(WORK, model=model)
        submission = Submission(
            work=work, metadata={}, notes=(), batch=bool(priority), start_deadline_seconds=None, deadline_seconds=None
        )
        tx.execute(
            "INSERT INTO job (id, account_id, key_id, test, type, model, request, prompt, priority, n, status, phase,"
            " price_micros, metadata, notes, created_at, expected_seconds)"
            " VALUES (?, ?, ?, 0, 'image', ?, ?, '', ?, 1, 'queued', 'waiting', 0, '{}', '[]', 1, 1)",
            (f"job_{number}", person.id, key, model, msgspec.json.encode(submission).decode(), priority),
        )


def _decision_ms(queue: Queue, dispatcher: Dispatcher) -> float:
    cards = [
        CardView(
            card=Card(device=f"cuda:{number}", total_bytes=96 * GIB, capability=9.0),
            name="virtual",
            is_free=number == 0,
            free_in_seconds=10.0 * number,
            held={},
        )
        for number in range(4)
    ]
    began = time.perf_counter()
    flows = queue.heads(test=False, per_flow=1 + SPARE_HEADS)
    starts = dispatcher.decide(flows, cards, HOST_BYTES, time.monotonic())
    assert len(starts) == 1
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cards", default="1,2,4,8")
    chosen = parser.parse_args()
    counts, seeds = [int(part) for part in chosen.cards.split(",")], range(chosen.seeds)
    heads = [
        "mixed trace",
        "beyond bound",
        "image wait p50 s",
        "p95 s",
        "worst s",
        "swaps",
        "loading",
        "ETA off p50",
        "p90",
    ]
    for title, gib in SIZES:
        for cards in counts:
            played = [
                (name, [run(MODELS, cards, gib, mixed(cards, seed), make(), seed) for seed in seeds])
                for name, make in POLICIES
            ]
            rows = [mixed_row(name, results, cards) for name, results in played]
            show(f"{title}, {cards} card{'s' if cards > 1 else ''}", heads, rows)
    for title, gib in SIZES:
        for cards in counts[:2]:
            rows = [
                fair_row(name, [run(MODELS, cards, gib, crowded(cards), make(), seed) for seed in seeds])
                for name, make in POLICIES
            ]
            show(
                f"Fairness, {title}, {cards} card{'s' if cards > 1 else ''}",
                ["three backlogs", "least share", "swaps"],
                rows,
            )
    show("Decision (aim: 1 ms)", ["open jobs", "median ms", "p99 ms"], [decision_row(count) for count in OPEN_JOBS])


if __name__ == "__main__":
    main()
