"""Opening a diffusers folder: from the disk only, safetensors only, no code from the folder; and giving memory back.

Knows nothing of any model family. diffusers and transformers are imported inside the functions, after the environment
has told them to stay off the network.
"""

from __future__ import annotations

import gc
import inspect
import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Final

import torch

from zsky_box.errors import JobFailure
from zsky_box.manifest import ModelSpec, Recipe
from zsky_box.pipelines.base import OutOfMemory
from zsky_box.pipelines.quantisation import quantising, refuse_unable, stored

LIBRARIES: Final = ("torch", "diffusers", "transformers", "torchao")

_MODULES: Final[dict[str, tuple[str, ...]]] = {
    "leader": (),
    "mini": ("zsky_box.pipelines.mini",),
    "ltx2": (
        "diffusers.pipelines.ltx2.pipeline_ltx2",
        "diffusers.pipelines.ltx2.pipeline_ltx2_image2video",
        "diffusers.pipelines.ltx2.pipeline_ltx2_latent_upsample",
    ),
    "flux2_klein": ("diffusers.pipelines.flux2.pipeline_flux2_klein",),
    "z_image": (
        "diffusers.pipelines.z_image.pipeline_z_image",
        "diffusers.pipelines.z_image.pipeline_z_image_img2img",
    ),
    "image_classifier": (
        "transformers.models.auto.modeling_auto",
        "transformers.models.auto.image_processing_auto",
    ),
}

_PICKLE_SUFFIXES: Final = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})
_PICKLE_PROTOCOLS: Final = frozenset(range(2, 6))
_ZIP_MAGIC: Final = b"PK\x03\x04"  # torch.save's container; a checkpoint folder has no other use for one
_MAX_FOLDER_FILES: Final = 10_000


def versions() -> dict[str, str]:
    """The versions that pixels depend on, for receipts; imports none of them."""
    return {name: metadata.version(name) for name in LIBRARIES}


def warm(family: str) -> None:
    """Import what a family needs, so that a child waits ready; raises KeyError for an unknown family."""
    modules = _MODULES[family]
    if any(not module.startswith("zsky_box.") for module in modules):
        quiet()
    for module in modules:
        import_module(module)


def quiet() -> None:
    """Keep the libraries off the network and off the terminal; the worker reports progress itself.

    Must come before the first import of huggingface_hub, which reads the environment once; `local_files_only` guards
    every load besides.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    diffusers_logging = import_module("diffusers.utils.logging")
    transformers_logging = import_module("transformers.utils.logging")
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    # torchao tells at its import which of its kernels were built for other machines, torch what torchao should do, and
    # bitsandbytes on some processors that it would rather fetch a kernel from a hub.
    for name in ("torchao", "torch.utils._pytree", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)


def open_pipeline(kind: Any, spec: ModelSpec, recipe: Recipe, folder: Path, device: str, **given: Any) -> Any:
    """Load a diffusers pipeline class from `folder`, each component as the recipe keeps it; see `place` for the rest.

    With `offload = "none"` each component is on `device` before the next is read: host memory holds one at a time. A
    component that is `given` is taken as it is, and one given as None is not loaded. Raises OutOfMemory, and JobFailure
    where the device cannot run the recipe, or the folder is missing, broken, or holds anything that could run code.
    """
    refuse_unable(spec, recipe, device)
    refuse_unsafe_files(spec, folder)
    with memory_guard(), broken_folder(spec):
        parts = dict(given)
        for name, part_kind in _component_kinds(kind, folder).items():
            if name not in given:
                parts[name] = _open_component(part_kind, name, spec, recipe, folder, device)
        pipe = kind.from_pretrained(str(folder), local_files_only=True, use_safetensors=True, **parts)
        pipe.set_progress_bar_config(disable=True)
        return pipe


def open_part(kind: Any, name: str, spec: ModelSpec, recipe: Recipe, folder: Path, device: str) -> Any:
    """Load one model class from the subfolder `name`, kept and placed as `open_pipeline` does; raises the same."""
    refuse_unable(spec, recipe, device)
    refuse_unsafe_files(spec, folder)
    with memory_guard(), broken_folder(spec):
        return _open_component(kind, name, spec, recipe, folder, device)


def open_indexed(named: list[str], name: str, spec: ModelSpec, recipe: Recipe, folder: Path, device: str) -> Any:
    """`open_part` for a component's library and class as `model_index.json` names them."""
    from diffusers.pipelines.pipeline_loading_utils import simple_get_class_obj

    with broken_folder(spec):
        kind = simple_get_class_obj(*named)  # of the libraries alone, never the folder's own
    return open_part(kind, name, spec, recipe, folder, device)


def _component_kinds(kind: Any, folder: Path) -> dict[str, Any]:
    """The classes of the torch modules that the pipeline class `kind` takes and the folder's index names, by name."""
    from diffusers.pipelines.pipeline_loading_utils import simple_get_class_obj

    wanted = inspect.signature(kind.__init__).parameters
    kinds: dict[str, Any] = {}
    for name, named in kind.load_config(str(folder), local_files_only=True).items():
        match named:
            case [str(library), str(class_name)] if name in wanted:
                part_kind = simple_get_class_obj(library, class_name)
                if issubclass(part_kind, torch.nn.Module):
                    kinds[name] = part_kind
            case _:
                pass
    return kinds


def _open_component(kind: Any, name: str, spec: ModelSpec, recipe: Recipe, folder: Path, device: str) -> Any:
    dtype = getattr(torch, spec.dtype)
    held, wanted = stored(folder / name), recipe.quantise.get(name)
    if held is not None and wanted is not None and held != wanted:
        raise failure(spec, f"its {name} is kept as {held}, and the recipe {recipe.name} takes {wanted}")
    options = quantising(kind, wanted, dtype, device) if held is None and wanted is not None else {}
    part = kind.from_pretrained(str(folder / name), dtype=dtype, local_files_only=True, use_safetensors=True, **options)
    return part.to(device) if recipe.offload == "none" else part


def refuse_unsafe_files(spec: ModelSpec, folder: Path) -> None:
    """Raises JobFailure if the folder is missing or holds pickles (by name or by content) or Python code."""
    if not folder.is_dir():
        raise failure(spec, "its folder is missing")
    files = [path for path in folder.rglob("*") if path.is_file()]
    if len(files) > _MAX_FOLDER_FILES:
        raise failure(spec, f"its folder holds more than {_MAX_FOLDER_FILES} files")
    for path in files:
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".py":
            raise failure(spec, f"{name} is code, and no code is run from a model's folder")
        if _is_pickle(path):
            raise failure(spec, f"{name} is a pickle, which can run code; only safetensors are loaded")


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(10)
    if path.suffix in _PICKLE_SUFFIXES or head.startswith(_ZIP_MAGIC):
        return True
    # A safetensors file starts with its header's length, whose low byte may be 0x80: its ninth byte tells them apart.
    is_safetensors = path.suffix == ".safetensors" and head[8:9] == b"{"
    return head[:1] == b"\x80" and len(head) > 1 and head[1] in _PICKLE_PROTOCOLS and not is_safetensors


def failure(spec: ModelSpec, reason: str) -> JobFailure:
    """The sentence for a model that cannot be loaded; nothing in it is a stack trace or a path of this machine."""
    return JobFailure("internal_error", f"The model {spec.name} cannot be loaded: {reason}. Install it again.")


@contextmanager
def broken_folder(spec: ModelSpec) -> Generator[None]:
    """Turn what reading a folder raises into JobFailure or OutOfMemory."""
    from safetensors import SafetensorError

    try:
        yield
    # What from_pretrained raises for missing, cut, foreign or mismatching files; a bug of ours reads the same there.
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, SafetensorError) as reason:
        raise failure(spec, f"its folder is incomplete or damaged ({type(reason).__name__})") from reason
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # the card's, and not the folder's fault
    except RuntimeError as reason:
        if "can't allocate memory" in str(reason):  # torch's CPU allocator has no error of its own
            raise OutOfMemory(str(reason).splitlines()[0]) from reason
        raise failure(spec, "its weights do not fit its configuration") from reason


@contextmanager
def memory_guard() -> Generator[None]:
    """Turn the device's out-of-memory error into OutOfMemory; everything else passes."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(str(error).splitlines()[0]) from error


def release(device: str) -> None:
    """Return what nothing refers to any more to the device; call after the last reference to a pipeline is gone."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        # Streamed blocks lay in pinned host memory, of which torch keeps every byte for itself until it is told so.
        torch.accelerator.empty_host_cache()
