"""Sound: the change of rate is accurate, and what leaves is always 48 kHz stereo within bounds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zsky_box.errors import JobFailure
from zsky_box.pipelines.sound import decode_sound, resample


def tone(hertz: float, rate_hz: int, seconds: float = 0.5) -> Tensor:
    """A sine at 0.5, [1, samples]."""
    return (
        0.5
        * torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * rate_hz), dtype=torch.float64) / rate_hz)[None]
    )


def decibels(signal: Tensor, error: Tensor) -> float:
    return float(10 * torch.log10(signal.square().mean() / error.square().mean()))


@pytest.mark.parametrize("source_hz", [16_000, 24_000, 44_100])
@pytest.mark.parametrize("part_of_nyquist", [0.01, 0.1, 0.5, 0.85])
def test_a_tone_keeps_its_shape(source_hz: int, part_of_nyquist: float) -> None:
    hertz = part_of_nyquist * source_hz / 2
    expected = tone(hertz, 48_000)
    got = resample(tone(hertz, source_hz), source_hz, 48_000)
    assert got.shape == expected.shape
    inner = slice(1_000, -1_000)  # at the ends the tone is cut, and a cut tone is no tone
    assert decibels(expected[:, inner], (got - expected)[:, inner]) > 100


def test_what_the_lower_rate_cannot_hold_is_removed() -> None:
    loud = tone(30_000, 96_000)
    assert decibels(loud, resample(loud, 96_000, 48_000)[:, 1_000:-1_000]) > 90


def test_an_impulse_stays_in_its_place() -> None:
    wave = torch.zeros(1, 1_000, dtype=torch.float64)
    wave[0, 300] = 1.0
    assert int(resample(wave, 24_000, 48_000).argmax()) == 600


@pytest.mark.parametrize("samples", [1, 2, 159, 1_000])
def test_the_length_follows_the_rates(samples: int) -> None:
    assert resample(torch.zeros(2, samples), 44_100, 48_000).shape == (2, -(-samples * 480 // 441))


def test_equal_rates_change_nothing() -> None:
    wave = torch.rand(2, 100)
    assert resample(wave, 48_000, 48_000) is wave


class Vocoder:
    """Answers any mel spectrogram with one wave."""

    def __init__(self, wave: Tensor, rate_hz: int) -> None:
        self.config = SimpleNamespace(output_sampling_rate=rate_hz)
        self.wave = wave

    def __call__(self, mel: Tensor) -> Tensor:
        return self.wave.expand(mel.shape[0], -1, -1)


class SoundVae:
    """Decodes latents to themselves."""

    dtype = torch.float32

    def decode(self, latents: Tensor, return_dict: bool) -> tuple[Tensor]:
        assert not return_dict
        return (latents,)


def pipe_with(wave: Tensor, rate_hz: int = 48_000) -> Any:
    """A pipeline whose vocoder answers with `wave` [channels, samples]."""
    return SimpleNamespace(audio_vae=SoundVae(), vocoder=Vocoder(wave, rate_hz))


def test_one_channel_is_given_to_both_ears() -> None:
    sound = decode_sound(pipe_with(tone(440, 24_000), 24_000), torch.zeros(1))
    assert sound.dtype == np.float32
    assert sound.shape == (24_000, 2)
    assert np.array_equal(sound[:, 0], sound[:, 1])


def test_what_is_too_loud_is_clipped() -> None:
    sound = decode_sound(pipe_with(8 * tone(440, 48_000).expand(2, -1)), torch.zeros(1))
    assert np.abs(sound).max() == 1.0


def test_sound_that_is_not_finite_fails_the_job() -> None:
    with pytest.raises(JobFailure, match="invalid"):
        decode_sound(pipe_with(torch.full((2, 10), float("nan"))), torch.zeros(1))
