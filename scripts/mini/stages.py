"""What is trained: the reader, the sound codec, the picture codec's two halves, and the flow."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from scripts.mini import captions, strike, world
from scripts.mini.bank import Bank
from scripts.mini.draw import colours, objects, scenery, sprites
from scripts.mini.legs import Draw
from zsky_box.pipelines.mini_flow import Flow
from zsky_box.pipelines.mini_latents import (
    CHUNKS,
    FRAMES,
    GIVEN_TOKENS,
    GROUPS,
    ONSETS_PER_CHUNK,
    TOKEN_SIZE,
    TOKENS,
    Whitening,
    used_numbers,
)
from zsky_box.pipelines.mini_picture import ASPECT, LOOKS, MATERIALS, VARIANTS, Drawing, Seeing
from zsky_box.pipelines.mini_sound import Sound, onset_curve
from zsky_box.pipelines.mini_words import SLOTS, WordReader

LATENT_NOISE: Final = 0.05
"""The sound's decoder is trained to bear so much noise on its latents, which denoising leaves."""
CODE_NOISE: Final = 0.02
"""Codes are snapped to the nearest before they are drawn, so they need to bear little."""


class Words:
    """The reader, from sentences and the slots they fill."""

    name = "words"
    learning_rate = 3e-3
    average = 0.99

    def __init__(self, net: WordReader, steps: int, batch: int) -> None:
        self.net, self.steps, self.decay, self.batch = net, steps, steps, batch

    def loss(self, draw: Draw) -> dict[str, Tensor]:
        ids, slots = captions.batch(draw.numpy, world.scenes(draw.numpy, self.batch))
        losses = [functional.cross_entropy(logits, slots[:, at]) for at, logits in enumerate(self.net(ids))]
        return {"slots": torch.stack(losses).mean()}


class Sounds:
    """The sound codec, from sounds and what the world knows of them."""

    name = "sound"
    learning_rate = 2e-3
    average = 0.99

    def __init__(self, net: Sound, steps: int, batch: int) -> None:
        self.net, self.steps, self.decay, self.batch = net, steps, steps, batch

    def loss(self, draw: Draw) -> dict[str, Tensor]:
        clips = world.scenes(draw.numpy, self.batch, "train")
        motion = world.move(clips)
        sounds = torch.stack([strike.sound(clips, motion, row) for row in range(len(clips))])
        voice, chunks = self.net(sounds)
        body = self.net.body(voice + LATENT_NOISE * draw.normal(*voice.shape))
        curve = onset_curve(torch.from_numpy(motion.times), torch.from_numpy(motion.strengths))
        hum = torch.from_numpy(motion.hum)[:, None].expand(-1, CHUNKS)
        return {
            "body": functional.smooth_l1_loss(body, strike.bodies(clips), beta=0.1),
            "onsets": 4 * functional.mse_loss(chunks[..., :-1], curve.view(-1, CHUNKS, ONSETS_PER_CHUNK)),
            "hum": 4 * functional.mse_loss(chunks[..., -1], hum),
            "voice": 1e-3 * voice.square().mean(),
        }


class Drawings:
    """The picture's decoder, from all that there is to draw."""

    name = "drawing"
    learning_rate = 3e-3
    average = 0.98

    def __init__(self, net: Drawing, steps: int) -> None:
        self.net, self.steps, self.decay = net, steps, steps
        looks = torch.arange(LOOKS)
        self._sprites = sprites(looks // MATERIALS, looks % MATERIALS)
        self._skies = scenery(world.examples("background", VARIANTS))[:, :, : net.edge]
        self._floors = scenery(world.examples("floor", 1))[:, :, net.edge :]

    def loss(self, draw: Draw) -> dict[str, Tensor]:
        codes = (self.net.sky_codes, self.net.floor_codes, self.net.look_codes)
        sky, floor, look = (book + CODE_NOISE * draw.normal(*book.shape) for book in codes)
        return {
            "skies": 20 * (self.net.sky(sky) - self._skies.flatten(1)).square().mean(),
            "floors": 20 * (self.net.floor(floor) - self._floors.flatten(1)).square().mean(),
            "sprites": 20 * (self.net.look(look) - self._sprites.flatten(1)).square().mean(),
        }


class Sights:
    """The picture's encoder, from single frames and what the world knows of them.

    It may see every combination: were purple balls held out, it would take purple things for cubes. What is generated
    is the flow's, which never sees them.
    """

    name = "seeing"
    learning_rate = 2e-3
    average = 0.99

    def __init__(self, net: Seeing, steps: int, batch: int) -> None:
        self.net, self.steps, self.decay, self.batch = net, steps, steps, batch

    def loss(self, draw: Draw) -> dict[str, Tensor]:
        clips = world.scenes(draw.numpy, self.batch)
        at = draw.numpy.integers(0, FRAMES, self.batch)
        pose = torch.from_numpy(world.move(clips).pose[np.arange(self.batch), at])
        frames = objects(clips, pose, scenery(clips))
        radius = torch.from_numpy(clips.radius)[:, None]
        where = torch.cat((pose[:, :2], radius), 1)
        seen = self.net(frames, where + _NEAR * radius * draw.normal(self.batch, 3))

        found = torch.cat((seen.pose[:, :2], seen.radius[:, None]), 1)
        said = ((seen.kind, "kind"), (seen.material, "material"), (seen.floor, "floor"))
        names = [functional.cross_entropy(logits, torch.from_numpy(clips.value(slot))) for logits, slot in said]
        sky = functional.cross_entropy(seen.sky, torch.from_numpy(clips.sky()))
        return {
            "names": sum(names, sky),
            "bright": (seen.bright - torch.from_numpy(clips.bright())).abs().mean(),
            "colour": 2 * (seen.colour - colours(clips)).abs().mean(),
            "heat": 0.3 * functional.cross_entropy(seen.heat.flatten(1), cells(where, seen.heat)),
            "place": 5 * (seen.place - where).abs().mean() + 5 * (found - where).abs().mean(),
            "pose": 2 * (seen.pose[:, 2] - pose[:, 2]).abs().mean() + (seen.pose[:, 3:] - pose[:, 3:]).square().mean(),
        }


def cells(where: Tensor, heat: Tensor) -> Tensor:
    """The cells [n] of a heat map [n, rows, columns] in which places [n, 2 or 3] lie."""
    rows, columns = heat.shape[-2:]
    row = (where[:, 1] * rows).long().clamp(0, rows - 1)
    column = (where[:, 0] / ASPECT * columns).long().clamp(0, columns - 1)
    return row * columns + column


_NEAR: Final = 0.15
"""How far off, in radii, the cut-outs are that the encoder learns to read: about as far as it misses by itself."""


class Flows:
    """The denoiser, on the codecs' latents of clips that are never the same twice."""

    name = "flow"
    learning_rate = 2e-3
    average = 0.999

    def __init__(self, net: Flow, whitening: Whitening, bank: Bank, steps: int, batch: int, device: str) -> None:
        self.net, self.steps, self.batch, self.device = net, steps, batch, device
        self.decay = min(_DECAY_STEPS, steps)
        self._whitening, self._bank = whitening, bank
        weights = torch.cat([torch.full((count,), _GROUP_WEIGHTS[name]) for name, count, _, _ in GROUPS])
        self._weights = (used_numbers() * weights[:, None]).to(device)

    def loss(self, draw: Draw) -> dict[str, Tensor]:
        clips, latents = self._bank.clips(draw.numpy, self.batch)
        tokens = self._whitening.tokens(latents)
        noise = draw.normal(self.batch, TOKENS, TOKEN_SIZE) * used_numbers()
        levels = (_LEVEL_MEAN + _LEVEL_SPREAD * draw.normal(self.batch, 1)).sigmoid().expand(-1, TOKENS).clone()
        levels[:, :GIVEN_TOKENS] *= draw.uniform(self.batch, 1) >= _GIVEN_PART
        unsaid = (draw.uniform(self.batch, len(SLOTS)) < _UNSAID_PART) | (draw.uniform(self.batch, 1) < _EMPTY_PART)
        slots = torch.from_numpy(clips.slots).masked_fill(unsaid, 0)

        tokens, noise, levels, slots = (each.to(self.device) for each in (tokens, noise, levels, slots))
        mixed = torch.lerp(tokens, noise, levels[..., None])
        with torch.autocast(self.device, torch.bfloat16):
            velocity = self.net(mixed, levels, slots)
        wanted = self._weights * (levels[..., None] > 0)
        error = (velocity.float() - (noise - tokens)).square() * wanted
        parts: dict[str, Tensor] = {}
        at = 0
        for name, count, _, _ in GROUPS:
            parts[name] = error[:, at : at + count].sum() / wanted.sum()
            at += count
        return parts


_DECAY_STEPS: Final = 1_000
"""A longer training is a shorter one with more in its middle."""
_GROUP_WEIGHTS: Final = {"scene": 3.0, "thing": 4.0, "voice": 3.0, "motion": 1.0, "sound": 2.0}
"""The motion has 240 of a clip's 356 numbers; the few that fix what is seen must not drown in it."""
_LEVEL_MEAN: Final = 0.8
_LEVEL_SPREAD: Final = 1.6
"""The logarithm of noise to data: more often above even, as twelve tokens tell the same and give it away early."""
_GIVEN_PART: Final = 0.15
"""So many clips have their first frame given."""
_UNSAID_PART: Final = 0.1
_EMPTY_PART: Final = 0.1
