"""The catalogue: manifests in `models/` become ModelSpecs, and what of them is installed is looked up on the disk.

A manifest is one TOML file. A bad one is refused with file, key and reason; the others still load. The catalogue knows
what is installed by looking for the weights' folder, which appears only when it is complete.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from zsky_box.errors import JobFailure, ManifestError, SettingsError
from zsky_box.events import Check
from zsky_box.manifest import FULL, JobType, ModelSpec, Recipe
from zsky_box.settings import CHECKOUT

FALLBACKS: Final = ("mini", "leader")
RECORD_NAME: Final = "installed.json"
WITHOUT_WEIGHTS: Final = frozenset({"leader"})
"""Families that are their own code: a bundled model of one has nothing on the disk."""


class Variant(Struct, frozen=True, kw_only=True):
    """One form of the weights on the disk: `folder` below the model's own, and each component's bytes."""

    folder: str = ""
    components: dict[str, int] = {}
    weights_sha256: str = ""


class Installed(Struct, frozen=True, kw_only=True):
    """What was recorded when a model was installed: `installed.json` beside its weights.

    A record without variants is of a folder that was laid there by hand: its weights are in full, at its top.
    """

    revision: str = ""
    weights_sha256: str = ""
    quantisation: str = "none"
    variants: dict[str, Variant] = {}
    licence: str = ""
    installed_at: str = ""
    source: str = ""

    def variant(self, recipe: Recipe) -> Variant | None:
        """What a recipe loads: its own form of the weights, else the full ones, to be quantised while they load."""
        if not self.variants:
            return Variant(weights_sha256=self.weights_sha256)
        return self.variants.get(recipe.variant) or self.variants.get(FULL)


def read_manifest(path: Path) -> ModelSpec:
    """Parse one manifest; raises ManifestError naming file, key and reason."""
    try:
        values = tomllib.loads(path.read_text("utf-8"))
        spec = msgspec.convert(values, ModelSpec)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, OSError, RecursionError) as reason:
        raise ManifestError(f"{path.name}: {reason}") from reason
    if fault := _fault(path, spec, values):
        raise ManifestError(f"{path.name}: {fault}")
    return spec


def _fault(path: Path, spec: ModelSpec, values: dict[str, Any]) -> str | None:
    """The first thing that no single key can tell."""
    low, high = spec.limits.min_duration_seconds, spec.limits.max_duration_seconds
    names = [recipe.name for recipe in spec.recipes]
    if spec.name != path.stem:
        return f"name: is {spec.name!r}, but the file must be called {spec.name}.toml"
    if (spec.family == "image_classifier") != (not spec.makes):
        return f"makes: a model of the family {spec.family} makes {'nothing' if spec.makes else 'video or image'}"
    if spec.makes and "limits" not in values:
        return "limits: are missing; they say what a request may ask for"
    if "video" in spec.makes and not (spec.limits.fps and high > 0):
        return "limits: a model that makes video needs fps and max_duration_seconds"
    if "video" in spec.makes and spec.default_fps not in spec.limits.fps:
        return f"default_fps: {spec.default_fps} is not among limits.fps"
    if "video" in spec.makes and not low <= spec.default_duration_seconds <= high:
        return f"default_duration_seconds: is not within {low:g} to {high:g}"
    if not set(spec.default_for) <= set(spec.makes):
        return "default_for: names a type that is not in makes"
    if len(names) != len(set(names)):
        return "recipes: two of them have the same name"
    if spec.limits.strength and not spec.limits.reference_image:
        return "limits.strength: needs limits.reference_image"
    return None


class Catalog:
    """All models the box knows; `refused` holds the reasons of manifests that were not loaded.

    `output_check` is the classifier that every result is shown to, if any; see `use_check`.
    """

    def __init__(self, folders: list[Path], weights: Path) -> None:
        self.weights = weights
        self.output_check: ModelSpec | None = None
        self.specs: dict[str, ModelSpec] = {}
        self._shelves: dict[str, Path] = {}  # each model's manifest lies here
        self.refused: list[str] = []
        for folder in folders:
            for path in sorted(folder.glob("*.toml")):
                try:
                    spec = read_manifest(path)
                except ManifestError as error:
                    self.refused.append(str(error))
                else:
                    self.specs[spec.name] = spec
                    self._shelves[spec.name] = folder

    def folder(self, spec: ModelSpec) -> Path:
        """Where the weights of a model lie once it is installed; a bundled one's lie beside its manifest."""
        shelf = self._shelves.get(spec.name) if spec.bundled else None
        return (shelf or self.weights) / spec.name

    def installed(self, spec: ModelSpec) -> Installed | None:
        """The record of the installation, or None; a bundled model that needs no weights is always there."""
        if spec.bundled and spec.family in WITHOUT_WEIGHTS:
            return Installed(revision=spec.revision)
        try:
            return msgspec.json.decode((self.folder(spec) / RECORD_NAME).read_bytes(), type=Installed)
        except (OSError, msgspec.DecodeError):
            return None

    def default(self, job_type: JobType) -> ModelSpec | None:
        """The installed default for a type, else any installed model for it, else mini, else leader.

        Experimental ones are passed over.
        """
        real = [spec for spec in self._able(job_type) if not spec.bundled]
        real.sort(key=lambda spec: (job_type not in spec.default_for, spec.name))
        return next(iter([*real, *self.fallbacks(job_type)]), None)

    def fallbacks(self, job_type: JobType) -> list[ModelSpec]:
        """The bundled models that answer for a type where no other is installed, the best of them first."""
        able = {spec.name: spec for spec in self._able(job_type) if spec.bundled}
        return [able[name] for name in FALLBACKS if name in able]

    def _able(self, job_type: JobType) -> list[ModelSpec]:
        makers = [spec for spec in self.specs.values() if job_type in spec.makes and not spec.experimental]
        return [spec for spec in makers if self.installed(spec) is not None]

    def recommended(self, job_type: JobType) -> ModelSpec | None:
        """What an owner would install for a type: the default that is to be fetched, whether or not it is here."""
        able = [spec for spec in self.specs.values() if job_type in spec.default_for and not spec.bundled]
        return min(able, key=lambda spec: spec.name, default=None)

    def weights_folder(self, spec: ModelSpec, recipe: Recipe) -> Path | None:
        """The folder that a recipe loads from, or None where the model is not installed in a form that it can load."""
        record = self.installed(spec)
        variant = None if record is None else record.variant(recipe)
        return None if variant is None else self.folder(spec) / variant.folder

    def use_check(self, name: str) -> None:
        """Name the output check, at start; empty means none. Raises SettingsError for one that could not look."""
        spec = self.specs.get(name)
        known = [check for check, other in self.specs.items() if not other.makes]
        if name and (spec is None or spec.makes):
            allowed = f"empty, or one of the output checks that this box knows: {', '.join(known) or 'there is none'}"
            raise SettingsError(f"output_check = {name!r}: allowed is {allowed}")
        if spec is not None and self.installed(spec) is None:
            raise SettingsError(
                f"output_check = {name!r}: it is not installed; run `zsky-box models install {name}`, or leave it empty"
            )
        self.output_check = spec

    def check(self) -> Check | None:
        """What a worker is to check results with; None where the owner has named nothing.

        Raises JobFailure when it is gone: then nothing may run, since nothing may be given out unchecked.
        """
        spec = self.output_check
        if spec is None:
            return None
        folder = self.weights_folder(spec, spec.ways[0])
        if folder is None:
            raise JobFailure("internal_error", f"The output check {spec.name} is gone; its owner installs it again.")
        return Check(model=spec, weights_dir=str(folder))

    def bytes_on_disk(self, spec: ModelSpec) -> dict[str, int]:
        """The bytes of each component's weights in a folder that was laid there by hand; {} where there is none."""
        folder = self.folder(spec)
        if not folder.is_dir():
            return {}
        parts = (part for part in folder.iterdir() if part.is_dir())
        sizes = {part.name: sum(file.stat().st_size for file in part.glob("*.safetensors")) for part in parts}
        return {name: size for name, size in sizes.items() if size}


def open_catalog(folder: Path) -> Catalog:
    """The manifests of the checkout and of the data folder, and the weights of the data folder."""
    return Catalog([CHECKOUT / "models", folder / "models"], folder / "weights")
