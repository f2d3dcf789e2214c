"""Whether a model fits the box at all, by the recipes that are installed: `ways` and `room`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from tests.doubles.driving import SPEC
from zsky_box.catalog import Catalog, Installed, Variant
from zsky_box.estimates import Estimates, Timing, shape_of
from zsky_box.manifest import Limits, Recipe
from zsky_box.placement import GIB, Card
from zsky_box.requests import Work
from zsky_box.room import Room
from zsky_box.ways import LOOKED_UP_SECONDS, InstalledWays

RECIPES = (
    Recipe(name="full", working_gib=4.0),
    Recipe(name="int8", quantise={"transformer": "int8"}, working_gib=4.0),
    Recipe(name="swapped", quantise={"transformer": "int8"}, offload="model", working_gib=2.0),
)
LIMITS = Limits(
    resolutions=("480p", "720p", "1080p"),
    aspect_ratios=("16:9",),
    fps=(24,),
    min_duration_seconds=1.0,
    max_duration_seconds=60.0,
)
BIG = msgspec.structs.replace(
    SPEC, name="big", bundled=False, recipes=RECIPES, limits=LIMITS, default_fps=24, default_duration_seconds=5.0
)
SMALL = msgspec.structs.replace(BIG, name="small", recipes=(Recipe(name="full", working_gib=1.0),))
SIZES = {"big": {"transformer": 20 * GIB, "text_encoder": 10 * GIB}, "small": {"transformer": 6 * GIB}}
CLIP = Work(
    type="video", model="big", prompt="", negative_prompt="", seed=0, n=1, width=1920, height=1080, frames=121, fps=24
)


class Box:
    """Two models that are installed in full, and a clock for the look at the disk."""

    def __init__(self, weights: Path) -> None:
        self.catalog = Catalog([], weights)
        self.catalog.specs = {spec.name: spec for spec in (BIG, SMALL)}
        self.estimates, self.now = Estimates(), 0.0
        self.ways = InstalledWays(self.catalog, self.estimates, lambda: self.now)
        for name, sizes in SIZES.items():
            self.install(name, {"full": Variant(folder="full", components=sizes)})

    def install(self, name: str, variants: Mapping[str, Variant]) -> None:
        folder = self.catalog.weights / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "installed.json").write_bytes(msgspec.json.encode(Installed(variants=dict(variants))))

    def recipes(self, gib: int = 80, capability: float = 9.0, floor: int = 0) -> list[str]:
        ways = self.ways.for_work("big", CLIP, card(gib, capability), "a card", floor=floor)
        return [way.recipe.name for way in ways]

    def refusal(
        self, work: Work, *cards: Card, host_gib: int = 200, **rules: Mapping[str, frozenset[str]]
    ) -> str | None:
        by_label = {made.device: made for made in cards}
        room = Room(self.catalog, self.ways, by_label, host_gib * GIB, rules.get("exclusions", {}), rules.get("pins"))
        return room.refusal_of(work)


def card(gib: int, capability: float = 9.0, device: str = "cuda:0") -> Card:
    return Card(device=device, total_bytes=gib * GIB, capability=capability)


def test_every_recipe_whose_weights_can_be_had_is_a_way_best_first(tmp_path: Path) -> None:
    box = Box(tmp_path)
    assert box.recipes() == ["full", "int8", "swapped"]
    full, int8, swapped = box.ways.for_work("big", CLIP, card(80), "a card")
    assert full.needs.held_bytes == 30 * GIB
    assert 20 * GIB < int8.needs.held_bytes < 21 * GIB
    assert swapped.needs.held_bytes == 0
    assert swapped.needs.host_bytes == int8.needs.held_bytes


def test_what_is_installed_in_another_form_only_can_run_by_that_alone(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.install("big", {"transformer.int8": Variant(folder="int8", components={"transformer": 10 * GIB})})
    assert box.recipes() == ["int8", "swapped"]
    assert box.ways.for_work("big", CLIP, card(80), "")[0].needs.held_bytes == 10 * GIB


def test_what_is_on_the_disk_is_looked_up_anew_after_a_moment(tmp_path: Path) -> None:
    box = Box(tmp_path)
    assert box.ways.is_here("big")
    (tmp_path / "big" / "installed.json").unlink()
    assert box.ways.is_here("big")
    box.now += LOOKED_UP_SECONDS
    assert not box.ways.is_here("big")
    assert not box.ways.is_here("unknown")


def test_after_memory_ran_out_the_lower_recipes_are_left_and_the_last_is_tried_again(tmp_path: Path) -> None:
    box = Box(tmp_path)
    assert box.recipes(floor=1) == ["int8", "swapped"]
    assert box.recipes(floor=3) == ["swapped"]
    assert box.ways.what_fits("big", CLIP, [card(48)], 10 * GIB)
    assert not box.ways.what_fits("big", CLIP, [card(48)], 10 * GIB, floor=2)


def test_what_a_card_has_learnt_is_expected_of_it_and_not_of_another(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.estimates.learn(
        Timing(kind="run", model="big", recipe="full", card="a card", shape=shape_of(CLIP), operations=0, seconds=77.0)
    )
    assert box.ways.for_work("big", CLIP, card(80), "a card")[0].run_seconds == 77.0
    assert box.ways.for_work("big", CLIP, card(80), "another")[0].run_seconds != 77.0


def test_a_box_with_room_refuses_nothing(tmp_path: Path) -> None:
    box = Box(tmp_path)
    assert box.refusal(CLIP, card(16)) is None, "swapped from host memory"
    assert box.refusal(CLIP, card(8), card(40, device="cuda:1")) is None


def test_what_is_too_large_is_told_what_would_fit_shorter_first(tmp_path: Path) -> None:
    box = Box(tmp_path)
    long = msgspec.structs.replace(CLIP, frames=961)
    told = box.refusal(long, card(24))
    assert told is not None
    assert told.startswith("at 1920x1080 for 40 s needs 26.3 GiB, and the largest device here has 24.0 GiB; ")
    fitting = float(told.rpartition("; ")[2].removesuffix(" s fits"))
    assert fitting < 40
    shorter = msgspec.structs.replace(CLIP, frames=round(fitting * 24))
    assert box.refusal(shorter, card(24)) is None


def test_what_no_size_makes_small_enough_says_so(tmp_path: Path) -> None:
    told = Box(tmp_path).refusal(CLIP, card(6))
    assert told is not None
    assert told.endswith("too little for this model at any size")


def test_host_memory_is_named_where_it_is_what_is_missing(tmp_path: Path) -> None:
    told = Box(tmp_path).refusal(CLIP, card(16), host_gib=8)
    assert told is not None
    assert "more host memory than the 8.0 GiB" in told


def test_a_model_that_the_owner_keeps_off_every_card_is_refused(tmp_path: Path) -> None:
    box = Box(tmp_path)
    two = card(80), card(80, device="cuda:1")
    off = {"cuda:0": frozenset({"big"})}
    assert box.refusal(CLIP, *two, exclusions=off) is None
    told = box.refusal(CLIP, two[0], exclusions=off)
    assert told is not None
    assert "this box has not" in told


def test_what_is_pinned_takes_its_place_from_all_others_and_not_from_itself(tmp_path: Path) -> None:
    box, pins = Box(tmp_path), {"cuda:0": frozenset({"big"})}
    other = msgspec.structs.replace(CLIP, model="small")
    assert box.refusal(other, card(32)) is None
    told = box.refusal(other, card(32), pins=pins)
    assert told is not None
    assert "2.0 GiB beside what is pinned" in told
    assert box.refusal(CLIP, card(36), pins=pins) is None
