"""A tiny image classifier with random weights, for tests: a real one in the transformers layout, whose answer is known.

Its head leans to the label `calm` so far that every picture is calm for it, a little more or less. One manifest blocks
what it never sees, the other what it always sees.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from scripts.tiny_models import manifest_text
from zsky_box.catalog import RECORD_NAME, Installed
from zsky_box.manifest import ImageClassifierOptions, Licence, ModelSpec

LABELS: Final = ("calm", "wild", "odd")
REVISION: Final = "tiny"
PASSES: Final = "tiny-check"
BLOCKS: Final = "tiny-check-blocks"
_SEED: Final = 20_261
_LEAN: Final = 6.0


def write_classifier(folder: Path) -> None:
    """Write the checkpoint; the same at every build with the same versions."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=16,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model: Any = ViTForImageClassification(config)
    with torch.no_grad():
        model.classifier.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(_SEED))
        model.classifier.bias.copy_(torch.tensor([_LEAN, 0.0, 0.0]))
    model.save_pretrained(str(folder))
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(str(folder))
    (folder / RECORD_NAME).write_bytes(msgspec.json.encode(Installed(revision=REVISION)))


def classifier_specs() -> tuple[ModelSpec, ...]:
    """The manifest that lets everything pass, and the one that blocks everything."""
    licence = Licence(name="Apache-2.0", terms="Random weights, part of zsky-box.", commercial_use="yes")
    return tuple(
        ModelSpec(
            name=name,
            title="Tiny image classifier",
            makes=(),
            licence=licence,
            options=ImageClassifierOptions(blocked_labels=labels, frames=4),
            dtype="float32",
        )
        for name, labels in ((PASSES, ("wild", "odd")), (BLOCKS, ("calm",)))
    )


def install_classifiers(data: Path) -> None:
    """Put both where a box with this data folder finds them."""
    (data / "models").mkdir(parents=True, exist_ok=True)
    for spec in classifier_specs():
        (data / "models" / f"{spec.name}.toml").write_text(manifest_text(spec), "utf-8")
        write_classifier(data / "weights" / spec.name)
