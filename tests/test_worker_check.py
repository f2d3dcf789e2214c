from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.doubles.driving import SPEC, Said, a_run, hear, working
from tests.doubles.worker_acting_out import BLOCKED_LABEL, BLOCKED_SEED
from zsky_box.errors import JobFailure
from zsky_box.events import Check, Done, Failed, Progress, Run
from zsky_box.manifest import ImageClassifierOptions, Licence, ModelSpec
from zsky_box.pipelines.base import Clip, Picture, Still
from zsky_box.worker import Worker
from zsky_box.worker_check import SIDE_MAX, Checker, Samples, blocking, shrunk


def a_check(name: str = "double-check", *, weights_dir: str = "", **options: Any) -> Check:
    chosen: dict[str, Any] = {"blocked_labels": (BLOCKED_LABEL,), "threshold": 0.9, **options}
    spec = ModelSpec(
        name=name,
        title="Double",
        makes=(),
        licence=Licence(name="Apache-2.0"),
        options=ImageClassifierOptions(**chosen),
    )
    return Check(model=spec, weights_dir=weights_dir)


def level(value: int, width: int = 64, height: int = 36) -> Picture:
    return np.full((height, width, 3), value, np.uint8)


def a_clip(frames: int) -> tuple[Clip, list[int]]:
    """A clip whose picture number i is all i, and the numbers of those that were closed before their end."""
    closed: list[int] = []

    def pictures() -> Generator[Picture]:
        index = 0
        try:
            for index in range(frames):
                yield level(index)
        finally:
            closed.append(index)

    return Clip(64, 36, 24, frames, pictures(), np.zeros((0, 2), np.float32)), closed


# What is looked at


@pytest.mark.parametrize(
    ("frames", "asked", "expected"),
    [
        (121, 8, [7, 22, 37, 52, 68, 83, 98, 113]),
        (121, 1, [60]),
        (8, 8, list(range(8))),
        (3, 8, [0, 1, 2]),
        (1, 8, [0]),
    ],
)
def test_of_a_clip_pictures_are_kept_evenly_while_all_stream_by(
    tmp_path: Path, frames: int, asked: int, expected: list[int]
) -> None:
    samples = Samples(a_run(tmp_path, check=a_check(frames=asked)))
    clip, _ = a_clip(frames)
    assert [int(picture[0, 0, 0]) for picture in samples.of_clip(clip).pictures] == list(range(frames))
    assert [int(sample.picture[0, 0, 0]) for sample in samples.kept] == expected


def test_a_kept_picture_is_a_copy(tmp_path: Path) -> None:
    samples, picture = Samples(a_run(tmp_path, check=a_check())), level(5)
    clip = Clip(64, 36, 24, 1, iter([picture]), np.zeros((0, 2), np.float32))
    for passing in samples.of_clip(clip).pictures:
        passing[:] = 0  # as the wordmark is drawn into it
    assert int(samples.kept[0].picture.max()) == 5


def test_a_stream_that_is_closed_closes_its_source(tmp_path: Path) -> None:
    clip, closed = a_clip(10)
    passing = Samples(a_run(tmp_path, check=a_check())).of_clip(clip).pictures
    next(passing)
    assert isinstance(passing, Generator)
    passing.close()
    assert closed == [0]


def test_without_a_check_nothing_is_kept_and_the_clip_is_untouched(tmp_path: Path) -> None:
    samples, (clip, _) = Samples(a_run(tmp_path)), a_clip(3)
    assert samples.of_clip(clip) is clip
    samples.of_stills({0: Still(level(1), 1)})
    assert samples.kept == []


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (2520, 1080), (513, 20), (512, 512), (40, 30)])
def test_copies_are_bounded_and_keep_their_look(size: tuple[int, int]) -> None:
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, width // 2 :] = 200
    small = shrunk(picture)
    assert max(small.shape[:2]) <= SIDE_MAX
    assert small.shape[1] / small.shape[0] == pytest.approx(width / height, rel=0.06)
    assert small.dtype == np.uint8
    assert float(small.mean()) == pytest.approx(float(picture.mean()), abs=2.0)


# The verdict


def test_the_surest_of_the_labels_that_reach_the_threshold_blocks() -> None:
    options = ImageClassifierOptions(blocked_labels=("a", "b"), threshold=0.6)
    assert blocking({"a": 0.59, "b": 0.1, "c": 0.99}, options) is None
    assert blocking({"a": 0.6, "b": 0.1, "c": 0.3}, options) == "a"
    assert blocking({"a": 0.7, "b": 0.8, "c": 0.0}, options) == "b"


class Counting:
    """A classifier that sees nothing, and its loader; counts."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.closed = 0

    def load(self, check: Check) -> Counting:
        self.loaded.append(check.weights_dir)
        return self

    def scores(self, pictures: Sequence[Picture]) -> list[dict[str, float]]:
        return [{BLOCKED_LABEL: 0.0} for _ in pictures]

    def close(self) -> None:
        self.closed += 1


def looked(checker: Checker, run: Run) -> tuple[str, ...]:
    samples = Samples(run)
    samples.of_stills({0: Still(level(1), 1)})
    return checker.look(run, samples)


def test_the_classifier_is_loaded_once_and_anew_when_it_is_another(tmp_path: Path) -> None:
    counting = Counting()
    checker = Checker(counting.load)
    for folder in ("one", "one", "two"):
        assert looked(checker, a_run(tmp_path, check=a_check(weights_dir=folder))) == ("double-check",)
    assert (counting.loaded, counting.closed) == (["one", "two"], 1)
    assert looked(checker, a_run(tmp_path)) == ()
    checker.close()
    assert counting.closed == 2


def test_a_check_with_nothing_to_look_at_clears_nothing(tmp_path: Path) -> None:
    run = a_run(tmp_path, check=a_check())
    with pytest.raises(JobFailure, match="nothing for the output check"):
        Checker(Counting().load).look(run, Samples(run))


def test_a_model_that_is_no_check_clears_nothing(tmp_path: Path) -> None:
    with pytest.raises(JobFailure, match="leader is no output check"):
        Samples(a_run(tmp_path, check=Check(model=SPEC, weights_dir="")))


# In a child


def outcome(worker: Worker, run: Run) -> tuple[Said, Done | Failed]:
    worker.send(run)
    said = hear(worker, lambda said: any(isinstance(message, Done | Failed) for message in said))
    return said, next(message for message in said if isinstance(message, Done | Failed))


@pytest.mark.parametrize("kind", ["video", "image"])
def test_what_is_checked_says_so_and_what_is_not_does_not(tmp_path: Path, kind: str) -> None:
    with working() as worker:
        for check, expected in ((a_check(), ("double-check",)), (None, ())):
            _, done = outcome(worker, a_run(tmp_path, type=kind, check=check))
            assert isinstance(done, Done)
            assert done.checked == expected


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"type": "video"}, "the picture at 0."),
        ({"type": "image"}, "the image shows"),
        ({"type": "image", "n": 3, "seed": BLOCKED_SEED - 1}, "image 2 of 3"),
    ],
)
def test_one_blocked_picture_ends_the_job_and_leaves_no_result(
    tmp_path: Path, changes: dict[str, Any], place: str
) -> None:
    with working() as worker:
        changes = {"seed": BLOCKED_SEED, "check": a_check(), **changes}
        _, failed = outcome(worker, a_run(tmp_path, **changes))
        assert isinstance(failed, Failed)
        assert (failed.error_code, failed.fatal) == ("safety_blocked", False)
        assert place in failed.message
        assert "'white'" in failed.message
        assert {path.name for path in tmp_path.iterdir()} <= {"aborted"}, "an encoder that ran was told to stop"
        assert (tmp_path / "aborted").exists() == (changes["type"] == "video")
        _, done = outcome(worker, a_run(tmp_path, check=a_check()))
        assert isinstance(done, Done), "the child goes on"


@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize(
    ("name", "code", "fatal", "told"),
    [
        ("breaks-in-load", "internal_error", False, "breaks-in-load cannot be loaded"),
        ("breaks", "internal_error", False, "nothing is given out unchecked"),
        ("out-of-memory", "out_of_memory", True, "out of memory"),
    ],
)
def test_a_check_that_cannot_be_made_gives_nothing_out(
    tmp_path: Path, kind: str, name: str, code: str, *, fatal: bool, told: str
) -> None:
    with working() as worker:
        _, failed = outcome(worker, a_run(tmp_path, type=kind, check=a_check(name)))
    assert isinstance(failed, Failed)
    assert (failed.error_code, failed.fatal) == (code, fatal)
    assert told in failed.message
    assert {path.name for path in tmp_path.iterdir()} <= {"aborted"}


def test_nobody_sees_a_preview_of_what_is_still_to_be_checked(tmp_path: Path) -> None:
    with working() as worker:
        for check, expected in ((None, True), (a_check(), False)):
            said, _ = outcome(worker, a_run(tmp_path, check=check, preview_steps=1))
            assert any(message.preview for message in said if isinstance(message, Progress)) is expected
