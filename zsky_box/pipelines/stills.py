"""The images of one job, denoised in batches and decoded one by one; knows no model family.

In a batch every image has its own seed, and a generator of its own on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from zsky_box.events import Run
from zsky_box.pipelines.base import Picture, Reporter, Still
from zsky_box.pipelines.decode import to_pictures
from zsky_box.pipelines.loading import memory_guard
from zsky_box.pipelines.offloading import Seat, left_on_failure
from zsky_box.pipelines.preview import clean_latents, jpeg

Preview = Callable[[], bytes]
StepDone = Callable[[int, int, Preview | None], None]
"""Called with the steps that a batch has behind it, the steps that it takes in all, and a way to look at it."""


class Painter(Protocol):
    """What a family does for the images of one job; it is called under `torch.no_grad`."""

    def prepare(self) -> None:
        """Encode what all images share: the prompt, the reference."""
        ...

    def denoise(self, seeds: list[int], done: StepDone) -> Tensor:
        """Latents [len(seeds), C, h, w] as `decode` takes them, the i-th from the i-th seed."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [1, C, h, w] as a frame [1, 3, H, W], values about -1 to 1."""
        ...


class Stills:
    """`run.n` images, up to `at_once` to a forward pass, each made when it is asked for.

    A class and not a generator, because a generator that raises is over: after an image that failed, the next can be
    asked for. Image i starts from the noise of `run.seed + i`, whether it is made in a batch or alone, and the same Run
    gives the same bits each time. Alone and in a batch are not the same bits, since kernels add in another order: on
    the CPU in float32 they differ by one level of 255, in bfloat16 by 14 at worst (random weights, which amplify it).
    So a recipe with more than one at once trades the exact rerun of a single image for its speed.
    """

    def __init__(
        self, painter: Painter, run: Run, report: Reporter, at_once: int = 1, seat: Seat | None = None
    ) -> None:
        self._painter = painter
        self._run = run
        self._report = report
        self._at_once = at_once
        self._seat = seat
        self._prepared = False
        self._next = 0
        self._held: list[Tensor] = []  # the latents of the next images, [1, C, h, w] each
        self._told = 0

    def __iter__(self) -> Iterator[Still]:
        return self

    def __next__(self) -> Still:
        """Raises OutOfMemory, what the reporter raises, JobFailure, and StopIteration after `run.n` attempts."""
        index = self._next
        if index == self._run.n:
            raise StopIteration
        self._next += 1
        return Still(self._render(index), self._run.seed + index)

    def _render(self, index: int) -> Picture:
        with memory_guard(), left_on_failure(self._seat), torch.no_grad():
            if not self._prepared:
                self._report.phase("loading")
                self._painter.prepare()
                self._prepared = True
                self._report.phase("denoising")
            if not self._held:
                self._held = self._denoise(index)
                if index + len(self._held) == self._run.n:  # earlier, the phase would fall back with the next batch
                    self._report.phase("decoding")
            # One at a time: decoding needs far more memory than the latents, and one image alone can fail in it.
            frames = self._painter.decode(self._held.pop(0))
            return to_pictures(frames, self._run.width, self._run.height)[0]

    def _denoise(self, first: int) -> list[Tensor]:
        seeds = [self._run.seed + index for index in range(first, min(first + self._at_once, self._run.n))]

        def done(step: int, steps: int, preview: Preview | None) -> None:
            # After a batch that failed half-way the next one begins at the image behind its first: never go back.
            self._told = max(self._told, first * steps + step * len(seeds))
            self._report.step(self._told, self._run.n * steps, preview)

        return list(self._painter.denoise(seeds, done).split(1))


class Watch:
    """Follows a sampler from state to state, so that each but the first can be shown as it would come out.

    `show` turns an estimate of the first image's clean state, [1, ...] in float32, into a small frame [1, 3, H, W].
    """

    def __init__(self, show: Callable[[Tensor], Tensor]) -> None:
        self._show = show
        self._state: Tensor | None = None

    def look(self, scheduler: Any, state: Tensor) -> Preview | None:
        """How the state [n, ...] after the scheduler's last step looks, or None where that step was the first."""
        earlier, self._state = self._state, state[:1].to(torch.float32)
        if earlier is None:
            return None
        before, after = (float(scheduler.sigmas[scheduler.step_index + place]) for place in (-1, 0))
        clean = clean_latents(earlier, self._state, before, after)
        return lambda: self._jpeg(clean)

    def _jpeg(self, clean: Tensor) -> bytes:
        frame = self._show(clean)
        if not bool(torch.isfinite(frame).all()):
            return b""  # the image itself will say so, and no other of its batch may fail with it
        return jpeg(to_pictures(frame, frame.shape[3], frame.shape[2])[0])
