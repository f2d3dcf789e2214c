"""Build tiny random-weight checkpoints of the real families, for tests: `python -m scripts.tiny_models [--out DIR]`.

Ordinary diffusers folders with the real compression ratios (32 x 32 x 8 for video, 16 for images), a few
megabytes each, so that sizes, frames, steps and memory behave as with the real models; the pictures are noise. They are
built once into a cache that git ignores, and are the same at every build with the same versions.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import tomli_w

from scripts.tiny_checkpoints import (
    MAX_TOKENS,
    write_flux2_klein,
    write_ltx2,
    write_ltx23,
    write_ltx25,
    write_z_image,
)
from zsky_box.catalog import RECORD_NAME, Installed
from zsky_box.manifest import Flux2KleinOptions, Licence, Limits, Ltx2Options, ModelSpec, ZImageOptions

CACHE: Final = Path(__file__).resolve().parent.parent / ".cache" / "tiny-models"
RECIPE: Final = 3  # raise it when what is built changes


_SEED: Final = 20_261


def tiny_ltx2(folder: Path) -> None:
    """Write an LTX-2.0-shaped checkpoint with its latent upsampler: Gemma 3, 24 kHz vocoder."""
    _build(folder, write_ltx2)


def tiny_ltx23(folder: Path) -> None:
    """Write an LTX-2.3-shaped checkpoint: Gemma 3, gated attention, 48 kHz vocoder in two parts."""
    _build(folder, write_ltx23)


def tiny_ltx25(folder: Path) -> None:
    """Write an LTX-2.5-shaped checkpoint: Gemma 4, gated attention, 48 kHz vocoder in two parts, stochastic steps."""
    _build(folder, write_ltx25)


def tiny_flux2_klein(folder: Path) -> None:
    """Write a FLUX.2-klein-shaped checkpoint, step-wise distilled."""
    _build(folder, write_flux2_klein)


def tiny_z_image(folder: Path) -> None:
    """Write a Z-Image-shaped checkpoint."""
    _build(folder, write_z_image)


def tiny_specs() -> tuple[ModelSpec, ...]:
    """The manifests of the tiny models; each one's weights lie in the folder of its name."""
    licence = Licence(name="Apache-2.0", terms="Random weights, part of zsky-box.", commercial_use="yes")
    video: dict[str, Any] = {
        "makes": ("video",),
        "licence": licence,
        "limits": Limits(
            resolutions=("480p", "720p", "1080p"),
            aspect_ratios=("16:9", "9:16", "1:1", "4:3", "3:4", "21:9"),
            fps=(24, 25),
            min_duration_seconds=0.3,
            max_duration_seconds=10.0,
            reference_image=True,
        ),
        "default_duration_seconds": 1.0,
        "size_multiple": 32,
        "frame_step": 8,
        "dtype": "float32",
    }
    image: dict[str, Any] = {
        "makes": ("image",),
        "licence": licence,
        "size_multiple": 16,
        "dtype": "float32",
    }
    image_limits = Limits(
        resolutions=("480p", "720p", "1080p"),
        aspect_ratios=("16:9", "9:16", "1:1", "4:3", "3:4"),
        reference_image=True,
    )
    two = Ltx2Options(stages=2, max_sequence_length=MAX_TOKENS, decode_tile_pixels=256)
    one = msgspec.structs.replace(two, stages=1)
    return (
        ModelSpec(name="tiny-ltx2", title="Tiny LTX-2, two stages", options=two, **video),
        ModelSpec(name="tiny-ltx2-one", title="Tiny LTX-2, one stage", options=one, **video),
        ModelSpec(name="tiny-ltx23", title="Tiny LTX-2.3, one stage", options=one, **video),
        ModelSpec(name="tiny-ltx25", title="Tiny LTX-2.5, two stages", options=two, **video),
        ModelSpec(
            name="tiny-klein",
            title="Tiny FLUX.2 klein",
            options=Flux2KleinOptions(max_sequence_length=MAX_TOKENS),
            limits=image_limits,
            **image,
        ),
        ModelSpec(
            name="tiny-z-image",
            title="Tiny Z-Image",
            options=ZImageOptions(max_sequence_length=MAX_TOKENS),
            limits=msgspec.structs.replace(image_limits, strength=True),
            **image,
        ),
    )


_WEIGHTS: Final[dict[str, Callable[[Path], None]]] = {
    "tiny-ltx2": tiny_ltx2,
    "tiny-ltx2-one": tiny_ltx2,
    "tiny-ltx23": tiny_ltx23,
    "tiny-ltx25": tiny_ltx25,
    "tiny-klein": tiny_flux2_klein,
    "tiny-z-image": tiny_z_image,
}


def tiny_manifests(folder: Path) -> None:
    """Write the manifests of the tiny models, one TOML file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for spec in tiny_specs():
        (folder / f"{spec.name}.toml").write_text(manifest_text(spec), "utf-8")


def manifest_text(spec: ModelSpec) -> str:
    """A spec as the TOML that it could have been read from; what is None is left out, since TOML has no null."""
    return tomli_w.dumps(_said(msgspec.to_builtins(spec)))


def _said(table: dict[str, Any]) -> dict[str, Any]:
    said = {key: value for key, value in table.items() if value is not None}
    return {key: _said(cast(dict[str, Any], each)) if isinstance(each, dict) else each for key, each in said.items()}


def cached(name: str, cache: Path = CACHE) -> Path:
    """The folder of a tiny model's weights in the cache, built if it is not there."""
    build = _WEIGHTS[name]
    folder = cache / build.__name__
    build(folder)
    return folder


def install_tiny(weights: Path) -> None:
    """Put every tiny model where the catalogue finds it: `weights`/NAME, complete with its record."""
    weights.mkdir(parents=True, exist_ok=True)
    for name in _WEIGHTS:
        if _complete(weights / name):
            continue
        shutil.rmtree(weights / name, ignore_errors=True)
        shutil.copytree(cached(name), weights / name)


def _revision() -> str:
    from importlib.metadata import version

    return f"tiny-{RECIPE}-diffusers-{version('diffusers')}-transformers-{version('transformers')}"


def _complete(folder: Path) -> bool:
    try:
        record = msgspec.json.decode((folder / RECORD_NAME).read_bytes(), type=Installed)
    except (OSError, msgspec.DecodeError):
        return False
    return record.revision == _revision()


def _build(folder: Path, write: Callable[[Path], None]) -> None:
    """Build beside the target and rename: a folder that is there is complete, also when two processes build at once."""
    if _complete(folder):
        return
    import torch

    from zsky_box.pipelines.loading import quiet

    quiet()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as work:
        fresh = Path(work) / folder.name
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            write(fresh)
        (fresh / RECORD_NAME).write_bytes(msgspec.json.encode(Installed(revision=_revision())))
        if folder.exists() and not _complete(folder):
            shutil.rmtree(folder)
        try:
            fresh.rename(folder)
        except OSError:
            if not _complete(folder):
                raise


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the tiny checkpoints that the tests run.")
    parser.add_argument("--out", type=Path, default=CACHE, help="where to build them (default: %(default)s)")
    out: Path = parser.parse_args().out
    for name in ("tiny-ltx2", "tiny-ltx23", "tiny-ltx25", "tiny-klein", "tiny-z-image"):
        print(cached(name, out))


if __name__ == "__main__":
    main()
