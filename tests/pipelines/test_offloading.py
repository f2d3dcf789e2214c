"""Components that come to the device one at a time, blocks that are streamed, and blocks that are compiled."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from scripts.tiny_models import cached
from tests.pipelines.tiny import CancelAt, Listener, a_run, counting, inside, opened, tiny_spec, watched
from zsky_box.manifest import Recipe
from zsky_box.pipelines import loader
from zsky_box.pipelines.base import Cancelled, Clip, Pipeline
from zsky_box.pipelines.offloading import Seat, place

TWO = tiny_spec("tiny-ltx2")


def offloaded(offload: Any, name: str = "tiny-ltx2", **recipe: Any) -> Pipeline:
    """A tiny model, offloaded; its device is the processor too, so that all but the copying happens."""
    spec = tiny_spec(name)
    return loader(spec.family)(spec, Recipe(name="r", offload=offload, **recipe), cached(name), "cpu")


def results(clip: Clip) -> tuple[Any, Any]:
    return watched(clip), clip.sound


class Visits:
    """Who took a seat, in order, and the sentence of the day when somebody sat down before the last one had left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self._here: set[str] = set()
        self.most = 0
        take, free = Seat.take, Seat.free

        def noted_free(seat: Seat) -> None:
            if seat.taken_by is not None:
                self._here.discard(type(seat.taken_by).__name__)
            free(seat)

        def noted_take(seat: Seat, module: torch.nn.Module) -> None:
            name = type(module).__name__
            take(seat, module)
            if not self.names or self.names[-1] != name:
                self.names.append(name)
            self._here.add(name)
            self.most = max(self.most, len(self._here))

        monkeypatch.setattr(Seat, "free", noted_free)
        monkeypatch.setattr(Seat, "take", noted_take)


@pytest.mark.parametrize("name", ["tiny-ltx2", "tiny-ltx23", "tiny-ltx25"])
@pytest.mark.parametrize("offload", ["model", "blocks"])
def test_offloading_changes_no_pixel_and_no_sample(name: str, offload: str) -> None:
    run = a_run(tiny_spec(name))
    pictures, sound = results(opened(name).video(run, Listener()))
    pipeline = offloaded(offload, name)
    for _ in range(2):
        again = results(pipeline.video(run, Listener()))
        assert np.array_equal(pictures, again[0])
        assert np.array_equal(sound, again[1])


def test_one_component_at_a_time_is_on_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = offloaded("model")
    visits = Visits(monkeypatch)
    watched(pipeline.video(a_run(TWO), Listener()))
    assert visits.names == [
        "Gemma3ForConditionalGeneration",
        "LTX2TextConnectors",
        "LTX2VideoTransformer3DModel",
        "LTX2LatentUpsamplerModel",
        "LTX2TextConnectors",
        "LTX2VideoTransformer3DModel",
        "AutoencoderKLLTX2Audio",
        "LTX2Vocoder",
        "AutoencoderKLLTX2Video",
    ]
    assert visits.most == 1


def test_the_transformer_is_off_the_card_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What 24 GB cards run out of memory over: pictures and sound are decoded outside of the pipeline's own call."""
    pipeline = offloaded("model")
    pipe = inside(pipeline)
    moved: list[tuple[str, str]] = []
    to = torch.nn.Module.to

    def noted(module: Any, *args: Any, **kwargs: Any) -> Any:
        if module in (pipe.transformer, pipe.vae, pipe.audio_vae):
            moved.append((type(module).__name__, str(args[0])))
        return to(module, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "to", noted)
    clip = pipeline.video(a_run(TWO), Listener())
    left = max(index for index, (name, _) in enumerate(moved) if name == "LTX2VideoTransformer3DModel")
    came = min(index for index, (name, _) in enumerate(moved) if name == "AutoencoderKLLTX2Audio")
    assert left < came
    watched(clip)
    assert moved[-1][0] == "AutoencoderKLLTX2Video"


def test_streamed_blocks_keep_out_of_the_seat(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = offloaded("blocks")
    blocks = inside(pipeline).transformer.transformer_blocks
    visits = Visits(monkeypatch)
    onloads = loads(blocks, monkeypatch)
    watched(pipeline.video(a_run(TWO), Listener()))
    assert "LTX2VideoTransformer3DModel" not in visits.names
    assert visits.names[-1] == "AutoencoderKLLTX2Video"
    assert onloads == [0, 1] * 11


def loads(blocks: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The index of each block at each time when it is brought to the device."""
    from diffusers.hooks.group_offloading import ModuleGroup

    onload, seen, known = ModuleGroup.onload_, list[int](), list(blocks)

    def noted(group: Any) -> None:
        seen.extend(known.index(module) for module in group.modules if module in known)
        onload(group)

    monkeypatch.setattr(ModuleGroup, "onload_", noted)
    return seen


@pytest.mark.parametrize("offload", ["model", "blocks"])
def test_after_a_cancel_an_offloaded_model_is_usable(offload: str) -> None:
    pipeline = offloaded(offload)
    before = results(pipeline.video(a_run(TWO), Listener()))
    with pytest.raises(Cancelled):
        pipeline.video(a_run(TWO, seed=99), CancelAt(5))
    after = results(pipeline.video(a_run(TWO), Listener()))
    assert np.array_equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])


def seated(pipeline: Pipeline) -> str | None:
    """The class of whoever is on the card now."""
    seat = vars(pipeline)["_seat"]
    return None if seat.taken_by is None else type(seat.taken_by).__name__


@pytest.mark.parametrize("name", ["tiny-ltx2", "tiny-klein", "tiny-z-image"])
def test_no_job_leaves_more_than_a_decoder_on_the_card(name: str) -> None:
    """All that the service counts for an offloaded model between jobs: the next model has the room beside it."""
    pipeline, run = offloaded("model", name), a_run(tiny_spec(name))

    def make(report: Listener) -> None:
        list(pipeline.images(run, report) if run.type == "image" else pipeline.video(run, report).pictures)

    make(Listener())
    assert seated(pipeline) in ("AutoencoderKLLTX2Video", "AutoencoderKLFlux2", "AutoencoderKL")
    with pytest.raises(Cancelled):
        make(CancelAt(2))
    assert seated(pipeline) is None


@pytest.mark.parametrize("offload", ["model", "blocks"])
def test_closing_an_offloaded_model_lets_go_of_its_weights(offload: str) -> None:
    pipeline = offloaded(offload)
    watched(pipeline.video(a_run(TWO, frames=1), Listener()))
    parts = [weakref.ref(part) for part in (inside(pipeline).transformer, inside(pipeline).vae)]
    pipeline.close()
    gc.collect()
    assert [part() for part in parts] == [None, None]


def test_quantised_weights_can_be_streamed() -> None:
    run = a_run(TWO)
    resident = watched(offloaded("none", quantise={"transformer": "int8"}).video(run, Listener()))
    streamed = watched(offloaded("blocks", quantise={"transformer": "int8"}).video(run, Listener()))
    assert np.array_equal(resident, streamed)


def test_a_seat_moves_nobody_who_has_it() -> None:
    moved: list[str] = []

    class Part(torch.nn.Module):
        def to(self, device: torch.device) -> Part:  # type: ignore[override]
            moved.append(str(device))
            return self

    seat, first, second = Seat("meta"), Part(), Part()
    for part in (first, first, second):
        seat.take(part)
    assert moved == ["meta", "cpu", "meta"]
    seat.free()
    seat.free()
    assert moved == ["meta", "cpu", "meta", "cpu"]
    assert seat.taken_by is None


def test_compiled_blocks_make_the_same_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled by torch's eager backend, which captures the graphs and translates none of them."""
    from torch._dynamo import reset
    from torch._dynamo.utils import counters

    from zsky_box.pipelines import ltx2

    def eagerly(recipe: Recipe, device: str, *parts: Any) -> Seat | None:
        return place(recipe, device, *parts, backend="eager")

    monkeypatch.setattr(ltx2, "place", eagerly)
    reset()
    counters.clear()
    run = a_run(tiny_spec("tiny-ltx2-one"))
    pipeline = offloaded("none", "tiny-ltx2-one", compile=True)
    assert [block._compiled_call_impl is not None for block in inside(pipeline).transformer.transformer_blocks] == [
        True,
        True,
    ]
    with counting(inside(pipeline).transformer) as passes:
        compiled = watched(pipeline.video(run, Listener()))
    assert len(passes) == 8
    assert counters["stats"]["unique_graphs"] == 1  # both blocks share it
    full = watched(opened("tiny-ltx2-one").video(run, Listener()))
    assert np.abs(compiled.astype(int) - full.astype(int)).max() <= 1


def test_compiling_and_streaming_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="do not go together"):
        Recipe(name="r", compile=True, offload="blocks")
