"""Manifests in `models/` become ModelSpecs: what a model makes, within which limits, and how it is loaded.

A manifest is one TOML file. A bad one is refused with file, key and reason; the others still load. The catalogue knows
what is installed by looking for the weights' folder, which appears only when it is complete.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from zsky_box.errors import ManifestError
from zsky_box.formats import AspectRatio, Resolution

JobType = Literal["video", "image"]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]

FALLBACKS: Final = ("mini", "leader")
RECORD_NAME: Final = "installed.json"


class Licence(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may use the model, and for what."""

    name: str
    url: str = ""
    terms: str = ""
    commercial_use: Literal["yes", "no", "conditional"] = "conditional"


class Limits(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a request may ask for; `max_duration_seconds` is 0 for models that make stills only."""

    resolutions: Annotated[tuple[Resolution, ...], Meta(min_length=1)]
    aspect_ratios: Annotated[tuple[AspectRatio, ...], Meta(min_length=1)]
    fps: tuple[Annotated[int, Meta(ge=1, le=240)], ...] = ()
    min_duration_seconds: float = 0.0
    max_duration_seconds: float = 0.0
    max_images: Annotated[int, Meta(ge=1, le=10)] = 10
    negative_prompt: bool = False


class LeaderOptions(Struct, frozen=True, forbid_unknown_fields=True, tag_field="family", tag="leader"):
    """The film leader has nothing to choose."""


class Ltx2Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="family", tag="ltx2"):
    """How an LTX-2 checkpoint is run. `stages` is 2 for half size, latent upsample, full size.

    A distilled one takes the schedules that the library ships (8 and 3 steps); `steps` counts where it is not.
    """

    stages: Literal[1, 2] = 2
    distilled: bool = True
    steps: Annotated[int, Meta(ge=1, le=200)] = 30
    guidance_scale: float = 1.0
    max_sequence_length: Annotated[int, Meta(ge=16, le=1024)] = 1024
    decode_chunk_frames: Annotated[int, Meta(ge=16, le=512, multiple_of=8)] = 64
    decode_overlap_frames: Annotated[int, Meta(ge=8, le=128, multiple_of=8)] = 16
    decode_tile_pixels: Annotated[int, Meta(ge=64, le=4096)] = 512

    def __post_init__(self) -> None:
        """msgspec turns a ValueError into its own error, which names the place in the manifest."""
        if self.stages == 2 and not self.distilled:
            raise ValueError("stages = 2 needs a distilled checkpoint")
        if self.decode_overlap_frames >= self.decode_chunk_frames:
            raise ValueError("decode_overlap_frames must be less than decode_chunk_frames")


class Flux2KleinOptions(
    Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="family", tag="flux2_klein"
):
    """How a FLUX.2 klein checkpoint is run."""

    steps: Annotated[int, Meta(ge=1, le=100)] = 4
    guidance_scale: float = 1.0
    max_sequence_length: Annotated[int, Meta(ge=16, le=1024)] = 512


Options = LeaderOptions | Ltx2Options | Flux2KleinOptions


class ModelSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model of the catalogue.

    `size_multiple` and `frame_step` are the model's own grid (frames = frame_step·m + 1). `default_for` names the job
    types that this model serves when the request names none. `timeout_seconds` bounds one job on the slowest device.
    """

    name: Name
    title: str
    makes: Annotated[tuple[JobType, ...], Meta(min_length=1)]
    licence: Licence
    limits: Limits
    options: Options
    bundled: bool = False
    default_for: tuple[JobType, ...] = ()
    repository: str = ""
    revision: str = ""
    default_fps: int = 24
    default_duration_seconds: float = 5.0
    size_multiple: Annotated[int, Meta(ge=1, le=256)] = 1
    frame_step: Annotated[int, Meta(ge=1, le=64)] = 1
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    timeout_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 1_800.0

    @property
    def family(self) -> str:
        """Which file under `pipelines/` runs it."""
        return str(self.options.__struct_config__.tag)


class Installed(Struct, frozen=True, kw_only=True):
    """What was recorded when a model was installed: `installed.json` beside its weights."""

    revision: str = ""
    weights_sha256: str = ""
    quantisation: str = "none"


def read_manifest(path: Path) -> ModelSpec:
    """Parse one manifest; raises ManifestError naming file, key and reason."""
    try:
        spec = msgspec.convert(tomllib.loads(path.read_text("utf-8")), ModelSpec)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, OSError) as reason:
        raise ManifestError(f"{path.name}: {reason}") from reason
    if spec.name != path.stem:
        raise ManifestError(f"{path.name}: name: is {spec.name!r}, but the file must be called {spec.name}.toml")
    if "video" in spec.makes and not (spec.limits.fps and spec.limits.max_duration_seconds > 0):
        raise ManifestError(f"{path.name}: limits: a model that makes video needs fps and max_duration_seconds")
    if "video" in spec.makes and spec.default_fps not in spec.limits.fps:
        raise ManifestError(f"{path.name}: default_fps: {spec.default_fps} is not among limits.fps")
    low, high = spec.limits.min_duration_seconds, spec.limits.max_duration_seconds
    if "video" in spec.makes and not low <= spec.default_duration_seconds <= high:
        raise ManifestError(f"{path.name}: default_duration_seconds: is not within {low:g} to {high:g}")
    if not set(spec.default_for) <= set(spec.makes):
        raise ManifestError(f"{path.name}: default_for: names a type that is not in makes")
    return spec


class Catalog:
    """All models the box knows; `refused` holds the reasons of manifests that were not loaded."""

    def __init__(self, folders: list[Path], weights: Path) -> None:
        self.weights = weights
        self.specs: dict[str, ModelSpec] = {}
        self.refused: list[str] = []
        for folder in folders:
            for path in sorted(folder.glob("*.toml")):
                try:
                    spec = read_manifest(path)
                except ManifestError as error:
                    self.refused.append(str(error))
                else:
                    self.specs[spec.name] = spec

    def folder(self, spec: ModelSpec) -> Path:
        """Where the weights of a model lie once it is installed."""
        return self.weights / spec.name

    def installed(self, spec: ModelSpec) -> Installed | None:
        """The record of the installation, or None; bundled models are always there."""
        if spec.bundled:
            return Installed(revision=spec.revision)
        try:
            return msgspec.json.decode((self.folder(spec) / RECORD_NAME).read_bytes(), type=Installed)
        except (OSError, msgspec.DecodeError):
            return None

    def default(self, job_type: JobType) -> ModelSpec | None:
        """The installed default for a type, else any installed model for it, else mini, else leader."""
        able = [spec for spec in self.specs.values() if job_type in spec.makes]
        real = [spec for spec in able if not spec.bundled and self.installed(spec) is not None]
        real.sort(key=lambda spec: (job_type not in spec.default_for, spec.name))
        if real:
            return real[0]
        return next((spec for name in FALLBACKS for spec in able if spec.name == name), None)
