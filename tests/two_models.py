"""Two models installed in a box that has nothing else, and the cards that they may run on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from tests.doubles.driving import SPEC
from zsky_box.catalog import Catalog, Installed, Variant
from zsky_box.estimates import Estimates
from zsky_box.manifest import Limits, Recipe
from zsky_box.placement import GIB, Card
from zsky_box.requests import Work
from zsky_box.room import Room
from zsky_box.ways import InstalledWays

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


class TwoModels:
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
