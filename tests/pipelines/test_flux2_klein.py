"""FLUX.2 klein on a tiny checkpoint: passes, sizes, seeds, references, several images, progress, cancel, failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from scripts.tiny_models import cached
from tests.pipelines.tiny import CancelAt, Listener, a_picture, a_run, counting, inside, opened, tiny_spec
from zsky_box.errors import JobFailure
from zsky_box.manifest import WHOLE
from zsky_box.pipelines import loader
from zsky_box.pipelines.base import Cancelled, OutOfMemory, Pipeline

SPEC = tiny_spec("tiny-klein")


@pytest.fixture(scope="module")
def klein() -> Pipeline:
    return opened("tiny-klein")


def test_an_image_takes_four_passes(klein: Pipeline) -> None:
    with counting(inside(klein).transformer) as passes:
        (still,) = klein.images(a_run(SPEC), Listener())
    assert [call["hidden_states"].shape[0] for call in passes.calls] == [1] * 4
    assert still.picture.shape == (96, 128, 3)
    assert still.picture.dtype == np.uint8
    assert still.picture.std() > 1


def test_guidance_costs_a_distilled_model_nothing() -> None:
    pipeline = opened("tiny-klein", guidance_scale=4.0)
    with counting(inside(pipeline).transformer) as passes:
        list(pipeline.images(a_run(SPEC), Listener()))
    assert len(passes) == 4


def test_steps_are_the_manifests(klein: Pipeline) -> None:
    del klein
    pipeline = opened("tiny-klein", steps=2)
    listener = Listener()
    with counting(inside(pipeline).transformer) as passes:
        list(pipeline.images(a_run(SPEC, n=2), listener))
    assert len(passes) == 4
    assert listener.steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(("width", "height", "tokens"), [(1920, 1080, 120 * 68), (854, 480, 54 * 30), (128, 96, 8 * 6)])
def test_the_size_asked_for_is_cropped_from_the_models_grid(
    klein: Pipeline, width: int, height: int, tokens: int
) -> None:
    with counting(inside(klein).transformer) as passes:
        (still,) = klein.images(a_run(SPEC, width=width, height=height), Listener())
    assert passes.calls[0]["hidden_states"].shape[1] == tokens
    assert still.picture.shape == (height, width, 3)


def test_what_is_delivered_is_the_middle_of_what_was_rendered(klein: Pipeline) -> None:
    (rendered,) = klein.images(a_run(SPEC, width=128, height=96), Listener())
    (delivered,) = klein.images(a_run(SPEC, width=118, height=90), Listener())
    assert np.array_equal(delivered.picture, rendered.picture[3:93, 5:123])


def test_each_image_can_be_made_again_alone(klein: Pipeline) -> None:
    stills = list(klein.images(a_run(SPEC, n=3), Listener()))
    assert [still.seed for still in stills] == [7, 8, 9]
    (alone,) = klein.images(a_run(SPEC, seed=8), Listener())
    assert np.array_equal(alone.picture, stills[1].picture)
    assert not np.array_equal(stills[0].picture, stills[1].picture)


def test_the_prompt_decides_too(klein: Pipeline) -> None:
    (ball,), (cube,) = (klein.images(a_run(SPEC, prompt=text), Listener()) for text in ("a red ball", "a blue cube"))
    assert not np.array_equal(ball.picture, cube.picture)


def test_images_are_rendered_one_after_another_as_they_are_asked_for(klein: Pipeline) -> None:
    with counting(inside(klein).transformer) as passes, counting(inside(klein).text_encoder) as encoded:
        stills = klein.images(a_run(SPEC, n=2), Listener())
        assert len(passes) == 0
        next(stills)
        assert len(passes) == 4
        next(stills)
        assert (len(passes), len(encoded)) == (8, 1)
        with pytest.raises(StopIteration):
            next(stills)


def test_progress_counts_the_steps_of_all_images(klein: Pipeline) -> None:
    listener = Listener()
    list(klein.images(a_run(SPEC, n=3), listener))
    assert listener.phases == ["loading", "denoising", "decoding"]
    assert listener.steps == [(step, 12) for step in range(1, 13)]


@pytest.mark.parametrize("at", [1, 4, 6])
def test_a_cancelled_job_computes_nothing_more_and_leaves_the_model_usable(klein: Pipeline, at: int) -> None:
    pipe = inside(klein)
    (before,) = klein.images(a_run(SPEC), Listener())
    with (
        counting(pipe.transformer) as passes,
        counting(pipe.vae.decoder) as decodes,
        pytest.raises(Cancelled),
    ):
        list(klein.images(a_run(SPEC, seed=99, n=2), CancelAt(at)))
    assert (len(passes), len(decodes)) == (at, (at - 1) // 4)
    (after,) = klein.images(a_run(SPEC), Listener())
    assert np.array_equal(after.picture, before.picture)


def test_after_an_image_that_failed_the_others_still_come(klein: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    stills = klein.images(a_run(SPEC, n=3), Listener())
    first = next(stills)

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("this one does not come out")

    with monkeypatch.context() as patch:
        patch.setattr(inside(klein).transformer, "forward", broken)
        with pytest.raises(RuntimeError, match="does not come out"):
            next(stills)
    rest = list(stills)
    assert [first.seed, *(still.seed for still in rest)] == [7, 9]


def test_running_out_of_memory_is_said_so(klein: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(inside(klein).vae.decoder, "forward", exhausted)
    with pytest.raises(OutOfMemory):
        next(klein.images(a_run(SPEC), Listener()))


def test_it_runs_in_bfloat16() -> None:
    spec = replace(SPEC, dtype="bfloat16")
    (still,) = loader("flux2_klein")(spec, WHOLE, cached("tiny-klein"), "cpu").images(a_run(spec), Listener())
    assert still.picture.std() > 1


def test_it_makes_no_video(klein: Pipeline) -> None:
    with pytest.raises(JobFailure, match="no video"):
        klein.video(a_run(SPEC), Listener())


def test_the_pipeline_is_called_with_keywords_only(klein: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(inside(klein))
    call = kind.__call__
    positional: list[tuple[Any, ...]] = []

    def spied(pipe: Any, *args: Any, **kwargs: Any) -> Any:
        positional.append(args)
        return call(pipe, *args, **kwargs)

    monkeypatch.setattr(kind, "__call__", spied)
    list(klein.images(a_run(SPEC), Listener()))
    assert positional == [()]


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        ((128, 96), 8 * 6),
        ((300, 100), 18 * 6),
        ((1, 1), 4 * 4),
        ((2000, 10), 32 * 4),  # no longer than 8 to 1, no side below 64
        ((70, 900), 4 * 35),
        ((3000, 2000), 78 * 52),  # scaled down to 1024² pixels
    ],
)
def test_a_reference_is_seen_whole_and_leaves_the_size_asked_for(
    size: tuple[int, int], tokens: int, tmp_path: Path
) -> None:
    pipeline = opened("tiny-klein", steps=1)
    run = a_run(SPEC, width=118, height=90, reference=a_picture(tmp_path, *size))
    with counting(inside(pipeline).transformer) as passes:
        (still,) = pipeline.images(run, Listener())
    assert [call["hidden_states"].shape[1] for call in passes.calls] == [8 * 6 + tokens]
    assert still.picture.shape == (90, 118, 3)


def test_a_reference_acts_and_is_forgotten_with_its_job(klein: Pipeline, tmp_path: Path) -> None:
    (before,) = klein.images(a_run(SPEC), Listener())
    (edited,) = klein.images(a_run(SPEC, reference=a_picture(tmp_path, 128, 96)), Listener())
    (after,) = klein.images(a_run(SPEC), Listener())
    assert not np.array_equal(edited.picture, before.picture)
    assert np.array_equal(after.picture, before.picture)


def test_strength_means_nothing_here(klein: Pipeline, tmp_path: Path) -> None:
    run = a_run(SPEC, reference=a_picture(tmp_path, 128, 96))
    (one,), (other,) = (klein.images(replace(run, strength=strength), Listener()) for strength in (None, 0.2))
    assert np.array_equal(one.picture, other.picture)


def test_images_from_one_reference_can_be_made_again_alone(tmp_path: Path) -> None:
    run = a_run(SPEC, n=3, reference=a_picture(tmp_path, 300, 100))
    batched = loader("flux2_klein")(SPEC, replace(WHOLE, images_at_once=3), cached("tiny-klein"), "cpu")
    with counting(inside(batched).transformer) as passes:
        stills = list(batched.images(run, Listener()))
    assert len(passes) == 4
    for index, still in enumerate(stills):
        (alone,) = opened("tiny-klein").images(replace(run, n=1, seed=7 + index), Listener())
        assert np.abs(alone.picture.astype(int) - still.picture).max() <= 2


def test_a_reference_that_is_no_picture_is_said_to_be_unreadable(klein: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "reference.png").write_bytes(b"GIF89a")
    with pytest.raises(JobFailure, match="Upload it again"):
        list(klein.images(a_run(SPEC, reference=str(tmp_path / "reference.png")), Listener()))
