"""Which recipe each device of this box would run a model by, so that its weights are prepared for that one."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from zsky_box.errors import InstallError
from zsky_box.manifest import FULL, ModelSpec, Recipe
from zsky_box.placement import GIB, Card, Footprint, can_run, component_bytes, footprint, is_room


class Machine(Struct, frozen=True, kw_only=True):
    """What a box has: its devices, and the bytes of host memory that models may use."""

    cards: tuple[Card, ...]
    host_bytes: int


class Choice(Struct, frozen=True, kw_only=True):
    """What a device would run: `recipe` is None where nothing fits."""

    device: str
    recipe: Recipe | None


def quantised_bytes(spec: ModelSpec, recipe: Recipe, full_bytes: Mapping[str, int]) -> int:
    """About what the recipe's own form of the weights takes of the disk."""
    return sum(component_bytes(spec, recipe, full_bytes, is_own_variant=False).values())


def needs(spec: ModelSpec, recipe: Recipe, full_bytes: Mapping[str, int]) -> Footprint:
    """The bytes of a job at 1080p and the default duration; `full_bytes` are those of the components' files."""
    sizes = component_bytes(spec, recipe, full_bytes, is_own_variant=False)
    return footprint(recipe, sizes, round(recipe.working_gib * GIB))


def choose(
    spec: ModelSpec, full_bytes: Mapping[str, int], machine: Machine, wanted: str | None = None
) -> tuple[Choice, ...]:
    """The best recipe for each device, or the one named `wanted` wherever it fits.

    Raises InstallError for a recipe that the manifest has not, or a box on which nothing fits.
    """
    ways = spec.ways
    if wanted is not None:
        ways = tuple(recipe for recipe in spec.ways if recipe.name == wanted)
        if not ways:
            names = ", ".join(recipe.name for recipe in spec.ways)
            raise InstallError(f"{spec.name} has no recipe {wanted!r}; it has {names}.")

    def best(card: Card) -> Recipe | None:
        able = (recipe for recipe in ways if can_run(recipe, card))
        return next(
            (each for each in able if is_room(card, needs(spec, each, full_bytes), (), machine.host_bytes)), None
        )

    choices = tuple(Choice(device=card.device, recipe=best(card)) for card in machine.cards)
    if all(choice.recipe is None for choice in choices):
        raise InstallError(_nothing_fits(spec, ways, full_bytes, machine))
    return choices


def fits(spec: ModelSpec, full_bytes: Mapping[str, int], machine: Machine) -> dict[str, tuple[str, ...]]:
    """The devices of this box that each recipe fits, by the recipe's name, the best recipe first."""
    return {
        recipe.name: tuple(
            card.device
            for card in machine.cards
            if can_run(recipe, card) and is_room(card, needs(spec, recipe, full_bytes), (), machine.host_bytes)
        )
        for recipe in spec.ways
    }


def choose_anyway(spec: ModelSpec, machine: Machine, wanted: str | None, trouble: str) -> tuple[Choice, ...]:
    """Where nothing fits: of the recipes (or the one named) the smallest that a device here could make and run.

    Raises InstallError, `trouble` first, where there is none.
    """
    ways = [recipe for recipe in spec.ways if wanted in (None, recipe.name)]
    able = [recipe for recipe in ways if any(can_run(recipe, card) for card in machine.cards)]
    if not able:
        raise InstallError(f"{trouble} But no device here can make what its recipes need; an NVIDIA card could.")
    recipe = able[-1]
    return tuple(Choice(device=card.device, recipe=recipe if can_run(recipe, card) else None) for card in machine.cards)


def to_prepare(choices: tuple[Choice, ...]) -> list[Recipe]:
    """One recipe for each quantised form of the weights that a device wants."""
    recipes = [choice.recipe for choice in choices if choice.recipe is not None]
    return list({recipe.variant: recipe for recipe in reversed(recipes) if recipe.variant != FULL}.values())


def _nothing_fits(spec: ModelSpec, ways: tuple[Recipe, ...], full_bytes: Mapping[str, int], machine: Machine) -> str:
    every = [needs(spec, recipe, full_bytes) for recipe in ways]
    least = min(every, key=lambda each: each.held_bytes + each.working_bytes)
    has = ", ".join(f"{card.device} with {card.total_bytes / GIB:.0f} GiB" for card in machine.cards)
    return (
        f"{spec.name} does not fit here: its smallest recipe takes about"
        f" {(least.held_bytes + least.working_bytes) / GIB:.0f} GiB of a card and {least.host_bytes / GIB:.0f} GiB of"
        f" host memory, and models may use {has}, and {machine.host_bytes / GIB:.0f} GiB of host memory. Install it"
        " all the same with --anyway."
    )
