from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import given
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


def test_a_wanted_model_is_driven_out_only_with_patience_and_never_for_an_idle_card() -> None:
    clips, image = [job("clip", "video", "bob", waited_seconds=50.0)], job("image", waited_seconds=2.0)
    assert started([[image], clips], card(0, "video")) == {"cuda:0": "clip"}
    patient = [job("image", waited_seconds=97.0)]
    (start,) = decide([patient, clips], card(0, "video"))
    assert (start.job.id, start.evict) == ("image", ("video",))
    assert started([[image]], card(0, "video")) == {"cuda:0": "image"}


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


def test_jobs_without_room_hold_up_no_others() -> None:
    flows = [[job(f"clip-{n}", "video", waited_seconds=900.0) for n in range(40)], [job("image", account="bob")]]
    assert started(flows, card(0, gib=24)) == {"cuda:0": "image"}


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
