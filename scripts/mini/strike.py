"""How mini's world sounds: the body of each material and size, struck at the exact times."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from scripts.mini.world import RADII, Motion, Scenes
from zsky_box.pipelines.mini_latents import CHUNKS
from zsky_box.pipelines.mini_sound import MODES, synthesise

_MATERIALS: Final = (
    # pitch in Hz of a medium object, ratios of its modes, the first one's decay in seconds, noise, its decay in seconds
    (130.0, (1.0, 1.5, 2.1, 2.9, 3.8, 4.9), 0.07, 0.25, 0.012),
    (520.0, (1.0, 1.51, 2.32, 2.95, 4.1, 5.2), 0.40, 0.15, 0.004),
    (300.0, (1.0, 1.9, 2.9, 4.1, 5.4, 6.8), 0.045, 0.60, 0.010),
    (1250.0, (1.0, 1.47, 2.09, 2.56, 3.3, 4.2), 0.22, 0.10, 0.003),
)
_FALLOFF: Final = (0.9, 0.45, 0.8, 0.6)
"""How much weaker each mode is than the one below it, by material."""


def bodies(clips: Scenes) -> Tensor:
    """What each object sounds like: [n, BODY_SIZE]. Small things are higher and ring shorter."""
    rows: list[Tensor] = []
    middle = float(np.mean(RADII))
    for material, radius in zip(clips.value("material"), clips.radius, strict=True):
        hertz, ratios, decay, noise, noise_decay = _MATERIALS[int(material)]
        scale = middle / float(radius)
        mode = torch.arange(MODES)
        pitch = torch.log2(torch.tensor(ratios) * hertz * scale**0.8 / 440)
        ring = torch.log(decay / scale**0.3 / (1 + 0.35 * mode))
        strength = torch.exp(-_FALLOFF[int(material)] * mode)
        rows.append(torch.cat((pitch, ring, strength, torch.tensor([noise, float(np.log(noise_decay))]))))
    return torch.stack(rows).float()


def sound(clips: Scenes, motion: Motion, row: int) -> Tensor:
    """One clip's sound: [SAMPLES]."""
    heard = zip(motion.times[row].tolist(), motion.strengths[row].tolist(), strict=True)
    strikes = [(time, strength) for time, strength in heard if strength > 0]
    return synthesise(bodies(clips[row : row + 1])[0], strikes, torch.full((CHUNKS,), float(motion.hum[row])))
