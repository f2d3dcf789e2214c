"""What fits where: bytes counted per component and recipe before anything is loaded. Pure.

A card holds the weights of the models that are resident, and beside them what the running job works with. Host memory
holds what a recipe keeps off the card, and everything of a model that runs on the processor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Final

from msgspec import Struct

from zsky_box.manifest import ModelSpec, Quantisation, Recipe
from zsky_box.operations import rendered_size
from zsky_box.requests import Work

GIB: Final = 1024**3
SUBSETS_MAX: Final = 8
"""A card holds few models; beyond so many, only the cheapest are considered for leaving in every combination."""

_DTYPE_BYTES: Final = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
# Bytes a parameter; int8 and fp8 keep a scale a row, nf4 one for 64 values and some layers in full. Counted in engine
# measurements of LTX-2.5: 19.0 B parameters are 19.5 GB in int8 and 10.7 GB in nf4.
_PARAMETER_BYTES: Final[dict[Quantisation, float]] = {"int8": 1.03, "fp8": 1.03, "fp8_dynamic": 1.03, "nf4": 0.58}
# With blocks streamed, the card holds two blocks of the transformer at a time: one at work, one on its way.
_STREAMED_PART: Final = 0.05
STREAMED: Final = "transformer"
DECODER: Final = "vae"
_REFERENCE_PIXELS: Final = 1920 * 1080


class Card(Struct, frozen=True, kw_only=True):
    """A device as placement sees it. `total_bytes` may be used by models; `capability` is CUDA's, 0 on the processor.

    `device` tells it from all others: `cuda:1`, `cpu`, `cpu-2`. On the processor the bytes are host memory, shared by
    all workers there.
    """

    device: str
    total_bytes: int
    capability: float = 0.0

    @property
    def is_cpu(self) -> bool:
        """Whether models here live in host memory."""
        return not self.device.startswith("cuda:")


class Footprint(Struct, frozen=True, kw_only=True):
    """What a model takes by a recipe: on the card while it is resident, on the card besides while a job runs, and in
    host memory while it is resident.
    """

    held_bytes: int
    working_bytes: int
    host_bytes: int


def component_bytes(
    spec: ModelSpec, recipe: Recipe, on_disk: Mapping[str, int], *, is_own_variant: bool
) -> dict[str, int]:
    """Each component's bytes once loaded: from its files where they are known, else from the counted parameters.

    `is_own_variant` says that the files are in the recipe's own form already; else they are full, and shrink while
    they load. Components of which nothing is known count nothing.
    """
    dtype_bytes = _DTYPE_BYTES[spec.dtype]
    sizes: dict[str, int] = {}
    for name in on_disk.keys() | spec.parameters_billion.keys():
        kind = recipe.quantise.get(name)
        shrunk = 1.0 if kind is None else _PARAMETER_BYTES[kind] / dtype_bytes
        if name in on_disk:
            sizes[name] = round(on_disk[name] * (1.0 if is_own_variant else shrunk))
        else:
            sizes[name] = round(spec.parameters_billion[name] * 1e9 * dtype_bytes * shrunk)
    return sizes


def published_bytes(spec: ModelSpec) -> dict[str, int]:
    """Each counted component's bytes in the manifest's dtype."""
    dtype_bytes = _DTYPE_BYTES[spec.dtype]
    return {name: round(billion * 1e9 * dtype_bytes) for name, billion in spec.parameters_billion.items()}


def footprint(recipe: Recipe, sizes: Mapping[str, int], working_bytes: int) -> Footprint:
    """The bytes of a model with components of these sizes, whose jobs work with so much."""
    total = sum(sizes.values())
    if recipe.offload == "none":
        return Footprint(held_bytes=total, working_bytes=working_bytes, host_bytes=0)
    on_card = {
        name: round(size * _STREAMED_PART) if recipe.offload == "blocks" and name == STREAMED else size
        for name, size in sizes.items()
    }
    largest = max(on_card.values(), default=0)
    # What decoded last stays until something else wants the place; while a job runs it is one of those that take turns.
    rest = sizes.get(DECODER, 0)
    return Footprint(held_bytes=rest, working_bytes=largest + working_bytes - rest, host_bytes=total)


def working_bytes(spec: ModelSpec, recipe: Recipe, work: Work) -> int:
    """What a job needs beside the weights: the recipe's figure, more in proportion where the job is larger."""
    width, height = rendered_size(recipe, work)
    load = width * height / _REFERENCE_PIXELS
    if work.type == "video" and spec.default_duration_seconds > 0:
        load *= work.frames / max(1.0, spec.default_duration_seconds * spec.default_fps)
    return round(recipe.working_gib * GIB * max(1.0, load))


def can_run(recipe: Recipe, card: Card) -> bool:
    """Whether the card is of a kind that the recipe is for, whatever its memory."""
    if card.is_cpu:
        return not recipe.needs_cuda
    return card.capability >= recipe.capability


def is_room(card: Card, needs: Footprint, held: Iterable[Footprint], host_free_bytes: int) -> bool:
    """Whether a job of a model fits beside those that are held, the host's memory counted too.

    `host_free_bytes` is what is free once those that are to leave have left; the model itself is not among `held`.
    """
    beside = sum(other.held_bytes for other in held)
    on_card = beside + needs.held_bytes + needs.working_bytes
    if card.is_cpu:
        own = needs.held_bytes + needs.working_bytes + needs.host_bytes
        return on_card <= card.total_bytes and own <= host_free_bytes
    return on_card <= card.total_bytes and needs.host_bytes <= host_free_bytes


def host_bytes(card: Card, held: Footprint) -> int:
    """What a resident model takes of host memory."""
    return held.host_bytes + (held.held_bytes if card.is_cpu else 0)


def cheapest_eviction(
    card: Card,
    needs: Footprint,
    held: Mapping[str, Footprint],
    price: Mapping[str, float],
    host_free_bytes: int,
) -> tuple[str, ...] | None:
    """Which models must leave so that `needs` fits, at the least price in all; () where none must, None where in vain.

    `price` is what it costs when a model leaves, in seconds; a model without one stays.
    """
    by_price = sorted((name for name in held if name in price), key=lambda name: (price[name], name))

    def makes_room(leaving: Collection[str]) -> bool:
        staying = [footprint for name, footprint in held.items() if name not in leaving]
        freed = sum(host_bytes(card, held[name]) for name in leaving)
        return is_room(card, needs, staying, host_free_bytes + freed)

    found: tuple[float, tuple[str, ...]] | None = None
    for count in range(len(by_price[:SUBSETS_MAX]) + 1):
        for names in combinations(by_price[:SUBSETS_MAX], count):
            cost = sum(price[name] for name in names)
            if (found is None or cost < found[0]) and makes_room(names):
                found = cost, names
        if found is not None and found[0] == 0:
            break
    return _longest_way(by_price, makes_room) if found is None else found[1]


def _longest_way(by_price: Sequence[str], makes_room: Callable[[Collection[str]], bool]) -> tuple[str, ...] | None:
    """So many of the cheapest as make room, more than SUBSETS_MAX; none of them leaves needlessly."""
    for count in range(SUBSETS_MAX + 1, len(by_price) + 1):
        if makes_room(by_price[:count]):
            leaving = list(by_price[:count])
            for name in reversed(by_price[:count]):
                others = [other for other in leaving if other != name]
                if makes_room(others):
                    leaving = others
            return tuple(leaving)
    return None
