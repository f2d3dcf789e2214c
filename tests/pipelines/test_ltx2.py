"""LTX-2 on tiny checkpoints with the real ratios: passes, schedules, sizes, progress, cancel, seeds, sound."""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image

from scripts.tiny_models import cached
from tests.pipelines.tiny import CancelAt, Listener, a_run, counting, inside, opened, tiny_spec, watched
from zsky_box.errors import JobFailure
from zsky_box.manifest import WHOLE, Recipe
from zsky_box.pipelines import loader, ltx2
from zsky_box.pipelines.base import Cancelled, OutOfMemory, Pipeline
from zsky_box.pipelines.decode import Tiling, pictures

TWO = tiny_spec("tiny-ltx2")
FIRST_STAGE = [1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875]
SECOND_STAGE = [0.909375, 0.725, 0.421875]


@pytest.fixture(scope="module")
def two() -> Pipeline:
    return opened("tiny-ltx2")


@pytest.fixture(scope="module")
def one() -> Pipeline:
    return opened("tiny-ltx2-one")


@pytest.fixture(scope="module")
def newest() -> Pipeline:
    return opened("tiny-ltx25")


@pytest.mark.parametrize("name", ["tiny-ltx2", "tiny-ltx25"])
def test_two_stages_take_eight_and_three_passes(name: str, request: pytest.FixtureRequest) -> None:
    pipeline: Pipeline = request.getfixturevalue({"tiny-ltx2": "two", "tiny-ltx25": "newest"}[name])
    with counting(inside(pipeline).transformer) as passes:
        pipeline.video(a_run(TWO), Listener())
    assert [call["hidden_states"].shape[0] for call in passes.calls] == [1] * 11
    assert [float(call["timestep"][0]) / 1_000 for call in passes.calls] == pytest.approx(FIRST_STAGE + SECOND_STAGE)


def test_one_stage_takes_eight_passes(one: Pipeline) -> None:
    with counting(inside(one).transformer) as passes:
        one.video(a_run(TWO), Listener())
    assert [float(call["timestep"][0]) / 1_000 for call in passes.calls] == pytest.approx(FIRST_STAGE)


def test_guided_steps_take_one_pass_each_over_both_prompts() -> None:
    pipeline = opened("tiny-ltx2-one", distilled=False, steps=5, guidance_scale=3.0)
    listener = Listener()
    with counting(inside(pipeline).transformer) as passes:
        pipeline.video(a_run(TWO, negative_prompt="blurry"), listener)
    assert [call["hidden_states"].shape[0] for call in passes.calls] == [2] * 5
    assert listener.steps == [(step, 5) for step in range(1, 6)]


def test_a_negative_prompt_acts_only_where_there_is_guidance(one: Pipeline) -> None:
    guided = opened("tiny-ltx2-one", distilled=False, steps=2, guidance_scale=3.0)
    for pipeline, texts, acts in ((guided, 2, True), (one, 1, False)):
        with counting(inside(pipeline).text_encoder) as encoded:
            plain = watched(pipeline.video(a_run(TWO), Listener()))
        assert len(encoded) == texts
        negative = watched(pipeline.video(a_run(TWO, negative_prompt="a blue cube"), Listener()))
        assert bool((plain != negative).any()) == acts


def test_the_prompt_is_encoded_once_for_both_stages(two: Pipeline) -> None:
    with counting(inside(two).text_encoder) as encoded:
        two.video(a_run(TWO), Listener())
    assert len(encoded) == 1


def test_the_first_stage_runs_at_half_size(two: Pipeline) -> None:
    with counting(inside(two).transformer) as passes:
        clip = two.video(a_run(TWO, width=854, height=480, frames=9), Listener())
    sizes = [(call["width"] * 32, call["height"] * 32, call["num_frames"]) for call in passes.calls]
    assert sizes == [(448, 256, 2)] * 8 + [(896, 512, 2)] * 3
    assert watched(clip).shape == (9, 480, 854, 3)


def test_what_is_delivered_is_the_middle_of_what_was_rendered(two: Pipeline) -> None:
    rendered = watched(two.video(a_run(TWO, width=256, height=192, frames=9), Listener()))
    delivered = watched(two.video(a_run(TWO, width=214, height=180, frames=9), Listener()))
    assert np.array_equal(delivered, rendered[:, 6:186, 21:235])


def test_1080p_is_cropped_from_1088_rows(two: Pipeline) -> None:
    with counting(inside(two).transformer) as passes:
        clip = two.video(a_run(TWO, width=1920, height=1080, frames=1), Listener())
    assert (passes.calls[-1]["width"] * 32, passes.calls[-1]["height"] * 32) == (1920, 1088)
    assert watched(clip).shape == (1, 1080, 1920, 3)


@pytest.mark.parametrize("frames", [9, 25, 121])
def test_every_frame_asked_for_is_delivered_with_its_sound(two: Pipeline, frames: int) -> None:
    clip = two.video(a_run(TWO, frames=frames, width=64, height=64), Listener())
    assert watched(clip).shape == (frames, 64, 64, 3)
    assert (clip.frames, clip.fps, clip.width, clip.height) == (frames, 24, 64, 64)
    picture_seconds, sound_seconds = frames / 24, len(clip.sound) / 48_000
    assert picture_seconds - 0.05 <= sound_seconds <= picture_seconds + 0.005


@pytest.mark.parametrize(("name", "rate_hz"), [("two", 24_000), ("newest", 48_000)])
def test_sound_is_48_khz_stereo_whatever_the_vocoder(name: str, rate_hz: int, request: pytest.FixtureRequest) -> None:
    pipeline: Pipeline = request.getfixturevalue(name)
    assert inside(pipeline).vocoder.config.output_sampling_rate == rate_hz
    sound = pipeline.video(a_run(TWO, frames=25), Listener()).sound
    assert sound.shape == (48_480, 2)  # 26 latents · 4 - 3 mel frames of 10 ms
    assert sound.dtype == np.float32
    assert 0 < np.abs(sound).max() <= 1


def test_progress_counts_the_steps_of_all_stages(two: Pipeline) -> None:
    listener = Listener()
    two.video(a_run(TWO), listener)
    assert listener.phases == ["loading", "denoising", "decoding"]
    assert listener.steps == [(step, 11) for step in range(1, 12)]


@pytest.mark.parametrize("at", [1, 8, 10, 11])
def test_a_cancelled_job_computes_nothing_more_and_leaves_the_model_usable(two: Pipeline, at: int) -> None:
    pipe = inside(two)
    before = watched(two.video(a_run(TWO), Listener()))
    cancel = CancelAt(at)
    with (
        counting(pipe.transformer) as passes,
        counting(pipe.vae.decoder, pipe.audio_vae.decoder, pipe.vocoder) as decodes,
        pytest.raises(Cancelled),
    ):
        two.video(a_run(TWO, seed=99), cancel)
    assert (len(passes), len(decodes), cancel.phases) == (at, 0, ["loading", "denoising"])
    assert np.array_equal(watched(two.video(a_run(TWO), Listener())), before)


@pytest.mark.parametrize("name", ["one", "two", "newest"])
def test_a_seed_decides_pictures_and_sound(name: str, request: pytest.FixtureRequest) -> None:
    pipeline: Pipeline = request.getfixturevalue(name)
    first, again, other = (pipeline.video(a_run(TWO, seed=seed), Listener()) for seed in (7, 7, 8))
    pictures = watched(first)
    assert np.array_equal(pictures, watched(again))
    assert np.array_equal(first.sound, again.sound)
    assert not np.array_equal(pictures, watched(other))
    assert not np.array_equal(first.sound, other.sound)


def test_a_seed_outlives_the_process() -> None:
    first, fresh = opened("tiny-ltx2"), opened("tiny-ltx2")
    torch.manual_seed(1)
    one = watched(first.video(a_run(TWO), Listener()))
    torch.manual_seed(2)
    assert np.array_equal(one, watched(fresh.video(a_run(TWO), Listener())))


def test_the_prompt_decides_too(two: Pipeline) -> None:
    ball, cube = (two.video(a_run(TWO, prompt=prompt), Listener()) for prompt in ("a red ball", "a blue cube"))
    assert not np.array_equal(watched(ball), watched(cube))


@pytest.mark.parametrize("prompt", ["", "∿ 音 🎬", "word " * 20_000])
def test_any_text_is_a_prompt(two: Pipeline, prompt: str) -> None:
    assert watched(two.video(a_run(TWO, prompt=prompt, frames=1), Listener())).shape == (1, 96, 128, 3)


@pytest.mark.parametrize("name", ["tiny-ltx2", "tiny-ltx23", "tiny-ltx25"])
def test_tiny_checkpoints_have_the_grids_of_the_real_ones(name: str) -> None:
    """What their configurations say of themselves is what their networks do: 32 pixels and 8 frames to a latent."""
    pipe = inside(opened(name))
    vae, audio_vae = pipe.vae, pipe.audio_vae
    with torch.no_grad():
        decoded = vae.decode(torch.zeros(1, vae.config.latent_channels, 3, 2, 4), return_dict=False)[0]
    assert decoded.shape == (1, 3, 17, 64, 128)
    assert (pipe.vae_spatial_compression_ratio, pipe.vae_temporal_compression_ratio) == (32, 8)
    packed = audio_vae.config.latent_channels * audio_vae.config.mel_bins // 4
    assert audio_vae.latents_mean.shape == audio_vae.latents_std.shape == (packed,)


def test_a_checkpoint_whose_grid_is_not_the_manifests_is_refused(tmp_path: Path) -> None:
    """Else sizes would silently be cut to another grid than requests are rounded to."""
    folder = Path(shutil.copytree(cached("tiny-ltx2"), tmp_path / "tiny-ltx2"))
    config = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps(config | {"spatial_compression_ratio": None}))
    with pytest.raises(JobFailure, match="and 8 frames, its manifest says otherwise"):
        loader("ltx2")(TWO, WHOLE, folder, "cpu")


@pytest.mark.parametrize("frames", [0, 8, 24])
def test_a_frame_count_off_the_grid_fails_before_any_work(two: Pipeline, frames: int) -> None:
    listener = Listener()
    with pytest.raises(JobFailure, match="8·k") as failed:
        two.video(a_run(TWO, frames=frames), listener)
    assert (failed.value.error_code, listener.phases) == ("internal_error", [])


def test_it_makes_no_images(two: Pipeline) -> None:
    with pytest.raises(JobFailure, match="no images"):
        two.images(a_run(TWO), Listener())


def test_jobs_leave_no_tensors_behind(two: Pipeline) -> None:
    def tensors() -> int:
        gc.collect()
        return sum(1 for held in gc.get_objects() if type(held) is torch.Tensor)

    counts: list[int] = []
    for _ in range(3):
        watched(two.video(a_run(TWO, frames=1), Listener()))
        with pytest.raises(Cancelled):
            two.video(a_run(TWO, frames=1), CancelAt(3))
        counts.append(tensors())
    assert counts[1] == counts[2]


@pytest.mark.parametrize("part", ["transformer", "vocoder"])
def test_running_out_of_memory_is_said_so(two: Pipeline, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(getattr(inside(two), part), "forward", exhausted)
    with pytest.raises(OutOfMemory):
        two.video(a_run(TWO), Listener())


def test_running_out_of_memory_while_decoding_is_said_so(two: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = two.video(a_run(TWO), Listener())

    def exhausted(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(inside(two).vae.decoder, "forward", exhausted)
    with pytest.raises(OutOfMemory):
        next(clip.pictures)


@pytest.mark.parametrize("name", ["tiny-ltx2", "tiny-ltx25"])
def test_it_runs_in_bfloat16(name: str) -> None:
    spec = replace(tiny_spec(name), dtype="bfloat16")
    clip = loader("ltx2")(spec, WHOLE, cached(name), "cpu").video(a_run(spec), Listener())
    assert watched(clip).std() > 1
    assert np.isfinite(clip.sound).all()


def test_two_stages_without_an_upsampler_are_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(cached("tiny-ltx2"), tmp_path / "tiny-ltx2"))
    shutil.rmtree(folder / "latent_upsampler")
    with pytest.raises(JobFailure, match="incomplete"):
        loader("ltx2")(TWO, WHOLE, folder, "cpu")
    loader("ltx2")(tiny_spec("tiny-ltx2-one"), WHOLE, folder, "cpu")


def test_above_its_recipes_resolution_a_clip_is_rendered_smaller_and_says_so() -> None:
    recipe = Recipe(name="r", render="480p")
    pipeline = loader("ltx2")(TWO, recipe, cached("tiny-ltx2"), "cpu")
    with counting(inside(pipeline).transformer) as passes:
        clip = pipeline.video(a_run(TWO, width=1280, height=720, frames=1), Listener())
    assert (passes.calls[-1]["width"] * 32, passes.calls[-1]["height"] * 32) == (896, 512)
    (picture,) = watched(clip)
    assert (picture.shape, clip.width, clip.height, clip.upscaled_from) == ((720, 1280, 3), 1280, 720, "854x480")
    assert "Rendered at 854x480 and upscaled to 1280x720" in clip.notes[0]
    (smaller,) = watched(pipeline.video(a_run(TWO, width=854, height=480, frames=1), Listener()))
    again = np.asarray(Image.fromarray(picture).resize((854, 480), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(again - smaller).mean() < 12
    at_it = pipeline.video(a_run(TWO, width=480, height=480, frames=1), Listener())
    assert (at_it.upscaled_from, at_it.notes) == ("", [])


@pytest.mark.parametrize(
    ("recipe", "tiling"),
    [
        (Recipe(name="r"), (64, 16, 256)),
        (Recipe(name="r", decode_chunk_frames=32, decode_tile_pixels=128), (32, 16, 128)),
        (Recipe(name="r", decode_chunk_frames=24), (24, 8, 256)),
        (Recipe(name="r", decode_chunk_frames=16), (16, 8, 256)),
    ],
)
def test_a_recipe_may_decode_in_smaller_pieces(
    recipe: Recipe, tiling: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Tiling] = []

    def noted(vae: Any, latents: Any, told: Tiling, width: int, height: int) -> Any:
        used.append(told)
        return pictures(vae, latents, told, width, height)

    monkeypatch.setattr(ltx2, "pictures", noted)
    pipeline = loader("ltx2")(TWO, recipe, cached("tiny-ltx2"), "cpu")
    assert len(watched(pipeline.video(a_run(TWO, width=64, height=64, frames=41), Listener()))) == 41
    assert used == [Tiling(*tiling)]
