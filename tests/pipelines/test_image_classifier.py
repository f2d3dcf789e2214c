from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from scripts.tiny_classifier import LABELS, classifier_specs, write_classifier
from tests.pipelines.tiny import tiny_spec
from zsky_box.errors import JobFailure
from zsky_box.manifest import ImageClassifierOptions, ModelSpec
from zsky_box.pipelines.base import Picture
from zsky_box.pipelines.image_classifier import BATCH_MAX, ImageClassifier, load

SPEC = classifier_specs()[0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier") / "weights"
    write_classifier(folder)
    return folder


@pytest.fixture
def broken(weights: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    shutil.copytree(weights, tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture(scope="module")
def classifier(weights: Path) -> ImageClassifier:
    return load(SPEC, weights, "cpu")


def noise(seed: int, width: int = 320, height: int = 180) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def flat(level: int) -> Picture:
    return np.full((180, 320, 3), level, np.uint8)


def failed(folder: Path, spec: ModelSpec = SPEC) -> str:
    with pytest.raises(JobFailure) as failure:
        load(spec, folder, "cpu")
    assert failure.value.error_code == "internal_error"
    assert str(folder) not in failure.value.message
    return failure.value.message


def test_each_picture_is_scored_for_every_label(classifier: ImageClassifier) -> None:
    pictures = [flat(0), flat(255), *(noise(seed) for seed in range(BATCH_MAX))]
    scores = classifier.scores(pictures)
    assert len(scores) == len(pictures) > BATCH_MAX
    for shown in scores:
        assert tuple(shown) == LABELS
        assert sum(shown.values()) == pytest.approx(1.0, abs=1e-5)
        assert shown["calm"] > 0.9, "the tiny classifier leans so"
    assert scores[0] != scores[1], "it looks at the picture"


def test_it_answers_as_the_library_does(weights: Path, classifier: ImageClassifier) -> None:
    import torch
    from PIL import Image
    from transformers import ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    picture = noise(7)
    prepared = ViTImageProcessorPil.from_pretrained(str(weights))(images=Image.fromarray(picture), return_tensors="pt")
    with torch.no_grad():
        logits = ViTForImageClassification.from_pretrained(str(weights))(**prepared).logits
    expected = dict(zip(LABELS, logits.softmax(-1)[0].tolist(), strict=True))
    assert classifier.scores([picture])[0] == pytest.approx(expected, abs=1e-6)


def test_one_by_one_and_in_a_batch_it_answers_alike(classifier: ImageClassifier) -> None:
    pictures = [noise(seed) for seed in range(5)]
    for picture, shown in zip(pictures, classifier.scores(pictures), strict=True):
        assert classifier.scores([picture])[0] == pytest.approx(shown, abs=1e-6)


def test_labels_that_hold_at_once_are_scored_each_for_itself(broken: Path) -> None:
    change(broken / "config.json", problem_type="multi_label_classification")
    shown = load(SPEC, broken, "cpu").scores([flat(128)])[0]
    assert sum(shown.values()) > 1.5, "each of the other two is as likely as not"


def test_a_manifest_that_blocks_what_the_classifier_does_not_know_is_refused(weights: Path) -> None:
    spec = replace(SPEC, options=ImageClassifierOptions(blocked_labels=("wild", "nsfw")))
    assert "blocks nsfw, but its labels are calm, wild, odd" in failed(weights, spec)


def test_weights_that_lack_the_head_are_refused(broken: Path) -> None:
    """The library would fill it with random numbers and say so in a warning only."""
    from safetensors.torch import load_file, save_file

    tensors: dict[str, Any] = load_file(str(broken / "model.safetensors"))
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}
    assert len(kept) < len(tensors)
    save_file(kept, str(broken / "model.safetensors"), metadata={"format": "pt"})
    assert re.search(r"lack 2 parts of the classifier, such as classifier\.", failed(broken))


def test_weights_of_another_size_are_refused(broken: Path) -> None:
    change(broken / "config.json", id2label={"0": "calm", "1": "wild"}, label2id={"calm": 0, "wild": 1})
    assert "Install it again" in failed(broken)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_folder_with_a_missing_or_cut_file_is_refused(broken: Path, name: str) -> None:
    content = (broken / name).read_bytes()
    (broken / name).write_bytes(content[: len(content) // 2])
    assert "Install it again" in failed(broken)
    (broken / name).unlink()
    assert "Install it again" in failed(broken)


def test_a_pickle_or_code_in_the_folder_is_refused(broken: Path) -> None:
    (broken / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    assert "pytorch_model.bin is a pickle" in failed(broken)
    (broken / "pytorch_model.bin").unlink()
    (broken / "modeling.py").write_text("raise SystemExit")
    assert "modeling.py is code" in failed(broken)


def test_a_configuration_that_names_code_elsewhere_is_refused(broken: Path) -> None:
    change(broken / "config.json", model_type="strange", auto_map={"AutoConfig": "someone/strange--c.Strange"})
    assert "incomplete or damaged" in failed(broken)


def test_a_manifest_of_another_family_is_refused(weights: Path) -> None:
    assert "flux2_klein" in failed(weights, tiny_spec("tiny-klein"))


def test_what_is_no_number_clears_nothing(broken: Path) -> None:
    import torch

    classifier = load(SPEC, broken, "cpu")
    model = classifier._model  # pyright: ignore[reportPrivateUsage] - a fault to be put in
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(JobFailure, match="no usable answer"):
        classifier.scores([flat(0)])


def change(path: Path, **values: Any) -> None:
    """Change some of a configuration."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
