"""A small JPEG of how a result looks by now. Knows no model family: each brings its latents and its VAE."""

from __future__ import annotations

import io
from typing import Final

from torch import Tensor

from zsky_box.pipelines.base import Picture

MAX_SIDE_PIXELS: Final = 320
MAX_BYTES: Final = 32 * 1024
_QUALITIES: Final = (80, 60, 40, 20)


def clean_latents(earlier: Tensor, later: Tensor, earlier_sigma: float, later_sigma: float) -> Tensor:
    """What a flow-matching sampler takes the clean latents to be, from two states an Euler step apart.

    The state at sigma is (1 - sigma) · clean + sigma · noise, so its slope over sigma is noise - clean, and the clean
    latents lie where sigma is 0. Exact for a deterministic step; the sigmas must differ.
    """
    slope = (later - earlier) / (later_sigma - earlier_sigma)
    return later - later_sigma * slope


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
