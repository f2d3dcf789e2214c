from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from zsky_box.dispatch import CardView, Dispatcher, Held, Start, Waiting, Way
from zsky_box.manifest import Recipe
from zsky_box.placement import GIB, Card, Footprint
from zsky_box.requests import Work

WORK = Work(type="image", model="", prompt="", negative_prompt="", seed=0, n=1, width=64, height=64, frames=0, fps=0)
RECIPE = Recipe(name="whole")
HOST_BYTES = 1 << 50
# Model: gibibytes held, gibibytes to work with, seconds to load and to run.
MODELS = {"video": (36, 6, 20.0, 25.0), "image": (16, 3, 4.0, 1.5), "other": (20, 4, 6.0, 3.0)}


def needs(model: str) -> Footprint:
    held, working, _, _ = MODELS[model]
    return Footprint(held_bytes=held * GIB, working_bytes=working * GIB, host_bytes=0)


class Known:
    """Each model has one recipe."""

    def of(self, job: Waiting, card: Card, card_name: str) -> Sequence[Way]:  # noqa: ARG002
        _, _, load, run = MODELS[job.model]
        return (Way(recipe=RECIPE, index=0, needs=needs(job.model), load_seconds=load, run_seconds=run),)


def job(name: str, model: str = "image", account: str = "ann", **facts: Any) -> Waiting:
    facts = {"batch": False, "waited_seconds": 1.0} | facts
    return Waiting(id=name, account_id=account, model=model, work=msgspec.structs.replace(WORK, model=model), **facts)


def card(number: int = 0, *held: str, free: bool = True, gib: int = 48, **facts: Any) -> CardView:
    return CardView(
        card=Card(device=f"cuda:{number}", total_bytes=gib * GIB, capability=9.0),
        name="a card",
        is_free=free,
        free_in_seconds=facts.pop("free_in_seconds", 0.0 if free else 5.0),
        held={name: Held(recipe=RECIPE, needs=needs(name), load_seconds=MODELS[name][2]) for name in held},
        **facts,
    )


def decide(flows: Sequence[Sequence[Waiting]], *cards: CardView, dispatcher: Dispatcher | None = None) -> list[Start]:
    return (dispatcher or Dispatcher(Known())).decide(flows, cards, HOST_BYTES, 1000.0)


def started(flows: Sequence[Sequence[Waiting]], *cards: CardView) -> dict[str, str]:
    return {start.device: start.job.id for start in decide(flows, *cards)}


def test_it_works() -> None:
    (start,) = decide([[job("first"), job("second")]], card())
    assert (start.job.id, start.device, start.load_seconds, start.evict) == ("first", "cuda:0", 4.0, ())
    assert "cuda:0 is where it is done soonest" in start.why


def test_interactive_comes_before_batch_until_batch_has_waited_long() -> None:
    interactive, batch = [job("now")], [job("later", account="bob", batch=True)]
    assert started([batch, interactive], card()) == {"cuda:0": "now"}
    patient = [job("later", account="bob", batch=True, waited_seconds=4_000.0)]
    assert started([patient, [job("now", account="ann", waited_seconds=0.5)]], card()) == {"cuda:0": "later"}


def test_who_has_had_least_comes_next() -> None:
    dispatcher, order = Dispatcher(Known()), list[str]()
    flows = {name: [job(f"{name}-{n}", "video", name) for n in range(50)] for name in ("ann", "bob")}
    for _ in range(20):
        (start,) = decide([flow for flow in flows.values() if flow], card(0, "video"), dispatcher=dispatcher)
        order.append(start.job.account_id)
        flows[start.job.account_id].remove(start.job)
    assert order.count("ann") == order.count("bob") == 10


def test_an_image_does_not_wait_behind_the_clips_of_its_own_account() -> None:
    dispatcher = Dispatcher(Known())
    clips = [job(f"clip-{n}", "video", waited_seconds=100.0 - n) for n in range(10)]
    (first,) = decide([clips], card(0, "video", "image", gib=96), dispatcher=dispatcher)
    flows = [clips[1:], [job("image", waited_seconds=0.1)]]
    (second,) = decide(flows, card(0, "video", "image", gib=96), dispatcher=dispatcher)
    assert (first.job.id, second.job.id) == ("clip-0", "image")


def test_a_job_waits_for_the_busy_card_that_is_sooner_and_says_so() -> None:
    dispatcher = Dispatcher(Known())
    assert decide([[job("clip", "video")]], card(0, "video", free=False), card(1), dispatcher=dispatcher) == []
    assert "waits for cuda:0" in str(dispatcher.reason("clip"))
    busy_for_long = card(0, "video", free=False, free_in_seconds=60.0)
    assert started([[job("clip", "video")]], busy_for_long, card(1)) == {"cuda:1": "clip"}


def has_changed_models(dispatcher: Dispatcher, now: float = 1000.0) -> Dispatcher:
    """It has just had cuda:0 let go of a model that others wait for."""
    flows = [[job("before", "image", "zoe")], [job("clip", "video", "yan")]]
    (start,) = dispatcher.decide(flows, [card(0, "video", gib=40)], HOST_BYTES, now)
    assert start.evict == ("video",)
    return dispatcher


def test_an_image_waits_for_the_running_clip_only_where_models_have_not_changed_lately() -> None:
    clips = [job(f"clip-{n}", "video", "bob", waited_seconds=5_000.0) for n in range(3)]
    dispatcher = Dispatcher(Known())
    (first,) = decide([clips], card(0, "video"), dispatcher=dispatcher)
    (second,) = decide([clips[1:], [job("image", waited_seconds=0.1)]], card(0, "video"), dispatcher=dispatcher)
    assert (first.job.id, second.job.id, second.evict) == ("clip-0", "image", ("video",))


def test_a_wanted_model_is_driven_out_again_only_after_a_while_and_never_for_an_idle_card() -> None:
    clip, image = [job("clip", "video", "bob", waited_seconds=5_000.0)], [job("image", waited_seconds=2.0)]

    def next_one(flows: Sequence[Sequence[Waiting]], later_seconds: float) -> str:
        dispatcher = has_changed_models(Dispatcher(Known()))
        (start,) = dispatcher.decide(flows, [card(0, "image")], HOST_BYTES, 1000.0 + later_seconds)
        return start.job.id

    # Reading the image model took 4 s; a change back takes 24 s, and comes five times as long after that.
    assert next_one([clip, image], 123.0) == "image"
    assert next_one([clip, image], 125.0) == "clip"
    assert next_one([clip], 10.0) == "clip"


def test_two_backlogs_of_models_that_do_not_fit_beside_each_other_cost_a_card_little() -> None:
    dispatcher, view, now = Dispatcher(Known()), card(0), 0.0
    flows = {name: [job(f"{name}-{n}", name, name) for n in range(2_000)] for name in ("video", "image")}
    seconds = dict.fromkeys(flows, 0.0)
    loading = 0.0
    while now < 3_600.0:
        view.is_free, view.free_in_seconds = True, 0.0
        waiting = [
            [msgspec.structs.replace(one, waited_seconds=now + 1.0) for one in flow[:3]] for flow in flows.values()
        ]
        (start,) = dispatcher.decide(waiting, [view], HOST_BYTES, now)
        flow = flows[start.job.model]
        del flow[next(place for place, one in enumerate(flow) if one.id == start.job.id)]
        loading += start.load_seconds
        seconds[start.job.model] += start.load_seconds + start.way.run_seconds
        now += start.load_seconds + start.way.run_seconds
    assert loading < now / 6
    assert min(seconds.values()) > 0.45 * now


def test_a_card_that_only_one_can_use_is_not_kept_from_it_by_the_changes_of_others() -> None:
    dispatcher, now, clip_on = Dispatcher(Known()), 1000.0, ""
    big = frozenset({"video"})
    while not clip_on:
        assert now < 1000.0 + 33 * 24 + 60, "others change their models again and again, and the clip starves"
        flows = [[job("clip", "video", "bob")], [job("image", account="ann")], [job("other", "other", "cat")]]
        dispatcher.changed_at = now  # another card has just changed
        starts = dispatcher.decide(
            flows, [card(0, "image"), card(1, "other", free=False, excluded=big)], HOST_BYTES, now
        )
        clip_on = next((start.device for start in starts if start.job.id == "clip"), "")
        now += 30.0
    assert clip_on == "cuda:0"


def test_batch_jobs_keep_no_model_from_leaving_for_an_interactive_one() -> None:
    batch = [job("clip", "video", "bob", batch=True, waited_seconds=50.0)]
    assert started([[job("image", waited_seconds=0.1)], batch], card(0, "video")) == {"cuda:0": "image"}


def test_pins_and_exclusions_hold() -> None:
    pinned, excluded = card(0, "video", pinned=frozenset({"video"})), card(0, excluded=frozenset({"image"}))
    dispatcher = Dispatcher(Known())
    assert decide([[job("image", waited_seconds=9_999.0)]], pinned, dispatcher=dispatcher) == []
    assert [waiting.id for waiting in dispatcher.without_room] == ["image"]
    assert started([[job("image")]], excluded) == {}
    assert started([[job("image")]], excluded, card(1)) == {"cuda:1": "image"}


def test_a_near_start_deadline_goes_ahead_in_its_own_account_only() -> None:
    late = [job("late", waited_seconds=0.1, start_in_seconds=10.0)]
    early = [job("early", waited_seconds=99.0)]
    assert started([late, early], card(0, "image")) == {"cuda:0": "late"}
    dispatcher = Dispatcher(Known())
    decide([[job("before", account="ann")]], card(0, "image"), dispatcher=dispatcher)
    others = [job("other", account="bob", waited_seconds=0.1)]
    (start,) = decide([late, others], card(0, "image"), dispatcher=dispatcher)
    assert start.job.id == "other"


def test_all_that_wait_for_room_say_so() -> None:
    dispatcher = Dispatcher(Known())
    decide([[job("ann's", "video", "ann")], [job("bob's", "video", "bob")]], card(0, gib=24), dispatcher=dispatcher)
    assert dispatcher.reason("ann's") == dispatcher.reason("bob's") == "no card that takes jobs now has room for it"


def test_jobs_without_room_hold_up_no_others() -> None:
    flows = [[job(f"clip-{n}", "video", waited_seconds=900.0) for n in range(40)], [job("image", account="bob")]]
    assert started(flows, card(0, gib=24)) == {"cuda:0": "image"}


@settings(deadline=None)
@given(st.data())
def test_no_card_is_ever_given_more_than_it_holds(data: st.DataObject) -> None:
    models, dispatcher, now = sorted(MODELS), Dispatcher(Known()), 0.0
    cards = [
        card(number, gib=data.draw(st.sampled_from([24, 48, 80, 96]))) for number in range(data.draw(st.integers(1, 3)))
    ]
    pins = {view.card.device: data.draw(st.sets(st.sampled_from(models), max_size=1)) for view in cards}
    queue = [
        job(
            f"j{n}",
            data.draw(st.sampled_from(models)),
            data.draw(st.sampled_from("xyz")),
            batch=data.draw(st.booleans()),
        )
        for n in range(data.draw(st.integers(1, 25)))
    ]
    for _ in range(60):
        now += 7.0
        flows: dict[tuple[str, str, bool], list[Waiting]] = {}
        for waiting in queue:
            flows.setdefault((waiting.account_id, waiting.model, waiting.batch), []).append(waiting)
        for view in cards:
            view.is_free, view.free_in_seconds, view.pinned = True, 0.0, frozenset(pins[view.card.device])
        before = {view.card.device: dict(view.held) for view in cards}
        starts = dispatcher.decide(list(flows.values()), cards, HOST_BYTES, now)
        assert len({start.device for start in starts}) == len(starts)
        for start in starts:
            held = {
                **before[start.device],
                start.job.model: Held(recipe=RECIPE, needs=needs(start.job.model), load_seconds=0),
            }
            assert not set(start.evict) & pins[start.device]
            left = [value.needs.held_bytes for name, value in held.items() if name not in start.evict]
            total = next(view.card.total_bytes for view in cards if view.card.device == start.device)
            assert sum(left) + start.way.needs.working_bytes <= total
            queue.remove(start.job)
        queue = [msgspec.structs.replace(waiting, waited_seconds=waiting.waited_seconds + 7.0) for waiting in queue]
    for waiting in queue:  # what is left fits nowhere beside what is pinned
        assert dispatcher.reason(waiting.id) in (None, "no card that takes jobs now has room for it")


class Swapped:
    """The same models, each by a second recipe too, which keeps the weights in host memory."""

    def of(self, job: Waiting, card: Card, card_name: str) -> Sequence[Way]:
        (whole,) = Known().of(job, card, card_name)
        held, working, load, run = MODELS[job.model]
        swapped = Footprint(held_bytes=0, working_bytes=(held // 2 + working) * GIB, host_bytes=held * GIB)
        recipe = Recipe(name="swapped", offload="model")
        return whole, Way(recipe=recipe, index=1, needs=swapped, load_seconds=load, run_seconds=3 * run)


def mixed(number: int, model: str, account: str, batch: bool, waited: int) -> Waiting:
    return job(f"j{number}", model, account, batch=batch, waited_seconds=float(waited))


MIXED = st.builds(
    mixed,
    st.integers(0, 10**9),
    st.sampled_from(sorted(MODELS)),
    st.sampled_from("xyz"),
    st.booleans(),
    st.integers(0, 400),
)


def in_flows(jobs: Sequence[Waiting]) -> list[list[Waiting]]:
    """As the queue gives them: each account's jobs of a model and priority, the oldest first."""
    flows: dict[tuple[bool, str, str], list[Waiting]] = {}
    for waiting in sorted(jobs, key=lambda waiting: -waiting.waited_seconds):
        flows.setdefault((waiting.batch, waiting.account_id, waiting.model), []).append(waiting)
    return [flow for _, flow in sorted(flows.items())]


@given(
    st.lists(MIXED, max_size=20, unique_by=lambda waiting: waiting.id),
    st.lists(
        st.tuples(st.sampled_from([16, 24, 48]), st.sets(st.sampled_from(sorted(MODELS)))), min_size=1, max_size=4
    ),
    st.integers(10, 120),
)
def test_host_memory_is_never_given_twice_and_excluded_models_never_come(
    jobs: list[Waiting], rigs: list[tuple[int, set[str]]], host_gib: int
) -> None:
    dispatcher, left = Dispatcher(Swapped()), jobs
    cards = [card(number, gib=gib, excluded=frozenset(off)) for number, (gib, off) in enumerate(rigs)]
    for turn in range(6):
        for view in cards:
            view.is_free, view.free_in_seconds = True, 0.0
        starts = dispatcher.decide(in_flows(left), cards, host_gib * GIB, 10.0 * turn)
        assert len({start.job.id for start in starts}) == len({start.device for start in starts}) == len(starts)
        off = {view.card.device: view.excluded for view in cards}
        assert not [start for start in starts if start.job.model in off[start.device]]
        for view in cards:
            on_card = sum(held.needs.held_bytes for held in view.held.values()) + (
                0 if view.is_free else view.busy_bytes
            )
            assert on_card <= view.card.total_bytes
        assert sum(held.needs.host_bytes for view in cards for held in view.held.values()) <= host_gib * GIB
        gone = {start.job.id for start in starts}
        left = [waiting for waiting in left if waiting.id not in gone]


@given(st.lists(MIXED, min_size=1, max_size=20, unique_by=lambda waiting: waiting.id))
def test_one_card_takes_a_flow_in_its_order_and_batch_jobs_last(jobs: list[Waiting]) -> None:
    (start,) = decide(in_flows(jobs), card(gib=96))
    flow = next(flow for flow in in_flows(jobs) if start.job in flow)
    assert start.job is flow[0]
    assert not start.job.batch or all(waiting.batch for waiting in jobs)


@settings(deadline=None, max_examples=25)
@given(st.randoms(use_true_random=False), st.integers(1, 3), st.booleans())
def test_nobody_starves_while_ever_more_jobs_come(random: Random, count: int, batch: bool) -> None:
    """A greedy account keeps 30 jobs of two models waiting, for ever; one job of somebody else's third has its turn."""
    dispatcher, now = Dispatcher(Known()), 0.0
    cards = [card(number) for number in range(count)]
    ends = dict.fromkeys(range(count), 0.0)
    came = {"theirs": 0.0}
    queue = {"theirs": job("theirs", "other", "bob", batch=batch)}
    bound = 3_600.0 + 600.0 if batch else 600.0
    while "theirs" in queue:
        assert now < bound, dispatcher.reason("theirs")
        while len(queue) < 31:
            name = f"g{len(came)}"
            came[name], queue[name] = now, job(name, random.choice(["video", "image"]), "greedy")
        for number, view in enumerate(cards):
            view.is_free = ends[number] <= now
            view.free_in_seconds = max(0.0, ends[number] - now)
        waiting = [msgspec.structs.replace(one, waited_seconds=now - came[one.id]) for one in queue.values()]
        for start in dispatcher.decide(in_flows(waiting), cards, HOST_BYTES, now):
            del queue[start.job.id]
            number = int(start.device.removeprefix("cuda:"))
            ends[number] = now + (start.load_seconds + start.way.run_seconds) * random.uniform(0.8, 1.3)
        now = min(end for end in (*ends.values(), now + 60.0) if end > now)


def test_a_deferred_job_gets_no_host_memory_that_another_start_took() -> None:
    """The clip would drive out a model that is wanted; meanwhile another job takes what it counted on."""
    keeps = card(0, "image", gib=24, excluded=frozenset({"image", "other"}))
    takes = card(1, gib=16, excluded=frozenset({"image", "video"}))
    jobs = [
        [job("clip", "video", "ann", waited_seconds=50.0)],
        [job("other", "other", "bob", waited_seconds=10.0)],
        [job("image", "image", "cat", waited_seconds=1.0)],
    ]
    lately = has_changed_models(Dispatcher(Swapped()))
    clip, *_ = lately.decide([jobs[0], jobs[2]], [card(0, "image", gib=24)], 40 * GIB, 1001.0)
    assert clip.job.id == "image", "the clip is deferred"
    starts = has_changed_models(Dispatcher(Swapped())).decide(jobs, [keeps, takes], 40 * GIB, 1001.0)
    assert [(start.job.id, start.device) for start in starts] == [("other", "cuda:1")]
    roomy = [card(0, "image", gib=24, excluded=keeps.excluded), card(1, gib=16, excluded=takes.excluded)]
    assert len(has_changed_models(Dispatcher(Swapped())).decide(jobs, roomy, 60 * GIB, 1001.0)) == 2


def test_a_near_start_deadline_takes_the_free_card_that_is_in_time() -> None:
    busy, free = card(0, "image", free=False, free_in_seconds=3.0), card(1)
    assert started([[job("patient")]], busy, free) == {}
    assert started([[job("urgent", start_in_seconds=2.0)]], busy, free) == {"cuda:1": "urgent"}
