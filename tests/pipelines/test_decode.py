"""Decoding in chunks and tiles: the library's arithmetic, every frame in its place, bounded memory, exact crops."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scripts.tiny_models import cached
from tests.pipelines.tiny import counting
from zsky_box.errors import JobFailure
from zsky_box.pipelines.decode import Tiling, decode_chunks, fit_tiles, pictures, tile_and_stride, to_pictures

TILING = Tiling(chunk_frames=32, overlap_frames=8, tile_pixels=96)


@pytest.fixture(scope="module", params=["tiny-ltx2", "tiny-ltx25"])
def vae(request: pytest.FixtureRequest) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video

    return AutoencoderKLLTX2Video.from_pretrained(str(cached(request.param)), subfolder="vae").eval()


def moving(frames: int, height: int = 3, width: int = 5) -> Tensor:
    """Latents [1, 16, f, height, width] that change smoothly, as those of a film do."""
    seeded = torch.Generator().manual_seed(0)
    time = torch.arange((frames - 1) // 8 + 1)[None, None, :, None, None]
    first, second = torch.randn(2, 1, 16, 1, height, width, generator=seeded)
    return first * torch.sin(0.9 * time) + second * torch.cos(0.7 * time)


@pytest.fixture
def aligned(vae: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """The library's own temporal tiling, with the frame that it should drop moved to where it drops one."""

    def patch() -> Any:
        decode = vae.tiled_decode
        calls: Iterator[int] = iter(range(1_000))

        def rolled(z: Tensor, *args: Any, **kwargs: Any) -> Any:
            decoded = decode(z, *args, **kwargs)
            if next(calls):
                decoded.sample = decoded.sample.roll(-1, dims=2)
            return decoded

        monkeypatch.setattr(vae, "tiled_decode", rolled)
        return vae

    return patch


@pytest.mark.parametrize("frames", [41, 73])
@pytest.mark.parametrize("overlap_frames", [8, 24])
def test_chunks_are_bit_identical_to_the_librarys_temporal_tiling(
    vae: Any, aligned: Callable[[], Any], frames: int, overlap_frames: int
) -> None:
    latents = moving(frames, 2, 4)
    tiling = Tiling(32, overlap_frames, 96)
    ours = torch.cat(list(decode_chunks(vae, latents, tiling)), dim=2)
    library = aligned()
    library.tile_sample_min_num_frames = 32
    library.tile_sample_stride_num_frames = 32 - overlap_frames
    library.use_framewise_decoding = True
    with torch.no_grad():
        theirs = library.decode(latents).sample
    assert ours.shape == (1, 3, frames, 64, 128)
    assert torch.equal(ours, theirs)


def test_every_frame_is_where_decoding_in_one_piece_puts_it(vae: Any) -> None:
    latents = moving(73)
    ours = torch.cat(list(decode_chunks(vae, latents, TILING)), dim=2)
    with torch.no_grad():
        whole = vae.decode(latents).sample

    def error(frame: int, shift: int) -> float:
        return float((ours[:, :, frame] - whole[:, :, frame + shift]).square().mean())

    for frame in range(1, 72):
        assert error(frame, 0) < min(error(frame, -1), error(frame, 1)), frame


def test_a_clip_of_one_chunk_is_decoded_in_one_piece(vae: Any) -> None:
    latents = moving(25)
    (chunk,) = decode_chunks(vae, latents, TILING)
    with torch.no_grad():
        assert torch.equal(chunk, vae.decode(latents).sample)


@pytest.mark.parametrize("frames", [1, 9, 25, 33, 41, 121])
def test_as_many_pictures_come_as_the_latents_hold(vae: Any, frames: int) -> None:
    assert sum(1 for _ in pictures(vae, moving(frames, 2, 2), TILING, 64, 64)) == frames


def test_only_the_chunk_that_is_watched_is_decoded(vae: Any) -> None:
    with counting(vae.decoder) as passes:
        stream = pictures(vae, moving(121, 2, 2), TILING, 64, 64)
        assert len(passes) == 0
        next(stream)
        assert len(passes) == 1


def test_an_overlap_as_long_as_a_chunk_is_refused(vae: Any) -> None:
    with pytest.raises(ValueError, match="overlap"):
        next(decode_chunks(vae, moving(73), Tiling(16, 16, 96)))


def test_tiles_cover_every_length_and_leave_no_sliver() -> None:
    for side in range(2, 33):
        for length in range(1, 200):
            tile, stride = tile_and_stride(length, side)
            assert tile <= side + 2 or side < 8, (length, side)
            last = length - stride * ((length - 1) // stride)
            assert last >= min(2, length), (length, side)
            assert tile > stride or stride == length, (length, side)


def test_480_rows_decode_in_512_pixel_tiles(vae: Any) -> None:
    """With the library's own stride the second row of tiles is one latent high, which its reflecting border refuses."""
    latents = torch.zeros(1, 16, 1, 15, 27)
    (chunk,) = decode_chunks(vae, latents, Tiling(64, 16, 512))
    assert chunk.shape == (1, 3, 1, 480, 864)


def test_far_from_a_seam_tiles_change_nothing(vae: Any) -> None:
    """Two tiles of 14 latents over 24: the outer four of each are beyond the reach of the other's border."""
    latents = moving(9, 3, 24)
    fit_tiles(vae, latents, 512)
    with torch.no_grad():
        tiled, whole = vae.decode(latents).sample, vae.decoder(latents, None)
    assert tiled.shape == whole.shape == (1, 3, 9, 96, 768)
    apart = (tiled - whole).abs().amax(dim=(0, 1, 2, 3)) / whole.std()
    outer = 4 * 32
    assert float(apart[:outer].max()) < 1e-3
    assert float(apart[-outer:].max()) < 1e-3
    assert float(apart.max()) > 0  # so the decoder did work in tiles


def test_the_surplus_is_cropped_evenly() -> None:
    rows = torch.linspace(-1, 1, 256)[:12, None].expand(12, 10)
    columns = torch.linspace(-1, 1, 256)[None, :10].expand(12, 10)
    (picture,) = to_pictures(torch.stack([rows, columns, columns])[None], 6, 8)
    assert picture.shape == (8, 6, 3)
    assert picture[:, 0, 0].tolist() == list(range(2, 10))
    assert picture[0, :, 1].tolist() == list(range(2, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_levels_are_rounded_and_clipped(dtype: torch.dtype) -> None:
    values = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 7.0], dtype=dtype)
    (picture,) = to_pictures(values.expand(1, 3, 1, 6), 6, 1)
    assert picture[0, :, 0].tolist() == [0, 0, 128, 191, 255, 255]
    assert picture.dtype == np.uint8


def test_frames_smaller_than_the_output_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="cover"):
        to_pictures(torch.zeros(1, 3, 32, 32), 64, 32)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pictures_that_are_not_finite_are_told_and_not_delivered_black(value: float) -> None:
    frames = torch.zeros(2, 3, 8, 8)
    frames[1, 0, 4, 4] = value
    with pytest.raises(JobFailure, match="pictures came out invalid") as failed:
        to_pictures(frames, 8, 8)
    assert failed.value.error_code == "internal_error"


MEMORY = """
import resource, sys, torch
from diffusers import AutoencoderKLLTX2Video
from zsky_box.pipelines.decode import Tiling, pictures
vae = AutoencoderKLLTX2Video.from_pretrained(sys.argv[1], subfolder="vae").eval()
peaks = []
for frames in (41, 41, 121):
    latents = torch.zeros(1, 16, (frames - 1) // 8 + 1, 8, 8)
    assert sum(1 for _ in pictures(vae, latents, Tiling(16, 8, 512), 256, 256)) == frames
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1], peaks[2])
"""


def test_memory_does_not_grow_with_the_clip() -> None:
    """Peak resident memory: 80 frames more cost a fraction of what those frames weigh as the library returns them."""
    run = [sys.executable, "-W", "ignore", "-c", MEMORY, str(cached("tiny-ltx2"))]
    done = subprocess.run(run, capture_output=True, check=True, timeout=500)
    short_kib, long_kib = (int(word) for word in done.stdout.split())
    extra_as_floats_kib = 80 * 3 * 256 * 256 * 4 // 1024
    assert long_kib - short_kib < extra_as_floats_kib // 3
