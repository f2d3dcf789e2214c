"""The images of a job: batches, each image's own seed, one failing without the others, progress, previews, recipes."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image
from torch import Tensor

from scripts.tiny_models import cached
from tests.pipelines.tiny import CancelAt, Listener, a_run, counting, inside, opened, tiny_spec
from zsky_box.errors import JobFailure
from zsky_box.events import Run
from zsky_box.manifest import WHOLE, Quantisation, Recipe
from zsky_box.pipelines import loader
from zsky_box.pipelines.base import Cancelled, OutOfMemory, Pipeline, Reporter, Still
from zsky_box.pipelines.preview import MAX_SIDE_PIXELS, jpeg
from zsky_box.pipelines.stills import StepDone, Stills

STEPS = 4
RUN = a_run(tiny_spec("tiny-klein"), width=16, height=16)


class Greys:
    """A painter whose image of seed s is grey level s; what `breaks` says happens to a seed's batch or decoding."""

    def __init__(self, breaks: dict[int, str] | None = None) -> None:
        self.prepared = 0
        self.batches: list[list[int]] = []
        self.breaks = breaks or {}

    def prepare(self) -> None:
        self.prepared += 1

    def denoise(self, seeds: list[int], done: StepDone) -> Tensor:
        self.batches.append(seeds)
        for step in range(1, STEPS + 1):
            done(step, STEPS, None)
            if step == 3 and any(self.breaks.get(seed) == "pass" for seed in seeds):
                raise RuntimeError("this one does not come out")
        return torch.tensor(seeds, dtype=torch.float32).reshape(-1, 1, 1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        assert latents.shape == (1, 1, 1, 1)
        seed = int(latents)
        if self.breaks.get(seed) == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        level = float("nan") if self.breaks.get(seed) == "invalid" else seed / 127.5 - 1
        return torch.full((1, 3, 16, 16), level)


def stills(painter: Greys, run: Run = RUN, report: Reporter | None = None, at_once: int = 1) -> Stills:
    return Stills(painter, run, report or Listener(), at_once)


def levels(made: list[Still]) -> list[tuple[int, int]]:
    """Seed and grey level of each."""
    return [(still.seed, int(still.picture[0, 0, 0])) for still in made]


@pytest.mark.parametrize(
    ("n", "at_once", "batches"),
    [(1, 4, [[7]]), (3, 1, [[7], [8], [9]]), (4, 2, [[7, 8], [9, 10]]), (5, 3, [[7, 8, 9], [10, 11]])],
)
def test_images_come_in_batches_and_the_prompt_is_encoded_once(n: int, at_once: int, batches: list[list[int]]) -> None:
    painter = Greys()
    made = list(stills(painter, replace(RUN, n=n), at_once=at_once))
    assert (painter.batches, painter.prepared) == (batches, 1)
    assert levels(made) == [(seed, seed) for seed in range(7, 7 + n)]


def test_a_batch_is_denoised_when_its_first_image_is_asked_for() -> None:
    painter = Greys()
    made = stills(painter, replace(RUN, n=4), at_once=2)
    assert painter.batches == []
    next(made)
    next(made)
    assert painter.batches == [[7, 8]]
    next(made)
    assert painter.batches == [[7, 8], [9, 10]]


@pytest.mark.parametrize(("n", "at_once"), [(1, 1), (3, 1), (5, 2), (5, 3), (4, 10)])
def test_progress_ends_with_all_steps_and_never_goes_back(n: int, at_once: int) -> None:
    listener = Listener()
    list(stills(Greys(), replace(RUN, n=n), listener, at_once))
    told = [step for step, _ in listener.steps]
    assert told == sorted(set(told))
    assert listener.steps[-1] == (n * STEPS, n * STEPS)
    assert listener.phases == ["loading", "denoising", "decoding"]


@pytest.mark.parametrize("breaks", ["invalid", "pass"])
@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_an_image_that_fails_takes_no_other_along(breaks: str, at_once: int) -> None:
    listener = Listener()
    made = stills(Greys({8: breaks}), replace(RUN, n=4), listener, at_once)
    came: list[Still] = []
    failed: list[Exception] = []
    for _ in range(4):
        try:
            came.append(next(made))
        except (JobFailure, RuntimeError) as error:
            failed.append(error)
    with pytest.raises(StopIteration):
        next(made)
    # A pass over a batch fails for the image that is due; those behind it are tried again without it.
    lost = 2 if breaks == "pass" and at_once > 1 else 1
    assert len(failed) == lost
    assert levels(came)[-2:] == [(9, 9), (10, 10)]
    told = [step for step, _ in listener.steps]
    assert told == sorted(told)


def test_running_out_of_memory_is_said_so_wherever_it_happens() -> None:
    made = stills(Greys({8: "memory"}), replace(RUN, n=3), at_once=3)
    next(made)
    with pytest.raises(OutOfMemory):
        next(made)


@pytest.mark.parametrize(("at", "batches"), [(2, 1), (4, 1), (10, 2)])
def test_a_cancel_ends_the_batch_at_once(at: int, batches: int) -> None:
    painter = Greys()
    cancel = CancelAt(at)
    with pytest.raises(Cancelled):
        list(stills(painter, replace(RUN, n=4), cancel, at_once=2))
    assert (len(painter.batches), cancel.steps[-1]) == (batches, (at, 16))


def in_batches(name: str, dtype: str, at_once: int) -> Pipeline:
    spec = replace(tiny_spec(name), dtype=dtype)
    return loader(spec.family)(spec, replace(WHOLE, images_at_once=at_once), cached(name), "cpu")


def differences(made: list[Still], alone: list[Still]) -> Any:
    """Levels between two lists of pictures, [n, height, width, 3]."""
    pairs = zip(made, alone, strict=True)
    return np.stack([np.abs(one.picture.astype(int) - other.picture.astype(int)) for one, other in pairs])


@pytest.mark.parametrize("name", ["tiny-klein", "tiny-z-image"])
def test_a_batch_makes_the_same_pictures_in_fewer_passes(name: str) -> None:
    pipeline = in_batches(name, "float32", 3)
    run = a_run(tiny_spec(name), n=5, width=118, height=90)
    listener = Listener()
    with counting(inside(pipeline).transformer) as passes, counting(inside(pipeline).text_encoder) as encoded:
        made = list(pipeline.images(run, listener))
    steps = listener.steps[-1][1] // 5
    assert (len(passes), len(encoded)) == (2 * steps, 1)
    alone = opened(name)
    by_itself = [next(iter(alone.images(replace(run, n=1, seed=run.seed + i), Listener()))) for i in range(5)]
    assert [still.seed for still in made] == [still.seed for still in by_itself]
    assert differences(made, by_itself).max() <= 2


@pytest.mark.parametrize("name", ["tiny-klein", "tiny-z-image"])
def test_batches_in_bfloat16_are_the_same_pictures_but_for_rounding(name: str) -> None:
    run = a_run(replace(tiny_spec(name), dtype="bfloat16"), n=3, width=256, height=256)
    made = list(in_batches(name, "bfloat16", 3).images(run, Listener()))
    alone = list(in_batches(name, "bfloat16", 1).images(run, Listener()))
    assert differences(made, alone).mean() < 1
    other = differences(made, alone[1:] + alone[:1])
    assert other.mean() > 10


def test_a_batch_is_made_again_bit_for_bit_after_another_job() -> None:
    pipeline = in_batches("tiny-klein", "bfloat16", 2)
    run = a_run(tiny_spec("tiny-klein"), n=3)
    before = list(pipeline.images(run, Listener()))
    with pytest.raises(Cancelled):
        list(pipeline.images(replace(run, seed=90), CancelAt(4)))
    list(pipeline.images(replace(run, seed=50, width=64), Listener()))
    after = list(pipeline.images(run, Listener()))
    assert not differences(before, after).any()


FAMILIES = pytest.mark.parametrize("name", ["tiny-klein", "tiny-z-image"])


class Looker(Listener):
    """A reporter that looks at every preview that it is offered."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, bytes] = {}

    def step(self, step: int, steps: int, preview: Callable[[], bytes] | None = None) -> None:
        super().step(step, steps)
        if preview is not None:
            self.seen[step] = preview()


def pixels(jpeg: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(jpeg), formats=("JPEG",)), dtype=int)


@FAMILIES
def test_every_step_but_the_first_can_be_looked_at_and_that_changes_nothing(name: str) -> None:
    pipeline = opened(name)
    run = a_run(tiny_spec(name), n=2)
    plain = list(pipeline.images(run, Looker()))
    looker = Looker()
    watched = list(pipeline.images(replace(run, preview_steps=1), looker))
    assert not differences(watched, plain).any()
    steps = looker.steps[-1][1] // 2
    assert set(looker.seen) == {step for step, _ in looker.steps} - {1, steps + 1}
    # After an image's last step nothing is left to estimate.
    assert [looker.seen[steps], looker.seen[2 * steps]] == [jpeg(still.picture) for still in watched]
    assert looker.seen[2] != looker.seen[steps]


@FAMILIES
def test_nothing_is_prepared_for_looking_where_nobody_looks(name: str) -> None:
    looker = Looker()
    list(opened(name).images(a_run(tiny_spec(name)), looker))
    assert looker.seen == {}


@FAMILIES
def test_a_preview_of_a_large_picture_is_decoded_small(name: str) -> None:
    pipeline = opened(name, steps=2)
    looker = Looker()
    with counting(inside(pipeline).vae.decoder) as decodes:
        list(pipeline.images(a_run(tiny_spec(name), width=1280, height=720, preview_steps=2), looker))
    assert [args[0].shape[2:] for args in decodes.args] == [(22, 40), (90, 160)]
    assert max(pixels(looker.seen[2]).shape) == MAX_SIDE_PIXELS


@FAMILIES
def test_a_preview_that_came_out_invalid_fails_no_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = in_batches(name, "float32", 2)
    decoder = inside(pipeline).vae.decoder
    decode = type(decoder).forward
    looker = Looker()

    def invalid_while_denoising(*args: Any, **kwargs: Any) -> Any:
        frames = decode(decoder, *args, **kwargs)
        return frames if "decoding" in looker.phases else frames * float("nan")

    monkeypatch.setattr(decoder, "forward", invalid_while_denoising)
    made = list(pipeline.images(a_run(tiny_spec(name), n=2, preview_steps=1), looker))
    assert len(made) == 2
    assert set(looker.seen.values()) == {b""}


@FAMILIES
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_quantised_weights_make_nearly_the_same_picture_and_load_again_as_they_were(
    name: str, kind: Quantisation, tmp_path: Path
) -> None:
    spec = tiny_spec(name)
    run = a_run(spec)
    recipe = Recipe(name=kind, quantise={"transformer": kind, "text_encoder": kind})
    full = list(opened(name).images(run, Listener()))
    first = loader(spec.family)(spec, recipe, cached(name), "cpu")
    made = list(first.images(run, Listener()))
    assert 0 < differences(made, full).mean() < 10
    inside(first).save_pretrained(str(tmp_path / name))
    again = loader(spec.family)(spec, recipe, tmp_path / name, "cpu")
    kept, read = kept_numbers(first), kept_numbers(again)
    assert kept.keys() == read.keys()
    assert [part for part in kept if not torch.equal(kept[part], read[part])] == []
    # The same numbers elsewhere in memory: some processors' kernels then add them up in another order.
    assert differences(list(again.images(run, Listener())), made).max() <= 1
    assert not differences(list(first.images(run, Listener())), made).any()


def kept_numbers(pipeline: Pipeline) -> dict[str, Tensor]:
    """The bytes that a pipeline's quantised components hold: each weight's numbers and their scales."""
    found: dict[str, Tensor] = {}
    for component in ("transformer", "text_encoder"):
        for name, weight in getattr(inside(pipeline), component).state_dict().items():
            parts = weight.__tensor_flatten__()[0] if hasattr(weight, "__tensor_flatten__") else []
            for part in parts:
                found[f"{component}.{name}.{part}"] = getattr(weight, part).contiguous().view(torch.uint8)
    assert found
    return found


@FAMILIES
@pytest.mark.parametrize("offload", ["model", "blocks"])
def test_offloaded_components_make_the_same_bits_also_after_a_cancel(name: str, offload: Any) -> None:
    spec = tiny_spec(name)
    pipeline = loader(spec.family)(spec, Recipe(name=offload, offload=offload), cached(name), "cpu")
    full = list(opened(name).images(a_run(spec), Listener()))
    with pytest.raises(Cancelled):
        list(pipeline.images(a_run(spec, seed=99), CancelAt(2)))
    looker = Looker()
    made = list(pipeline.images(a_run(spec, preview_steps=1), looker))
    assert not differences(made, full).any()
    assert bool(looker.seen) == (offload == "blocks")  # a look would send the transformer off the card, and back
