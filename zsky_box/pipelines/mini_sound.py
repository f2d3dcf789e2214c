"""mini's sound codec: it knows that a sound is a thing struck at exact times, and perhaps humming.

A voice of a few numbers is decoded by a learnt network into the thing's modes (frequency, decay, strength) and the
noise of its strike; the strikes are placed to the sample. The encoder is a network over a spectrogram that hears the
voice, the curve of onsets and the level of the hum. Modal synthesis after van den Doel and Pai, "The sounds of physical
shapes" (1998).
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from zsky_box.pipelines.mini_latents import (
    CHUNKS,
    ONSETS_PER_CHUNK,
    SAMPLE_RATE_HZ,
    SAMPLES,
    SECONDS,
    SOUND_SIZE,
    VOICE_SIZE,
)

MODES: Final = 6
BODY_SIZE: Final = 3 * MODES + 2
"""Each mode's log2(frequency / 440 Hz), log(decay in s) and strength; then the noise's strength and log(decay in s)."""

ONSETS: Final = CHUNKS * ONSETS_PER_CHUNK
ONSET_RATE_HZ: Final = ONSETS / SECONDS
ONSET_WIDTH: Final = 1.0
"""Standard deviation of an onset's bump, in steps of the curve."""

STRIKE_SECONDS: Final = 0.8
_LEAST_STRENGTH: Final = 0.25
_LEAST_HUM: Final = 0.04
"""A weaker hum is the noise that is left after denoising."""
_LEVEL: Final = 0.3
_WINDOW: Final = 512
_HOP: Final = 222
"""Three columns of the spectrogram to a step of the curve of onsets."""


def onset_curve(times: Tensor, strengths: Tensor) -> Tensor:
    """Strikes at times [n, k] in seconds to the curve [n, ONSETS]: a bump for each, as high as it is strong."""
    steps = torch.arange(ONSETS, device=times.device) + 0.5
    bumps = torch.exp(-0.5 * ((times[..., None] * ONSET_RATE_HZ - steps) / ONSET_WIDTH) ** 2)
    return (bumps * strengths[..., None]).nan_to_num().sum(1)


def onsets(curve: Tensor) -> list[tuple[float, float]]:
    """The strikes in one curve [ONSETS]: (seconds, strength). A bump's logarithm is a parabola: its top is the time."""
    found: list[tuple[float, float]] = []
    values = [0.0, *curve.clamp_min(0).tolist(), 0.0]
    for at in range(1, len(values) - 1):
        before, here, after = values[at - 1 : at + 2]
        if here < _LEAST_STRENGTH or here < before or here <= after:
            continue
        left, middle, right = (math.log(max(value, 1e-3)) for value in (before, here, after))
        bend = left - 2 * middle + right
        shift = max(-0.5, min(0.5, 0.5 * (left - right) / bend)) if bend < 0 else 0.0
        found.append(((at - 0.5 + shift) / ONSET_RATE_HZ, min(1.5, here)))
    return found


def strike(body: Tensor) -> Tensor:
    """What one strike of a body [BODY_SIZE] sounds like: float32 samples of STRIKE_SECONDS."""
    seconds = torch.arange(round(STRIKE_SECONDS * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    pitch, decay, strength = body[: 3 * MODES].view(3, MODES, 1)
    hertz = 440 * torch.exp2(pitch)
    audible = strength * (hertz < 0.45 * SAMPLE_RATE_HZ)
    ring = (audible * torch.exp(-seconds / decay.exp()) * torch.sin(2 * math.pi * hertz * seconds)).sum(0)
    noise = torch.randn(len(seconds), generator=torch.Generator().manual_seed(1))
    struck = ring + body[-2] * torch.exp(-seconds / body[-1].exp()) * noise
    return struck * (4 * (1 - seconds / STRIKE_SECONDS)).clamp_max(1)  # what rings on must not end in a click


def synthesise(body: Tensor, strikes: list[tuple[float, float]], hum: Tensor) -> Tensor:
    """A clip's sound, float32 [SAMPLES] in -1 to 1: a body [BODY_SIZE], its strikes, and its hum's levels [CHUNKS]."""
    sound = torch.zeros(SAMPLES)
    kernel = strike(body)
    for seconds, strength in strikes:
        start = min(max(0, round(seconds * SAMPLE_RATE_HZ)), SAMPLES)
        length = min(len(kernel), SAMPLES - start)
        sound[start : start + length] += strength * kernel[:length]
    if float(hum.max()) > 0:
        level = functional.interpolate(hum.clamp(0, 1)[None, None], SAMPLES, mode="linear")[0, 0]
        time = torch.arange(SAMPLES) / SAMPLE_RATE_HZ
        pitch, _, strength = body[: 3 * MODES].view(3, MODES, 1)[:, :3]
        sound += level * (strength * torch.sin(2 * math.pi * 440 * torch.exp2(pitch) * time)).sum(0)
    return torch.tanh(_LEVEL * sound)


def spectrogram(sound: Tensor) -> Tensor:
    """Log magnitudes [n, bands, 3 * ONSETS] of sounds [n, SAMPLES]."""
    window = torch.hann_window(_WINDOW, device=sound.device)
    bins = torch.stft(sound, _WINDOW, _HOP, window=window, return_complex=True).abs()
    bins = bins[..., : 3 * ONSETS]
    bins = functional.pad(bins, (0, 3 * ONSETS - bins.shape[-1]))
    return torch.log1p(20 * bins) - 1


class Sound(nn.Module):
    """The codec."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.config = {"width": width}
        self.listen = nn.Sequential(
            nn.Conv1d(_WINDOW // 2 + 1, width, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(width, width, 5, padding=2),
            nn.GELU(),
        )
        self.onset = nn.Conv1d(width, 1, 9, stride=3, padding=3)
        self.hum = nn.Conv1d(width, 1, 3 * ONSETS_PER_CHUNK, stride=3 * ONSETS_PER_CHUNK)
        self.attention = nn.Conv1d(width, 1, 1)
        self.voice = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, VOICE_SIZE))
        self.body = nn.Sequential(nn.Linear(VOICE_SIZE, 128), nn.GELU(), nn.Linear(128, BODY_SIZE))

    def forward(self, sounds: Tensor) -> tuple[Tensor, Tensor]:
        """Sounds [n, SAMPLES] to voices [n, VOICE_SIZE] and chunks [n, CHUNKS, SOUND_SIZE]."""
        heard = self.listen(spectrogram(sounds))
        weights = self.attention(heard).softmax(-1)
        curve = self.onset(heard).view(len(sounds), CHUNKS, ONSETS_PER_CHUNK)
        return self.voice((heard * weights).sum(-1)), torch.cat((curve, self.hum(heard).mT), 2)

    @torch.no_grad()
    def sound(self, voice: Tensor, chunks: Tensor) -> Tensor:
        """One clip's samples [SAMPLES] from its voice [1, VOICE_SIZE] and chunks [1, CHUNKS, SOUND_SIZE]."""
        hum = chunks[0, :, SOUND_SIZE - 1]
        hum = hum * (hum.mean() > _LEAST_HUM)
        return synthesise(self.body(voice)[0], onsets(chunks[0, :, :-1].reshape(-1)), hum)
