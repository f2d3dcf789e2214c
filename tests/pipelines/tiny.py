"""What the tests of the families share: a job to run, reporters that listen or cancel, and a look inside a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from PIL import Image

from scripts.tiny_models import cached, tiny_specs
from zsky_box.events import Phase, Run
from zsky_box.manifest import WHOLE, ModelSpec
from zsky_box.pipelines import loader
from zsky_box.pipelines.base import Cancelled, Clip, Pipeline


class Listener:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.steps: list[tuple[int, int]] = []

    def phase(self, phase: Phase) -> None:
        self.phases.append(phase)

    def step(self, step: int, steps: int, preview: Callable[[], bytes] | None = None) -> None:  # noqa: ARG002
        self.steps.append((step, steps))


class CancelAt(Listener):
    """A reporter whose job is cancelled once `at` steps are complete."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def step(self, step: int, steps: int, preview: Callable[[], bytes] | None = None) -> None:  # noqa: ARG002
        super().step(step, steps)
        if step == self.at:
            raise Cancelled


class Counter:
    """Counts the calls of modules and keeps the arguments of each."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.args: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self.calls)


@contextmanager
def counting(*modules: Any) -> Generator[Counter]:
    """Count the forward passes through `modules` inside the block."""
    counter = Counter()

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:  # noqa: ARG001
        counter.calls.append(kwargs)
        counter.args.append(args)

    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    try:
        yield counter
    finally:
        for handle in handles:
            handle.remove()


def tiny_spec(name: str, **options: Any) -> ModelSpec:
    """A tiny model's manifest, some of its family's options changed."""
    spec = next(spec for spec in tiny_specs() if spec.name == name)
    return replace(spec, options=replace(spec.options, **options))


def opened(name: str, **options: Any) -> Pipeline:
    """A tiny model, loaded on the CPU."""
    spec = tiny_spec(name, **options)
    return loader(spec.family)(spec, WHOLE, cached(name), "cpu")


def inside(pipeline: Pipeline) -> Any:
    """The library's pipeline within ours."""
    return vars(pipeline)["_pipe"]


def a_run(spec: ModelSpec, **changes: Any) -> Run:
    """A small job; `changes` are fields of Run."""
    run = Run(
        job_id="job_1",
        token=1,
        type=spec.makes[0],
        model=spec,
        weights_dir="",
        out_dir="",
        stem="clip",
        prompt="a red ball bounces on a wooden floor",
        negative_prompt="",
        seed=7,
        n=1,
        width=128,
        height=96,
        frames=17,
        fps=24,
        test=False,
    )
    return replace(run, **changes)


def a_picture(folder: Path, width: int, height: int) -> str:
    """The path of a PNG with a gradient from left to right and one from top to bottom."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0] = np.linspace(0, 255, width, dtype=np.uint8)
    pixels[:, :, 1] = np.linspace(255, 0, height, dtype=np.uint8)[:, None]
    path = folder / f"reference-{width}x{height}.png"
    Image.fromarray(pixels).save(path)
    return str(path)


def watched(clip: Clip) -> NDArray[np.uint8]:
    """All pictures of a clip, [frames, height, width, 3]."""
    return np.stack(list(clip.pictures))
