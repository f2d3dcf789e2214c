"""Weights kept as a recipe says: which layers, what a folder holds already, and what a device cannot do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from scripts.tiny_models import cached
from tests.pipelines.tiny import Listener, a_run, inside, opened, tiny_spec, watched
from zsky_box.errors import JobFailure
from zsky_box.manifest import Quantisation, Recipe
from zsky_box.pipelines import loader
from zsky_box.pipelines.base import Pipeline
from zsky_box.pipelines.quantisation import refuse_unable, stored

TWO = tiny_spec("tiny-ltx2")
KINDS = {"int8": "Int8Tensor", "fp8": "Float8Tensor"}


def kept(quantise: dict[str, Quantisation], name: str = "tiny-ltx2", folder: Path | None = None) -> Pipeline:
    """A tiny model whose components are kept so."""
    spec = tiny_spec(name)
    return loader(spec.family)(spec, Recipe(name="kept", quantise=quantise), folder or cached(name), "cpu")


def weights(module: Any) -> dict[str, str]:
    """The class of each linear layer's weight, by the layer's name."""
    linear = ((name, part) for name, part in module.named_modules() if isinstance(part, torch.nn.Linear))
    return {name: type(part.weight).__name__ for name, part in linear}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["tiny-ltx2", "tiny-ltx25"])
def test_the_transformers_blocks_are_quantised_and_nothing_before_or_after_them(name: str, kind: Any) -> None:
    pipe = inside(kept({"transformer": kind}, name))
    found = weights(pipe.transformer)
    inner = {layer for layer in found if layer.startswith("transformer_blocks.") and "gate_logits" not in layer}
    assert len(inner) > 40
    assert {layer for layer in found if found[layer] == KINDS[kind]} == inner
    assert set(weights(pipe.text_encoder).values()) == {"Parameter"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_encoder_is_quantised_but_for_its_head(kind: Any) -> None:
    pipe = inside(kept({"text_encoder": kind}))
    found = weights(pipe.text_encoder)
    language = {layer for layer in found if layer.startswith("model.language_model.")}
    assert len(language) == 14
    assert {found[layer] for layer in language} == {KINDS[kind]}
    assert found["lm_head"] == "Parameter"
    assert set(weights(pipe.transformer).values()) == {"Parameter"}


def test_a_quantised_clip_is_nearly_the_full_one() -> None:
    full = watched(opened("tiny-ltx2").video(a_run(TWO), Listener())).astype(int)
    for kind, most in (("int8", 1.0), ("fp8", 3.0)):
        parts: dict[str, Any] = dict.fromkeys(("transformer", "text_encoder", "connectors"), kind)
        clip = watched(kept(parts).video(a_run(TWO), Listener())).astype(int)
        assert 0 < np.abs(clip - full).mean() < most


def test_quantised_weights_need_less_memory() -> None:
    def held(pipe: Any) -> int:
        tensors = pipe.transformer.transformer_blocks.parameters()
        return sum(sum(part.nbytes for part in inner(tensor)) for tensor in tensors)

    def inner(tensor: Any) -> list[Any]:
        return [getattr(tensor, name) for name in getattr(tensor, "tensor_data_names", ())] or [tensor]

    assert held(inside(kept({"transformer": "int8"}))) < 0.6 * held(inside(opened("tiny-ltx2")))


def test_a_folder_kept_otherwise_than_the_recipe_says_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(cached("tiny-ltx2"), tmp_path / "tiny-ltx2"))
    shutil.rmtree(folder / "transformer")
    inside(kept({"transformer": "int8"})).transformer.save_pretrained(str(folder / "transformer"))
    assert stored(folder / "transformer") == "int8"
    with pytest.raises(JobFailure, match="kept as int8, and the recipe kept takes fp8"):
        kept({"transformer": "fp8"}, folder=folder)
    assert "Int8Tensor" in weights(inside(kept({}, folder=folder)).transformer).values()


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({}, None),
        ({"quantization_config": None}, None),
        (
            {
                "quantization_config": {
                    "quant_method": "torchao",
                    "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}},
                }
            },
            "int8",
        ),
        ({"quantization_config": {"quant_method": "torchao", "quant_type": {"default": {"_type": "New"}}}}, "torchao"),
        (
            {
                "quantization_config": {
                    "quant_method": "bitsandbytes",
                    "load_in_4bit": True,
                    "bnb_4bit_quant_type": "nf4",
                }
            },
            "nf4",
        ),
        ({"quantization_config": {"quant_method": "gguf"}}, "gguf"),
        ({"quantization_config": {"quant_method": 7}}, "unknown"),
    ],
)
def test_what_a_folder_holds_is_read_from_its_configuration(tmp_path: Path, config: Any, kind: str | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert stored(tmp_path) == kind


@pytest.mark.parametrize("config", ["", "[", '"text"', "[1]", "{}" + " " * 5_000_000])
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, config: str) -> None:
    folder = Path(shutil.copytree(cached("tiny-ltx2"), tmp_path / "tiny-ltx2"))
    (folder / "transformer" / "config.json").write_text(config)
    with pytest.raises(JobFailure, match="Install it again"):
        kept({"transformer": "int8"}, folder=folder)


@pytest.mark.parametrize("kind", ["fp8_dynamic", "nf4"])
def test_a_recipe_that_needs_a_card_is_refused_on_the_processor(kind: Any) -> None:
    with pytest.raises(JobFailure, match="The recipe kept of tiny-ltx2 cannot run here: it needs an NVIDIA card"):
        kept({"transformer": kind})


@pytest.mark.parametrize(
    ("recipe", "needs"),
    [
        (Recipe(name="r", capability=9.0), "9.0"),
        (Recipe(name="r", quantise={"transformer": "fp8_dynamic"}), "8.9"),
        (Recipe(name="r", quantise={"transformer": "fp8_dynamic"}, capability=12.1), "12.1"),
        (Recipe(name="r", quantise={"transformer": "nf4"}), None),
        (Recipe(name="r", capability=8.6), None),
    ],
)
def test_a_card_too_old_for_a_recipe_is_told_so(
    recipe: Recipe, needs: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def capability(device: str) -> tuple[int, int]:
        assert device == "cuda:0"
        return 8, 6

    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    if needs is None:
        refuse_unable(TWO, recipe, "cuda:0")
        return
    with pytest.raises(JobFailure, match=f"compute capability {needs}, and this one has 8.6"):
        refuse_unable(TWO, recipe, "cuda:0")


def test_every_quantisation_has_a_configuration_in_both_libraries() -> None:
    from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
    from transformers import Gemma3ForConditionalGeneration

    from zsky_box.pipelines.quantisation import quantising

    for kind in get_args(Quantisation):
        for part in (LTX2VideoTransformer3DModel, Gemma3ForConditionalGeneration):
            chosen = quantising(part, kind, torch.bfloat16, "cuda:0")
            assert chosen["quantization_config"].to_dict()["quant_method"] in ("torchao", "bitsandbytes")
            assert chosen.get("device_map") == ({"": "cuda:0"} if kind in ("fp8_dynamic", "nf4") else None)


def test_quantising_is_silent() -> None:
    code = (
        "import sys; from zsky_box.pipelines.loading import quiet; quiet();"
        "from tests.pipelines.test_quantisation import kept; kept({'transformer': 'int8', 'text_encoder': 'int8'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=500, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_quantised_bfloat16_model_runs() -> None:
    spec = replace(TWO, dtype="bfloat16")
    recipe = Recipe(name="r", quantise={"transformer": "int8", "text_encoder": "int8", "connectors": "int8"})
    clip = loader("ltx2")(spec, recipe, cached("tiny-ltx2"), "cpu").video(a_run(spec), Listener())
    assert watched(clip).std() > 1
