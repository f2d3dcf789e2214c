"""Z-Image on a tiny checkpoint: passes, sizes, seeds, references, progress, cancel, failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image

from scripts.tiny_models import cached
from tests.pipelines.tiny import CancelAt, Listener, a_picture, a_run, counting, inside, opened, tiny_spec
from zsky_box.errors import JobFailure
from zsky_box.manifest import WHOLE
from zsky_box.pipelines import loader
from zsky_box.pipelines.base import Cancelled, OutOfMemory, Pipeline
from zsky_box.pipelines.reference import cover, framed

SPEC = tiny_spec("tiny-z-image")


@pytest.fixture(scope="module")
def z_image() -> Pipeline:
    return opened("tiny-z-image")


def test_an_image_takes_eight_passes(z_image: Pipeline) -> None:
    with counting(inside(z_image).transformer) as passes:
        (still,) = z_image.images(a_run(SPEC), Listener())
    assert len(passes) == 8
    assert still.picture.shape == (96, 128, 3)
    assert still.picture.dtype == np.uint8
    assert still.picture.std() > 1


def test_steps_are_the_manifests() -> None:
    pipeline = opened("tiny-z-image", steps=3)
    listener = Listener()
    with counting(inside(pipeline).transformer) as passes:
        list(pipeline.images(a_run(SPEC, n=2), listener))
    assert len(passes) == 6
    assert listener.steps == [(step, 6) for step in range(1, 7)]


def test_a_negative_prompt_acts_only_where_there_is_guidance(z_image: Pipeline) -> None:
    guided = opened("tiny-z-image", guidance_scale=3.0, steps=2)
    for pipeline, texts, acts in ((guided, 2, True), (z_image, 1, False)):
        with counting(inside(pipeline).text_encoder) as encoded:
            (plain,) = pipeline.images(a_run(SPEC), Listener())
        assert len(encoded) == texts
        (negative,) = pipeline.images(a_run(SPEC, negative_prompt="a blue cube"), Listener())
        assert bool((plain.picture != negative.picture).any()) == acts


@pytest.mark.parametrize(("width", "height", "rendered"), [(1920, 1080, (1920, 1088)), (854, 480, (864, 480))])
def test_the_size_asked_for_is_cropped_from_the_models_grid(width: int, height: int, rendered: tuple[int, int]) -> None:
    pipeline = opened("tiny-z-image", steps=1)
    with counting(inside(pipeline).vae.decoder) as decodes:
        (still,) = pipeline.images(a_run(SPEC, width=width, height=height), Listener())
    assert decodes.args[0][0].shape == (1, 16, rendered[1] // 8, rendered[0] // 8)
    assert still.picture.shape == (height, width, 3)


def test_what_is_delivered_is_the_middle_of_what_was_rendered(z_image: Pipeline) -> None:
    (rendered,) = z_image.images(a_run(SPEC, width=128, height=96), Listener())
    (delivered,) = z_image.images(a_run(SPEC, width=118, height=90), Listener())
    assert np.array_equal(delivered.picture, rendered.picture[3:93, 5:123])


def test_it_is_the_picture_that_the_library_makes(z_image: Pipeline) -> None:
    (ours,) = z_image.images(a_run(SPEC), Listener())
    theirs = inside(z_image)(
        prompt=a_run(SPEC).prompt,
        width=128,
        height=96,
        num_inference_steps=8,
        guidance_scale=0.0,
        max_sequence_length=64,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="np",
    ).images[0]
    assert np.array_equal(ours.picture, np.rint(theirs * 255).astype(np.uint8))


def test_each_image_can_be_made_again_alone(z_image: Pipeline) -> None:
    stills = list(z_image.images(a_run(SPEC, n=3), Listener()))
    assert [still.seed for still in stills] == [7, 8, 9]
    (alone,) = z_image.images(a_run(SPEC, seed=8), Listener())
    assert np.array_equal(alone.picture, stills[1].picture)
    assert not np.array_equal(stills[0].picture, stills[1].picture)


def test_a_seed_outlives_the_process_and_other_jobs(z_image: Pipeline) -> None:
    (before,) = z_image.images(a_run(SPEC), Listener())
    list(z_image.images(a_run(SPEC, prompt="a blue cube", seed=3, width=64), Listener()))
    torch.manual_seed(2)
    (after,) = z_image.images(a_run(SPEC), Listener())
    (fresh,) = opened("tiny-z-image").images(a_run(SPEC), Listener())
    assert np.array_equal(after.picture, before.picture)
    assert np.array_equal(fresh.picture, before.picture)


def test_the_prompt_decides_too(z_image: Pipeline) -> None:
    (ball,), (cube,) = (z_image.images(a_run(SPEC, prompt=text), Listener()) for text in ("a red ball", "a blue cube"))
    assert not np.array_equal(ball.picture, cube.picture)


@pytest.mark.parametrize("prompt", ["", "∿ 音 🎬", "word " * 20_000])
def test_any_text_is_a_prompt(prompt: str) -> None:
    (still,) = opened("tiny-z-image", steps=1).images(a_run(SPEC, prompt=prompt), Listener())
    assert still.picture.shape == (96, 128, 3)


def test_images_are_rendered_one_after_another_as_they_are_asked_for(z_image: Pipeline) -> None:
    with counting(inside(z_image).transformer) as passes, counting(inside(z_image).text_encoder) as encoded:
        stills = z_image.images(a_run(SPEC, n=2), Listener())
        assert len(passes) == 0
        next(stills)
        assert len(passes) == 8
        next(stills)
        assert (len(passes), len(encoded)) == (16, 1)
        with pytest.raises(StopIteration):
            next(stills)


def test_progress_counts_the_steps_of_all_images(z_image: Pipeline) -> None:
    listener = Listener()
    list(z_image.images(a_run(SPEC, n=2), listener))
    assert listener.phases == ["loading", "denoising", "decoding"]
    assert listener.steps == [(step, 16) for step in range(1, 17)]


@pytest.mark.parametrize("at", [1, 8, 11])
def test_a_cancelled_job_computes_nothing_more_and_leaves_the_model_usable(z_image: Pipeline, at: int) -> None:
    pipe = inside(z_image)
    (before,) = z_image.images(a_run(SPEC), Listener())
    with counting(pipe.transformer) as passes, counting(pipe.vae.decoder) as decodes, pytest.raises(Cancelled):
        list(z_image.images(a_run(SPEC, seed=99, n=2), CancelAt(at)))
    assert (len(passes), len(decodes)) == (at, (at - 1) // 8)
    (after,) = z_image.images(a_run(SPEC), Listener())
    assert np.array_equal(after.picture, before.picture)


@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_running_out_of_memory_is_said_so(z_image: Pipeline, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(getattr(inside(z_image), part), "forward", exhausted)
    with pytest.raises(OutOfMemory):
        next(z_image.images(a_run(SPEC), Listener()))


def test_it_runs_in_bfloat16() -> None:
    spec = replace(SPEC, dtype="bfloat16")
    (still,) = loader("z_image")(spec, WHOLE, cached("tiny-z-image"), "cpu").images(a_run(spec), Listener())
    assert still.picture.std() > 1


def test_it_makes_no_video(z_image: Pipeline) -> None:
    with pytest.raises(JobFailure, match="no video"):
        z_image.video(a_run(SPEC), Listener())


def test_a_manifest_that_does_not_fit_is_refused() -> None:
    with pytest.raises(JobFailure, match="family"):
        loader("z_image")(tiny_spec("tiny-klein"), WHOLE, cached("tiny-klein"), "cpu")
    with pytest.raises(JobFailure, match="grid"):
        loader("z_image")(replace(SPEC, size_multiple=8), WHOLE, cached("tiny-z-image"), "cpu")


@pytest.mark.parametrize(
    ("strength", "steps"), [(None, 5), (1.0, 8), (0.75, 6), (0.5, 4), (0.51, 5), (0.125, 1), (0.01, 1), (0.0, 1)]
)
def test_strength_says_how_many_of_the_steps_are_taken(
    z_image: Pipeline, strength: float | None, steps: int, tmp_path: Path
) -> None:
    run = a_run(SPEC, reference=a_picture(tmp_path, 128, 96), strength=strength)
    listener = Listener()
    with counting(inside(z_image).transformer) as passes:
        (still,) = z_image.images(run, listener)
    assert len(passes) == steps
    assert listener.steps == [(step, steps) for step in range(1, steps + 1)]
    assert still.picture.shape == (96, 128, 3)


@pytest.mark.parametrize(("strength", "part"), [(0.25, 0.25), (0.5, 0.5), (1.0, 1.0)])
def test_strength_is_the_noise_that_the_picture_starts_from(
    z_image: Pipeline, strength: float, part: float, tmp_path: Path
) -> None:
    light, dark = a_picture(tmp_path, 128, 96), a_picture(tmp_path, 96, 128)
    runs = [a_run(SPEC, reference=path, strength=strength) for path in (light, dark)]
    with counting(inside(z_image).transformer) as passes:
        (one,), (other,) = (z_image.images(run, Listener()) for run in runs)
    sigma = 3 * part / (1 + 2 * part)  # the scheduler's shift of 3
    assert 1 - float(passes.args[0][1][0]) == pytest.approx(sigma)
    # From noise alone, nothing of the reference is left.
    assert np.array_equal(one.picture, other.picture) == (strength == 1.0)


def test_it_redraws_as_the_library_does(z_image: Pipeline, tmp_path: Path) -> None:
    path = a_picture(tmp_path, 128, 96)
    (ours,) = z_image.images(a_run(SPEC, reference=path, strength=0.5), Listener())
    theirs = vars(z_image)["_redraw"](
        prompt=a_run(SPEC).prompt,
        image=Image.open(path),
        strength=0.5,
        num_inference_steps=8,
        guidance_scale=0.0,
        max_sequence_length=64,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="np",
    ).images[0]
    assert np.array_equal(ours.picture, np.rint(theirs * 255).astype(np.uint8))


@pytest.mark.parametrize("size", [(1, 1), (500, 20), (64, 300), (118, 90)])
def test_a_reference_of_any_shape_leaves_the_size_asked_for(
    z_image: Pipeline, size: tuple[int, int], tmp_path: Path
) -> None:
    run = a_run(SPEC, width=118, height=90, reference=a_picture(tmp_path, *size), strength=0.25)
    (still,) = z_image.images(run, Listener())
    assert still.picture.shape == (90, 118, 3)


def test_what_is_delivered_lies_where_the_reference_lay(tmp_path: Path) -> None:
    path = a_picture(tmp_path, 118, 90)
    rendered = np.asarray(framed(cover(path, 118, 90), 128, 96))
    assert rendered.shape == (96, 128, 3)
    assert np.array_equal(rendered[3:93, 5:123], np.asarray(Image.open(path)))
    assert np.array_equal(rendered[0, 0], rendered[3, 5])


def test_images_from_one_reference_can_be_made_again_alone(tmp_path: Path) -> None:
    run = a_run(SPEC, n=3, reference=a_picture(tmp_path, 128, 96), strength=0.5)
    batched = loader("z_image")(SPEC, replace(WHOLE, images_at_once=3), cached("tiny-z-image"), "cpu")
    with counting(inside(batched).transformer) as passes:
        stills = list(batched.images(run, Listener()))
    assert len(passes) == 4
    for index, still in enumerate(stills):
        (alone,) = opened("tiny-z-image").images(replace(run, n=1, seed=7 + index), Listener())
        assert np.abs(alone.picture.astype(int) - still.picture).max() <= 2


def test_a_reference_that_is_gone_is_said_to_be_unreadable(z_image: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(JobFailure, match="Upload it again"):
        list(z_image.images(a_run(SPEC, reference=str(tmp_path / "gone.png")), Listener()))


def test_a_reference_is_forgotten_with_its_job(z_image: Pipeline, tmp_path: Path) -> None:
    (before,) = z_image.images(a_run(SPEC), Listener())
    list(z_image.images(a_run(SPEC, reference=a_picture(tmp_path, 128, 96)), Listener()))
    (after,) = z_image.images(a_run(SPEC), Listener())
    assert np.array_equal(after.picture, before.picture)
