"""The models in a worker child's memory, by name. What fits beside what, the service has counted: here it is obeyed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from zsky_box.events import Run
from zsky_box.manifest import ModelSpec, Recipe
from zsky_box.pipelines.base import Pipeline

log = logging.getLogger("zsky_box.worker")


@dataclass(frozen=True)
class _Resident:
    """A model in memory, and what it was loaded from."""

    spec: ModelSpec
    recipe: Recipe
    weights_dir: str
    pipeline: Pipeline

    def is_for(self, run: Run) -> bool:
        """Whether this is what the Run asks for, down to the manifest's options."""
        return (self.spec, self.recipe, self.weights_dir) == (run.model, run.recipe, run.weights_dir)


class Residents:
    """Belongs to the child's main thread, but for `names`, which all may read. `changed` is called after a change."""

    def __init__(self, load: Callable[[Run], Pipeline], changed: Callable[[], None]) -> None:
        self.names: tuple[str, ...] = ()
        self._load = load
        self._changed = changed
        self._held: dict[str, _Resident] = {}

    def make_room(self, run: Run) -> None:
        """Let go of the models that the Run names, and of its own where it is there in another form."""
        for name in run.evict:
            self.evict(name)
        held = self._held.get(run.model.name)
        if held is not None and not held.is_for(run):
            self.evict(run.model.name)

    def get(self, run: Run) -> Pipeline | None:
        """The Run's model, where it is in memory as the Run wants it."""
        held = self._held.get(run.model.name)
        return held.pipeline if held is not None and held.is_for(run) else None

    def load(self, run: Run) -> Pipeline:
        """Read the Run's model into memory, after `make_room`."""
        pipeline = self._load(run)
        self._held[run.model.name] = _Resident(run.model, run.recipe, run.weights_dir, pipeline)
        self._tell()
        return pipeline

    def evict(self, name: str) -> None:
        """Give a model's memory back, if it is there."""
        held = self._held.pop(name, None)
        if held is not None:
            try:
                held.pipeline.close()
            except Exception:
                log.exception("closing %s failed", name)
            self._tell()

    def evict_all(self) -> None:
        """Give all of them back."""
        for name in self.names:
            self.evict(name)

    def _tell(self) -> None:
        self.names = tuple(self._held)
        self._changed()
