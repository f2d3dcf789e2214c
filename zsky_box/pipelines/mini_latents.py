"""mini's clip as numbers: what the codecs write and read, and the whitened tokens that the flow denoises.

A clip is one scene, one object, one voice, and twelve chunks of a quarter second, each with its motion and its sound.
Lengths are in picture heights, from the top left corner; y grows downwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import Tensor, nn

WIDTH: Final = 256
HEIGHT: Final = 144
FPS: Final = 24
SAMPLE_RATE_HZ: Final = 16_000
CHUNKS: Final = 12
CHUNK_FRAMES: Final = 6
FRAMES: Final = CHUNKS * CHUNK_FRAMES
SECONDS: Final = FRAMES / FPS
SAMPLES: Final = round(SECONDS * SAMPLE_RATE_HZ)

SKY_SIZE: Final = 6
FLOOR_SIZE: Final = 5
SCENE_SIZE: Final = SKY_SIZE + FLOOR_SIZE + 1
"""Codes of what is above and below the horizon, and how bright the scene is (about 1)."""
LOOK_SIZE: Final = 8
OBJECT_SIZE: Final = LOOK_SIZE + 3 + 1 + 2
"""Code of its look, colour (red, green, blue in 0 to 1), radius, and where the first frame has it (x, y)."""
VOICE_SIZE: Final = 6
POSE_SIZE: Final = 5
"""x, y, squash (0: round), cosine and sine of the turn."""
ONSETS_PER_CHUNK: Final = 6
SOUND_SIZE: Final = ONSETS_PER_CHUNK + 1
"""The curve of onsets at 24 a second, and the level of the hum."""


@dataclass(frozen=True)
class Latents:
    """A batch of n clips. All float32."""

    scene: Tensor
    """[n, SCENE_SIZE]"""
    thing: Tensor
    """[n, OBJECT_SIZE]: the object."""
    voice: Tensor
    """[n, VOICE_SIZE]: what it sounds like when struck."""
    motion: Tensor
    """[n, FRAMES, POSE_SIZE]"""
    sound: Tensor
    """[n, CHUNKS, SOUND_SIZE]"""

    def __getitem__(self, index: int) -> Latents:
        """One clip of the batch, still as a batch."""
        at = slice(index, index + 1)
        return Latents(self.scene[at], self.thing[at], self.voice[at], self.motion[at], self.sound[at])


GROUPS: Final = (
    ("scene", 1, SCENE_SIZE, 12),
    ("thing", 1, OBJECT_SIZE, 14),
    ("voice", 1, VOICE_SIZE, 6),
    ("motion", CHUNKS, CHUNK_FRAMES * POSE_SIZE, 20),
    ("sound", CHUNKS, SOUND_SIZE, 7),
)
"""Name, tokens in a clip, numbers before whitening, and the numbers kept of them."""

TOKENS: Final = sum(tokens for _, tokens, _, _ in GROUPS)
TOKEN_SIZE: Final = max(kept for _, _, _, kept in GROUPS)
GIVEN_TOKENS: Final = 2
"""Scene and object: what a first frame fixes. They come first."""

_POSE_WEIGHTS: Final = (2.0, 3.0, 1.5, 0.5, 0.5)
"""Where an object is matters more than how far it has turned, and its height tells when it strikes."""

_FLOOR: Final = 0.02
"""Components weaker than this part of the strongest are not blown up to unit variance: they are below what is seen."""


def flat(latents: Latents) -> dict[str, Tensor]:
    """Each group as [n, tokens, numbers]."""
    n = len(latents.scene)
    return {name: cast("Tensor", getattr(latents, name)).reshape(n, tokens, size) for name, tokens, size, _ in GROUPS}


class Whitening(nn.Module):
    """Principal components of each group, scaled to unit variance: [n, TOKENS, TOKEN_SIZE], filled up with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, int] = {}
        weights = torch.tensor(_POSE_WEIGHTS).repeat(CHUNK_FRAMES)
        self._weights = {name: weights if name == "motion" else torch.ones(size) for name, _, size, _ in GROUPS}
        for name, _, size, kept in GROUPS:
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_in", torch.eye(size, kept))
            self.register_buffer(f"{name}_out", torch.eye(kept, size))

    @torch.no_grad()
    def fit(self, latents: Latents) -> None:
        """Learn the components from a batch of some thousand clips."""
        for name, _, size, kept in GROUPS:
            rows = flat(latents)[name].reshape(-1, size).double()
            mean = rows.mean(0)
            weights = self._weights[name].double()
            variances, axes = torch.linalg.eigh(((rows - mean) * weights).T.cov())
            variances, axes = variances.flip(0)[:kept], axes.flip(1)[:, :kept]
            scale = variances.clamp_min(0).sqrt()
            scale = scale.clamp_min(_FLOOR * float(scale[0]))
            self._part(f"{name}_mean").copy_(mean)
            self._part(f"{name}_in").copy_(weights[:, None] * axes / scale)
            self._part(f"{name}_out").copy_((axes * scale).T / weights)

    def tokens(self, latents: Latents) -> Tensor:
        """Latents to tokens."""
        groups = flat(latents)
        rows: list[Tensor] = []
        for name, _, _, kept in GROUPS:
            whitened = (groups[name] - self._part(f"{name}_mean")) @ self._part(f"{name}_in")
            rows.append(nn.functional.pad(whitened, (0, TOKEN_SIZE - kept)))
        return torch.cat(rows, 1)

    def latents(self, tokens: Tensor) -> Latents:
        """Tokens to latents."""
        n, at = len(tokens), 0
        found: dict[str, Tensor] = {}
        for name, count, _, kept in GROUPS:
            rows = tokens[:, at : at + count, :kept] @ self._part(f"{name}_out") + self._part(f"{name}_mean")
            found[name] = rows.reshape(n, -1)
            at += count
        return Latents(
            found["scene"],
            found["thing"],
            found["voice"],
            found["motion"].reshape(n, FRAMES, POSE_SIZE),
            found["sound"].reshape(n, CHUNKS, SOUND_SIZE),
        )

    def _part(self, name: str) -> Tensor:
        return cast("Tensor", getattr(self, name))


def used_numbers() -> Tensor:
    """float32 [TOKENS, TOKEN_SIZE]: 1 where a token has a number, 0 where it is filled up."""
    mask = torch.zeros(TOKENS, TOKEN_SIZE)
    at = 0
    for _, count, _, kept in GROUPS:
        mask[at : at + count, :kept] = 1
        at += count
    return mask
