"""The world that mini knows: which scenes there are, how their objects move, and when they strike something.

Scenes are kept as arrays, one row a clip, so that thousands of clips are made at once. Lengths are in picture heights
and times in seconds. It draws nothing and plays nothing: that is draw.py and strike.py.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from zsky_box.pipelines.mini_latents import FPS, FRAMES, SECONDS
from zsky_box.pipelines.mini_picture import ASPECT, GROUND, VARIANTS
from zsky_box.pipelines.mini_words import SLOTS

Floats = NDArray[np.float32]
Values = NDArray[np.floating]
Split = Literal["train", "held out", "all"]

RADII: Final = (0.085, 0.145)
STRIKES: Final = 8
"""A clip has at most so many; a row with fewer is filled up with NaN."""

_SQUASH: Final = (0.22, 0.04, 0.05, 0.03)
"""How far each material gives way when it strikes, as part of its radius."""
_SQUASH_SECONDS: Final = 0.045

_SOURCES: Final = ("world.py", "draw.py", "strike.py", "captions.py")


@dataclass(frozen=True)
class Scenes:
    """n clips: what is said of them, and what is not said."""

    slots: NDArray[np.int64]
    """[n, slots]: the index of each slot's value, counted from 1."""
    radius: Floats
    tint: Floats
    """[n, 3]: what is added to the colour's red, green and blue."""
    start: Floats
    """[n]: where along its way the object begins, 0 to 1."""
    phase: Floats
    """[n]: where in its cycle it begins, 0 to 1."""
    side: Floats
    """[n]: which way it goes, -1 or 1."""
    tempo: Floats
    """[n]: how its speed differs from the usual, about 1."""
    weather: Floats
    """[n, 2]: where the background's things are (left 0, middle 0.5, right 1), and how bright the scene is, 0 to 1."""

    def value(self, slot: str) -> NDArray[np.int64]:
        """[n]: the index of the slot's value, counted from 0."""
        return self.slots[:, list(SLOTS).index(slot)] - 1

    def sky(self) -> NDArray[np.int64]:
        """[n]: which of all backgrounds in all their variants."""
        return self.value("background") * VARIANTS + np.round(self.weather[:, 0] * (VARIANTS - 1)).astype(np.int64)

    def bright(self) -> Floats:
        """[n, 1]: how bright the scene is, about 1."""
        return 0.94 + 0.12 * self.weather[:, 1:]

    def __len__(self) -> int:
        return len(self.slots)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Scenes:
        return Scenes(*(column[rows] for column in vars(self).values()))


@dataclass(frozen=True)
class Motion:
    """How n objects move, and when they strike something."""

    pose: Floats
    """[n, FRAMES, 5]: x, y, squash, cosine and sine of the turn."""
    times: Floats
    """[n, STRIKES] in seconds, NaN where there is none."""
    strengths: Floats
    """[n, STRIKES]: 1 is a strike at usual speed."""
    hum: Floats
    """[n]: how loud the object sounds without being struck."""


def held_out(slots: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which clips training never sees: a fifth of all pairs of colour and kind, an eighth of all ways to act."""
    kind, colour, material, size, action, speed, _, _ = (slots - 1).T
    pair = (colour + 2 * kind) % 5 == 0
    way = (material + 3 * size + 2 * action + 5 * speed) % 8 == 0
    return pair | way


def scenes(rng: np.random.Generator, n: int, split: Split = "all") -> Scenes:
    """Draw n clips, every value equally often."""
    slots = np.zeros((0, len(SLOTS)), np.int64)
    while len(slots) < n:
        more = np.stack([rng.integers(1, len(values) + 1, 2 * n) for values in SLOTS.values()], 1)
        if split != "all":
            more = more[held_out(more) == (split == "held out")]
        slots = np.concatenate((slots, more))
    slots = slots[:n]
    size = slots[:, list(SLOTS).index("size")] - 1
    return Scenes(
        slots,
        _f32(np.array(RADII)[size] * rng.uniform(0.93, 1.07, n)),
        _f32(rng.uniform(-0.03, 0.03, (n, 3))),
        _f32(rng.uniform(0, 1, n)),
        _f32(rng.uniform(0, 1, n)),
        _f32(rng.choice((-1.0, 1.0), n)),
        _f32(rng.uniform(0.94, 1.06, n)),
        _f32(np.stack((rng.integers(0, VARIANTS, n) / (VARIANTS - 1), rng.uniform(0, 1, n)), 1)),
    )


def examples(slot: str, variants: int) -> Scenes:
    """One clip for each value of a slot in each of its variants, in middling light and otherwise all alike."""
    n = len(SLOTS[slot]) * variants
    slots = np.ones((n, len(SLOTS)), np.int64)
    slots[:, list(SLOTS).index(slot)] = 1 + np.arange(n) // variants
    place = np.arange(n) % variants / max(1, variants - 1)
    half, none = np.full(n, 0.5), np.zeros((n, 3))
    rows = (np.full(n, RADII[0]), none, half, half, np.ones(n), np.ones(n), np.stack((place, half), 1))
    return Scenes(slots, *(_f32(row) for row in rows))


def move(clips: Scenes) -> Motion:
    """Follow every object through its clip."""
    n = len(clips)
    pose = np.zeros((n, FRAMES, 5), np.float32)
    times = np.full((n, STRIKES), np.nan, np.float32)
    strengths = np.zeros((n, STRIKES), np.float32)
    hum = np.zeros(n, np.float32)
    action = clips.value("action")
    for index, act in enumerate((_bounce, _fall, _roll, _float)):
        rows = np.flatnonzero(action == index)
        if len(rows):
            pose[rows], times[rows], strengths[rows], hum[rows] = act(clips[rows])
    _squash(clips, pose, times, strengths)
    return Motion(pose, times, strengths, hum)


def digest() -> str:
    """SHA-256 of the world's own code: the same digest draws the same clips from the same seeds."""
    here = Path(__file__).parent
    return hashlib.sha256(b"\0".join((here / name).read_bytes() for name in _SOURCES)).hexdigest()


_Acted = tuple[Floats, Floats, Floats, Floats]
_TIME: Final = np.arange(FRAMES) / FPS


def _bounce(clips: Scenes) -> _Acted:
    """Up and down without end, drifting a little to one side."""
    quick = clips.value("speed") == 1
    period = np.where(quick, 0.5, 1.0) / clips.tempo
    height = np.where(quick, 0.28, 0.40)
    cycle = _TIME / period[:, None] + clips.phase[:, None]
    part = cycle % 1
    rest = (GROUND - clips.radius)[:, None]
    y = rest - height[:, None] * 4 * part * (1 - part)
    x = _across(clips, clips.start, margin=0.25)[:, None] + 0.06 * clips.side[:, None] * (_TIME - SECONDS / 2)
    turn = 0.15 * clips.side[:, None] * np.sin(np.pi * cycle)
    count = np.arange(1, STRIKES + 1)
    times = (count - clips.phase[:, None]) * period[:, None]
    return _acted(x, y, turn, times, np.ones_like(times), 0.0)


def _fall(clips: Scenes) -> _Acted:
    """Down from the top after a moment, one small bounce, and rest."""
    quick = clips.value("speed") == 1
    duration = (np.where(quick, 0.45, 1.1) / clips.tempo)[:, None]
    again = np.where(quick, 0.34, 0.46)[:, None]
    begin = 0.15 + 0.6 * clips.phase[:, None]
    top, rest = clips.radius[:, None] + 0.03, (GROUND - clips.radius)[:, None]
    fallen = np.clip((_TIME - begin) / duration, 0, 1)
    part = np.clip((_TIME - begin - duration) / again, 0, 1)
    y = top + (rest - top) * fallen**2 - 0.07 * 4 * part * (1 - part)
    x = np.repeat(_across(clips, clips.start, margin=0.15)[:, None], FRAMES, 1)
    turn = 0.9 * clips.side[:, None] * (1 - fallen)
    times = np.concatenate((begin + duration, begin + duration + again), 1)
    return _acted(x, y, turn, times, np.tile([1.1, 0.5], (len(clips), 1)), 0.0)


def _roll(clips: Scenes) -> _Acted:
    """Along the ground, and back from the sides of the picture, which it strikes."""
    speed = (np.where(clips.value("speed") == 1, 1.1, 0.42) * clips.tempo)[:, None]
    length = (ASPECT - 2 * clips.radius)[:, None]
    # Unfolded, the way is straight: it meets a side at every multiple of the length.
    way = np.where(clips.side > 0, clips.start, clips.start + 1)[:, None] * length + speed * _TIME
    folded = way % (2 * length)
    x = clips.radius[:, None] + np.where(folded < length, folded, 2 * length - folded)
    y = np.repeat((GROUND - clips.radius)[:, None], FRAMES, 1)
    turn = (x - x[:, :1]) / clips.radius[:, None]
    side = np.ceil(way[:, :1] / length) + np.arange(STRIKES)
    times = (side * length - way[:, :1]) / speed
    return _acted(x, y, turn, times, np.full_like(times, 0.8), 0.12)


def _float(clips: Scenes) -> _Acted:
    """Hangs in the air, rising and sinking, humming."""
    period = (np.where(clips.value("speed") == 1, 1.0, 2.5) / clips.tempo)[:, None]
    cycle = 2 * np.pi * (_TIME / period + clips.phase[:, None])
    y = 0.42 + 0.07 * np.sin(cycle)
    x = _across(clips, clips.start, margin=0.25)[:, None] + 0.08 * clips.side[:, None] * np.cos(0.5 * cycle)
    none = np.full((len(clips), 1), np.nan)
    return _acted(x, y, 0.25 * np.sin(0.5 * cycle), none, none, 0.25)


def _acted(x: Values, y: Values, turn: Values, times: Values, strengths: Values, hum: float) -> _Acted:
    """Arrays of one kind, with strikes outside the clip taken out."""
    pose = np.stack((x, y, np.zeros_like(x), np.cos(turn), np.sin(turn)), 2)
    rows = np.full((len(x), STRIKES), np.nan)
    rows[:, : times.shape[1]] = times
    levels = np.zeros_like(rows)
    levels[:, : times.shape[1]] = np.nan_to_num(strengths)
    rows = np.where((rows > 0) & (rows < SECONDS - 0.02), rows, np.nan)
    return _f32(pose), _f32(rows), _f32(np.where(np.isnan(rows), 0, levels)), np.full(len(x), hum, np.float32)


def _squash(clips: Scenes, pose: Floats, times: Floats, strengths: Floats) -> None:
    """Let objects that strike the ground give way for a moment; their lowest point stays where it is."""
    hard = np.array(_SQUASH)[clips.value("material")]
    ground = clips.value("action") != list(SLOTS["action"]).index("roll")
    since = (_TIME[None, None] - times[..., None]) / _SQUASH_SECONDS
    bump = (np.nan_to_num(np.exp(-(since**2))) * strengths[..., None]).sum(1)
    pose[..., 2] = (hard * ground)[:, None] * bump
    pose[..., 1] += clips.radius[:, None] * pose[..., 2]


def _across(clips: Scenes, part: Floats, margin: float) -> Values:
    """A place across the picture at least its radius and a margin from the sides."""
    edge = clips.radius + margin
    return edge + part * (ASPECT - 2 * edge)


def _f32(values: Values) -> Floats:
    return values.astype(np.float32)
