"""The output check of a worker child: a classifier looks at what was made, before any of it counts as a result.

Of a clip, copies of a few pictures are kept on their way to the encoder, so that it streams as ever; of images, one of
each. The box never claims a check that did not run: a classifier that cannot be loaded or stops ends the job.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from PIL import Image

from zsky_box.errors import JobFailure
from zsky_box.events import Check, Run
from zsky_box.manifest import ImageClassifierOptions
from zsky_box.pipelines.base import Cancelled, Classifier, Clip, Picture, Still
from zsky_box.worker_attempt import is_device_lost, is_out_of_memory

SIDE_MAX: Final = 512
"""Copies are shrunk to it, in whole steps: 64 of them are 50 MB at most. Classifiers look at less."""

log = logging.getLogger("zsky_box.worker")


@dataclass(frozen=True)
class Sample:
    """A copy of a picture, and how a person is told which one it is."""

    picture: Picture
    place: str


class Samples:
    """What of one Run's result is looked at; nothing where the Run names no check."""

    def __init__(self, run: Run) -> None:
        self.kept: list[Sample] = []
        self._n = run.n
        self._count = 0 if run.check is None else _options(run.check).frames

    def of_clip(self, clip: Clip) -> Clip:
        """The same clip; while its pictures stream by, copies of some are kept, evenly over its length."""
        return replace(clip, pictures=self._passing(clip)) if self._count else clip

    def _passing(self, clip: Clip) -> Generator[Picture]:
        count = min(self._count, clip.frames)
        wanted = {(2 * part + 1) * clip.frames // (2 * count) for part in range(count)}  # the middle of each part
        pictures = clip.pictures
        try:
            for index, picture in enumerate(pictures):
                if index in wanted:
                    self.kept.append(Sample(shrunk(picture), f"the picture at {index / clip.fps:.1f} s"))
                yield picture
        finally:
            if isinstance(pictures, Generator):
                pictures.close()

    def of_stills(self, stills: dict[int, Still]) -> None:
        """Keep a copy of each, by ordinal."""
        if self._count:
            self.kept += [
                Sample(shrunk(still.picture), f"image {ordinal + 1} of {self._n}" if self._n > 1 else "the image")
                for ordinal, still in stills.items()
            ]


class Checker:
    """Holds one classifier, loaded when a Run first names it. Belongs to the child's main thread."""

    def __init__(self, load: Callable[[Check], Classifier]) -> None:
        self._load = load
        self._held: tuple[Check, Classifier] | None = None

    def look(self, run: Run, samples: Samples) -> tuple[str, ...]:
        """The names of the checks that looked at everything kept, and blocked nothing.

        Raises JobFailure `safety_blocked` for what the check blocks: one picture blocks the whole job. Everything that
        keeps the check from being made is raised too, so that nothing is given out unchecked.
        """
        check = run.check
        if check is None:
            return ()
        name = check.model.name
        try:
            if not samples.kept:
                raise JobFailure("internal_error", f"There was nothing for the output check {name} to look at.")
            scores = self._classifier(check).scores([sample.picture for sample in samples.kept])
        except (Cancelled, JobFailure):
            raise
        except Exception as error:
            self.close()
            if is_out_of_memory(error) or is_device_lost(error):
                raise
            log.exception("the output check %s stopped", name)
            told = f"The output check {name} stopped unexpectedly, and nothing is given out unchecked."
            raise JobFailure("internal_error", told) from error
        for sample, shown in zip(samples.kept, scores, strict=True):
            if label := blocking(shown, _options(check)):
                told = f"The output check {name} blocked the result: {sample.place} shows {label!r}."
                raise JobFailure("safety_blocked", told)
        return (name,)

    def close(self) -> None:
        """Give the classifier's memory back."""
        held, self._held = self._held, None
        if held is not None:
            try:
                held[1].close()
            except Exception:
                log.exception("closing the output check %s failed", held[0].model.name)

    def _classifier(self, check: Check) -> Classifier:
        if self._held is None or self._held[0] != check:
            self.close()
            self._held = (check, self._load(check))
        return self._held[1]


def blocking(scores: dict[str, float], options: ImageClassifierOptions) -> str | None:
    """The label that blocks a picture, the surest first; None where none reaches the threshold."""
    reached = [label for label in options.blocked_labels if scores[label] >= options.threshold]
    return max(reached, key=lambda label: scores[label], default=None)


def shrunk(picture: Picture) -> Picture:
    """A copy whose longer side is at most SIDE_MAX, averaged over whole blocks of pixels."""
    factor = -(-max(picture.shape[:2]) // SIDE_MAX)
    if factor == 1:
        return picture.copy()
    return np.asarray(Image.fromarray(picture).reduce(factor), np.uint8)


def _options(check: Check) -> ImageClassifierOptions:
    options = check.model.options
    if not isinstance(options, ImageClassifierOptions):
        raise JobFailure("internal_error", f"{check.model.name} is no output check: it is of the {check.model.family}.")
    return options
