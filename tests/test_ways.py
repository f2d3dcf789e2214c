"""How the installed models can run: which recipes, on which cards, in how many bytes and how long."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.two_models import BIG, CLIP, TwoModels, card
from zsky_box.catalog import Variant
from zsky_box.estimates import Timing, shape_of
from zsky_box.manifest import Recipe
from zsky_box.placement import GIB, Card
from zsky_box.ways import LOOKED_UP_SECONDS


def test_every_recipe_whose_weights_can_be_had_is_a_way_best_first(tmp_path: Path) -> None:
    box = TwoModels(tmp_path)
    assert box.recipes() == ["full", "int8", "swapped"]
    full, int8, swapped = box.ways.for_work("big", CLIP, card(80), "a card")
    assert full.needs.held_bytes == 30 * GIB
    assert 20 * GIB < int8.needs.held_bytes < 21 * GIB
    assert swapped.needs.held_bytes == 0
    assert swapped.needs.host_bytes == int8.needs.held_bytes


def test_what_is_installed_in_another_form_only_can_run_by_that_alone(tmp_path: Path) -> None:
    box = TwoModels(tmp_path)
    box.install("big", {"transformer.int8": Variant(folder="int8", components={"transformer": 10 * GIB})})
    assert box.recipes() == ["int8", "swapped"]
    assert box.ways.for_work("big", CLIP, card(80), "")[0].needs.held_bytes == 10 * GIB


def test_what_is_on_the_disk_is_looked_up_anew_after_a_moment(tmp_path: Path) -> None:
    box = TwoModels(tmp_path)
    assert box.ways.is_here("big")
    (tmp_path / "big" / "installed.json").unlink()
    assert box.ways.is_here("big")
    box.now += LOOKED_UP_SECONDS
    assert not box.ways.is_here("big")
    assert not box.ways.is_here("unknown")


def test_after_memory_ran_out_the_lower_recipes_are_left_and_the_last_is_tried_again(tmp_path: Path) -> None:
    box = TwoModels(tmp_path)
    assert box.recipes(floor=1) == ["int8", "swapped"]
    assert box.recipes(floor=3) == ["swapped"]
    assert box.ways.what_fits("big", CLIP, [card(48)], 10 * GIB)
    assert not box.ways.what_fits("big", CLIP, [card(48)], 10 * GIB, floor=2)


def test_what_a_card_has_learnt_is_expected_of_it_and_not_of_another(tmp_path: Path) -> None:
    box = TwoModels(tmp_path)
    box.estimates.learn(
        Timing(kind="run", model="big", recipe="full", card="a card", shape=shape_of(CLIP), operations=0, seconds=77.0)
    )
    assert box.ways.for_work("big", CLIP, card(80), "a card")[0].run_seconds == 77.0
    assert box.ways.for_work("big", CLIP, card(80), "another")[0].run_seconds != 77.0


def test_a_card_that_a_recipe_is_not_for_is_offered_the_others_alone(tmp_path: Path) -> None:
    box = TwoModels(tmp_path)
    fast = Recipe(name="fp8", quantise={"transformer": "fp8"}, capability=8.9, working_gib=4.0)
    box.catalog.specs["big"] = msgspec.structs.replace(BIG, recipes=(fast, *BIG.ways))
    assert box.recipes(capability=9.0) == ["fp8", "full", "int8", "swapped"]
    assert box.recipes(capability=8.6) == ["full", "int8", "swapped"]
    assert box.recipes(capability=8.6, floor=3) == ["swapped"], "a floor counts all recipes, not those for this card"


def test_a_model_that_nobody_knows_has_no_way_and_needs_no_bytes(tmp_path: Path) -> None:
    box = TwoModels(tmp_path)
    assert box.ways.for_work("unknown", CLIP, card(80), "a card") == []
    assert box.ways.least_bytes("unknown", CLIP, [card(80)]) is None
    assert not box.ways.what_fits("unknown", CLIP, [card(80)], 200 * GIB)


def test_the_least_that_a_work_needs_is_that_of_its_thriftiest_recipe(tmp_path: Path) -> None:
    box = TwoModels(tmp_path)
    least = box.ways.least_bytes("big", CLIP, [card(80), card(8, device="cuda:1")])
    assert least is not None
    assert box.ways.what_fits("big", CLIP, [Card(device="cuda:0", total_bytes=least, capability=9.0)], 200 * GIB)
    assert not box.ways.what_fits(
        "big", CLIP, [Card(device="cuda:0", total_bytes=least - 1, capability=9.0)], 200 * GIB
    )


def test_pinned_models_take_their_place_by_the_best_recipe_that_the_card_holds_and_never_from_themselves(
    tmp_path: Path,
) -> None:
    box = TwoModels(tmp_path)
    assert box.ways.beside_pinned(card(80), {"big"}, "small").total_bytes == 50 * GIB
    smaller = box.ways.beside_pinned(card(24), {"big"}, "small").total_bytes
    assert 3 * GIB < smaller < 4 * GIB, "in int8, since 30 GiB do not go on 24"
    assert box.ways.beside_pinned(card(80), {"big"}, "big").total_bytes == 80 * GIB
    assert box.ways.beside_pinned(card(80), {"unknown"}, "big").total_bytes == 80 * GIB
