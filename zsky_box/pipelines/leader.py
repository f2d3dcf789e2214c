"""The film leader: a countdown with a slate and a sync mark, drawn and synthesised without a model.

It answers test keys, and any box that has no model yet. What anyone can measure on it: one white frame, and a 1 kHz
tone that begins with that frame's first sample and ends with its last: the 2-pop, two seconds before the end (in clips
under four seconds, in the middle). Nothing else is bright, and nothing else is heard. The same request gives the same
pixels and samples; another seed looks different.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from zsky_box.errors import JobFailure
from zsky_box.events import Run
from zsky_box.manifest import ModelSpec, Recipe
from zsky_box.pipelines.base import SAMPLE_RATE_HZ, Clip, Picture, Reporter, Sound, Still
from zsky_box.pipelines.leader_dial import Dial
from zsky_box.pipelines.leader_plate import Look, Plate, Texts

STEPS: Final = 4
POP_HZ: Final = 1_000
POP_LEVEL: Final = 0.5  # -6 dBFS
POP_SECONDS_BEFORE_END: Final = 2
SLOW_SECONDS = 20.0  # what `test:slow` takes
_SLOW_TICK_SECONDS: Final = 0.1


def load(spec: ModelSpec, recipe: Recipe, folder: Path, device: str) -> Leader:  # noqa: ARG001 (there are no weights, and no device is used)
    """The leader is its own code."""
    return Leader()


class Leader:
    """Draws clips and stills; keeps nothing between jobs."""

    def video(self, run: Run, report: Reporter) -> Clip:
        """A countdown of `run.frames` frames; raises JobFailure for the test prompts that ask for one."""
        _steps(run, report, STEPS)
        sound = pop_sound(run.frames, run.fps)
        return Clip(run.width, run.height, run.fps, run.frames, _countdown(run), sound)

    def images(self, run: Run, report: Reporter) -> Iterator[Still]:
        """One card for each image, with its own seed; raises JobFailure for the test prompts that ask for one."""
        _steps(run, report, STEPS * run.n)
        for ordinal in range(run.n):
            report.phase("decoding")
            yield Still(_card(run, ordinal), run.seed + ordinal)

    def close(self) -> None:
        """There is nothing to give back."""


def flash_frame(frames: int, fps: int) -> int:
    """The index of the white frame: two seconds before the end, in clips under four seconds the middle one."""
    pop = POP_SECONDS_BEFORE_END * fps
    return frames - pop if frames >= 2 * pop else frames // 2


def pop_sound(frames: int, fps: int) -> Sound:
    """Silence of the clip's length, but for the tone that fills exactly the white frame: float32 [samples, 2]."""
    flash = flash_frame(frames, fps)
    start, stop, end = (round(frame * SAMPLE_RATE_HZ / fps) for frame in (flash, flash + 1, frames))
    sound = np.zeros((end, 2), np.float32)
    middles = np.arange(stop - start) + 0.5  # no sample is a zero crossing: the very first is heard
    sound[start:stop] = (POP_LEVEL * np.sin(2 * np.pi * POP_HZ / SAMPLE_RATE_HZ * middles))[:, None]
    return sound


def timecode(frame: int, fps: int) -> str:
    """Hours, minutes, seconds and frames, counted from zero."""
    seconds, rest = divmod(frame, fps)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}:{rest:02}"


def countdown(frame: int, frames: int, fps: int) -> tuple[int, float]:
    """The number on the dial, which is the second from the end, and the turn of its sweep (0 to 1).

    A first second that is shorter than half of one has no number of its own.
    """
    left = frames - frame
    number = -(-left // fps)
    if number > max(1, round(frames / fps)):
        return number - 1, 0.0
    return number, (number * fps - left) / fps


def _steps(run: Run, report: Reporter, steps: int) -> None:
    """Report the steps; a test run's prompt may act out one of the ends that a client must handle."""
    act = run.prompt.strip() if run.test else ""
    report.phase("denoising")
    for step in range(1, steps + 1):
        if act == "test:slow":
            _linger(report, SLOW_SECONDS / steps)
        report.step(step, steps)
        if act == "test:fail":
            raise JobFailure("internal_error", "The test prompt test:fail asked for this failure.")
    if act == "test:safety":
        raise JobFailure("safety_blocked", "The test prompt test:safety asked to be blocked.")


def _linger(report: Reporter, seconds: float) -> None:
    """Take time, and ask about cancelling ten times a second."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        report.phase("denoising")
        time.sleep(_SLOW_TICK_SECONDS)


def _countdown(run: Run) -> Iterator[Picture]:
    """The frames; only the sweep's new sector and the timecode are drawn for each."""
    look = Look.of(run.seed)
    fields = [("SEED", str(run.seed)), ("SIZE", f"{run.width} x {run.height}")]
    fields += [("RATE", f"{run.fps} fps"), ("LENGTH", f"{run.frames} frames")]
    plate = Plate(run.width, run.height, look, Texts(run.prompt, fields, "TIMECODE"), test=run.test)
    dial = Dial(plate, look)
    left, top, side, _ = plate.dial
    flash = flash_frame(run.frames, run.fps)
    shown = 0
    for frame in range(run.frames):
        if frame == flash:
            yield np.full_like(plate.picture, 255)
            continue
        number, turn = countdown(frame, run.frames, run.fps)
        if number != shown:
            shown = number
            dial.label(str(number))
        dial.sweep(turn)
        picture = plate.picture.copy()
        picture[top : top + side, left : left + side] = dial.face
        plate.write(picture, timecode(frame, run.fps))
        yield picture


def _card(run: Run, ordinal: int) -> Picture:
    """One still: the dial shows which image of how many this is."""
    seed = run.seed + ordinal
    look = Look.of(seed)
    fields = [("SEED", str(seed)), ("SIZE", f"{run.width} x {run.height}")]
    plate = Plate(run.width, run.height, look, Texts(run.prompt, fields, f"IMAGE (OF {run.n})"), test=run.test)
    dial = Dial(plate, look)
    dial.label(f"{ordinal + 1}/{run.n}" if run.n > 1 else "1")
    dial.sweep((ordinal + 1) / run.n if run.n > 1 else 0.0)
    picture = plate.picture.copy()
    left, top, side, _ = plate.dial
    picture[top : top + side, left : left + side] = dial.face
    plate.write(picture, f"{ordinal + 1:02}")
    return picture
