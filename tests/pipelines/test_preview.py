"""Previews: small, true to the latents, and without any effect on what is made."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from scripts.tiny_models import cached
from tests.pipelines.tiny import Listener, a_run, counting, inside, opened, tiny_spec, watched
from zsky_box.manifest import Recipe
from zsky_box.pipelines import loader
from zsky_box.pipelines.base import Pipeline
from zsky_box.pipelines.preview import MAX_BYTES, clean_latents, drawing_nothing, jpeg, shrunk

NAMES = ("tiny-ltx2", "tiny-ltx2-one", "tiny-ltx25")


class Watcher(Listener):
    """A reporter that wants every preview."""

    def __init__(self) -> None:
        super().__init__()
        self.previews: list[bytes | None] = []

    def step(self, step: int, steps: int, preview: Callable[[], bytes] | None = None) -> None:
        super().step(step, steps, preview)
        self.previews.append(None if preview is None else preview())


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> tuple[str, Pipeline]:
    return request.param, opened(request.param)


def test_every_step_can_be_seen(model: tuple[str, Pipeline]) -> None:
    name, pipeline = model
    watcher = Watcher()
    pipeline.video(a_run(tiny_spec(name), width=256, height=128), watcher)
    assert len(watcher.previews) == len(watcher.steps)
    for preview in watcher.previews:
        assert preview
        assert len(preview) <= MAX_BYTES
        with Image.open(io.BytesIO(preview)) as picture:
            assert picture.format == "JPEG"
            assert picture.width == 2 * picture.height


@pytest.mark.parametrize("referenced", [False, True])
def test_previews_change_no_pixel_and_no_sample(model: tuple[str, Pipeline], referenced: bool, tmp_path: Path) -> None:
    name, pipeline = model
    Image.effect_noise((200, 100), 90).convert("RGB").save(tmp_path / "r.png")
    run = a_run(tiny_spec(name), reference=str(tmp_path / "r.png") if referenced else "")
    plain, seen = (pipeline.video(run, reporter) for reporter in (Listener(), Watcher()))
    assert np.array_equal(watched(plain), watched(seen))
    assert np.array_equal(plain.sound, seen.sound)


def test_a_preview_that_draws_numbers_does_not_take_the_jobs() -> None:
    torch.manual_seed(5)
    first = torch.randn(4)
    torch.manual_seed(5)
    with drawing_nothing(torch.device("cpu")):
        torch.randn(100)
    assert torch.equal(torch.randn(4), first)


def test_the_last_preview_shows_the_latents_that_are_decoded(
    model: tuple[str, Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last step nothing is left to denoise: what the preview took to be clean is the result."""
    name, pipeline = model
    pipe, watcher = inside(pipeline), Watcher()
    decoded: list[Tensor] = []
    decode = pipe.vae.decode

    def noted(latents: Tensor, **options: Any) -> Any:
        decoded.append(latents)
        return decode(latents, **options)

    monkeypatch.setattr(pipe.vae, "decode", noted)
    watched(pipeline.video(a_run(tiny_spec(name), width=512, height=384, frames=9), watcher))
    preview, result = decoded[len(watcher.steps) - 1], decoded[-1]
    assert preview.shape == (1, 16, 1, 8, 10)
    assert torch.allclose(preview[:, :, 0], shrunk(result[:, :, result.shape[2] // 2]), atol=1e-3)


def test_a_preview_that_nobody_wants_costs_no_decoding(model: tuple[str, Pipeline]) -> None:
    name, pipeline = model
    with counting(inside(pipeline).vae.decoder) as decodes:
        pipeline.video(a_run(tiny_spec(name)), Listener())
    assert len(decodes) == 0


def test_an_offloaded_vae_is_not_fetched_for_a_preview() -> None:
    spec, watcher = tiny_spec("tiny-ltx2-one"), Watcher()
    pipeline = loader("ltx2")(spec, Recipe(name="r", offload="model"), cached("tiny-ltx2-one"), "cpu")
    pipeline.video(a_run(spec), watcher)
    assert watcher.previews == [None] * 8


@pytest.mark.parametrize("trouble", ["memory", "values"])
def test_a_preview_that_fails_is_empty_and_the_job_goes_on(trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, spec, watcher = opened("tiny-ltx2-one"), tiny_spec("tiny-ltx2-one"), Watcher()
    before = watched(pipeline.video(a_run(spec), Listener()))

    def broken(*_: Any, **__: Any) -> Any:
        if trouble == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (torch.full((1, 3, 1, 64, 64), float("nan")),)

    with monkeypatch.context() as patch:
        patch.setattr(inside(pipeline).vae, "decode", broken)
        clip = pipeline.video(a_run(spec), watcher)
    assert watcher.previews == [b""] * 8
    assert np.array_equal(watched(clip), before)


def test_watching_ends_with_the_job() -> None:
    pipeline = opened("tiny-ltx2-one")
    pipeline.video(a_run(tiny_spec("tiny-ltx2-one")), Watcher())
    assert not inside(pipeline).transformer._forward_hooks


def test_clean_latents_are_where_sigma_is_nought() -> None:
    clean, noise = torch.randn(2, 1, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for earlier, later in ((1.0, 0.9), (0.7, 0.4), (0.4, 0.0)):
        first, second = ((1 - sigma) * clean + sigma * noise for sigma in (earlier, later))
        assert torch.allclose(clean_latents(first, second, earlier, later), clean)


@pytest.mark.parametrize(
    ("size", "smaller"),
    [((34, 60), (6, 10)), ((60, 34), (10, 6)), ((3, 200), (2, 10)), ((1, 8), (1, 8)), ((10, 6), (10, 6))],
)
def test_latents_are_shrunk_by_area(size: tuple[int, int], smaller: tuple[int, int]) -> None:
    latents = torch.ones(1, 16, *size, dtype=torch.bfloat16)
    small = shrunk(latents)
    assert small.shape == (1, 16, *smaller)
    assert torch.allclose(small, torch.ones_like(small))


@pytest.mark.parametrize("size", [(1080, 1920), (1920, 1080), (320, 320), (2, 3)])
def test_a_jpeg_is_small_whatever_the_picture(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    written = jpeg(picture)
    assert 0 < len(written) <= MAX_BYTES
    with Image.open(io.BytesIO(written)) as seen:
        assert max(seen.size) == min(320, max(size))
