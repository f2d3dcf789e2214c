from __future__ import annotations

from collections.abc import Collection
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from zsky_box.catalog import Catalog
from zsky_box.manifest import FULL, Recipe
from zsky_box.placement import (
    GIB,
    SUBSETS_MAX,
    Card,
    Footprint,
    can_run,
    cheapest_eviction,
    component_bytes,
    footprint,
    is_room,
    working_bytes,
)
from zsky_box.requests import Work
from zsky_box.settings import CHECKOUT

SPECS = Catalog([CHECKOUT / "models"], CHECKOUT / "nowhere").specs
LTX = SPECS["ltx-2.5"]
CARD = Card(device="cuda:0", total_bytes=100, capability=9.0)
NO_HOST_BOUND = 1 << 60


def a_clip(frames: int) -> Work:
    return Work(
        type="video",
        model="ltx-2.5",
        prompt="",
        negative_prompt="",
        seed=0,
        n=1,
        width=1920,
        height=1080,
        frames=frames,
        fps=24,
    )


def needs(held: int, working: int = 0, host: int = 0) -> Footprint:
    return Footprint(held_bytes=held, working_bytes=working, host_bytes=host)


def test_quantised_components_are_counted_smaller() -> None:
    int8 = Recipe(name="int8", quantise={"transformer": "int8"})
    full = component_bytes(LTX, Recipe(name=FULL), {}, is_own_variant=True)["transformer"]
    small = component_bytes(LTX, int8, {}, is_own_variant=False)["transformer"]
    assert 0.5 < small / full < 0.52
    on_disk = component_bytes(LTX, int8, {"transformer": 1_000}, is_own_variant=False)["transformer"]
    assert on_disk == 515
    assert component_bytes(LTX, int8, {"transformer": 515}, is_own_variant=True)["transformer"] == 515


def test_what_is_offloaded_takes_host_memory_and_one_place_on_the_card() -> None:
    sizes = {"transformer": 38, "text_encoder": 24, "vae": 2}
    resident = footprint(Recipe(name="a"), sizes, 6)
    assert (resident.held_bytes, resident.working_bytes, resident.host_bytes) == (64, 6, 0)
    model = footprint(Recipe(name="b", offload="model"), sizes, 6)
    assert (model.held_bytes, model.working_bytes, model.host_bytes) == (2, 42, 64)
    blocks = footprint(Recipe(name="c", offload="blocks"), sizes, 6)
    assert (blocks.working_bytes, blocks.host_bytes) == (28, 64)


def test_a_longer_clip_works_with_more_and_a_short_one_with_no_less_than_is_stated() -> None:
    recipe = Recipe(name="a", working_gib=5.0)
    usual = round(LTX.default_duration_seconds * LTX.default_fps)
    assert working_bytes(LTX, recipe, a_clip(usual)) == 5 * GIB
    assert working_bytes(LTX, recipe, a_clip(4 * usual)) == 20 * GIB
    assert working_bytes(LTX, recipe, a_clip(9)) == 5 * GIB


def test_kinds_of_cards() -> None:
    cpu = Card(device="cpu-2", total_bytes=100)
    assert not can_run(Recipe(name="a", quantise={"transformer": "nf4"}), cpu)
    assert can_run(Recipe(name="a", quantise={"transformer": "int8"}), cpu)
    assert not can_run(Recipe(name="a", capability=8.9), Card(device="cuda:0", total_bytes=1, capability=8.6))


def test_host_memory_bounds_what_is_offloaded_and_what_runs_on_the_processor() -> None:
    assert is_room(CARD, needs(10, 10, host=50), (), 50)
    assert not is_room(CARD, needs(10, 10, host=51), (), 50)
    assert not is_room(Card(device="cpu", total_bytes=100), needs(40, 20), (), 50)


def test_nothing_leaves_where_there_is_room_and_what_is_pinned_never_does() -> None:
    assert cheapest_eviction(CARD, needs(50, 10), {"a": needs(40)}, {"a": 5.0}, NO_HOST_BOUND) == ()
    assert cheapest_eviction(CARD, needs(50, 20), {"a": needs(40)}, {"a": 5.0}, NO_HOST_BOUND) == ("a",)
    assert cheapest_eviction(CARD, needs(50, 20), {"a": needs(40)}, {}, NO_HOST_BOUND) is None


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 50)), max_size=5),
    st.integers(1, 100),
    st.integers(0, 30),
)
def test_the_eviction_is_the_cheapest_that_makes_room(models: list[tuple[int, int]], held: int, working: int) -> None:
    residents = {f"m{place}": needs(size) for place, (size, _) in enumerate(models)}
    price = {f"m{place}": float(cost) for place, (_, cost) in enumerate(models)}
    wanted = needs(held, working)
    found = cheapest_eviction(CARD, wanted, residents, price, NO_HOST_BOUND)
    costs = [
        sum(price[name] for name in names)
        for count in range(len(residents) + 1)
        for names in combinations(residents, count)
        if is_room(CARD, wanted, [other for name, other in residents.items() if name not in names], NO_HOST_BOUND)
    ]
    assert (found is None) == (not costs)
    if found is not None:
        assert sum(price[name] for name in found) == min(costs)


def test_a_job_for_which_many_small_models_must_leave_still_fits() -> None:
    residents = {f"m{number:02}": needs(8) for number in range(12)}
    price = dict.fromkeys(residents, 1.0) | {"m00": 50.0}
    found = cheapest_eviction(CARD, needs(80, 12), residents, price, NO_HOST_BOUND)
    assert found is not None
    assert set(found) == set(residents) - {"m00"}
    assert cheapest_eviction(CARD, needs(80, 21), residents, price, NO_HOST_BOUND) is None


@given(
    st.lists(st.tuples(st.integers(1, 15), st.integers(0, 50)), min_size=SUBSETS_MAX + 1, max_size=12),
    st.integers(1, 100),
    st.integers(0, 30),
    st.integers(0, 3),
)
def test_among_many_models_room_is_made_where_there_can_be_and_none_leaves_in_vain(
    models: list[tuple[int, int]], held: int, working: int, pinned: int
) -> None:
    residents = {f"m{place}": needs(size) for place, (size, _) in enumerate(models)}
    price = {f"m{place}": float(cost) for place, (_, cost) in enumerate(models) if place >= pinned}
    wanted = needs(held, working)

    def fits(leaving: Collection[str]) -> bool:
        return is_room(CARD, wanted, [other for name, other in residents.items() if name not in leaving], NO_HOST_BOUND)

    found = cheapest_eviction(CARD, wanted, residents, price, NO_HOST_BOUND)
    assert (found is not None) == fits(price)
    if found is not None:
        assert fits(found)
        assert set(found) <= set(price)
        assert not any(fits([other for other in found if other != name]) for name in found if price[name] > 0)
