"""Opening model folders: nothing from the network, nothing that could run code, and plain sentences when it fails."""

from __future__ import annotations

import gc
import json
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import weakref
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace

from scripts.tiny_models import cached, install_tiny, tiny_flux2_klein, tiny_ltx2, tiny_manifests
from tests.pipelines.tiny import inside, opened, tiny_spec
from zsky_box.catalog import Catalog
from zsky_box.errors import JobFailure
from zsky_box.manifest import WHOLE
from zsky_box.pipelines import loader
from zsky_box.pipelines.base import OutOfMemory
from zsky_box.pipelines.loading import memory_guard, refuse_unsafe_files, release, warm

KLEIN = tiny_spec("tiny-klein")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a complete checkpoint, to be broken."""
    return Path(shutil.copytree(cached("tiny-klein"), tmp_path / "tiny-klein"))


def refusal(folder: Path) -> str:
    """The sentence with which loading `folder` fails."""
    with pytest.raises(JobFailure) as failed:
        loader("flux2_klein")(KLEIN, WHOLE, folder, "cpu")
    assert failed.value.error_code == "internal_error"
    assert str(folder) not in failed.value.message
    return failed.value.message


def test_a_complete_folder_loads(folder: Path) -> None:
    pipeline = loader("flux2_klein")(KLEIN, WHOLE, folder, "cpu")
    assert inside(pipeline).transformer.device.type == "cpu"


def test_tiny_checkpoints_are_the_same_at_every_build(tmp_path: Path) -> None:
    for build, name in ((tiny_ltx2, "tiny-ltx2"), (tiny_flux2_klein, "tiny-klein")):
        torch.manual_seed(len(name))
        build(tmp_path / name)
        built = {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        assert len(built) > 10
        assert built == {path: (cached(name) / path).read_bytes() for path in built}
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_installed_tiny_model_is_found_by_the_catalogue(tmp_path: Path) -> None:
    tiny_manifests(tmp_path / "models")
    install_tiny(tmp_path / "weights")
    catalog = Catalog([tmp_path / "models"], tmp_path / "weights")
    assert catalog.refused == []
    names = {"tiny-ltx2", "tiny-ltx2-one", "tiny-ltx23", "tiny-ltx25", "tiny-klein", "tiny-z-image"}
    assert set(catalog.specs) == names
    for spec in catalog.specs.values():
        assert catalog.installed(spec) is not None


def test_the_shipped_manifests_are_read() -> None:
    catalog = Catalog([Path("models")], Path("nowhere"))
    assert catalog.refused == []
    assert {spec.name for spec in catalog.specs.values() if "video" in spec.default_for} == {"ltx-2.5"}
    assert {spec.name for spec in catalog.specs.values() if "image" in spec.default_for} == {"flux2-klein-4b"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_come_in_the_manifests_dtype(folder: Path, dtype: str) -> None:
    spec = replace(KLEIN, dtype=dtype)
    pipe = inside(loader("flux2_klein")(spec, WHOLE, folder, "cpu"))
    for part in (pipe.transformer, pipe.text_encoder, pipe.vae):
        assert {parameter.dtype for parameter in part.parameters()} == {getattr(torch, dtype)}


def test_loading_is_silent_and_offline(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"the network was used: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    capfd.readouterr()
    loader("flux2_klein")(KLEIN, WHOLE, folder, "cpu")
    assert capfd.readouterr() == ("", "")


def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    assert "missing" in refusal(tmp_path / "gone")


@pytest.mark.parametrize("part", ["model_index.json", "vae/diffusion_pytorch_model.safetensors", "tokenizer"])
def test_an_incomplete_folder_is_refused(folder: Path, part: str) -> None:
    path = folder / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "Install it again" in refusal(folder)


def test_a_cut_file_is_refused(folder: Path) -> None:
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "damaged" in refusal(folder)


def test_weights_that_do_not_fit_their_configuration_are_refused(folder: Path) -> None:
    path = folder / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"latent_channels": 8}))
    assert "Install it again" in refusal(folder)


def test_a_pickle_is_refused_by_its_name(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"anything")
    assert "diffusion_pytorch_model.bin is a pickle" in refusal(folder)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_refused_by_its_content(folder: Path, protocol: int) -> None:
    (folder / "NOTICE.txt").write_bytes(pickle.dumps({"any": "thing"}, protocol))
    assert "NOTICE.txt is a pickle" in refusal(folder)


def test_torch_save_under_a_safe_name_is_refused(folder: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, folder / "vae" / "diffusion_pytorch_model.safetensors")
    assert "is a pickle" in refusal(folder)


def test_code_in_the_folder_is_refused(folder: Path) -> None:
    (folder / "pipeline.py").write_text("raise SystemExit")
    assert "pipeline.py is code" in refusal(folder)


def test_a_safetensors_file_that_begins_like_a_pickle_is_allowed(tmp_path: Path) -> None:
    header = b"{}".ljust(0x0280)
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert (tmp_path / "model.safetensors").read_bytes()[:2] == b"\x80\x02"
    refuse_unsafe_files(KLEIN, tmp_path)


def test_a_manifest_of_another_family_is_refused() -> None:
    with pytest.raises(JobFailure, match="family"):
        loader("ltx2")(KLEIN, WHOLE, cached("tiny-klein"), "cpu")
    with pytest.raises(JobFailure, match="family"):
        loader("flux2_klein")(tiny_spec("tiny-ltx2"), WHOLE, cached("tiny-ltx2"), "cpu")


def test_a_manifest_off_the_models_grid_is_refused() -> None:
    with pytest.raises(JobFailure, match="grid"):
        loader("flux2_klein")(replace(KLEIN, size_multiple=8), WHOLE, cached("tiny-klein"), "cpu")
    with pytest.raises(JobFailure, match="grid"):
        loader("ltx2")(replace(tiny_spec("tiny-ltx2"), frame_step=4), WHOLE, cached("tiny-ltx2"), "cpu")


def test_only_the_devices_memory_error_becomes_out_of_memory() -> None:
    with pytest.raises(OutOfMemory, match="tried to allocate"), memory_guard():
        raise torch.OutOfMemoryError("tried to allocate 3 GiB\nand a long report")
    with pytest.raises(RuntimeError, match="another"), memory_guard():
        raise RuntimeError("another")


@pytest.mark.parametrize("name", ["tiny-ltx2", "tiny-klein"])
def test_closing_lets_go_of_the_weights(name: str) -> None:
    pipeline = opened(name)
    weights = [weakref.ref(part) for part in (inside(pipeline).transformer, inside(pipeline).vae)]
    pipeline.close()
    gc.collect()
    assert [weight() for weight in weights] == [None, None]


def test_versions_are_known_without_importing_the_libraries() -> None:
    code = (
        "import json, sys; from zsky_box.pipelines.loading import versions, warm; warm('leader');"
        "print(json.dumps([versions(), 'diffusers' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=500)
    assert json.loads(done.stdout) == [
        {name: version(name) for name in ("torch", "diffusers", "transformers", "torchao")},
        False,
    ]


def test_warming_imports_the_familys_classes() -> None:
    warm("ltx2")
    assert "diffusers.pipelines.ltx2.pipeline_ltx2" in sys.modules
    with pytest.raises(KeyError):
        warm("unheard-of")


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), torch.AcceleratorError),
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), OutOfMemory),
    ],
)
def test_a_device_that_fails_while_loading_is_not_blamed_on_the_folder(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception]
) -> None:
    from diffusers.pipelines.flux2.pipeline_flux2_klein import Flux2KleinPipeline

    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Flux2KleinPipeline, "from_pretrained", fails)
    with pytest.raises(raised):
        loader("flux2_klein")(KLEIN, WHOLE, cached("tiny-klein"), "cpu")


def test_what_a_model_had_of_a_card_and_of_pinned_host_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the second, a closed model's streamed blocks would stay in host memory for as long as the child lives."""
    given: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given.append("card"))
    monkeypatch.setattr(torch.accelerator, "empty_host_cache", lambda: given.append("host"))
    release("cpu")
    assert given == []
    release("cuda:0")
    assert given == ["card", "host"]
