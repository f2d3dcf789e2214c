"""Latents for the flow's training: codes of what there is to see, and voices that the sound codec heard.

A batch is put together anew each time, so the training set has no end. Of the codecs only the picture's codebooks and
the sound's encoder are needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from scripts.mini import draw, strike, world
from scripts.mini.world import Motion, Scenes
from zsky_box.pipelines.mini_latents import CHUNKS, ONSETS_PER_CHUNK, Latents
from zsky_box.pipelines.mini_picture import MATERIALS, Drawing
from zsky_box.pipelines.mini_sound import Sound, onset_curve

_AT_ONCE: Final = 50


@dataclass(frozen=True)
class Bank:
    """Codebooks, and voices of some clips."""

    drawing: Drawing
    source: Scenes
    voice: Tensor

    @classmethod
    @torch.no_grad()
    def heard(cls, drawing: Drawing, sound: Sound, seed: int, n: int) -> Bank:
        """Play n clips, and let the codec hear their voices."""
        source = world.scenes(np.random.default_rng([seed, n]), n, "train")
        motion = world.move(source)
        voice: list[Tensor] = []
        for first in range(0, n, _AT_ONCE):
            played = [strike.sound(source, motion, row) for row in range(first, min(n, first + _AT_ONCE))]
            voice.append(sound(torch.stack(played))[0])
        return cls(drawing, source, torch.cat(voice))

    @torch.no_grad()
    def clips(self, rng: np.random.Generator, n: int) -> tuple[Scenes, Latents]:
        """n new clips of the training split, and their latents; a clip has the radius of the one that lent a voice."""
        clips = world.scenes(rng, n, "train")
        lenders = self._lenders(rng, clips)
        clips = replace(clips, radius=self.source.radius[lenders])
        motion = world.move(clips)
        pose, radius = torch.from_numpy(motion.pose), torch.from_numpy(clips.radius)[:, None]
        sky, floor = self.drawing.sky_codes[clips.sky()], self.drawing.floor_codes[clips.value("floor")]
        look = self.drawing.look_codes[clips.value("kind") * MATERIALS + clips.value("material")]
        scene = torch.cat((sky, floor, torch.from_numpy(clips.bright())), 1)
        thing = torch.cat((look, draw.colours(clips), radius, pose[:, 0, :2]), 1)
        return clips, Latents(scene, thing, self.voice[lenders], pose, heard(motion))

    def _lenders(self, rng: np.random.Generator, clips: Scenes) -> Tensor:
        """For each clip the row of one in the bank of its material and size."""
        wanted, held = (2 * side.value("material") + side.value("size") for side in (clips, self.source))
        order = np.argsort(held, kind="stable")
        first, last = (np.searchsorted(held[order], wanted, side=side) for side in ("left", "right"))
        return torch.from_numpy(order[first + (rng.random(len(clips)) * (last - first)).astype(np.int64)])


def heard(motion: Motion) -> Tensor:
    """The sound's chunks [n, CHUNKS, SOUND_SIZE] as the world knows them."""
    curve = onset_curve(torch.from_numpy(motion.times), torch.from_numpy(motion.strengths))
    hum = torch.from_numpy(motion.hum)[:, None, None].expand(-1, CHUNKS, 1)
    return torch.cat((curve.view(-1, CHUNKS, ONSETS_PER_CHUNK), hum), 2)
