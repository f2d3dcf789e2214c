"""How the installed models can run here: each recipe whose weights are on the disk, with its bytes and times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from zsky_box.catalog import Catalog
from zsky_box.dispatch import Waiting, Way
from zsky_box.estimates import Estimates
from zsky_box.manifest import FULL, ModelSpec, Recipe
from zsky_box.placement import Card, Footprint, can_run, component_bytes, footprint, is_room, working_bytes
from zsky_box.requests import Work

LOOKED_UP_SECONDS: Final = 1.0
"""For so long the disk's word on what is installed is taken as it was: models come and go by the minute at most."""


class _OnDisk(Struct, frozen=True):
    """What was found of a model: each of its loadable recipes with its components' bytes once loaded."""

    looked_at: float
    recipes: tuple[tuple[int, Recipe, dict[str, int], bool], ...]


class InstalledWays:
    """The catalogue's models as the dispatcher sees them; may be asked from any thread."""

    def __init__(self, catalog: Catalog, estimates: Estimates, clock: Callable[[], float] = time.monotonic) -> None:
        self._catalog = catalog
        self._estimates = estimates
        self._clock = clock
        self._found: dict[str, _OnDisk] = {}

    def of(self, job: Waiting, card: Card, card_name: str) -> Sequence[Way]:
        """The recipes that are installed and meant for such a card, best first, from the job's floor on.

        A job that ran out of memory by the last recipe is tried by it once more, on a card of its own.
        """
        return self.for_work(job.model, job.work, card, card_name, floor=job.recipe_floor)

    def for_work(self, model: str, work: Work, card: Card, card_name: str, *, floor: int = 0) -> list[Way]:
        """The same for what is not a job yet."""
        spec = self._catalog.specs.get(model)
        if spec is None:
            return []
        able = [found for found in self._look_up(spec).recipes if can_run(found[1], card)]
        return [
            self._way(spec, found, work, card, card_name)
            for found in [found for found in able if found[0] >= floor] or able[-1:]
        ]

    def is_here(self, model: str) -> bool:
        """Whether the model is in the catalogue and installed in a form that some recipe can load."""
        spec = self._catalog.specs.get(model)
        return spec is not None and bool(self._look_up(spec).recipes)

    def what_fits(
        self, model: str, work: Work, cards: Sequence[Card], host_total_bytes: int, *, floor: int = 0
    ) -> bool:
        """Whether some card alone could do this work by some recipe from the floor on, with nothing else in memory."""
        return any(
            is_room(card, way.needs, (), host_total_bytes)
            for card in cards
            for way in self.for_work(model, work, card, "", floor=floor)
        )

    def least_bytes(self, model: str, work: Work, cards: Sequence[Card]) -> int | None:
        """What a card needs at the least for this work, or None where no card is of the kind."""
        needs = [way.needs for card in cards for way in self.for_work(model, work, card, "")]
        return min((need.held_bytes + need.working_bytes for need in needs), default=None)

    def beside_pinned(self, card: Card, pinned: Iterable[str], model: str) -> Card:
        """The card as a model finds it once those that never leave are there, each by the best recipe that it holds."""
        total_bytes = card.total_bytes
        for name in sorted(set(pinned) - {model}):
            spec = self._catalog.specs.get(name)
            recipes = () if spec is None else self._look_up(spec).recipes
            held = [footprint(recipe, sizes, 0).held_bytes for _, recipe, sizes, _ in recipes if can_run(recipe, card)]
            total_bytes -= next((held_bytes for held_bytes in held if held_bytes <= total_bytes), 0)
        return msgspec.structs.replace(card, total_bytes=total_bytes)

    def _way(
        self, spec: ModelSpec, found: tuple[int, Recipe, dict[str, int], bool], work: Work, card: Card, card_name: str
    ) -> Way:
        index, recipe, sizes, is_own = found
        needs: Footprint = footprint(recipe, sizes, working_bytes(spec, recipe, work))
        size_bytes = sum(sizes.values())
        return Way(
            recipe=recipe,
            index=index,
            needs=needs,
            load_seconds=self._estimates.load_seconds(spec, recipe, card_name, size_bytes, quantises=not is_own),
            run_seconds=self._estimates.run_seconds(spec, recipe, card_name, work, is_cpu=card.is_cpu),
            tail_seconds=self._estimates.tail_seconds(spec, recipe, card_name, work, is_cpu=card.is_cpu),
        )

    def _look_up(self, spec: ModelSpec) -> _OnDisk:
        found = self._found.get(spec.name)
        if found is None or self._clock() - found.looked_at >= LOOKED_UP_SECONDS:
            found = self._found[spec.name] = _OnDisk(self._clock(), self._on_disk(spec))
        return found

    def _on_disk(self, spec: ModelSpec) -> tuple[tuple[int, Recipe, dict[str, int], bool], ...]:
        record = self._catalog.installed(spec)
        if record is None:
            return ()
        recipes: list[tuple[int, Recipe, dict[str, int], bool]] = []
        for index, recipe in enumerate(spec.ways):
            variant = record.variant(recipe)
            if variant is None:
                continue
            is_own = recipe.variant == FULL or recipe.variant in record.variants
            files = variant.components or self._catalog.bytes_on_disk(spec)
            sizes = component_bytes(spec, recipe, files, is_own_variant=is_own)
            recipes.append((index, recipe, sizes, is_own))
        return tuple(recipes)
