"""How long things take on this box: learnt from its own runs, per model, recipe, size and card.

What has run is estimated by the median of its last runs. What has not is guessed from its counted operations and what
the card was measured to do, and the guess is set right by how far it was off for other sizes of the same model, or on
other cards. Pure: `timings` keeps what is learnt over restarts.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import Final, Literal, TypeVar

from msgspec import Struct

from zsky_box.manifest import ModelSpec, Recipe
from zsky_box.operations import operations
from zsky_box.requests import Work

KEPT: Final = 15
"""So many of the last times of one kind are remembered: enough for a median, few enough to follow a change."""

_Kept = TypeVar("_Kept")
Kind = Literal["run", "load", "tail"]
"""What the card does for a job; what it takes to read a model into memory; the encoder's tail, which needs no card."""

SERIES_MAX: Final = 4_096
"""Of so many kinds of times those are remembered; a kind that has not been measured for longest goes first."""

_USUAL_RUNS: Final = 3

# First guesses, each replaced by what is measured here. Diffusion transformers at these sizes reach about 0.4 of what
# a plain matrix product does; a model is read at the speed of a good SSD, and four times slower while it is quantised.
_EFFICIENCY: Final = 0.4
_CPU_FLOPS: Final = 5e10
_CARD_FLOPS: Final = 1e14
_READ_BYTES_PER_SECOND: Final = 1.5e9
_LOAD_SECONDS: Final = 2.0
_QUANTISING_FACTOR: Final = 4.0
_RUN_SECONDS: Final = 0.3
# Without counted operations: the film leader draws about so much on one core.
_UNCOUNTED_SECONDS_PER_MEGAPIXEL: Final = 0.012
_TAIL_PART: Final = 0.05


class Timing(Struct, frozen=True, kw_only=True):
    """One thing that took `seconds`; `card` is the card's model, `shape` the size of the job (empty for a load)."""

    kind: Kind
    model: str
    recipe: str
    card: str
    shape: str
    operations: float
    seconds: float


def shape_of(work: Work) -> str:
    """What makes two jobs of a model take the same time, as text."""
    return f"{work.type} {work.width}x{work.height}x{work.frames or work.n}{' from image' if work.reference else ''}"


class Estimates:
    """All that is learnt; may be asked and told from any thread."""

    def __init__(self, timings: Iterable[Timing] = (), flops: dict[str, float] | None = None) -> None:
        self._lock = threading.Lock()
        self._exact: dict[tuple[str, ...], deque[float]] = {}
        self._others: dict[tuple[str, ...], deque[Timing]] = {}
        """By kind, model and the job's type; these with the card; these with the recipe, too."""
        self.flops = dict(flops or {})
        for timing in timings:
            self.learn(timing)

    def learn(self, timing: Timing) -> None:
        """Take one measured time into account."""
        with self._lock:
            _keep(self._exact, (timing.kind, timing.model, timing.recipe, timing.card, timing.shape), timing.seconds)
            if timing.operations > 0:
                made = timing.kind, timing.model, timing.shape.partition(" ")[0]
                _keep(self._others, (*made, timing.recipe, timing.card), timing)
                _keep(self._others, (*made, timing.card), timing)
                if timing.card in self.flops:
                    _keep(self._others, made, timing)

    def measured(self, card: str, flops: float) -> None:
        """A card was measured to do so many operations a second."""
        with self._lock:
            self.flops[card] = flops

    def has_run(self, spec: ModelSpec, recipe: Recipe, card: str, work: Work) -> bool:
        """Whether such jobs have run here often enough to say how long they usually take."""
        with self._lock:
            return len(self._exact.get(("run", spec.name, recipe.name, card, shape_of(work)), ())) >= _USUAL_RUNS

    def run_seconds(self, spec: ModelSpec, recipe: Recipe, card: str, work: Work, *, is_cpu: bool) -> float:
        """For how long a job has the card, from the prompt's encoding to the last decoded picture."""
        return self._seconds("run", spec, recipe, card, work, is_cpu=is_cpu)

    def tail_seconds(self, spec: ModelSpec, recipe: Recipe, card: str, work: Work, *, is_cpu: bool) -> float:
        """How long a job takes besides, after it has left the card."""
        with self._lock:
            times = self._exact.get(("tail", spec.name, recipe.name, card, shape_of(work)))
            if times:
                return median(times)
        return _TAIL_PART * self.run_seconds(spec, recipe, card, work, is_cpu=is_cpu)

    def load_seconds(self, spec: ModelSpec, recipe: Recipe, card: str, size_bytes: int, *, quantises: bool) -> float:
        """How long it takes until the model is in memory; `size_bytes` is what it has there."""
        with self._lock:
            times = self._exact.get(("load", spec.name, recipe.name, card, ""))
            if times:
                return median(times)
        if spec.bundled and not size_bytes:
            return 0.0
        return _LOAD_SECONDS + size_bytes / _READ_BYTES_PER_SECOND * (_QUANTISING_FACTOR if quantises else 1.0)

    def _seconds(self, kind: Kind, spec: ModelSpec, recipe: Recipe, card: str, work: Work, *, is_cpu: bool) -> float:
        with self._lock:
            times = self._exact.get((kind, spec.name, recipe.name, card, shape_of(work)))
            if times:
                return median(times)
            flops = self.flops.get(card) or (_CPU_FLOPS if is_cpu else _CARD_FLOPS)
            made = kind, spec.name, work.type
            off = 1.0
            for key in ((*made, recipe.name, card), (*made, card), made):
                if key in self._others:
                    off = median(self._off(timing, spec, card, flops) for timing in self._others[key])
                    break
            return off * _guess(spec, counted(spec, recipe, work), flops)

    def _off(self, timing: Timing, spec: ModelSpec, card: str, flops: float) -> float:
        """What a guess is to be multiplied by for having been right about a job that ran; `flops` are the card's."""
        there = flops if timing.card == card else self.flops[timing.card]
        return timing.seconds / _guess(spec, timing.operations, there)


def _guess(spec: ModelSpec, operations: float, flops: float) -> float:
    """Seconds of what was never run. A part of them every job takes, however small: that is not in proportion."""
    if spec.cost is None:
        return _RUN_SECONDS + operations * _UNCOUNTED_SECONDS_PER_MEGAPIXEL
    return _RUN_SECONDS + operations / (flops * _EFFICIENCY)


def counted(spec: ModelSpec, recipe: Recipe, work: Work) -> float:
    """What a job's time is in proportion to: its operations, or its pixels where they are not known."""
    return operations(spec, recipe, work) or _stand_in(work)


def _stand_in(work: Work) -> float:
    """Megapixels of all pictures as they are delivered: a model that is not worth counting spends its time on these."""
    return work.width * work.height / 1e6 * (work.frames or work.n)


def _keep(kept: dict[tuple[str, ...], deque[_Kept]], key: tuple[str, ...], value: _Kept) -> None:
    """Also puts the key last: the first is the one that was measured longest ago."""
    values = kept[key] = kept.pop(key, None) or deque(maxlen=KEPT)
    values.append(value)
    if len(kept) > SERIES_MAX:
        del kept[next(iter(kept))]
