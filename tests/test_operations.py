"""The counted figures are those of the models' published sizes, in PFLOP."""

from __future__ import annotations

import pytest

from zsky_box.catalog import Catalog
from zsky_box.manifest import WHOLE, ModelSpec, Recipe
from zsky_box.operations import operations, rendered_size
from zsky_box.requests import Work
from zsky_box.settings import CHECKOUT

SPECS = Catalog([CHECKOUT / "models"], CHECKOUT / "nowhere").specs


def work(spec: ModelSpec, *, frames: int = 0, n: int = 1, width: int = 1920, height: int = 1080) -> Work:
    return Work(
        type="video" if frames else "image",
        model=spec.name,
        prompt="",
        negative_prompt="",
        seed=0,
        n=n,
        width=width,
        height=height,
        frames=frames,
        fps=24 if frames else 0,
    )


@pytest.mark.parametrize(
    ("name", "frames", "petaflop"), [("ltx-2.5", 121, 7.2), ("flux2-klein-4b", 0, 0.34), ("z-image-turbo", 0, 1.10)]
)
def test_counted_operations_are_those_of_the_published_sizes(name: str, frames: int, petaflop: float) -> None:
    spec = SPECS[name]
    assert operations(spec, WHOLE, work(spec, frames=frames)) / 1e15 == pytest.approx(petaflop, rel=0.06)


def test_more_images_are_more_work() -> None:
    spec = SPECS["z-image-turbo"]
    assert operations(spec, WHOLE, work(spec, n=4)) == 4 * operations(spec, WHOLE, work(spec))


def test_a_recipe_that_renders_smaller_computes_less() -> None:
    spec = SPECS["ltx-2.5"]
    small = Recipe(name="small", render="720p")
    full, less = (operations(spec, recipe, work(spec, frames=121)) for recipe in (WHOLE, small))
    assert less < 0.6 * full
    assert rendered_size(small, work(spec, frames=121)) == (1280, 720)
    assert rendered_size(small, work(spec, width=854, height=480)) == (854, 480)


def test_a_model_without_a_cost_is_not_counted() -> None:
    assert operations(SPECS["leader"], WHOLE, work(SPECS["leader"], frames=120)) == 0
