"""Sound latents to the delivered form: float32 [samples, 2] at 48 kHz, in [-1, 1]."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from zsky_box.errors import JobFailure
from zsky_box.pipelines.base import SAMPLE_RATE_HZ, Sound
from zsky_box.pipelines.loading import memory_guard

_ZERO_CROSSINGS: Final = 64
_ROLLOFF: Final = 0.95
_KAISER_BETA: Final = 12.0  # about 118 dB of stopband: beta = 0.1102 · (A - 8.7), Kaiser 1974


def decode_sound(pipe: Any, latents: Tensor) -> Sound:
    """Audio VAE and vocoder over latents [1, C, length, mel]; OutOfMemory, or JobFailure if not finite."""
    with memory_guard(), torch.no_grad():
        mel = pipe.audio_vae.decode(latents.to(pipe.audio_vae.dtype), return_dict=False)[0]
        wave = pipe.vocoder(mel)[0].to(device="cpu", dtype=torch.float64)
    if not bool(torch.isfinite(wave).all()):
        raise JobFailure("internal_error", "The model's sound came out invalid. Try another seed.")
    wave = resample(wave, int(pipe.vocoder.config.output_sampling_rate), SAMPLE_RATE_HZ)
    stereo = wave.expand(2, -1) if wave.shape[0] == 1 else wave[:2]
    return np.ascontiguousarray(stereo.clamp(-1.0, 1.0).to(torch.float32).T.numpy())


def resample(wave: Tensor, source_hz: int, target_hz: int) -> Tensor:
    """Band-limited change of rate of `wave` [channels, samples]; ceil(samples · target / source) come out, none late.

    One Kaiser-windowed sinc per phase (Smith, "Digital Audio Resampling"), cut at 95 % of the lower Nyquist frequency.
    """
    if source_hz == target_hz:
        return wave
    shared = math.gcd(source_hz, target_hz)
    up, down = target_hz // shared, source_hz // shared
    cutoff = _ROLLOFF * min(1.0, up / down)
    reach = math.ceil(_ZERO_CROSSINGS / cutoff)
    taps = torch.arange(-reach, reach + down, dtype=torch.float64)
    phases = torch.arange(up, dtype=torch.float64)[:, None] * (down / up)
    distance = (taps[None, :] - phases) * cutoff
    window = torch.special.i0(
        _KAISER_BETA * torch.sqrt((1.0 - (distance / _ZERO_CROSSINGS) ** 2).clamp(min=0.0))
    ) / torch.special.i0(torch.tensor(_KAISER_BETA, dtype=torch.float64))
    kernel = torch.sinc(distance) * window * (distance.abs() <= _ZERO_CROSSINGS)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)  # constant in, the same constant out, at every phase
    channels, samples = wave.shape
    padded = torch.nn.functional.pad(wave.to(torch.float64), (reach, reach + down))
    out = torch.nn.functional.conv1d(padded[:, None], kernel[:, None], stride=down)
    out = out.transpose(1, 2).reshape(channels, -1)
    return out[:, : -(-samples * up // down)].to(wave.dtype)
