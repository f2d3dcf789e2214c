"""The scheduling policy: which waiting job starts on which free card, by which recipe. Pure, on any clock.

1. Interactive jobs before batch jobs; a batch job that has waited long counts as interactive.
2. Among accounts the one that has had the fewest card-seconds, and within it its models in the same way (`shares`);
   within a model the oldest job first, but one whose start deadline is near, or that the owner has moved, goes ahead
   within its account (`turns`).
3. A job starts on the card where it is done soonest, loading and what that drives out counted; where a busy card that
   holds its model is sooner than any free one, it waits for that card.
4. Driving out a model that other jobs of the same rank wait for costs their time: the box does it no sooner after the
   last time than a few times that cost. Until then the card goes on with what it holds, and never stands idle for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

from msgspec import Struct

from zsky_box.manifest import Recipe
from zsky_box.placement import Card, Footprint, cheapest_eviction, host_bytes
from zsky_box.requests import Work
from zsky_box.shares import Shares
from zsky_box.turns import Moved, Standing, Turns, is_urgent, waits_as_batch

WINDOW: Final = 32
"""So many jobs, in the order of their turn, are looked at for the free cards."""
WANTED_SECONDS: Final = 120.0
"""For so long after a job last waited for it, a model had better stay where another can leave as well."""
CHANGE_FACTOR: Final = 5.0
"""So many times what a change of models costs lie between the last one and it: about a sixth of one card's time goes
into changes, on the whole box."""
KEPT_FACTOR: Final = 32.0
"""A card that was left out for so many times the cost of a change has it in any case: nobody starves behind the changes
of other cards."""
_UNWANTED_PRICE: Final = 1e-3
_BACKLOG_WEIGHED: Final = 8
_REASONS_MAX: Final = 1_024
_NO_ROOM: Final = "no card that takes jobs now has room for it"

_Size = tuple[str, int, int, int, int]
"""What decides the bytes that a job needs: model, width, height, frames and the floor of its recipes."""


class Waiting(Struct, frozen=True, kw_only=True):
    """A job in the queue. `recipe_floor`: those of its model's recipes before it ran out of memory. `turn` orders the
    jobs of an account; `moved` says whether the owner has moved it.
    """

    id: str
    account_id: str
    model: str
    batch: bool
    work: Work
    waited_seconds: float = 0.0
    start_in_seconds: float | None = None
    recipe_floor: int = 0
    turn: int = 0
    moved: Moved = 0


class Way(Struct, frozen=True, kw_only=True):
    """One recipe by which a job can run on a card: its bytes, how long it takes to load and to run, and the encoder's
    tail, for which it needs no card.
    """

    recipe: Recipe
    index: int
    needs: Footprint
    load_seconds: float
    run_seconds: float
    tail_seconds: float = 0.0


class Ways(Protocol):
    """What is known of models: the recipes that are installed and fit the kind of card, best first."""

    def of(self, job: Waiting, card: Card, card_name: str) -> Sequence[Way]: ...


@dataclass(kw_only=True)
class Held:
    """A model in a card's memory."""

    recipe: Recipe
    needs: Footprint
    load_seconds: float


@dataclass(kw_only=True)
class CardView:
    """A card at the moment of a decision; `free_in_seconds` is 0 where `is_free`. Decisions are noted on it.

    `busy_bytes` are those that its running job works with beside the weights.
    """

    card: Card
    name: str
    is_free: bool
    free_in_seconds: float
    held: dict[str, Held]
    busy_bytes: int = 0
    pinned: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Start:
    """A job starts now: the card lets go of `evict`, loads the model where `load_seconds` is not 0, and runs it."""

    job: Waiting
    device: str
    way: Way
    evict: tuple[str, ...]
    load_seconds: float
    why: str


@dataclass(frozen=True, kw_only=True)
class _Offer:
    """One card's way to do a job. `swap_seconds`: loading it, and loading again what others want and it drives out;
    `drives_out` is the same where there is such a model, else 0.
    """

    view: CardView
    way: Way
    evict: tuple[str, ...]
    load_seconds: float
    swap_seconds: float
    drives_out: float

    @property
    def done_in_seconds(self) -> float:
        return self.view.free_in_seconds + self.swap_seconds + self.way.run_seconds


class Outlook(Struct, frozen=True, kw_only=True):
    """One device as those who estimate see it: when it is free, whether it takes jobs, what it holds with the seconds
    to load that again, how many bytes are left beside it, what never comes, and when the box last changed models.
    """

    card: Card
    name: str
    free_at: float
    paused: bool
    held: Mapping[str, float] = {}
    room_bytes: int = 0
    excluded: frozenset[str] = frozenset()
    changed_at: float = -inf


class Left(Struct, frozen=True):
    """Of a running job: how long since it started, and how long until it is expected to be done; may be negative."""

    elapsed_seconds: float
    left_seconds: float


class Dispatcher:
    """Decides, and remembers who had how much and which models are wanted. Belongs to one thread."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self._accounts = Shares()
        self._models: dict[str, Shares] = {}
        self._wanted: dict[bool, set[str]] = {}
        self._wanted_at: dict[str, float] = {}
        self._last_seconds: dict[str, float] = {}
        self._reasons: dict[str, str] = {}
        self._changed_at: dict[str, float] = {}
        self.changed_at = -inf
        """When a model that others wanted was last driven out and the next one was loaded, on the clock of `decide`."""
        self.without_room: list[Waiting] = []
        """Those of the last decision that no card offered to take, however long they wait."""

    def decide(
        self, flows: Sequence[Sequence[Waiting]], cards: Sequence[CardView], host_total_bytes: int, now: float
    ) -> list[Start]:
        """What starts now. `flows` are the oldest jobs of each account, model and priority; `now` is in seconds."""
        self._meet(flows, now)
        self.without_room = []
        starts: list[Start] = []
        deferred: list[tuple[Waiting, _Offer]] = []
        no_room: set[_Size] = set()
        depth = {flow[0].model: 0 for flow in flows if flow}
        for flow in flows:
            if flow:
                depth[flow[0].model] += len(flow)
        for job in self._in_turn(flows, no_room):
            if not any(view.is_free for view in cards):
                break
            offers = self._offers(job, cards, host_total_bytes, depth[job.model], now)
            if not offers:
                self._note(job, _NO_ROOM)
                no_room.add(_size(job))
                self.without_room.append(job)
                continue
            offer = self._choose(job, offers)
            if offer is None:
                continue
            if not is_urgent(job) and self._is_too_soon(offer, now):
                self._note(
                    job, f"{offer.view.card.device} keeps its models for the jobs that want them a little longer"
                )
                deferred.append((job, offer))
                continue
            starts.append(self._start(job, offer, now))
        for job, kept in deferred:
            if not kept.view.is_free:
                continue
            # Nothing else is to be done there. What has started elsewhere since may have taken host memory.
            offer = self._offer(job, kept.view, cards, host_total_bytes, depth[job.model], now)
            if offer is not None:
                starts.append(self._start(job, offer, now))
        return starts

    def ended(self, account_id: str, model: str, *, expected_seconds: float, seconds: float) -> None:
        """A job that was started has left its card after so long."""
        self._accounts.correct(account_id, seconds - expected_seconds)
        if account_id in self._models:
            self._models[account_id].correct(model, seconds - expected_seconds)

    def reason(self, job_id: str) -> str | None:
        """Why a job was passed over the last time that its turn came, if it was."""
        return self._reasons.get(job_id)

    def standing(self) -> Standing:
        """What decides whose turn it is, as it is now; from any thread: each copy is one step of the interpreter."""
        return Standing(
            now=self._accounts.now,
            accounts=self._accounts.tags(),
            models={account: shares.tags() for account, shares in self._models.copy().items()},
            last_seconds=self._last_seconds.copy(),
        )

    # Whose turn it is

    def _meet(self, flows: Sequence[Sequence[Waiting]], now: float) -> None:
        heads = [flow[0] for flow in flows if flow]
        self._accounts.meet({head.account_id for head in heads})
        models: dict[str, set[str]] = {}
        for head in heads:
            models.setdefault(head.account_id, set()).add(head.model)
            self._wanted_at[head.model] = now
        interactive = {head.model for head in heads if not waits_as_batch(head)}
        self._wanted = {False: interactive, True: {head.model for head in heads}}
        self._models = {account: self._models.get(account) or Shares() for account in models}
        for account, names in models.items():
            self._models[account].meet(names)

    def _in_turn(self, flows: Sequence[Sequence[Waiting]], no_room: set[_Size]) -> Iterator[Waiting]:
        """The jobs in the order of their turn, at most WINDOW; `_start` charges, and so does being drawn here.

        Those for which there was no room hold up their own flow and the like of them, and no other: they do not count.
        """
        accounts: dict[str, float] = {}
        models: dict[str, dict[str, float]] = {}
        for head in (flow[0] for flow in flows if flow):
            account = head.account_id
            accounts[account] = self._accounts.tag(account)
            models.setdefault(account, {})[head.model] = self._models[account].tag(head.model)
        turns = Turns(flows, Standing(accounts=accounts, models=models, last_seconds=self._last_seconds))
        drawn = 0
        while drawn < WINDOW and (job := turns.next()) is not None:
            yield job
            if _size(job) in no_room:
                for other in turns.jobs():
                    if _size(other) in no_room:
                        self._note(other, _NO_ROOM)
                turns.drop(lambda other: _size(other) in no_room)
                continue
            drawn += 1
            turns.take()

    # Where it is done soonest

    def _offers(
        self, job: Waiting, cards: Sequence[CardView], host_total_bytes: int, depth: int, now: float
    ) -> list[_Offer]:
        return [
            offer
            for view in cards
            if job.model not in view.excluded
            and (offer := self._offer(job, view, cards, host_total_bytes, depth, now)) is not None
        ]

    def _choose(self, job: Waiting, offers: Sequence[_Offer]) -> _Offer | None:
        """The best offer of a free card, or None where the job is better off waiting; says why."""
        best = min(offers, key=lambda offer: offer.done_in_seconds)
        if best.view.is_free:
            return best
        at_once = min((offer for offer in offers if offer.view.is_free), key=lambda o: o.done_in_seconds, default=None)
        if at_once is not None and _is_missed(job, best.view.free_in_seconds):
            return at_once
        saved = None if at_once is None else at_once.done_in_seconds - best.done_in_seconds
        # The next one that thinks so comes after this one.
        best.view.free_in_seconds += best.swap_seconds + best.way.run_seconds
        device, model = best.view.card.device, job.model
        if saved is None:
            self._note(job, f"{device} is the card for it, and is busy")
        else:
            self._note(job, f"waits for {device}, which is done with it {saved:.0f} s sooner: it holds {model}")
        return None

    def _offer(
        self, job: Waiting, view: CardView, cards: Sequence[CardView], host_total_bytes: int, depth: int, now: float
    ) -> _Offer | None:
        """The best way to do the job on this card, once it is free."""
        host_free = host_total_bytes - sum(
            sum(host_bytes(other.card, held.needs) for held in other.held.values())
            + (other.busy_bytes if other.card.is_cpu and other is not view else 0)
            for other in cards
        )
        price = self._prices(view, now)
        resident = view.held.get(job.model)
        best: tuple[float, _Offer] | None = None
        for way in self._ways.of(job, view.card, view.name):
            is_here = resident is not None and resident.recipe == way.recipe
            held = {name: other.needs for name, other in view.held.items() if name != job.model}
            own = view.held[job.model].needs if resident is not None else None
            free = host_free + (host_bytes(view.card, own) if own is not None else 0)
            evict = cheapest_eviction(view.card, way.needs, held, price, free)
            if evict is None:
                continue
            load_seconds = 0.0 if is_here else way.load_seconds
            drives_out = sum(price[name] for name in evict if name in self._wanted[waits_as_batch(job)])
            offer = _Offer(
                view=view,
                way=way,
                evict=evict,
                load_seconds=load_seconds,
                swap_seconds=load_seconds + drives_out,
                drives_out=drives_out + load_seconds if drives_out else 0.0,
            )
            cost = offer.swap_seconds + way.run_seconds * min(max(depth, 1), _BACKLOG_WEIGHED)
            if best is None or cost < best[0]:
                best = cost, offer
        return None if best is None else best[1]

    def _prices(self, view: CardView, now: float) -> Mapping[str, float]:
        """What it costs in seconds that a model leaves the card: its loading, where somebody wants it."""
        prices: dict[str, float] = {}
        for name, held in view.held.items():
            if name in view.pinned:
                continue
            age_seconds = now - self._wanted_at.get(name, -WANTED_SECONDS)
            wanted = age_seconds < WANTED_SECONDS
            prices[name] = held.load_seconds if wanted and held.load_seconds > 0 else _UNWANTED_PRICE
        return prices

    def _is_too_soon(self, offer: _Offer, now: float) -> bool:
        """Whether the box has changed models too lately to do it again for this."""
        cost, kept_since = offer.drives_out, self._changed_at.get(offer.view.card.device, -inf)
        return cost > 0 and now < self.changed_at + CHANGE_FACTOR * cost and now < kept_since + KEPT_FACTOR * cost

    def _start(self, job: Waiting, offer: _Offer, now: float) -> Start:
        view, way, device = offer.view, offer.way, offer.view.card.device
        seconds = offer.load_seconds + way.run_seconds
        self._accounts.serve(job.account_id, seconds)
        self._models[job.account_id].serve(job.model, seconds)
        self._last_seconds[job.model] = way.run_seconds
        if offer.drives_out:
            self.changed_at = self._changed_at[device] = now + offer.load_seconds
        for name in offer.evict:
            del view.held[name]
        view.held[job.model] = Held(recipe=way.recipe, needs=way.needs, load_seconds=way.load_seconds)
        view.is_free, view.free_in_seconds, view.busy_bytes = False, seconds, way.needs.working_bytes
        passed_over = self._reasons.pop(job.id, None)
        return Start(
            job=job,
            device=device,
            way=way,
            evict=offer.evict,
            load_seconds=offer.load_seconds,
            why=_told(job, offer, passed_over),
        )

    def _note(self, job: Waiting, reason: str) -> None:
        self._reasons.pop(job.id, None)
        self._reasons[job.id] = reason
        if len(self._reasons) > _REASONS_MAX:
            del self._reasons[next(iter(self._reasons))]


def _is_missed(job: Waiting, start_in_seconds: float) -> bool:
    return job.start_in_seconds is not None and job.start_in_seconds < start_in_seconds


def _size(job: Waiting) -> _Size:
    work = job.work
    return job.model, work.width, work.height, work.frames, job.recipe_floor


def _told(job: Waiting, offer: _Offer, passed_over: str | None) -> str:
    """The decision as a sentence for whoever asks why."""
    way = offer.way
    model = f"{job.model} by its recipe {way.recipe.name}"
    where = (
        f"{model} is in memory there" if not offer.load_seconds else f"{model} is loaded in {offer.load_seconds:.0f} s"
    )
    if offer.evict:
        where += f" after {', '.join(offer.evict)} has left"
    before = f"; before, {passed_over}" if passed_over else ""
    return (
        f"After {job.waited_seconds:.0f} s in the queue, {offer.view.card.device} is where it is done soonest: {where},"
        f" and about {way.run_seconds:.0f} s of work{before}."
    )
