"""Small checkpoints made by hand: the layout and the format of real ones, in a few kilobytes, without torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from scripts.tiny_models import tiny_manifests
from zsky_box.manifest import Flux2KleinOptions, Licence, Limits, ModelSpec, Recipe

REPOSITORY: Final = "studio/small"
TINY_REPOSITORY: Final = "studio/tiny-klein"
COMPONENTS: Final = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")

SPEC: Final = ModelSpec(
    name="small",
    title="Small",
    makes=("image",),
    licence=Licence(name="Apache-2.0", url="https://example.org/licence", terms="Free.", commercial_use="yes"),
    limits=Limits(resolutions=("480p",), aspect_ratios=("16:9",)),
    options=Flux2KleinOptions(),
    repository=REPOSITORY,
    size_multiple=16,
)


def spec_with(*recipes: Recipe, **changes: Any) -> ModelSpec:
    """The manifest with other recipes."""
    return replace(SPEC, recipes=recipes, **changes)


def write_manifest(data: Path) -> None:
    """The tiny klein's manifest in a data folder, with a repository to install it from."""
    tiny_manifests(data / "all")
    text, nowhere = (data / "all" / "tiny-klein.toml").read_text(), 'repository = ""'
    assert text.count(nowhere) == 1
    (data / "models").mkdir(parents=True, exist_ok=True)
    (data / "models" / "tiny-klein.toml").write_text(text.replace(nowhere, f'repository = "{TINY_REPOSITORY}"'))
    shutil.rmtree(data / "all")


def safetensors(count: int, *, fill: int = 7) -> bytes:
    """A file of two bfloat16 tensors with `count` parameters in all."""
    half = count // 2
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "BF16", "shape": [half], "data_offsets": [0, half * 2]},
        "b": {"dtype": "BF16", "shape": [1, count - half], "data_offsets": [half * 2, count * 2]},
    }
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + bytes([fill]) * (count * 2)


def index(**changes: Any) -> bytes:
    """The repository's `model_index.json`."""
    named: dict[str, Any] = {
        "_class_name": "Flux2KleinPipeline",
        "is_distilled": True,
        "feature_extractor": [None, None],
        **{name: ["diffusers", "Anything"] for name in COMPONENTS},
    }
    return json.dumps(named | changes).encode()


def checkpoint(**changes: bytes | None) -> dict[str, bytes]:
    """A repository's files, and what a real one holds beside them that nobody loads; `changes` by path."""
    files: dict[str, bytes | None] = {
        "model_index.json": index(),
        "README.md": b"# Small",
        "small-bf16.safetensors": safetensors(4_000),
        "pipeline.py": b"raise SystemExit",
        "samples/fox.png": b"\x89PNG",
        "scheduler/scheduler_config.json": b"{}",
        "text_encoder/config.json": b'{"hidden_size": 8}',
        "text_encoder/model-00001-of-00002.safetensors": safetensors(10_000, fill=1),
        "text_encoder/model-00002-of-00002.safetensors": safetensors(9_000, fill=2),
        "text_encoder/model.safetensors.index.json": b'{"weight_map": {}}',
        "text_encoder/model.fp16.safetensors": safetensors(100),
        "text_encoder/pytorch_model.bin": b"\x80\x02.",
        "tokenizer/chat_template.jinja": b"{{ messages }}",
        "tokenizer/merges.txt": b"a b",
        "tokenizer/tokenizer.json": b"{}",
        "transformer/config.json": b"{}",
        "transformer/diffusion_pytorch_model.safetensors": safetensors(30_000, fill=3),
        "transformer/modeling.py": b"raise SystemExit",
        "vae/config.json": b"{}",
        "vae/diffusion_pytorch_model.safetensors": safetensors(5_000, fill=4),
        "vae/deeper/config.json": b"{}",
    }
    return {path: content for path, content in (files | changes).items() if content is not None}


NEEDED: Final = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model-00001-of-00002.safetensors",
    "text_encoder/model-00002-of-00002.safetensors",
    "text_encoder/model.safetensors.index.json",
    "tokenizer/chat_template.jinja",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)
