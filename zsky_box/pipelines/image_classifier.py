"""Output checks: image classifiers in the transformers layout, which say what a picture shows and how surely.

Source of the recipe: transformers' AutoModelForImageClassification and the image processor beside its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image

from zsky_box.errors import JobFailure
from zsky_box.manifest import ImageClassifierOptions, ModelSpec
from zsky_box.pipelines.base import Picture
from zsky_box.pipelines.loading import failure, memory_guard, quiet, refuse_unsafe_files, release

BATCH_MAX: Final = 8


def load(spec: ModelSpec, folder: Path, device: str) -> ImageClassifier:
    """Open a classifier from the disk only, without any code of its own.

    Raises OutOfMemory, and JobFailure for a broken folder, one whose weights do not make the whole classifier, or a
    manifest that blocks labels which the classifier does not have: a check that could not block anything is none.
    """
    options = spec.options
    if not isinstance(options, ImageClassifierOptions):
        raise failure(spec, f"its manifest is of the family {spec.family}")
    refuse_unsafe_files(spec, folder)
    quiet()
    with memory_guard():
        model, processor = _open(spec, folder, device)
    labels = tuple(str(model.config.id2label[index]) for index in range(model.config.num_labels))
    if unknown := sorted(set(options.blocked_labels) - set(labels)):
        raise failure(spec, f"its manifest blocks {', '.join(unknown)}, but its labels are {', '.join(labels)}")
    return ImageClassifier(spec, labels, model, processor, device)


def _open(spec: ModelSpec, folder: Path, device: str) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers.models.auto.image_processing_auto import AutoImageProcessor
    from transformers.models.auto.modeling_auto import AutoModelForImageClassification

    from_disk: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        # The processors on PIL need no torchvision, which the box does not install.
        processor = AutoImageProcessor.from_pretrained(str(folder), backend="pil", **from_disk)
        model, told = AutoModelForImageClassification.from_pretrained(
            str(folder), dtype=getattr(torch, spec.dtype), use_safetensors=True, output_loading_info=True, **from_disk
        )
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # the card's, and not the folder's fault
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, SafetensorError) as reason:
        raise failure(spec, f"its folder is incomplete or damaged ({type(reason).__name__})") from reason
    except RuntimeError as reason:
        raise failure(spec, "its weights do not fit its configuration") from reason
    # What is missing would be filled with random numbers: a check of noise, that nobody noticed.
    if missing := sorted({*told["missing_keys"], *(str(key) for key in told["mismatched_keys"])}):
        raise failure(spec, f"its weights lack {len(missing)} parts of the classifier, such as {missing[0]}")
    return model.to(device).eval(), processor


class ImageClassifier:
    """One loaded classifier on one device."""

    def __init__(self, spec: ModelSpec, labels: tuple[str, ...], model: Any, processor: Any, device: str) -> None:
        self._spec = spec
        self._labels = labels
        self._model = model
        self._processor = processor
        self._device = device
        # One label, or several that hold at once, are each a question of its own; else they share a certainty of 1.
        self._independent = len(labels) == 1 or model.config.problem_type == "multi_label_classification"

    def scores(self, pictures: Sequence[Picture]) -> list[dict[str, float]]:
        """For each picture [height, width, 3], uint8: how surely it shows each label, from 0 to 1.

        Raises OutOfMemory, and JobFailure where the classifier answers with what is no number: that clears nothing.
        """
        found: list[dict[str, float]] = []
        for start in range(0, len(pictures), BATCH_MAX):
            found += self._batch(pictures[start : start + BATCH_MAX])
        return found

    def _batch(self, pictures: Sequence[Picture]) -> list[dict[str, float]]:
        images = [Image.fromarray(picture) for picture in pictures]
        with memory_guard(), torch.inference_mode():
            prepared = self._processor(images=images, return_tensors="pt")
            pixels = prepared["pixel_values"].to(self._device, self._model.dtype)
            logits = self._model(pixel_values=pixels).logits.float()
            chances = logits.sigmoid() if self._independent else logits.softmax(dim=-1)
        if chances.shape != (len(pictures), len(self._labels)) or not chances.isfinite().all():
            raise JobFailure("internal_error", f"The output check {self._spec.name} gave no usable answer.")
        return [dict(zip(self._labels, row, strict=True)) for row in chances.tolist()]

    def close(self) -> None:
        """Give the memory back."""
        del self._model, self._processor
        release(self._device)
