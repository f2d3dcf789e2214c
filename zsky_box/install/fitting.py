"""Which recipe each card of this box would run a model by. An estimate from sizes; nothing is loaded to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from zsky_box.devices import Card
from zsky_box.errors import InstallError
from zsky_box.manifest import ModelSpec, Quantisation, Recipe

GIB: Final = 1024**3
CONTEXT_BYTES: Final = GIB
"""What the driver and the libraries take of a card before a model is loaded."""

BYTES_PER_PARAMETER: Final[dict[Quantisation, float]] = {"int8": 1.03, "fp8": 1.03, "fp8_dynamic": 1.03, "nf4": 0.56}
"""Weights with their scales; some layers stay as they were."""
_DTYPE_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}
_BLOCKS_HELD: Final = 2
_BLOCKS: Final = 30
"""Transformers have about as many blocks or more; streamed, two are on the card at once."""


class Machine(Struct, frozen=True, kw_only=True):
    """What a box has: its cards (none: the processor alone), and the bytes of its memory."""

    cards: tuple[Card, ...]
    host_bytes: int


class Choice(Struct, frozen=True, kw_only=True):
    """What a device would run: `recipe` is None where nothing fits."""

    device: str
    recipe: Recipe | None


def component_bytes(spec: ModelSpec, recipe: Recipe, full_bytes: Mapping[str, int]) -> dict[str, int]:
    """Bytes of each component by this recipe, out of those of the full weights as they lie on the disk."""
    width = _DTYPE_BYTES[spec.dtype]
    return {
        part: round(size / width * BYTES_PER_PARAMETER[recipe.quantise[part]]) if part in recipe.quantise else size
        for part, size in full_bytes.items()
    }


def expected_bytes(spec: ModelSpec) -> dict[str, int]:
    """Bytes of each component that the manifest counts, before any file is here."""
    return {part: round(billion * 1e9 * _DTYPE_BYTES[spec.dtype]) for part, billion in spec.parameters_billion.items()}


def card_bytes(spec: ModelSpec, recipe: Recipe, full_bytes: Mapping[str, int]) -> int:
    """The most that a job takes of a card by this recipe."""
    parts = component_bytes(spec, recipe, full_bytes)
    if recipe.offload == "blocks" and "transformer" in parts:
        parts["transformer"] = parts["transformer"] * _BLOCKS_HELD // _BLOCKS
    weights = sum(parts.values()) if recipe.offload == "none" else max(parts.values(), default=0)
    return weights + round(recipe.working_gib * GIB) + CONTEXT_BYTES


def host_bytes(spec: ModelSpec, recipe: Recipe, full_bytes: Mapping[str, int], device: str) -> int:
    """What the machine's memory must hold meanwhile: what waits there, or on the processor all of it."""
    parts = sum(component_bytes(spec, recipe, full_bytes).values())
    if device == "cpu":
        return parts + round(recipe.working_gib * GIB)
    return 0 if recipe.offload == "none" else parts


def fits(spec: ModelSpec, recipe: Recipe, full_bytes: Mapping[str, int], machine: Machine, card: Card | None) -> bool:
    """Whether a device (None: the processor) can run the recipe."""
    if card is None:
        return not recipe.needs_cuda and host_bytes(spec, recipe, full_bytes, "cpu") <= machine.host_bytes
    return (
        card.capability >= recipe.capability
        and card_bytes(spec, recipe, full_bytes) <= card.total_bytes
        and host_bytes(spec, recipe, full_bytes, card.device) <= machine.host_bytes
    )


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
    devices: tuple[Card | None, ...] = machine.cards or (None,)
    choices = tuple(
        Choice(
            device="cpu" if card is None else card.device,
            recipe=next((recipe for recipe in ways if fits(spec, recipe, full_bytes, machine, card)), None),
        )
        for card in devices
    )
    if all(choice.recipe is None for choice in choices):
        raise InstallError(_nothing_fits(spec, ways, full_bytes, machine))
    return choices


def _nothing_fits(spec: ModelSpec, ways: tuple[Recipe, ...], full_bytes: Mapping[str, int], machine: Machine) -> str:
    least = min(card_bytes(spec, recipe, full_bytes) for recipe in ways)
    has = ", ".join(f"{card.total_bytes / GIB:.0f} GiB" for card in machine.cards) or "no card"
    return (
        f"{spec.name} does not fit here: its smallest recipe takes about {least / GIB:.0f} GiB of a card, and this box"
        f" has {has} and {machine.host_bytes / GIB:.0f} GiB of memory. Install it all the same with --anyway."
    )
