"""LTX-2 from a first frame: the reference is in the latents of both stages, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.pipelines.tiny import Listener, a_run, counting, inside, opened, tiny_spec, watched
from zsky_box.errors import JobFailure
from zsky_box.pipelines.base import Pipeline
from zsky_box.pipelines.reference import cover

NAMES = ("tiny-ltx2", "tiny-ltx2-one", "tiny-ltx23", "tiny-ltx25")
_OPENED: dict[str, Pipeline] = {}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(name: str) -> Pipeline:
    return _OPENED.setdefault(name, opened(name))


def reference(folder: Path, seed: int) -> str:
    """The path of a PNG of coloured patches, of a size and shape of its own."""
    patches = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = folder / f"{seed}.png"
    Image.fromarray(patches).resize((310 + seed, 170), Image.Resampling.NEAREST).save(path)
    return str(path)


def encoded(pipe: Any, path: str, width: int, height: int) -> Tensor:
    """The normalised latents [h · w, C] of the reference at this size, computed here from the VAE alone."""
    vae = pipe.vae
    vae.disable_tiling()
    pixels = torch.from_numpy(np.array(cover(path, width, height))).permute(2, 0, 1)[None, :, None] / 127.5 - 1
    with torch.no_grad():
        latents = vae.encode(pixels.float()).latent_dist.mode()
    mean, std = (statistic[None, :, None, None, None] for statistic in (vae.latents_mean, vae.latents_std))
    return ((latents - mean) / std)[0].flatten(1).T


def test_the_first_latent_frame_is_the_reference_in_every_pass_of_every_stage(
    model: Pipeline, name: str, tmp_path: Path
) -> None:
    path, pipe = reference(tmp_path, 1), inside(model)
    with counting(pipe.transformer) as passes:
        model.video(a_run(tiny_spec(name), reference=path), Listener())
    assert len(passes) == (11 if name in ("tiny-ltx2", "tiny-ltx25") else 8)
    for call in passes.calls:
        tokens = call["height"] * call["width"]
        wanted = encoded(pipe, path, call["width"] * 32, call["height"] * 32)
        assert torch.allclose(call["hidden_states"][0, :tokens], wanted, atol=1e-4)
        assert call["timestep"][0, :tokens].abs().max() == 0
        assert call["timestep"][0, tokens:].min() > 0


def test_the_reference_decides(model: Pipeline, name: str, tmp_path: Path) -> None:
    spec = tiny_spec(name)
    first, other = reference(tmp_path, 1), reference(tmp_path, 2)
    plain = watched(model.video(a_run(spec), Listener()))
    clips = [watched(model.video(a_run(spec, reference=path), Listener())) for path in (first, first, other)]
    assert np.array_equal(clips[0], clips[1])
    assert not np.array_equal(clips[0], clips[2])
    assert not np.array_equal(clips[0], plain)
    assert np.array_equal(watched(model.video(a_run(spec), Listener())), plain)


def test_the_first_picture_is_the_reference_as_the_vae_knows_it(model: Pipeline, name: str, tmp_path: Path) -> None:
    """A clip of one frame has nothing but the reference in it, whatever the weights make of the rest of longer ones."""
    path, vae = reference(tmp_path, 1), inside(model).vae
    run = a_run(tiny_spec(name), width=128, height=128, frames=1, reference=path)
    (shown,) = watched(model.video(run, Listener()))
    pixels = torch.from_numpy(np.array(cover(path, 128, 128))).permute(2, 0, 1)[None, :, None] / 127.5 - 1
    with torch.no_grad():
        frame = vae.decode(vae.encode(pixels.float()).latent_dist.mode()).sample[0, :, 0]
    known = ((frame.clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(shown - known).max() < 2
    assert known.std() > 10


def test_the_last_jobs_tiles_do_not_change_the_next_ones_first_frame(tmp_path: Path) -> None:
    """Encoding would take place in the tiles that the decoding before it left."""
    spec = tiny_spec("tiny-ltx2-one")
    run = a_run(spec, width=384, height=320, frames=1, reference=reference(tmp_path, 1))
    pipeline = opened("tiny-ltx2-one")
    first = watched(pipeline.video(run, Listener()))
    assert np.array_equal(watched(pipeline.video(run, Listener())), first)


def test_no_video_library_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The pipelines would compress the reference with PyAV, which the box does not have, unless told not to."""
    from diffusers.pipelines.ltx2 import pipeline_ltx2_image2video

    def compressed(*_: Any) -> None:
        raise ImportError("PyAV")

    monkeypatch.setattr(pipeline_ltx2_image2video, "apply_image_conditioning_crf", compressed)
    pipeline = _OPENED.setdefault("tiny-ltx2", opened("tiny-ltx2"))
    watched(pipeline.video(a_run(tiny_spec("tiny-ltx2"), reference=reference(tmp_path, 1)), Listener()))


def test_the_upsampler_is_told_that_latents_are_not_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to its default it would denormalise them a second time."""
    pipeline = _OPENED.setdefault("tiny-ltx2", opened("tiny-ltx2"))
    upsample = vars(pipeline)["_upsample"]
    told: list[Any] = []

    def noted(**options: Any) -> Any:
        told.append(options["latents_normalized"])
        return upsample(**options)

    monkeypatch.setitem(vars(pipeline), "_upsample", noted)
    pipeline.video(a_run(tiny_spec("tiny-ltx2")), Listener())
    assert told == [False]


@pytest.mark.parametrize("content", [None, b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"x" * 50])
def test_a_reference_that_cannot_be_read_is_told(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "r.png"
    if content is not None:
        path.write_bytes(content)
    pipeline = _OPENED.setdefault("tiny-ltx2", opened("tiny-ltx2"))
    with counting(inside(pipeline).transformer) as passes, pytest.raises(JobFailure, match="Upload it again") as failed:
        pipeline.video(a_run(tiny_spec("tiny-ltx2"), reference=str(path)), Listener())
    assert (failed.value.error_code, len(passes)) == ("internal_error", 0)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (64, 64), (1, 1)])
def test_a_reference_covers_the_size_and_keeps_its_middle(size: tuple[int, int], tmp_path: Path) -> None:
    columns = np.linspace(0, 255, size[0], dtype=np.uint8)
    rows = np.linspace(0, 255, size[1], dtype=np.uint8)
    pixels = np.stack([np.tile(columns, (size[1], 1)), np.tile(rows[:, None], (1, size[0])), np.zeros(size[::-1])], 2)
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "r.png")
    picture = np.asarray(cover(str(tmp_path / "r.png"), 128, 96)).astype(int)
    assert picture.shape == (96, 128, 3)
    for channel, (near, far) in enumerate(((picture[:, 0], picture[:, -1]), (picture[0], picture[-1]))):
        assert abs(near[:, channel].mean() + far[:, channel].mean() - (255 if min(size) > 1 else 0)) < 4
