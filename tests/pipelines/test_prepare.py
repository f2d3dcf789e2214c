"""Variants made once: bit for bit what quantising while loading gives, nothing more than is needed, plain failures."""

from __future__ import annotations

import gc
import json
import shutil
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from msgspec.structs import replace

from scripts.tiny_models import cached
from tests.pipelines.tiny import Listener, a_run, inside, tiny_spec, watched
from zsky_box.errors import JobFailure
from zsky_box.manifest import ModelSpec, Recipe
from zsky_box.pipelines import loader
from zsky_box.pipelines.base import Pipeline
from zsky_box.pipelines.loading import refuse_unsafe_files
from zsky_box.pipelines.prepare import Line, main, prepare
from zsky_box.pipelines.quantisation import stored

PARTS = {"tiny-ltx2": ("transformer", "text_encoder", "connectors"), "tiny-klein": ("transformer", "text_encoder")}
PARTS["tiny-ltx25"] = PARTS["tiny-ltx2"]


def recipe_for(name: str, kind: Any) -> Recipe:
    return Recipe(name="small", quantise={part: kind for part in PARTS[name]})  # noqa: C420 - typed so


def quietly(line: Line) -> None:
    """Nobody is told."""


def made(pipeline: Pipeline, spec: ModelSpec) -> tuple[Any, Any]:
    """Pictures and, for clips, sound of one job."""
    if spec.makes == ("image",):
        return next(pipeline.images(a_run(spec), Listener())).picture, None
    clip = pipeline.video(a_run(spec), Listener())
    return watched(clip), clip.sound


def weights(pipeline: Pipeline, part: str) -> dict[str, bytes]:
    """The bytes of every tensor in a component, those inside quantised ones included."""
    held: dict[str, bytes] = {}
    for name, tensor in getattr(inside(pipeline), part).state_dict().items():
        for inner in getattr(tensor, "tensor_data_names", ("",)):
            plain = getattr(tensor, inner) if inner else tensor
            held[f"{name}.{inner}"] = plain.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return held


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("name", PARTS)
def test_a_variant_is_bit_for_bit_what_quantising_while_loading_gives(
    name: str, kind: Any, dtype: Any, tmp_path: Path
) -> None:
    spec, recipe = replace(tiny_spec(name), dtype=dtype), recipe_for(name, kind)
    lines: list[Line] = []
    prepare(spec, recipe, cached(name), tmp_path / "variant", "cpu", lines.append)
    assert [stored(tmp_path / "variant" / part) for part in PARTS[name]] == [kind] * len(PARTS[name])
    refuse_unsafe_files(spec, tmp_path / "variant")
    assert [line.done for line in lines] == list(range(lines[0].of + 1))
    in_flight, variant = (
        loader(spec.family)(spec, recipe, folder, "cpu") for folder in (cached(name), tmp_path / "variant")
    )
    for part in PARTS[name]:
        assert weights(in_flight, part) == weights(variant, part)
    first, second = made(in_flight, spec), made(variant, spec)
    assert first[0].std() > 1
    # A file's tensors lie less aligned in host memory than new ones, and the processor's float32 sums differ by that.
    most = 1 if dtype == "float32" else 0
    assert np.abs(first[0].astype(int) - second[0].astype(int)).max() <= most
    if first[1] is not None:
        assert np.abs(first[1] - second[1]).max() <= most * 1e-4


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_variant_in_several_files_is_the_same(kind: Any, tmp_path: Path) -> None:
    """The library cuts what is over 10 GB, also between the parts of one quantised weight."""
    spec, recipe = tiny_spec("tiny-ltx25"), recipe_for("tiny-ltx25", kind)
    pipeline = loader("ltx2")(spec, recipe, cached("tiny-ltx25"), "cpu")
    folder = Path(shutil.copytree(cached("tiny-ltx25"), tmp_path / "variant"))
    shutil.rmtree(folder / "transformer")
    inside(pipeline).transformer.save_pretrained(str(folder / "transformer"), max_shard_size="60KB")
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 2
    again = loader("ltx2")(spec, recipe, folder, "cpu")
    assert weights(again, "transformer") == weights(pipeline, "transformer")


def test_a_variant_is_loaded_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, recipe = tiny_spec("tiny-ltx2"), recipe_for("tiny-ltx2", "int8")
    prepare(spec, recipe, cached("tiny-ltx2"), tmp_path / "variant", "cpu", quietly)
    import torchao.quantization

    from zsky_box.pipelines import loading

    def again(*_: Any, **__: Any) -> None:
        raise AssertionError("quantised a second time")

    monkeypatch.setattr(loading, "quantising", again)
    monkeypatch.setattr(torchao.quantization, "quantize_", again)
    pipe = inside(loader("ltx2")(spec, recipe, tmp_path / "variant", "cpu"))
    assert type(pipe.transformer.transformer_blocks[0].attn1.to_q.weight).__name__ == "Int8Tensor"


def test_a_variant_holds_what_the_pipeline_needs_and_shares_what_is_the_same(tmp_path: Path) -> None:
    spec, recipe = tiny_spec("tiny-ltx25"), Recipe(name="small", quantise={"transformer": "int8"})
    spec = replace(spec, dtype="bfloat16")
    source = Path(shutil.copytree(cached("tiny-ltx25"), tmp_path / "source"))
    for unused in ("prompt_enhancer", "transformer.int8"):
        (source / unused).mkdir()
        (source / unused / "model.safetensors").write_bytes(b"large")
    index = json.loads((source / "model_index.json").read_text())
    index["prompt_enhancer"] = ["transformers", "Gemma4ForConditionalGeneration"]
    (source / "model_index.json").write_text(json.dumps(index))
    prepare(spec, recipe, source, tmp_path / "variant", "cpu", quietly)
    loader("ltx2")(spec, Recipe(name="full"), tmp_path / "variant", "cpu")  # which misses none of what is left out
    names = {path.name for path in (tmp_path / "variant").iterdir()}
    assert names == {path.name for path in cached("tiny-ltx25").iterdir()} - {"installed.json"}
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "variant" / vae).samefile(source / vae)
    sizes = [
        sum(path.stat().st_size for path in (folder / "transformer").iterdir())
        for folder in (tmp_path / "variant", source)
    ]
    assert sizes[0] < 0.7 * sizes[1]


def test_where_files_cannot_be_linked_they_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refused)
    recipe = Recipe(name="small", quantise={"transformer": "int8"})
    prepare(tiny_spec("tiny-klein"), recipe, cached("tiny-klein"), tmp_path / "variant", "cpu", quietly)
    for path in ("vae/diffusion_pytorch_model.safetensors", "model_index.json"):
        copy, original = tmp_path / "variant" / path, cached("tiny-klein") / path
        assert copy.read_bytes() == original.read_bytes()
        assert not copy.samefile(original)


def test_one_component_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zsky_box.pipelines import loading

    opened: list[weakref.ref[Any]] = []
    open_part = loading.open_part

    def noted(*arguments: Any) -> Any:
        gc.collect()
        assert [part() for part in opened] == [None] * len(opened)
        part = open_part(*arguments)
        opened.append(weakref.ref(part))
        return part

    monkeypatch.setattr(loading, "open_part", noted)
    recipe = recipe_for("tiny-ltx2", "int8")
    prepare(tiny_spec("tiny-ltx2"), recipe, cached("tiny-ltx2"), tmp_path / "variant", "cpu", quietly)
    assert len(opened) == 3


def task(**changes: Any) -> str:
    spec = replace(tiny_spec("tiny-klein"), recipes=(recipe_for("tiny-klein", "int8"),))
    told: dict[str, Any] = {"spec": msgspec.to_builtins(spec), "recipe": "small", "source": str(cached("tiny-klein"))}
    return json.dumps({**told, **changes})


def test_the_process_tells_how_far_it_is(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "zsky_box.pipelines.prepare", task(target=str(tmp_path / "variant"))]
    done = subprocess.run(run, capture_output=True, check=False, timeout=500, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["done"] for line in lines] == [0, 1, 2, 3, 4, 5]
    assert {line["of"] for line in lines} == {5}
    assert {line["component"] for line in lines} == {"scheduler", "text_encoder", "tokenizer", "transformer", "vae"}


def test_the_process_ends_with_its_lifeline(tmp_path: Path) -> None:
    order = task(target=str(tmp_path / "variant"), lifeline=True)
    run = [sys.executable, "-m", "zsky_box.pipelines.prepare", order]
    done = subprocess.run(run, stdin=subprocess.DEVNULL, check=False, timeout=500, start_new_session=True)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "variant").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "cannot be read"),
        (["{}"], "cannot be read"),
        ([task(target="t", recipe="other")], "has no recipe other"),
        ([task(target="t", source="/nowhere")], "its folder is missing"),
    ],
)
def test_a_failure_is_told_in_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert sentence in json.loads(capsys.readouterr().out.splitlines()[-1])["error"]


def test_a_full_disk_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.link", full)
    monkeypatch.setattr("shutil.copyfile", full)
    assert main([task(target=str(tmp_path / "variant"))]) == 1
    assert "No space left on device" in json.loads(capsys.readouterr().out.splitlines()[-1])["error"]


def test_what_nobody_foresaw_is_told_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("zsky_box.pipelines.prepare.prepare", broken)
    assert main([task(target=str(tmp_path / "variant"))]) == 1
    told = capsys.readouterr()
    assert "ZeroDivisionError" in json.loads(told.out.splitlines()[-1])["error"]
    assert "Traceback" in told.err


def test_sources_and_targets_that_will_not_do(tmp_path: Path) -> None:
    spec, recipe = tiny_spec("tiny-klein"), recipe_for("tiny-klein", "int8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "anything").touch()
    with pytest.raises(JobFailure, match="not empty"):
        prepare(spec, recipe, cached("tiny-klein"), tmp_path / "full", "cpu", quietly)
    source = Path(shutil.copytree(cached("tiny-klein"), tmp_path / "source"))
    shutil.rmtree(source / "transformer")
    with pytest.raises(JobFailure, match="lacks the transformer"):
        prepare(spec, recipe, source, tmp_path / "variant", "cpu", quietly)
    (source / "model_index.json").write_text("[]")
    with pytest.raises(JobFailure, match="incomplete or damaged"):
        prepare(spec, recipe, source, tmp_path / "variant", "cpu", quietly)
    (source / "setup.py").touch()
    with pytest.raises(JobFailure, match="is code"):
        prepare(spec, recipe, source, tmp_path / "variant", "cpu", quietly)
    with pytest.raises(JobFailure, match="NVIDIA card"):
        prepare(spec, recipe_for("tiny-klein", "nf4"), cached("tiny-klein"), tmp_path / "v", "cpu", quietly)
