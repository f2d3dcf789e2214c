"""What every model family offers to the worker: pictures as a lazy stream, sound beside them, progress and cancel.

Pictures are uint8 arrays [height, width, 3], RGB, already cropped to the size asked for. Sound is float32
[samples, 2] at 48 kHz, in [-1, 1], starting at the first frame's start; the encoder pads it to the picture's length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from zsky_box.events import Phase, Run
from zsky_box.manifest import ModelSpec, Recipe

Picture = NDArray[np.uint8]
Sound = NDArray[np.float32]

SAMPLE_RATE_HZ: Final = 48_000


class Cancelled(Exception):
    """Raised inside a pipeline, from the reporter, when the job was cancelled: nothing further is computed."""


class OutOfMemory(Exception):
    """The device ran out of memory; the pipeline that raised it must be thrown away."""


class Reporter(Protocol):
    """How a pipeline tells where it is; every call may raise Cancelled."""

    def phase(self, phase: Phase) -> None: ...

    def step(self, step: int, steps: int, preview: Callable[[], bytes] | None = None) -> None:
        """`step` of `steps` denoising steps (over all stages and images of the job) is complete.

        `preview` makes a small JPEG of how the result looks by now, and is called only where one is wanted.
        """
        ...


@dataclass
class Clip:
    """A clip that is still being decoded: `pictures` yields exactly `frames` pictures, once."""

    width: int
    height: int
    fps: int
    frames: int
    pictures: Iterator[Picture]
    sound: Sound
    upscaled_from: str = ""
    notes: list[str] = field(default_factory=list[str])


@dataclass
class Still:
    """One image; `seed` reproduces it alone."""

    picture: Picture
    seed: int
    upscaled_from: str = ""
    notes: tuple[str, ...] = ()


class Pipeline(Protocol):
    """A loaded model on one device."""

    def video(self, run: Run, report: Reporter) -> Clip: ...

    def images(self, run: Run, report: Reporter) -> Iterator[Still]:
        """Yields `run.n` stills; image i has seed `run.seed + i`."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


class Classifier(Protocol):
    """A loaded output check on one device."""

    def scores(self, pictures: Sequence[Picture]) -> list[dict[str, float]]:
        """For each picture: how surely it shows each of the classifier's labels, from 0 to 1."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


class Load(Protocol):
    """A family's loader: `device` is `cpu` or `cuda:N`; `folder` holds the weights in the diffusers layout.

    They are kept as the recipe says, and quantised while they load where the folder holds the full ones.
    """

    def __call__(self, spec: ModelSpec, recipe: Recipe, folder: Path, device: str) -> Pipeline: ...
