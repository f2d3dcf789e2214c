"""How much a job computes, counted from its model's manifest: what an estimate begins with before any run. Pure."""

from __future__ import annotations

from typing import Final

from zsky_box.formats import output_size, render_size
from zsky_box.manifest import Flux2KleinOptions, Ltx2Options, ModelSpec, Recipe, ZImageOptions
from zsky_box.requests import Work

# The schedules that diffusers ships for distilled LTX-2: passes at the first stage, and at the second.
_DISTILLED_PASSES: Final = (8, 3)


def operations(spec: ModelSpec, recipe: Recipe, work: Work) -> float:
    """Floating-point operations of all passes of the transformer; 0 where the manifest does not tell its cost.

    Counted as two for each parameter and token, and 4 · layers · width · tokens² for self-attention.
    """
    cost = spec.cost
    if cost is None:
        return 0.0
    width, height = rendered_size(recipe, work)
    width, height = render_size(width, height, spec.size_multiple)
    frames = (work.frames - 1) // spec.frame_step + 1 if work.frames else 1
    total = 0.0
    for scale, passes in _passes(spec):
        tokens = (width * scale / cost.pixels_per_token) * (height * scale / cost.pixels_per_token) * frames
        linear = 2.0 * cost.parameters_billion * 1e9 * tokens
        attention = 4.0 * cost.layers * cost.width * tokens * tokens
        total += passes * (linear + attention)
    return total * work.n


def rendered_size(recipe: Recipe, work: Work) -> tuple[int, int]:
    """Width and height that a recipe renders at: the job's, or the largest that it goes to, in the same shape."""
    if recipe.render is None:
        return work.width, work.height
    short, _ = sorted(output_size(recipe.render, "1:1"))
    asked = min(work.width, work.height)
    if asked <= short:
        return work.width, work.height
    return round(work.width * short / asked), round(work.height * short / asked)


def _passes(spec: ModelSpec) -> list[tuple[float, int]]:
    """The scale and the number of passes of each stage."""
    options = spec.options
    match options:
        case Ltx2Options(distilled=True, stages=2):
            return [(0.5, _DISTILLED_PASSES[0]), (1.0, _DISTILLED_PASSES[1])]
        case Ltx2Options(distilled=True):
            return [(1.0, _DISTILLED_PASSES[0])]
        case Ltx2Options():
            return [(1.0, options.steps * (2 if options.guidance_scale > 1.0 else 1))]
        case Flux2KleinOptions() | ZImageOptions():
            return [(1.0, options.steps)]
        case _:
            return []
