from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hub.checkpoint import COMPONENTS, NEEDED, SPEC, checkpoint, index
from zsky_box.errors import InstallError
from zsky_box.install.listing import Remote, check_listing, check_path, components, layout, needed
from zsky_box.manifest import ImageClassifierOptions, Licence, Ltx2Options, ModelSpec

CLASSIFIER = ModelSpec(
    name="check",
    title="Check",
    makes=(),
    licence=Licence(name="Apache-2.0"),
    options=ImageClassifierOptions(blocked_labels=("nsfw",)),
)


def listed(files: dict[str, bytes]) -> dict[str, Remote]:
    return check_listing(Remote(path=path, bytes=len(content), mark="x") for path, content in files.items())


def test_it_works() -> None:
    files = listed(checkpoint())
    assert layout(SPEC, files) == files["model_index.json"]
    assert components(SPEC, index()) == COMPONENTS
    chosen = needed(SPEC, files, COMPONENTS)
    assert {file.path for file in chosen} == set(NEEDED)
    assert [file.is_weights for file in chosen] == sorted(file.is_weights for file in chosen), "small files first"


def test_two_stages_need_the_upsampler_beside_the_pipeline() -> None:
    two = ModelSpec(name="a", title="A", makes=("video",), licence=SPEC.licence, options=Ltx2Options(stages=2))
    one = ModelSpec(name="a", title="A", makes=("video",), licence=SPEC.licence, options=Ltx2Options(stages=1))
    named = json.dumps({"vae": ["diffusers", "A"], "transformer": ["diffusers", "B"]}).encode()
    assert components(two, named) == ("vae", "transformer", "latent_upsampler")
    assert components(one, named) == ("vae", "transformer")


def test_what_the_family_never_loads_is_not_fetched() -> None:
    ltx = ModelSpec(name="a", title="A", makes=("video",), licence=SPEC.licence, options=Ltx2Options(stages=1))
    unused = ("prompt_enhancer", "processor", "duration_head")
    named = json.dumps({name: ["transformers", "A"] for name in ("vae", *unused)}).encode()
    assert components(ltx, named) == ("vae",)
    assert components(SPEC, named) == ("vae", *unused), "another family may load what is called so"


def test_a_classifier_lies_flat() -> None:
    files = listed(
        {
            "config.json": b"{}",
            "preprocessor_config.json": b"{}",
            "model.safetensors": b"x",
            "pytorch_model.bin": b"x",
            "README.md": b"x",
            "onnx/model.onnx": b"x",
        }
    )
    assert layout(CLASSIFIER, files) is None
    chosen = [file.path for file in needed(CLASSIFIER, files, ())]
    assert chosen == ["config.json", "preprocessor_config.json", "model.safetensors"]


def test_a_vocabulary_of_a_gigabyte_is_refused() -> None:
    files = listed(checkpoint()) | {"tokenizer/tokenizer.json": Remote(path="tokenizer/tokenizer.json", bytes=10**9)}
    with pytest.raises(InstallError, match=r"tokenizer\.json has 1000000000 bytes"):
        needed(SPEC, files, COMPONENTS)


@given(st.text(max_size=60))
def test_what_is_believed_stays_in_the_folder(path: str) -> None:
    try:
        check_path(path)
    except InstallError:
        return
    parts = path.split("/")
    assert path.isprintable()
    assert not path.startswith("/")
    assert ".." not in parts
    assert "." not in parts
    assert "" not in parts
