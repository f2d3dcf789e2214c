"""What a worker child's loop drives: the model families and the encoders, imported when they are first needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from zsky_box.errors import JobFailure
from zsky_box.events import Check, File, Run
from zsky_box.pipelines.base import Classifier, Clip, Pipeline, Still
from zsky_box.worker_attempt import Attempt, failure_of, log_failure

WITHOUT_TORCH: Final = frozenset({"leader"})


OnFrame = Callable[[int, int], None]


class Tail(Protocol):
    """A clip whose frames are all fed: `finish` waits for the encoder and returns the files, `abort` leaves none."""

    def finish(self) -> list[File]: ...
    def abort(self) -> None: ...


class FeedClip(Protocol):
    """See `media.video.feed_clip`."""

    def __call__(
        self,
        clip: Clip,
        folder: Path,
        stem: str,
        *,
        seed: int,
        ffmpeg: str | None,
        on_frame: OnFrame | None,
        wordmarked: bool,
    ) -> Tail: ...


class WriteStill(Protocol):
    """See `media.stills.write_still`."""

    def __call__(self, still: Still, folder: Path, stem: str, ordinal: int, *, wordmarked: bool) -> list[File]: ...


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The loaders and `measure` are given the device as the child sees it; all may raise what `failure_of` sorts.

    `measure` tells what the device does: floating-point operations a second.
    """

    load: Callable[[Run, str], Pipeline]
    load_check: Callable[[Check, str], Classifier]
    warm: Callable[[str], None]
    measure: Callable[[str], float]
    versions: Callable[[str], dict[str, str]]
    feed_clip: FeedClip
    write_still: WriteStill


@dataclass(frozen=True)
class Outcome:
    """What an attempt made; `missing` are the ordinals of images that failed, `checked` the checks that ran."""

    files: list[File]
    missing: list[int]
    notes: list[str]
    checked: tuple[str, ...] = ()


def write_stills(
    engine: Engine, attempt: Attempt, stills: dict[int, Still], trouble: Exception | None, checked: tuple[str, ...] = ()
) -> Outcome:
    """Write what was made, by ordinal; an image that fails takes no other along. Raises only when none is left.

    `trouble` is why not all images of the Run are there.
    """
    run = attempt.run
    files: list[File] = []
    notes: list[str] = []
    missing = [ordinal for ordinal in range(run.n) if ordinal not in stills]
    for ordinal, still in stills.items():
        attempt.check()
        try:
            wordmarked = ordinal < run.wordmarked
            files.extend(engine.write_still(still, Path(run.out_dir), run.stem, ordinal, wordmarked=wordmarked))
            notes.extend(note for note in still.notes if note not in notes)
        except Exception as error:  # noqa: BLE001 - logged and told, while the other images go on
            log_failure(attempt, error)
            trouble = error
            missing.append(ordinal)
    missing.sort()
    if not files:
        raise trouble or JobFailure("internal_error", "The model made no image.")
    if not missing:
        return Outcome(files, missing, notes, checked)
    reason = failure_of(trouble)[1] if trouble else "The model made fewer than asked."
    return Outcome(files, missing, [*notes, f"{len(missing)} of {run.n} images failed. {reason}"], checked)


def told_of_wordmark(run: Run, files: list[File]) -> list[str]:
    """What a person should know of the wordmark on these files; nothing where none of them bears it."""
    ordinals = [file.ordinal for file in files if file.kind == "result"]
    bearing = sum(ordinal < run.wordmarked for ordinal in ordinals)
    if not bearing:
        return []
    where = "it" if len(ordinals) == 1 else f"{bearing} of {len(ordinals)} images"
    return [f"Made with the free plan: the wordmark is on {where}."]


def real_engine() -> Engine:
    """The model families and encoders of this version; torch is imported when a family needs it, and never before."""
    from zsky_box.media.stills import write_still
    from zsky_box.media.video import feed_clip
    from zsky_box.pipelines import loader
    from zsky_box.worker_meter import measure

    def load(run: Run, device: str) -> Pipeline:
        return loader(run.model.family)(run.model, run.recipe, Path(run.weights_dir), device)

    def load_check(check: Check, device: str) -> Classifier:
        from zsky_box.pipelines import image_classifier

        return image_classifier.load(check.model, Path(check.weights_dir), device)

    def warm(family: str) -> None:
        if family not in WITHOUT_TORCH:
            from zsky_box.pipelines import loading

            loading.warm(family)

    def versions(family: str) -> dict[str, str]:
        if family in WITHOUT_TORCH:
            return {}
        from zsky_box.pipelines import loading

        return loading.versions()

    return Engine(
        load=load,
        load_check=load_check,
        warm=warm,
        measure=measure,
        versions=versions,
        feed_clip=feed_clip,
        write_still=write_still,
    )
