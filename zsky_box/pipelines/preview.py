"""A small JPEG of how a result looks by now, which never changes the result.

Knows no model family: each brings its latents and decodes them with its own VAE. The latents are shrunk first, so that
a preview costs a hundredth of the picture.
"""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor

from zsky_box.pipelines.base import Picture

MAX_SIDE_PIXELS: Final = 320
MAX_BYTES: Final = 32 * 1024
LATENT_SIDE: Final = 10  # of VAEs that make 32 pixels of one latent; others say theirs
_QUALITIES: Final = (80, 60, 40, 20)
_MIN_LATENT_SIDE: Final = 2  # a reflecting border needs two


def clean_latents(earlier: Tensor, later: Tensor, earlier_sigma: float, later_sigma: float) -> Tensor:
    """What a flow-matching sampler takes the clean latents to be, from two states an Euler step apart.

    The state at sigma is (1 - sigma) · clean + sigma · noise, so its slope over sigma is noise - clean, and the clean
    latents lie where sigma is 0. Exact for a deterministic step; the sigmas must differ.
    """
    slope = (later - earlier) / (later_sigma - earlier_sigma)
    return later - later_sigma * slope


def shrunk(latents: Tensor, side: int = LATENT_SIDE) -> Tensor:
    """Latents [n, C, h, w] by area to at most `side` a side, in float32; smaller ones stay."""
    height, width = latents.shape[-2:]
    scale = min(1.0, side / max(height, width))
    size = [min(length, max(_MIN_LATENT_SIDE, round(length * scale))) for length in (height, width)]
    return torch.nn.functional.interpolate(latents.float(), size=size, mode="area")


@contextmanager
def drawing_nothing(device: torch.device) -> Generator[None]:
    """Give the block random generators of its own: whatever it draws, the job's next numbers are the same."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def jpeg(picture: Picture) -> bytes:
    """`picture` as a JPEG of at most MAX_SIDE_PIXELS a side and MAX_BYTES; empty where that cannot be had."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((MAX_SIDE_PIXELS, MAX_SIDE_PIXELS), Image.Resampling.LANCZOS)
    for quality in _QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= MAX_BYTES:
            return file.getvalue()
    return b""
