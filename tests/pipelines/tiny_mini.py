"""mini with untrained weights, small enough for tests, and a catalogue that has it."""

from __future__ import annotations

from pathlib import Path

import torch
from msgspec.structs import replace
from torch import nn

from scripts.mini.seal import seal
from zsky_box.catalog import read_manifest
from zsky_box.manifest import MiniOptions, ModelSpec
from zsky_box.pipelines.mini_model import MiniModel
from zsky_box.settings import CHECKOUT

MANIFEST = CHECKOUT / "models" / "mini.toml"
STEPS = 3


def mini_spec() -> ModelSpec:
    """The shipped manifest, with fewer steps."""
    return replace(read_manifest(MANIFEST), options=MiniOptions(steps=STEPS))


def write_mini(folder: Path) -> None:
    """Untrained weights from one seed, in the shipped layout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20_261)
        model = MiniModel.random(width=32, heads=2, depth=2)
        # As it begins its training, the denoiser says nothing and hears nothing of the prompt.
        for layer in (*model.transformer.leave, model.transformer.bends):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.2)
    model.save(folder)


def add_mini(data: Path, *, experimental: bool = True) -> None:
    """Lay it into a data folder: the manifest beside its weights, which replaces the shipped one."""
    folder = data / "models" / "mini"
    write_mini(folder)
    seal(folder)
    lines = [line for line in MANIFEST.read_text().splitlines(keepends=True) if not line.startswith("experimental")]
    if experimental:
        lines.insert(lines.index("bundled = true\n"), "experimental = true\n")
    text = "".join(lines).replace("steps = 16", f"steps = {STEPS}")
    (data / "models" / "mini.toml").write_text(text)
