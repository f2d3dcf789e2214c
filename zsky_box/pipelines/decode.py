"""Latents to pictures in bounded memory: chunks of time, tiles of space, uint8 out, one picture at a time.

Also the crop that every diffusers family shares. Knows nothing of sound, prompts or jobs.

The chunks are cut, decoded and cross-faded with the arithmetic of the library's own `_temporal_tiled_decode`, but for
one thing. There, each chunk after the first drops its last frame, although its first is the surplus one: the single
frame that a chunk's first latent decodes to, which the chunk before has shown already. From the first seam on every
picture then comes one frame late (42 ms at 24 fps, while the sound does not), and the clip's last frame is lost. Here
the first frame is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from zsky_box.errors import JobFailure
from zsky_box.pipelines.base import Picture
from zsky_box.pipelines.loading import memory_guard

_COPY_FRAMES: Final = 8  # pictures brought from the device at once
_OVERLAP_PART: Final = 8  # neighbouring tiles share an eighth of their side: 64 of 512 pixels, as in the library


@dataclass(frozen=True)
class Tiling:
    """How much is decoded at once: `chunk_frames` frames, of which `overlap_frames` are cross-faded into the next."""

    chunk_frames: int
    overlap_frames: int
    tile_pixels: int


def fit_tiles(vae: Any, latents: Tensor, tile_pixels: int) -> None:
    """Make the VAE decode latents of this size in tiles of about `tile_pixels` a side, a smaller side in one piece."""
    ratio: int = vae.spatial_compression_ratio
    tile_height, stride_height = (ratio * part for part in tile_and_stride(latents.shape[3], tile_pixels // ratio))
    tile_width, stride_width = (ratio * part for part in tile_and_stride(latents.shape[4], tile_pixels // ratio))
    vae.enable_tiling(
        tile_sample_min_height=tile_height,
        tile_sample_min_width=tile_width,
        tile_sample_stride_height=stride_height,
        tile_sample_stride_width=stride_width,
    )
    vae.use_framewise_decoding = False  # time is cut here, so that finished chunks can leave


def tile_and_stride(length: int, side: int) -> tuple[int, int]:
    """Length of the tiles and distance between their starts, in latents, over an axis of `length` latents.

    The strides are evened out, because a fixed one may leave a last tile of a single latent (512-pixel tiles over 480
    rows do): wasted work, and an error in LTX-2.0's decoder, whose reflecting border needs two.
    """
    if length <= side:
        return length, length
    overlap = max(1, side // _OVERLAP_PART)
    stride = max(2, side - overlap)
    stride = math.ceil(length / math.ceil(length / stride))
    while stride < length and length % stride == 1:
        stride += 1
    return stride + overlap, stride


def decode_chunks(vae: Any, latents: Tensor, tiling: Tiling) -> Iterator[Tensor]:
    """Decode latents [1, C, f, h, w] into consecutive chunks [1, 3, n, H, W], values about -1 to 1.

    The chunks' n add up to (f - 1) · ratio + 1. At any time one chunk and the previous one's overlap are held.
    """
    ratio: int = vae.temporal_compression_ratio
    stride_frames = tiling.chunk_frames - tiling.overlap_frames
    latent_chunk, latent_stride = tiling.chunk_frames // ratio, stride_frames // ratio
    if latent_stride < 1:
        raise ValueError(f"chunks of {tiling.chunk_frames} frames cannot overlap by {tiling.overlap_frames}")
    fit_tiles(vae, latents, tiling.tile_pixels)
    latent_frames = latents.shape[2]
    if latent_frames <= latent_chunk:
        yield _decode(vae, latents)
        return
    missing = (latent_frames - 1) * ratio + 1
    tail: Tensor | None = None
    for start in range(0, latent_frames, latent_stride):
        chunk = _decode(vae, latents[:, :, start : start + latent_chunk + 1])
        keep = stride_frames + 1
        if tail is not None:
            chunk = vae.blend_t(tail, chunk[:, :, 1:], tiling.overlap_frames)
            keep = stride_frames
        keep = min(keep, missing)
        missing -= keep
        # A copy, because a view would keep the whole chunk alive while the next one is computed.
        tail = chunk[:, :, -tiling.overlap_frames :].clone()
        yield chunk[:, :, :keep]
        del chunk
        if not missing:
            return


def _decode(vae: Any, latents: Tensor) -> Tensor:
    with torch.no_grad():
        return vae.decode(latents, return_dict=False)[0]


def pictures(vae: Any, latents: Tensor, tiling: Tiling, width: int, height: int) -> Iterator[Picture]:
    """Decode latents [1, C, f, h, w] lazily into pictures [height, width, 3], cropped evenly.

    Raises OutOfMemory, and JobFailure like `to_pictures`.
    """
    with memory_guard():
        for chunk in decode_chunks(vae, latents, tiling):
            for start in range(0, chunk.shape[2], _COPY_FRAMES):
                yield from to_pictures(chunk[0, :, start : start + _COPY_FRAMES].transpose(0, 1), width, height)
            del chunk  # before the next one is computed


def enlarged(stream: Iterator[Picture], width: int, height: int) -> Iterator[Picture]:
    """Each picture of `stream` at `width` x `height`, for clips that are rendered smaller than they were asked for."""
    from PIL import Image

    for picture in stream:
        yield np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def to_pictures(frames: Tensor, width: int, height: int) -> list[Picture]:
    """Frames [n, 3, H, W] with values -1 to 1 as n pictures [height, width, 3], the surplus cropped evenly.

    Rounds in float32: bfloat16 cannot hold all 256 levels. Raises JobFailure for values that are not finite, which
    would silently become black.
    """
    top, left = (frames.shape[2] - height) // 2, (frames.shape[3] - width) // 2
    if top < 0 or left < 0:
        raise ValueError(f"frames of {tuple(frames.shape)} do not cover {width}x{height}")
    cropped = frames[:, :, top : top + height, left : left + width].permute(0, 2, 3, 1).to(torch.float32)
    if not bool(torch.isfinite(cropped).all()):
        raise JobFailure("internal_error", "The model's pictures came out invalid. Try another seed.")
    levels = cropped.clamp(-1.0, 1.0).mul(127.5).add(127.5).round().to(torch.uint8)
    return list(levels.contiguous().cpu().numpy())
