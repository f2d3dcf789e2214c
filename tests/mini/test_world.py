"""The world: what is drawn where, what strikes when, and what training never sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.mini import captions, draw, strike, world
from zsky_box.pipelines.mini_latents import FPS, FRAMES, HEIGHT, SAMPLE_RATE_HZ, SAMPLES, SECONDS, WIDTH
from zsky_box.pipelines.mini_picture import ASPECT, GROUND
from zsky_box.pipelines.mini_words import SLOTS


def of_action(clips: world.Scenes, name: str) -> world.Scenes:
    return clips[np.flatnonzero(clips.value("action") == list(SLOTS["action"]).index(name))]


def test_the_same_seed_makes_the_same_clips() -> None:
    first, second = (world.scenes(np.random.default_rng(3), 50) for _ in range(2))
    np.testing.assert_array_equal(first.slots, second.slots)
    np.testing.assert_array_equal(world.move(first).pose, world.move(second).pose)


def test_every_value_comes_up() -> None:
    slots = world.scenes(np.random.default_rng(1), 2_000, "train").slots
    for column, values in zip(slots.T, SLOTS.values(), strict=True):
        assert set(column) == set(range(1, len(values) + 1))


def test_training_never_sees_what_is_held_out_and_scoring_sees_nothing_else() -> None:
    rng = np.random.default_rng(1)
    assert not world.held_out(world.scenes(rng, 500, "train").slots).any()
    assert world.held_out(world.scenes(rng, 500, "held out").slots).all()


def test_every_value_is_in_training_beside_every_other_slot_that_is_held_out_in_pairs() -> None:
    slots = world.scenes(np.random.default_rng(1), 4_000, "train").slots
    pairs = {(int(row[0]), int(row[1])) for row in slots}
    assert len(pairs) == 32  # 8 of the 40 pairs of kind and colour are held out


def test_objects_stay_in_the_picture_and_above_the_ground(clips: world.Scenes) -> None:
    pose = world.move(clips).pose
    reach = clips.radius[:, None]
    assert (pose[..., 0] >= reach - 1e-5).all()
    assert (pose[..., 0] <= ASPECT - reach + 1e-5).all()
    lowest = pose[..., 1] + reach * (1 - pose[..., 2])
    assert lowest.max() < GROUND + 1e-5
    assert (pose[..., 1] > 0).all()


def test_an_object_that_strikes_the_ground_is_on_it_just_then(clips: world.Scenes) -> None:
    falling = of_action(clips, "fall")
    motion = world.move(falling)
    assert np.isfinite(motion.times[:, 0]).mean() > 0.9
    for row, time in enumerate(motion.times[:, 0]):
        if np.isnan(time):
            continue
        frame = round(float(time) * FPS)
        lowest = motion.pose[row, :, 1] + falling.radius[row] * (1 - motion.pose[row, :, 2])
        assert lowest[frame] > GROUND - 0.06
        assert lowest[: max(1, frame - 4)].max() < GROUND - 0.06


def test_a_rolling_object_turns_as_far_as_it_goes(clips: world.Scenes) -> None:
    rolling = of_action(clips, "roll")
    pose = world.move(rolling).pose
    turn = np.unwrap(np.arctan2(pose[..., 4], pose[..., 3]))
    np.testing.assert_allclose((turn[:, 1] - turn[:, 0]) * rolling.radius, pose[:, 1, 0] - pose[:, 0, 0], atol=1e-4)


def test_a_rolling_object_strikes_where_it_turns_back(clips: world.Scenes) -> None:
    rolling = of_action(clips, "roll")
    motion = world.move(rolling)
    for row in range(len(rolling)):
        turns = np.flatnonzero(np.diff(np.sign(np.diff(motion.pose[row, :, 0]))) != 0)
        times = motion.times[row][np.isfinite(motion.times[row])]
        inside = times[(times > 2 / FPS) & (times < SECONDS - 3 / FPS)]
        assert len(inside) <= len(turns) + 1
        for time in inside:
            assert min(abs(turns + 1 - time * FPS)) <= 1.5


def test_floating_objects_strike_nothing_and_hum(clips: world.Scenes) -> None:
    motion = world.move(of_action(clips, "float"))
    assert np.isnan(motion.times).all()
    assert (motion.hum > 0).all()


def test_a_frame_shows_its_object_in_its_colour(clips: world.Scenes) -> None:
    motion = world.move(clips)
    frame = draw.objects(clips[slice(3, 4)], torch.from_numpy(motion.pose[3:4, 30]), draw.scenery(clips[slice(3, 4)]))[
        0
    ]
    empty = draw.scenery(clips[slice(3, 4)])[0]
    assert frame.shape == (3, HEIGHT, WIDTH)
    x, y = motion.pose[3, 30, :2]
    changed = (frame - empty).abs().amax(0) > 0.05
    rows, columns = torch.nonzero(changed, as_tuple=True)
    assert abs(float(columns.float().mean()) / HEIGHT - x) < 0.05
    assert float(rows.float().min()) / HEIGHT == pytest.approx(y - clips.radius[3], abs=0.06)


def test_a_strike_is_heard_at_its_time(clips: world.Scenes) -> None:
    falling = of_action(clips, "fall")
    motion = world.move(falling)
    row = int(np.flatnonzero(np.isfinite(motion.times[:, 0]))[0])
    sound = strike.sound(falling, motion, row)
    assert sound.shape == (SAMPLES,)
    first = int(torch.nonzero(sound.abs() > 1e-6)[0]) / SAMPLE_RATE_HZ
    assert first == pytest.approx(float(motion.times[row, 0]), abs=0.001)


def test_a_full_caption_says_every_value(clips: world.Scenes) -> None:
    text = captions.full(clips, 0)
    for slot, index in zip(SLOTS, clips.slots[0], strict=True):
        assert SLOTS[slot][list(SLOTS[slot])[index - 1]][0] in text.split()


def test_the_digest_is_of_the_worlds_code() -> None:
    assert len(world.digest()) == 64
    assert FRAMES / FPS == SECONDS
