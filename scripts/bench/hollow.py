"""Checkpoints of the full size without a download: real configurations, weights that take no room on the disk.

A hollow folder loads like any other, by the same code: its safetensors files have every tensor's name, shape and place,
and are sparse, all zeros. What was loaded is then filled in memory with small random numbers, because a card computes
faster on zeros. Speed and memory do not depend on the values. Reading a hole is faster than reading a disk, so the time
of loading from a hollow folder means nothing.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import torch
from msgspec import Struct

HERE: Final = Path(__file__).parent
DTYPES: Final = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
SPREAD: Final = 0.02  # the usual spread of fresh weights: activations stay finite through every layer
SCALE: Final = 2e-4  # of quantised weights, so that they spread about as far


class Part(Struct, frozen=True, kw_only=True):
    """One component: where its class is, and the configuration that it is built from."""

    library: str
    kind: Any = msgspec.field(name="class")
    config: dict[str, Any]


class Tokens(Struct, frozen=True):
    """The tokenizer to write: one token a byte, and whether it wraps a prompt as a chat."""

    is_chat: bool
    max_tokens: int


class Plan(Struct, frozen=True, kw_only=True):
    """A checkpoint: `parts` are the pipeline's own, `beside` lie in its folder without being named there.

    Its tokenizer is written as `tokenizer` says, else copied from the folder `tokenizer_of`.
    """

    pipeline: str
    tokenizer: Tokens | None = None
    tokenizer_of: str = ""
    parts: dict[str, Part]
    beside: dict[str, Part] = {}
    settings: dict[str, Any] = {}


def full_plan(name: str) -> Plan:
    """The plan of a model of the catalogue, from the file of its name beside this one."""
    return msgspec.json.decode((HERE / f"{name}.json").read_bytes(), type=Plan)


def plan_of(folder: Path) -> Plan:
    """The plan of a checkpoint that is there, for trying this file without a card."""
    index: dict[str, Any] = json.loads((folder / "model_index.json").read_text())
    named = {name: kind for name, kind in index.items() if isinstance(kind, list) and kind[0] and name != "tokenizer"}
    beside = {path.parent.name for path in folder.glob("*/config.json")} - {*named, "tokenizer"}
    return Plan(
        pipeline=index["_class_name"],
        tokenizer_of=str(folder / "tokenizer"),
        parts={
            name: Part(library=kind[0], kind=kind[1], config=_config(folder / name)) for name, kind in named.items()
        },
        beside={
            name: Part(library="ltx2", kind=_config(folder / name)["_class_name"], config=_config(folder / name))
            for name in beside
        },
        settings={
            name: value for name, value in index.items() if not name.startswith("_") and not isinstance(value, list)
        },
    )


def _config(folder: Path) -> dict[str, Any]:
    return json.loads(next(folder.glob("*config.json")).read_text())


def lay_out(plan: Plan, folder: Path, dtype: str) -> dict[str, int]:
    """Write the folder; returns the bytes that each component's weights have."""
    from scripts.tiny_checkpoints import byte_tokenizer, chat_tokenizer

    folder.mkdir(parents=True)
    index: dict[str, Any] = {"_class_name": plan.pipeline, **plan.settings}
    sizes: dict[str, int] = {}
    for name, part in (plan.parts | plan.beside).items():
        if name in plan.parts:
            index[name] = [part.library, part.kind]
        written = _lay_out_part(part, folder / name, dtype)
        if written:
            sizes[name] = written
    index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    if plan.tokenizer is None:
        shutil.copytree(plan.tokenizer_of, folder / "tokenizer")
    else:
        make = chat_tokenizer if plan.tokenizer.is_chat else byte_tokenizer
        options: dict[str, Any] = {} if plan.tokenizer.is_chat else {"padding_side": "left"}
        make(plan.tokenizer.max_tokens, **options).save_pretrained(str(folder / "tokenizer"))
    (folder / "model_index.json").write_text(json.dumps(index))
    return sizes


def _lay_out_part(part: Part, folder: Path, dtype: str) -> int:
    from diffusers.pipelines.pipeline_loading_utils import simple_get_class_obj

    kind: Any = simple_get_class_obj(part.library, part.kind)
    if not issubclass(cast(type, kind), torch.nn.Module):
        kind.from_config(part.config).save_pretrained(str(folder))
        return 0
    with torch.device("meta"):
        if hasattr(kind, "from_config"):
            module: Any = kind.from_config(part.config)
            module.save_config(str(folder))
            file = "diffusion_pytorch_model.safetensors"
        else:
            config = kind.config_class(**part.config)
            module = kind(config)
            config.architectures = [part.kind]
            config.save_pretrained(str(folder))
            file = "model.safetensors"
    return _write_holes(module, folder / file, dtype)


def _write_holes(module: torch.nn.Module, path: Path, dtype: str) -> int:
    """A sparse safetensors file for the module's own tensors; one that two names share is written once."""
    shared = {name for name, _ in module.named_parameters()} | {name for name, _ in module.named_buffers()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in module.state_dict().items():
        if name not in shared:
            continue
        kind, width = (DTYPES[dtype], getattr(torch, dtype).itemsize) if tensor.is_floating_point() else ("I64", 8)
        begin, end = end, end + math.prod(tensor.shape) * width
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.truncate(8 + len(text) + end)
    return end


def fill(pipeline: object) -> None:
    """Small random numbers into every weight of a family's pipeline that was loaded from a hollow folder."""
    with torch.no_grad():
        for held in vars(pipeline).values():
            for module in getattr(held, "components", {}).values():
                if isinstance(module, torch.nn.Module):
                    fill_module(module)


def fill_module(module: torch.nn.Module) -> None:
    """Matrices at random, gains and deviations 1, biases 0, filters averages; quantised ones within their own range."""
    parameters = {name for name, _ in module.named_parameters()}
    for name, tensor in module.state_dict().items():
        if hasattr(tensor, "__tensor_flatten__"):
            for inner in tensor.__tensor_flatten__()[0]:
                _fill_quantised(getattr(tensor, inner))
        elif not tensor.is_floating_point():
            _fill_quantised(tensor)
        elif name not in parameters:
            is_deviation = name.endswith(("std", "var"))
            tensor.fill_(1.0 if is_deviation or not tensor.ndim else 1.0 / tensor.shape[-1])
        elif tensor.ndim < 2 and name.endswith("weight"):
            tensor.fill_(1.0)
        elif tensor.ndim < 2:
            tensor.zero_()
        else:
            tensor.normal_(0.0, SPREAD)


def _fill_quantised(tensor: torch.Tensor) -> None:
    if tensor.dtype == torch.int8:
        tensor.random_(-127, 128)
    elif tensor.dtype == torch.uint8:
        tensor.random_(0, 256)
    elif tensor.dtype == torch.float8_e4m3fn:
        tensor.copy_(
            torch.empty(tensor.shape, dtype=torch.float16, device=tensor.device).normal_(0.0, 100.0).clamp_(-448, 448)
        )
    elif tensor.is_floating_point():
        tensor.fill_(SCALE)
