"""mini checkpoints: text, or text and a first frame, to a clip of three seconds with its sound; and to images.

The model is small: it computes on the processor, whatever device the worker has, and so the same seed gives the same
pixels on any box of one kind of processor. What it draws is enlarged to the size asked for, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from zsky_box.errors import JobFailure
from zsky_box.events import Run
from zsky_box.manifest import MiniOptions, ModelSpec, Recipe
from zsky_box.pipelines.base import SAMPLE_RATE_HZ, Clip, Picture, Reporter, Sound, Still
from zsky_box.pipelines.loading import broken_folder, failure, memory_guard, refuse_unable, refuse_unsafe_files, release
from zsky_box.pipelines.mini_latents import FPS, FRAMES, HEIGHT, WIDTH
from zsky_box.pipelines.mini_latents import SAMPLE_RATE_HZ as OWN_RATE_HZ
from zsky_box.pipelines.mini_model import MiniModel
from zsky_box.pipelines.preview import jpeg
from zsky_box.pipelines.reference import cover
from zsky_box.pipelines.sound import resample
from zsky_box.vocabulary import named

NATIVE: Final = f"{WIDTH}x{HEIGHT}"
_REDRAWN: Final = "mini redraws the picture as its own world has it: a background, a floor and one object."
_ONE: Final = "it shows one object of one colour, doing one thing, in a place with colours of its own."


def load(spec: ModelSpec, recipe: Recipe, folder: Path, device: str) -> Mini:
    """Open the checkpoint; raises OutOfMemory, and JobFailure for a broken folder or a manifest that does not fit."""
    options = spec.options
    if not isinstance(options, MiniOptions):
        raise failure(spec, f"its manifest is of the family {spec.family}")
    if recipe.quantise or recipe.offload != "none":
        raise failure(spec, f"its recipe {recipe.name} quantises or offloads, and it is too small for that")
    refuse_unable(spec, recipe, device)
    refuse_unsafe_files(spec, folder)
    with memory_guard(), broken_folder(spec):
        return Mini(spec, options, MiniModel.from_folder(folder))


class Mini:
    """One loaded checkpoint; runs one job at a time."""

    def __init__(self, spec: ModelSpec, options: MiniOptions, model: MiniModel) -> None:
        self._spec = spec
        self._options = options
        self._model = model

    def video(self, run: Run, report: Reporter) -> Clip:
        """Denoise now, play the sound now, draw the pictures as they are asked for.

        A clip that is shorter than the model's is its beginning. Raises JobFailure for a length or a rate that it does
        not make and for a reference that cannot be read, and what the reporter raises.
        """
        if run.fps != FPS or not 1 <= run.frames <= FRAMES:
            asked = f"{run.frames} frames at {run.fps} a second"
            raise JobFailure(
                "internal_error", f"{self._spec.name} makes up to {FRAMES} frames at {FPS} a second, not {asked}."
            )
        report.phase("loading")
        prompt = _Prompt(self._model, run)
        report.phase("denoising")
        tokens = self._denoised(prompt, run.seed, report, 0, self._options.steps)
        report.phase("decoding")
        with one_thread():
            sound = _delivered_sound(self._model.decode_sound(tokens), run.frames)
        own = islice(self._model.decode_frames(tokens), run.frames)
        told = _Told(run, prompt)
        return Clip(
            width=run.width,
            height=run.height,
            fps=FPS,
            frames=run.frames,
            pictures=_delivered_pictures(own, run.width, run.height),
            sound=sound,
            upscaled_from=told.upscaled_from,
            notes=list(told.notes),
        )

    def images(self, run: Run, report: Reporter) -> Iterator[Still]:
        """`run.n` stills, each made when it is asked for; after one that raised, the next can be asked for."""
        return _Stills(self._model, run, report, self._options.steps, self._denoised)

    def close(self) -> None:
        del self._model
        release("cpu")

    def _denoised(self, prompt: _Prompt, seed: int, report: Reporter, done: int, of: int) -> Tensor:
        """Tokens [1, TOKENS, TOKEN_SIZE]; `done` of the job's `of` steps lie behind it. Raises what `report` raises."""

        def told(step: int, steps: int, clean: Tensor) -> None:  # noqa: ARG001 (the job's steps count, not the clip's)
            report.step(done + step, of, lambda: jpeg(self._model.decode_still(clean)))

        options = self._options
        with memory_guard(), one_thread():
            tokens = self._model.sample(
                prompt.slots, seed, options.steps, options.guidance_scale, told, prompt.first_frame
            )
        if not bool(torch.isfinite(tokens).all()):
            raise JobFailure("internal_error", "The model's numbers came out invalid. Try another seed.")
        return tokens


@contextmanager
def one_thread() -> Generator[None]:
    """Let torch compute on one core in the block: mini's operations are so small that threads only wait for another.

    On two busy cores they took twenty times the processor time to wait.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


Denoise = Callable[["_Prompt", int, Reporter, int, int], Tensor]


class _Prompt:
    """What a run gives the model to go by; raises JobFailure for a reference that cannot be read."""

    def __init__(self, model: MiniModel, run: Run) -> None:
        reading = model.words.read(run.prompt)
        self.slots = reading.slots
        self.left_out = reading.left_out
        self.first_frame = np.array(cover(run.reference, WIDTH, HEIGHT)) if run.reference else None


class _Told:
    """What a person should know of a run's results."""

    def __init__(self, run: Run, prompt: _Prompt) -> None:
        self.upscaled_from = "" if (run.width, run.height) == (WIDTH, HEIGHT) else NATIVE
        redrawn = [_REDRAWN] if run.reference else []
        upscaled = [f"Rendered at {NATIVE} and upscaled to {run.width}x{run.height}."] if self.upscaled_from else []
        passed_over = [f"{run.model.name} leaves out {named(prompt.left_out)}: {_ONE}"] if prompt.left_out else []
        self.notes = (*passed_over, *redrawn, *upscaled)


class _Stills:
    """The images of one job. A class and not a generator, because a generator that raised is over."""

    def __init__(self, model: MiniModel, run: Run, report: Reporter, steps: int, denoise: Denoise) -> None:
        self._model = model
        self._run = run
        self._report = report
        self._steps = steps
        self._denoise = denoise
        self._prompt: _Prompt | None = None
        self._next = 0

    def __iter__(self) -> Iterator[Still]:
        return self

    def __next__(self) -> Still:
        """Raises JobFailure, what the reporter raises, and StopIteration after `run.n` attempts."""
        run, index = self._run, self._next
        if index == run.n:
            raise StopIteration
        self._next += 1
        if self._prompt is None:
            self._report.phase("loading")
            self._prompt = _Prompt(self._model, run)
            self._report.phase("denoising")
        seed, steps = run.seed + index, self._steps
        tokens = self._denoise(self._prompt, seed, self._report, index * steps, run.n * steps)
        if self._next == run.n:  # earlier, the phase would fall back with the next image
            self._report.phase("decoding")
        with one_thread():
            picture = enlarged(self._model.decode_still(tokens), run.width, run.height)
        told = _Told(run, self._prompt)
        return Still(picture, seed, told.upscaled_from, told.notes)


def enlarged(picture: Picture, width: int, height: int) -> Picture:
    """A picture at `width` x `height`: torch's bicubic resampling of bytes takes a third of Pillow's time."""
    if picture.shape[:2] == (height, width):
        return picture
    planes = torch.from_numpy(picture).permute(2, 0, 1)[None]
    larger = functional.interpolate(planes, size=(height, width), mode="bicubic", antialias=True)
    return np.ascontiguousarray(larger[0].permute(1, 2, 0).numpy())


def _delivered_pictures(pictures: Iterator[Picture], width: int, height: int) -> Generator[Picture]:
    """Each at its size; a generator, which whoever stops early can close. Running out of memory is told as such."""
    with memory_guard(), one_thread():
        for picture in pictures:
            yield enlarged(picture, width, height)


def _delivered_sound(wave: Sound, frames: int) -> Sound:
    """The model's sound [samples, 1] in the form that is delivered, as long as so many frames."""
    stereo = torch.from_numpy(wave).T.expand(2, -1)
    played = resample(stereo.to(torch.float64), OWN_RATE_HZ, SAMPLE_RATE_HZ).clamp(-1.0, 1.0)
    samples = round(frames * SAMPLE_RATE_HZ / FPS)
    return np.ascontiguousarray(played[:, :samples].T.to(torch.float32).numpy())
