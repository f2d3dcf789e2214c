"""What can be measured in a clip: strikes are kinks in the object's way, onsets are rises in the sound.

It knows nothing of networks and captions.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zsky_box.pipelines.mini_latents import FPS, FRAMES, SAMPLE_RATE_HZ
from zsky_box.pipelines.mini_picture import ASPECT, GROUND

EDGE_SECONDS: Final = 0.15
"""Nothing is heard or seen to strike so near the clip's ends: there is nothing before or after it to tell."""

_KINK: Final = 0.014
"""Least change of speed at a strike, in picture heights a frame."""
_COMING: Final = 0.008
"""Least speed before it."""
_TOUCH: Final = 0.06
"""What is farther from the ground or the side, in picture heights, does not strike it."""
_APART_SECONDS: Final = 0.14


def strikes(way: NDArray[np.float64]) -> list[float]:
    """When an object on a way [FRAMES, 3] (x, y, radius) strikes the ground or a side of the picture.

    It comes down to the ground, or near to a side, and is turned back or stopped there from one frame to the next.
    """
    before, after = way[2:-2] - way[:-4], way[4:] - way[2:-2]
    x, y, radius = way[2:-2, 0], way[2:-2, 1], np.median(way[:, 2])
    kink = np.zeros(len(way))
    gaps = (GROUND - y - radius, ASPECT - x - radius, x - radius)
    comings = ((before[:, 1], after[:, 1]), (before[:, 0], after[:, 0]), (-before[:, 0], -after[:, 0]))
    for gap, (coming, going) in zip(gaps, comings, strict=True):
        touches = (gap < _TOUCH) & (coming / 2 > _COMING)
        kink[2:-2] = np.maximum(kink[2:-2], touches * (coming - going) / 2)
    return _peaks(kink, _KINK, FPS, 0)


def onsets(sound: Tensor) -> list[float]:
    """When a sound [SAMPLES] rises in many bands at once."""
    hop = 80
    bins = torch.stft(sound, 256, hop, window=torch.hann_window(256), return_complex=True, center=True).abs()
    rise = torch.log1p(30 * bins).diff(dim=1, n=1)
    rise = (rise[:, 1:] + rise[:, :-1]).clamp_min(0).mean(0).numpy().astype(np.float64)
    rate = SAMPLE_RATE_HZ / hop
    return _peaks(rise, max(0.06, 0.25 * float(np.percentile(rise, 99.7))), rate, 1)


def profile(sound: Tensor) -> Tensor:
    """The mean log spectrum of a sound's louder half, without its level: [129]."""
    bins = torch.stft(sound, 256, 128, window=torch.hann_window(256), return_complex=True).abs()
    level = bins.sum(0)
    loud = bins[:, level >= level.median()]
    spectrum = torch.log(loud.mean(1) + 1e-5)
    return spectrum - spectrum.mean()


def inside(times: list[float]) -> list[float]:
    """Those far enough from the clip's ends."""
    return [time for time in times if EDGE_SECONDS < time < FRAMES / FPS - EDGE_SECONDS]


def _peaks(values: NDArray[np.float64], least: float, rate: float, first: int) -> list[float]:
    """Times of the highest values, each the highest for a while, between samples by a parabola."""
    apart = round(_APART_SECONDS * rate)
    found: list[float] = []
    for at in range(1, len(values) - 1):
        around = values[max(0, at - apart) : at + apart + 1]
        if values[at] < least or values[at] < around.max():
            continue
        before, here, after = values[at - 1 : at + 2]
        bend = before - 2 * here + after
        shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
        time = (first + at + shift) / rate
        if not found or time - found[-1] > _APART_SECONDS:
            found.append(float(time))
    return inside(found)
