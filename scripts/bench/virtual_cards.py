"""Cards that run on a virtual clock: jobs arrive, a policy starts them, models are loaded and leave, nothing is made.

The policy under test is the product's own `Dispatcher`, or one of three plain ones to compare it with. Models' bytes
are counted by `placement`; run and load times are drawn around what the policies expect.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, Protocol

from zsky_box.dispatch import CardView, Dispatcher, Held, Waiting, Way
from zsky_box.eta import Chance, Flow, placed
from zsky_box.manifest import Recipe
from zsky_box.placement import GIB, Card, Footprint, cheapest_eviction
from zsky_box.requests import Work
from zsky_box.starter import SPARE_HEADS

TICK_SECONDS: Final = 1.0
HOST_BYTES: Final = 1 << 50
SPREAD: Final = 0.06
"""Run and load times are log-normal around their medians, with this deviation."""

RECIPE: Final = Recipe(name="whole")
WORK: Final = Work(
    type="image", model="", prompt="", negative_prompt="", seed=0, n=1, width=1920, height=1080, frames=0, fps=0
)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model's median seconds and its gibibytes, while resident and besides while it runs."""

    name: str
    run_seconds: float
    load_seconds: float
    held_gib: float
    working_gib: float

    @property
    def needs(self) -> Footprint:
        return Footprint(
            held_bytes=round(self.held_gib * GIB), working_bytes=round(self.working_gib * GIB), host_bytes=0
        )


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A job that comes at an instant (seconds of the virtual clock)."""

    at: float
    account: str
    model: str
    batch: bool = False


@dataclass
class Job:
    """A job and what became of it."""

    id: str
    arrival: Arrival
    started_at: float = -1.0
    ended_at: float = -1.0
    card: int = -1
    expected_at: float = -1.0

    @property
    def waited_seconds(self) -> float:
        """From its arrival until it had a card."""
        return self.started_at - self.arrival.at


@dataclass
class VirtualCard:
    """One card, what is in its memory, and until when it is busy. `busy_seconds` are those of work, not of loading."""

    number: int
    capacity_bytes: int
    held: dict[str, Held] = field(default_factory=dict[str, Held])
    used_at: dict[str, float] = field(default_factory=dict[str, float])
    busy_until: float = 0.0
    job: Job | None = None
    loads: int = 0
    swaps: int = 0
    load_seconds: float = 0.0

    @property
    def room_bytes(self) -> int:
        return self.capacity_bytes - sum(held.needs.held_bytes for held in self.held.values())

    @property
    def device(self) -> str:
        return f"cuda:{self.number}"


@dataclass
class World:
    """The state that a policy sees."""

    models: dict[str, Model]
    cards: list[VirtualCard]
    waiting: list[Job] = field(default_factory=list[Job])
    now: float = 0.0
    changed_at: float = -inf

    def free(self) -> list[VirtualCard]:
        return [card for card in self.cards if card.job is None]


@dataclass(frozen=True)
class Choice:
    """A job starts on a card, after these models have left it."""

    job: Job
    card: VirtualCard
    evict: tuple[str, ...]


class Policy(Protocol):
    """Decides at each change, and each second of the virtual clock while a card is free and a job waits."""

    def choose(self, world: World) -> list[Choice]: ...

    def ended(self, job: Job, seconds: float) -> None: ...


def run(
    models: Sequence[Model], cards: int, card_gib: float, trace: Sequence[Arrival], policy: Policy, seed: int
) -> tuple[list[Job], World]:
    """Play a trace to its end; the jobs with their times, and the cards as they are then."""
    rng = random.Random(seed)  # noqa: S311 - a simulation
    world = World(
        {model.name: model for model in models},
        [VirtualCard(number, round(card_gib * GIB)) for number in range(cards)],
    )
    jobs = [Job(f"job-{number}", arrival) for number, arrival in enumerate(sorted(trace, key=lambda one: one.at))]
    # Every policy meets the same times, whatever it runs first.
    times = [(rng.lognormvariate(0, SPREAD), rng.lognormvariate(0, SPREAD)) for _ in jobs]
    coming = deque(jobs)
    ends: list[tuple[float, int]] = []
    started: dict[int, float] = {}
    while coming or ends or world.waiting:
        instants = [*(job.arrival.at for job in list(coming)[:1]), *(end for end, _ in ends[:1])]
        if world.waiting and world.free():
            instants.append(world.now + TICK_SECONDS)
        world.now = max(world.now, min(instants))
        while coming and coming[0].arrival.at <= world.now:
            job = coming.popleft()
            job.expected_at = world.now + expected_seconds(world, job)
            world.waiting.append(job)
        while ends and ends[0][0] <= world.now:
            _, number = heapq.heappop(ends)
            card = world.cards[number]
            assert card.job is not None
            card.job.ended_at = world.now
            policy.ended(card.job, world.now - started.pop(number))
            card.job = None
        for choice in policy.choose(world):
            end = _start(world, choice, *times[int(choice.job.id.removeprefix("job-"))])
            started[choice.card.number] = world.now
            heapq.heappush(ends, (end, choice.card.number))
    return jobs, world


def _start(world: World, choice: Choice, run_factor: float, load_factor: float) -> float:
    card, job = choice.card, choice.job
    model = world.models[job.arrival.model]
    for name in choice.evict:
        del card.held[name]
    seconds = model.run_seconds * run_factor
    if model.name not in card.held:
        load_seconds = model.load_seconds * load_factor
        card.held[model.name] = Held(recipe=RECIPE, needs=model.needs, load_seconds=model.load_seconds)
        card.loads += 1
        card.swaps += bool(choice.evict)
        card.load_seconds += load_seconds
        seconds += load_seconds
    held = sum(other.needs.held_bytes for other in card.held.values())
    assert held + model.needs.working_bytes <= card.capacity_bytes, "a policy put more on a card than it holds"
    card.used_at[model.name] = world.now
    card.job, job.started_at, job.card = job, world.now, card.number
    card.busy_until = world.now + seconds
    world.waiting.remove(job)
    return card.busy_until


def expected_seconds(world: World, job: Job) -> float:
    """What a client that has just sent the job is told: how long until it is done."""
    flows: dict[tuple[int, str, str], list[float]] = {}
    for other in world.waiting:
        own = (int(other.arrival.batch), other.arrival.account, other.arrival.model)
        flows.setdefault(own, []).append(world.models[other.arrival.model].run_seconds)
    mine = (int(job.arrival.batch), job.arrival.account, job.arrival.model)
    waiting = [
        Flow(account, model, priority, len(all_), sum(all_)) for (priority, account, model), all_ in flows.items()
    ]
    before = flows.get(mine, [])
    model = world.models[job.arrival.model]
    chances = [_chance(world, card, model) for card in world.cards]
    place = placed(waiting, mine, len(before), sum(before), chances, world.now - world.changed_at)
    assert place.seconds is not None, "a card is never paused"
    return place.seconds


def _chance(world: World, card: VirtualCard, model: Model) -> Chance:
    is_here = model.name in card.held
    is_room_left = model.needs.held_bytes + model.needs.working_bytes <= card.room_bytes
    return Chance(
        free_in_seconds=0.0 if card.job is None else max(0.0, card.busy_until - world.now),
        load_seconds=0.0 if is_here else model.load_seconds,
        work_seconds=model.run_seconds,
        in_the_way={} if is_here or is_room_left else {name: held.load_seconds for name, held in card.held.items()},
    )


def evicted(world: World, card: VirtualCard, model: Model) -> tuple[str, ...]:
    """Which models a plain policy drives out: the least recently used, as many as must."""
    if model.name in card.held:
        return ()
    prices = {name: world.now - card.used_at[name] + 1 for name in card.held}
    newest = max(prices.values(), default=0.0) + 1
    needs = {name: held.needs for name, held in card.held.items()}
    as_card = Card(device=card.device, total_bytes=card.capacity_bytes, capability=9.0)
    found = cheapest_eviction(as_card, model.needs, needs, {n: newest - p for n, p in prices.items()}, HOST_BYTES)
    assert found is not None, f"{model.name} fits on no card"
    return found


class Fifo:
    """First come, first served, on whichever card is free."""

    def choose(self, world: World) -> list[Choice]:
        jobs = world.waiting[: len(world.free())]
        return [
            Choice(job, card, evicted(world, card, world.models[job.arrival.model]))
            for job, card in zip(jobs, world.free(), strict=False)
        ]

    def ended(self, job: Job, seconds: float) -> None:
        """It learns nothing."""


class FifoPerCard:
    """Each job is given to the next card in the round as it comes, and waits in that card's own line."""

    def __init__(self) -> None:
        self._card: dict[str, int] = {}

    def choose(self, world: World) -> list[Choice]:
        for job in world.waiting:
            self._card.setdefault(job.id, len(self._card) % len(world.cards))
        choices: list[Choice] = []
        for card in world.free():
            job = next((job for job in world.waiting if self._card[job.id] == card.number), None)
            if job is not None:
                choices.append(Choice(job, card, evicted(world, card, world.models[job.arrival.model])))
        return choices

    def ended(self, job: Job, seconds: float) -> None:
        """It learns nothing."""


class ModelAffine:
    """A card goes on with the jobs of a model that it holds; when none is left, the next model in turn is loaded."""

    def __init__(self) -> None:
        self._round = 0

    def choose(self, world: World) -> list[Choice]:
        waiting = list(world.waiting)
        choices: list[Choice] = []
        for card in world.free():
            job = next((job for job in waiting if job.arrival.model in card.held), None)
            if job is None and waiting:
                names = list(world.models)
                turns = [names[(self._round + place) % len(names)] for place in range(len(names))]
                job = next(job for name in turns for job in waiting if job.arrival.model == name)
                self._round = names.index(job.arrival.model) + 1
            if job is not None:
                waiting.remove(job)
                choices.append(Choice(job, card, evicted(world, card, world.models[job.arrival.model])))
        return choices

    def ended(self, job: Job, seconds: float) -> None:
        """It learns nothing."""


class Ours:
    """The product's dispatcher; it expects each model's median."""

    def __init__(self, note: Callable[[Dispatcher, World], None] | None = None) -> None:
        self._world: World | None = None
        self._dispatcher = Dispatcher(self)
        self._note = note

    def of(self, job: Waiting, card: Card, card_name: str) -> Sequence[Way]:  # noqa: ARG002
        assert self._world is not None
        model = self._world.models[job.model]
        return (
            Way(
                recipe=RECIPE,
                index=0,
                needs=model.needs,
                load_seconds=model.load_seconds,
                run_seconds=model.run_seconds,
            ),
        )

    def choose(self, world: World) -> list[Choice]:
        self._world = world
        if not world.waiting or not world.free():
            return []
        flows: dict[tuple[bool, str, str], list[Waiting]] = {}
        by_id: dict[str, Job] = {}
        per_flow = len(world.free()) + SPARE_HEADS
        for job in world.waiting:
            arrival = job.arrival
            flow = flows.setdefault((arrival.batch, arrival.account, arrival.model), [])
            if len(flow) < per_flow:
                by_id[job.id] = job
                flow.append(
                    Waiting(
                        id=job.id,
                        account_id=arrival.account,
                        model=arrival.model,
                        batch=arrival.batch,
                        work=WORK,
                        waited_seconds=world.now - arrival.at,
                    )
                )
        views = [
            CardView(
                card=Card(device=card.device, total_bytes=card.capacity_bytes, capability=9.0),
                name="virtual",
                is_free=card.job is None,
                free_in_seconds=0.0 if card.job is None else max(0.0, card.busy_until - world.now),
                held=dict(card.held),
            )
            for card in world.cards
        ]
        starts = self._dispatcher.decide(list(flows.values()), views, HOST_BYTES, world.now)
        world.changed_at = self._dispatcher.changed_at
        if self._note is not None:
            self._note(self._dispatcher, world)
        cards = {card.device: card for card in world.cards}
        self._expected = {start.job.id: start.load_seconds + start.way.run_seconds for start in starts} | getattr(
            self, "_expected", {}
        )
        return [Choice(by_id[start.job.id], cards[start.device], start.evict) for start in starts]

    def ended(self, job: Job, seconds: float) -> None:
        expected = self._expected.pop(job.id)
        self._dispatcher.ended(job.arrival.account, job.arrival.model, expected_seconds=expected, seconds=seconds)
