"""The model's own promises, with random weights: shapes, the same clip for the same seed, and what is given stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.mini import bank, world
from zsky_box.pipelines.mini_flow import sample, sigmas
from zsky_box.pipelines.mini_latents import (
    CHUNKS,
    FRAMES,
    GIVEN_TOKENS,
    HEIGHT,
    SAMPLES,
    TOKEN_SIZE,
    TOKENS,
    WIDTH,
    Latents,
    Whitening,
    flat,
)
from zsky_box.pipelines.mini_model import MiniModel
from zsky_box.pipelines.mini_sound import ONSETS, Sound, onset_curve, onsets, synthesise
from zsky_box.pipelines.mini_words import SLOTS


def some_latents(clips: world.Scenes) -> Latents:
    """Real motion and sound, and noise for what does not move."""
    motion, n = world.move(clips), len(clips)
    generator = torch.Generator().manual_seed(1)
    scene, thing, voice = (torch.randn(n, size, generator=generator) for size in (12, 14, 6))
    return Latents(3 * scene + 1, thing, 0.1 * voice, torch.from_numpy(motion.pose), bank.heard(motion))


def test_it_makes_a_clip_with_its_sound(model: MiniModel) -> None:
    tokens = model.sample(model.words.read("a red ball bounces").slots, seed=1, steps=2)
    frames = list(model.decode_frames(tokens))
    assert len(frames) == FRAMES
    assert frames[0].shape == (HEIGHT, WIDTH, 3)
    assert frames[0].dtype == np.uint8
    sound = model.decode_sound(tokens)
    assert sound.shape == (SAMPLES, 1)
    assert sound.dtype == np.float32
    assert np.abs(sound).max() <= 1
    np.testing.assert_array_equal(model.decode_still(tokens, 5), frames[5])


def test_the_same_seed_makes_the_same_clip_and_another_seed_another(model: MiniModel) -> None:
    slots = torch.ones(len(SLOTS), dtype=torch.long)
    first, again, other = (model.sample(slots, seed, steps=2) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_each_step_is_told_with_an_estimate(model: MiniModel) -> None:
    told: list[tuple[int, int, torch.Size]] = []
    slots = torch.zeros(len(SLOTS), dtype=torch.long)
    model.sample(slots, 1, steps=3, on_step=lambda step, steps, tokens: told.append((step, steps, tokens.shape)))
    assert told == [(step, 3, (1, TOKENS, TOKEN_SIZE)) for step in (1, 2, 3)]


def test_what_is_said_changes_the_clip_and_more_guidance_changes_it_more(model: MiniModel) -> None:
    said, unsaid = torch.ones(len(SLOTS), dtype=torch.long), torch.zeros(len(SLOTS), dtype=torch.long)
    base = model.sample(unsaid, 1, steps=2)
    weak, strong = (model.sample(said, 1, steps=2, guidance=guidance) for guidance in (1.0, 3.0))
    assert 0 < (weak - base).abs().mean() < (strong - base).abs().mean()


def test_a_first_frame_fixes_the_scene_and_the_object(model: MiniModel) -> None:
    frame = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    given = model.encode_first_frame(frame)
    tokens = model.sample(torch.zeros(len(SLOTS), dtype=torch.long), 1, steps=2, first_frame=frame)
    assert given.shape == (1, GIVEN_TOKENS, TOKEN_SIZE)
    assert torch.equal(tokens[:, :GIVEN_TOKENS], given)


def test_a_clip_begins_where_its_first_frame_has_the_object(model: MiniModel, clips: world.Scenes) -> None:
    model.whitening.fit(some_latents(clips))
    frame = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    slots = torch.zeros(len(SLOTS), dtype=torch.long)
    begun = model.latents(model.sample(slots, 1, steps=2, first_frame=frame))
    assert (begun.thing[0, -2:] - begun.motion[0, 0, :2]).abs().max() < 0.02


def test_a_first_frame_of_another_size_is_refused(model: MiniModel) -> None:
    with pytest.raises(ValueError, match="first frame"):
        model.encode_first_frame(np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8))


def test_a_saved_model_makes_the_same_clip(model: MiniModel, tmp_path: Path) -> None:
    model.save(tmp_path, torch.float32)
    loaded = MiniModel.from_folder(tmp_path)
    slots = torch.ones(len(SLOTS), dtype=torch.long)
    assert torch.equal(loaded.sample(slots, 3, steps=2), model.sample(slots, 3, steps=2))
    assert (tmp_path / "model_index.json").exists()


def test_whitening_goes_both_ways_and_has_unit_variance(clips: world.Scenes) -> None:
    latents, n = some_latents(clips), len(clips)
    whitening = Whitening()
    whitening.fit(latents)
    tokens = whitening.tokens(latents)
    assert tokens.shape == (n, TOKENS, TOKEN_SIZE)
    assert float(tokens[:, 0, :12].var(0).mean()) == pytest.approx(1, abs=0.01)
    assert tokens.std() < 2
    back = whitening.latents(tokens)
    for name, rows in flat(latents).items():
        if name != "motion":
            torch.testing.assert_close(flat(back)[name], rows, atol=1e-3, rtol=0)
    off = (back.motion - latents.motion).abs()
    assert off[..., :2].max() < 0.04  # in picture heights
    assert off.square().mean((0, 1)).sqrt().max() < 0.01  # the finest of the turning is left out


def test_levels_go_from_noise_to_none() -> None:
    levels = sigmas(5)
    assert levels[0] == 1
    assert levels[-1] == 0
    assert (levels.diff() < 0).all()


def test_the_sampler_finds_the_data_when_the_velocity_is_exact() -> None:
    data = torch.randn(1, TOKENS, TOKEN_SIZE, generator=torch.Generator().manual_seed(2))

    class Exact(torch.nn.Module):
        def forward(self, tokens: torch.Tensor, levels: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            return (tokens - data) / levels[..., None].clamp_min(1e-3)

    noise = torch.randn(1, TOKENS, TOKEN_SIZE)
    found = sample(Exact(), torch.zeros(1, len(SLOTS), dtype=torch.long), noise, 4, 1.0)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(found, data, atol=1e-4, rtol=1e-4)


def test_onsets_survive_the_curve() -> None:
    times = torch.tensor([[0.3, 0.731, 1.25, 2.9]])
    found = onsets(onset_curve(times, torch.tensor([[1.0, 0.5, 1.1, 0.8]]))[0])
    assert [time for time, _ in found] == pytest.approx([0.3, 0.731, 1.25, 2.9], abs=0.003)
    assert [strength for _, strength in found] == pytest.approx([1.0, 0.5, 1.1, 0.8], abs=0.15)


def test_a_strike_at_the_very_end_fits_and_silence_is_silent() -> None:
    body = Sound().body(torch.zeros(1, 6))[0].detach()
    assert synthesise(body, [(2.9999, 1.0), (5.0, 1.0)], torch.zeros(CHUNKS)).shape == (SAMPLES,)
    assert not synthesise(body, [], torch.zeros(CHUNKS)).any()
    assert onsets(torch.zeros(ONSETS)) == []


def test_no_slot_is_filled_with_what_no_word_said(model: MiniModel) -> None:
    assert model.words.read("a zebra on mars, not there").understood == {}
    assert model.words.read("GRASS").understood == {"floor": "grass"}


def test_of_two_words_for_one_slot_one_is_left_out(model: MiniModel) -> None:
    reading = model.words.read("a ball and a cube, a Ball or a sphere")
    assert (reading.understood, reading.left_out) in (
        ({"kind": "ball"}, ("cube",)),
        ({"kind": "cube"}, ("ball", "sphere")),
    )


def test_a_prompt_of_nothing_and_one_without_end_are_read(model: MiniModel) -> None:
    assert not model.words.read("").slots.any()
    assert model.words.read("ball " * 10_000).understood == {"kind": "ball"}
