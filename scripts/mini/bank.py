"""Latents for the flow's training: what the codecs read from some thousand clips, combined anew for each batch.

A background's numbers are read above the horizon and a floor's below, a look knows no colour, and a voice knows only
the material and the radius: so parts of different clips make a clip, and the training set has no end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scripts.mini import draw, strike, world
from scripts.mini.world import Motion, Scenes
from zsky_box.pipelines.mini_latents import CHUNKS, FRAMES, ONSETS_PER_CHUNK, SCENE_SIZE, Latents
from zsky_box.pipelines.mini_picture import Picture
from zsky_box.pipelines.mini_sound import Sound, onset_curve
from zsky_box.pipelines.mini_words import SLOTS

_AT_ONCE: Final = 50


@dataclass(frozen=True)
class Bank:
    """What was read from n clips."""

    source: Scenes
    scene: Tensor
    look: Tensor
    voice: Tensor

    @classmethod
    @torch.no_grad()
    def read(cls, picture: Picture, sound: Sound, seed: int, n: int) -> Bank:
        """Draw one frame of each of n clips, play its sound, and let the codecs read them."""
        rng = np.random.default_rng([seed, n])
        source = world.scenes(rng, n, "train")
        motion = world.move(source)
        scene: list[Tensor] = []
        look: list[Tensor] = []
        voice: list[Tensor] = []
        for first in range(0, n, _AT_ONCE):
            clips = source[slice(first, first + _AT_ONCE)]
            at = rng.integers(0, FRAMES, len(clips))
            pose = torch.from_numpy(motion.pose[first + np.arange(len(clips)), at])
            frames = draw.objects(clips, pose, draw.scenery(clips))
            scene.append(picture.scene_encoder(frames))
            look.append(picture.object_encoder(frames).look)
            played = [strike.sound(source, motion, first + row) for row in range(len(clips))]
            voice.append(sound(torch.stack(played))[0])
        return cls(source, torch.cat(scene), torch.cat(look), torch.cat(voice))

    def clips(self, rng: np.random.Generator, n: int) -> tuple[Scenes, Latents]:
        """n new clips of the training split, and their latents."""
        clips = world.scenes(rng, n, "train")
        behind = self._alike(rng, clips, "background")
        below = self._alike(rng, clips, "floor")
        looks = self._alike(rng, clips, "kind", "material")
        voices = self._alike(rng, clips, "material", "size")
        clips = replace(clips, radius=self.source.radius[voices])
        motion = world.move(clips)
        half = SCENE_SIZE // 2
        scene = torch.cat((self.scene[behind, :half], self.scene[below, half:]), 1)
        pose = torch.from_numpy(motion.pose)
        radius = torch.from_numpy(clips.radius)[:, None]
        thing = torch.cat((self.look[looks], draw.colours(clips), radius, pose[:, 0, :2]), 1)
        return clips, Latents(scene, thing, self.voice[voices], pose, heard(motion))

    def _alike(self, rng: np.random.Generator, clips: Scenes, *slots: str) -> NDArray[np.int64]:
        """For each clip the row of some clip in the bank with the same values in these slots."""
        wanted, held = _digits(clips, slots), _digits(self.source, slots)
        order = np.argsort(held, kind="stable")
        first = np.searchsorted(held[order], wanted)
        last = np.searchsorted(held[order], wanted, side="right")
        return order[first + (rng.random(len(clips)) * (last - first)).astype(np.int64)]


def _digits(clips: Scenes, slots: tuple[str, ...]) -> NDArray[np.int64]:
    """The values of some slots as one number a clip."""
    columns = tuple(clips.value(slot) for slot in slots)
    return np.ravel_multi_index(columns, tuple(len(SLOTS[slot]) for slot in slots)).astype(np.int64)


def heard(motion: Motion) -> Tensor:
    """The sound's chunks [n, CHUNKS, SOUND_SIZE] as the world knows them."""
    curve = onset_curve(torch.from_numpy(motion.times), torch.from_numpy(motion.strengths))
    hum = torch.from_numpy(motion.hum)[:, None, None].expand(-1, CHUNKS, 1)
    return torch.cat((curve.view(-1, CHUNKS, ONSETS_PER_CHUNK), hum), 2)
