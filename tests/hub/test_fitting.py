from __future__ import annotations

import pytest

from tests.hub.checkpoint import spec_with
from tests.hub.conftest import ON_CPU, a_card
from zsky_box.catalog import open_catalog
from zsky_box.errors import InstallError
from zsky_box.install.disk import GIB
from zsky_box.install.fitting import Machine, choose, needs
from zsky_box.manifest import Recipe
from zsky_box.placement import Card
from zsky_box.settings import CHECKOUT

CATALOG = open_catalog(CHECKOUT / "nowhere")
FULL_BYTES = {"transformer": 20 * GIB, "text_encoder": 10 * GIB, "vae": GIB}
BEST = Recipe(name="best", working_gib=2)
INT8 = Recipe(name="int8", quantise={"transformer": "int8", "text_encoder": "int8"}, working_gib=2)
SWAP = Recipe(name="swap", quantise=INT8.quantise, offload="model", working_gib=2)
BLOCKS = Recipe(name="blocks", quantise={"transformer": "int8", "text_encoder": "nf4"}, offload="blocks", working_gib=1)
FP8 = Recipe(name="fp8", quantise={"transformer": "fp8"}, capability=8.9)


def machine(*gib: float, host_gib: float = 64, capability: float = 8.6) -> Machine:
    host_bytes = round(host_gib * GIB)
    on_host = (Card(device="cpu", total_bytes=host_bytes),)
    cards = tuple(a_card(each, number=number, capability=capability) for number, each in enumerate(gib)) or on_host
    return Machine(cards=cards, host_bytes=host_bytes)


@pytest.mark.parametrize(
    ("recipe", "card_gib", "host_gib"),
    [
        (BEST, 31 + 2, 0),
        (INT8, 20 / 2 * 1.03 + 10 / 2 * 1.03 + 1 + 2, 0),
        (SWAP, 20 / 2 * 1.03 + 2, 20 / 2 * 1.03 + 10 / 2 * 1.03 + 1),
        (BLOCKS, 10 / 2 * 0.58 + 1, 20 / 2 * 1.03 + 10 / 2 * 0.58 + 1),
    ],
)
def test_bytes_are_counted_by_component_and_recipe(recipe: Recipe, card_gib: float, host_gib: float) -> None:
    taken = needs(spec_with(recipe), recipe, FULL_BYTES)
    assert taken.held_bytes + taken.working_bytes == pytest.approx(card_gib * GIB, abs=4)
    assert taken.host_bytes == pytest.approx(host_gib * GIB, abs=4)


@pytest.mark.parametrize(
    ("box", "names"),
    [
        (machine(34), ["best"]),
        (machine(33.9), ["int8"]),
        (machine(19.5), ["int8"]),
        (machine(14), ["swap"]),
        (machine(14, host_gib=10), None),
        (machine(10), ["blocks"]),
        (machine(4), None),
        (machine(80, 14), ["best", "swap"]),
        (machine(80, 4), ["best", None]),
        (machine(host_gib=40), ["best"]),
        (machine(host_gib=20), ["int8"]),
        (machine(host_gib=10), None),
    ],
)
def test_each_device_gets_the_best_that_fits(box: Machine, names: list[str | None] | None) -> None:
    spec = spec_with(BEST, INT8, SWAP, BLOCKS)
    if names is None:
        with pytest.raises(InstallError, match="does not fit here: its smallest recipe takes about 4 GiB of a card"):
            choose(spec, FULL_BYTES, box)
    else:
        assert [choice.recipe and choice.recipe.name for choice in choose(spec, FULL_BYTES, box)] == names


def test_a_recipe_waits_for_a_card_that_can() -> None:
    spec = spec_with(FP8, INT8)
    assert choose(spec, FULL_BYTES, machine(80, capability=8.6))[0].recipe == INT8
    assert choose(spec, FULL_BYTES, machine(80, capability=8.9))[0].recipe == FP8
    assert choose(spec, FULL_BYTES, ON_CPU)[0].recipe == INT8


def test_the_owner_may_choose() -> None:
    spec = spec_with(BEST, INT8)
    assert choose(spec, FULL_BYTES, machine(80), "int8")[0].recipe == INT8
    with pytest.raises(InstallError, match="no recipe 'int4'; it has best, int8"):
        choose(spec, FULL_BYTES, machine(80), "int4")
    with pytest.raises(InstallError, match="does not fit"):
        choose(spec, FULL_BYTES, machine(20), "best")


def test_the_shipped_manifests_serve_cards_of_every_size() -> None:
    """What the documentation promises, by the sizes in the manifests."""
    chosen: dict[tuple[str, int], str] = {}
    for name in ("ltx-2.5", "flux2-klein-4b", "flux2-klein-9b", "z-image-turbo"):
        for gib in (16, 24, 32, 48, 80, 96, 141):
            spec = CATALOG.specs[name]
            recipe = choose(spec, {}, machine(gib - 0.4, host_gib=96, capability=8.9))[0].recipe
            assert recipe is not None
            chosen[name, gib] = recipe.name
    assert [chosen["ltx-2.5", gib] for gib in (16, 24, 32, 48, 80, 96, 141)] == [
        "int8-blocks",
        "int8-swap-small-tiles",
        "int8-swap",
        "fp8",
        "bf16",
        "bf16",
        "bf16",
    ]
    assert [chosen["flux2-klein-4b", gib] for gib in (16, 24)] == ["int8", "bf16"]
    assert [chosen["z-image-turbo", gib] for gib in (16, 24, 32)] == ["int8-swap", "int8", "bf16"]
    assert [chosen["flux2-klein-9b", gib] for gib in (16, 24, 48)] == ["int8-swap", "int8", "bf16"]
