"""The scorer's measures on what is known, and its table on answers that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.mini import score, strike, world
from scripts.mini.measures import inside, onsets, strikes
from scripts.mini.scorer import Verdict
from zsky_box.pipelines.mini_latents import CHUNKS, FRAMES
from zsky_box.pipelines.mini_sound import Sound, synthesise
from zsky_box.pipelines.mini_words import SLOTS


def told(motion: world.Motion, row: int) -> list[float]:
    times = motion.times[row]
    return inside([float(time) for time in times[np.isfinite(times)]])


def truthful(clips: world.Scenes, motion: world.Motion) -> list[Verdict]:
    """What somebody would say who knew the world."""
    verdicts: list[Verdict] = []
    for row in range(len(clips)):
        values = {slot: list(SLOTS[slot])[clips.value(slot)[row]] for slot in SLOTS}
        verdicts.append(Verdict(values, told(motion, row), told(motion, row)))
    return verdicts


def test_strikes_are_seen_in_exact_ways(clips: world.Scenes) -> None:
    motion = world.move(clips)
    seen = wanted = both = 0
    for row in range(100):
        way = np.concatenate((motion.pose[row, :, :2], np.full((FRAMES, 1), clips.radius[row])), 1)
        found, true = strikes(way.astype(np.float64)), told(motion, row)
        seen, wanted, both = seen + len(found), wanted + len(true), both + score.matches(true, found, 0.04)
    assert both / wanted > 0.95
    assert both / seen > 0.95


def test_onsets_are_heard_in_the_worlds_sounds(clips: world.Scenes) -> None:
    motion = world.move(clips)
    heard = wanted = both = 0
    for row in range(60):
        found, true = onsets(strike.sound(clips, motion, row)), told(motion, row)
        heard, wanted, both = heard + len(found), wanted + len(true), both + score.matches(true, found, 0.02)
    assert both / wanted > 0.95
    assert both / heard > 0.95


def test_nothing_is_heard_in_silence_nor_seen_to_strike_where_nothing_moves() -> None:
    body = Sound().body(torch.zeros(1, 6))[0].detach()
    assert onsets(synthesise(body, [], torch.zeros(CHUNKS))) == []
    assert strikes(np.full((FRAMES, 3), 0.5)) == []


def test_who_knows_the_world_scores_one_and_the_controls_are_near_chance(clips: world.Scenes) -> None:
    rows = score.table(truthful(clips, world.move(clips)), clips)
    for slot, values in SLOTS.items():
        assert rows[slot]["score"] == 1
        assert rows[slot]["control"] == pytest.approx(1 / len(values), abs=0.08)
    assert rows["sync"]["score"] == 1
    assert rows["sync"]["control"] < score.SHUFFLED_LIMIT
    assert score.passed(rows)


def test_one_slot_below_the_gate_does_not_pass(clips: world.Scenes) -> None:
    verdicts = truthful(clips, world.move(clips))
    for verdict in verdicts[:50]:
        verdict.values["colour"] = "none"
    rows = score.table(verdicts, clips)
    assert rows["colour"]["score"] == pytest.approx(350 / 400)
    assert not score.passed(rows)
    assert "not passed" in score.text(rows)


def test_sound_that_comes_late_does_not_pass(clips: world.Scenes) -> None:
    verdicts = truthful(clips, world.move(clips))
    late = [Verdict(each.values, each.strikes, [time + 0.1 for time in each.onsets]) for each in verdicts]
    assert score.table(late, clips)["sync"]["score"] < score.GATE["sync"]


def test_an_onset_is_matched_once() -> None:
    assert score.matches([1.0, 1.05], [1.02], 0.08) == 1
    assert score.matches([1.0, 2.0], [0.95, 2.07], 0.08) == 2
    assert score.matches([1.0], [1.09], 0.08) == 0
    assert score.matches([], [1.0], 0.08) == 0
