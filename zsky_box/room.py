"""Whether this box has room for a request at all, and if not, what would fit: asked before anything is taken. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from zsky_box.catalog import Catalog
from zsky_box.formats import RESOLUTIONS, frame_count, output_size
from zsky_box.manifest import ModelSpec
from zsky_box.placement import GIB, Card
from zsky_box.requests import Work
from zsky_box.ways import InstalledWays

_SHORTER: Final = (0.75, 0.5, 0.25)


class Room:
    """The devices of the box with nothing in memory but what is pinned there; `exclusions` keep models off some."""

    def __init__(
        self,
        catalog: Catalog,
        ways: InstalledWays,
        cards: Mapping[str, Card],
        host_total_bytes: int,
        exclusions: Mapping[str, frozenset[str]],
        pins: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self._catalog = catalog
        self._ways = ways
        self._cards = cards
        self._host_total_bytes = host_total_bytes
        self._exclusions = exclusions
        self._pins = pins or {}

    def refusal(self, spec: ModelSpec, work: Work) -> str | None:
        """Why no device can ever do this, with what would fit; None where one can."""
        cards = self.cards_for(spec.name)
        if self._fits(spec, work, cards):
            return None
        size = f"{work.width}x{work.height}" + (f" for {work.duration_seconds:.3g} s" if work.frames else "")
        least = self._ways.least_bytes(spec.name, work, cards)
        if least is None:
            return (
                f"needs a kind of card that this box has not; choose another model, or ask the owner about {spec.name}"
            )
        largest = max(card.total_bytes for card in cards)
        told = f"at {size} needs {least / GIB:.1f} GiB, and the largest device here has {largest / GIB:.1f} GiB"
        if any(self._pins.values()):
            told += " beside what is pinned"
        if least <= largest:
            told = f"at {size} needs more host memory than the {self._host_total_bytes / GIB:.1f} GiB for models here"
        fitting = [text for text, smaller in self._smaller(spec, work) if self._fits(spec, smaller, cards)]
        return f"{told}; {fitting[0]} fits" if fitting else f"{told}, too little for this model at any size"

    def refusal_of(self, work: Work) -> str | None:
        """The same for a work whose model is in the catalogue."""
        return self.refusal(self._catalog.specs[work.model], work)

    def cards_for(self, model: str) -> list[Card]:
        """The devices that the owner lets the model go to, less what is pinned there."""
        return [
            self._ways.beside_pinned(card, self._pins.get(label, ()), model)
            for label, card in self._cards.items()
            if model not in self._exclusions.get(label, ())
        ]

    def _fits(self, spec: ModelSpec, work: Work, cards: Sequence[Card]) -> bool:
        return self._ways.what_fits(spec.name, work, cards, self._host_total_bytes)

    def _smaller(self, spec: ModelSpec, work: Work) -> list[tuple[str, Work]]:
        """What might fit, the nearest first: shorter, then smaller."""
        found: list[tuple[str, Work]] = []
        low, duration = spec.limits.min_duration_seconds, work.duration_seconds
        for part in _SHORTER if work.frames else ():
            if duration * part >= low:
                frames = frame_count(duration * part, work.fps, spec.frame_step)
                shorter = msgspec.structs.replace(work, frames=frames)
                found.append((f"{shorter.duration_seconds:.3g} s", shorter))
        short_side = min(work.width, work.height)
        for resolution in reversed(RESOLUTIONS):
            width, height = output_size(resolution, "1:1")
            if resolution in spec.limits.resolutions and min(width, height) < short_side:
                scale = min(width, height) / short_side
                smaller = msgspec.structs.replace(
                    work, width=round(work.width * scale), height=round(work.height * scale)
                )
                found.append((resolution, smaller))
        return found
