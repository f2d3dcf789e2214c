"""Installing one model, from a source to the catalogue: pin, choose, make room, fetch, look into, quantise, publish.

Killed at any point, the same command goes on where it was; nothing appears in the catalogue before all of it is there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from zsky_box.catalog import Installed, Variant
from zsky_box.errors import InstallError
from zsky_box.install import disk as disks
from zsky_box.install import fitting
from zsky_box.install.content import look_into
from zsky_box.install.hub import NotThere
from zsky_box.install.listing import Remote, check_listing, components, layout, needed
from zsky_box.install.part import Part, part_bytes
from zsky_box.install.preparing import ENTRY, prepare
from zsky_box.install.source import Source, is_same_blob
from zsky_box.install.staging import Pin, Staging, sync_tree
from zsky_box.install.stock import (
    FLAT,
    FileRecord,
    Inventory,
    digest_of,
    folder_bytes,
    read_inventory,
    take_stock,
    variant_of,
    write_inventory,
)
from zsky_box.manifest import FULL, ModelSpec, Recipe


class Report(Protocol):
    """How an installation tells where it is."""

    def phase(self, name: str, of: int, done: int = 0) -> None:
        """Something begins that has `of` bytes, or parts, of which `done` are there from before."""
        ...

    def advance(self, count: int) -> None:
        """So much more of it is done; less than nothing where something must be done again."""
        ...

    def note(self, sentence: str) -> None:
        """What a person should know."""
        ...


class Wish(Struct, frozen=True, kw_only=True):
    """What the owner asked for beside the model: a recipe, the full weights too, even if it fits nowhere, or anew."""

    requested: str = ""
    recipe: str | None = None
    keep_full: bool = False
    anyway: bool = False
    again: bool = False


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What an installation works with; `now` gives the time in RFC 3339."""

    machine: fitting.Machine
    report: Report
    now: Callable[[], str]
    floor_bytes: int
    disk: disks.Disk = field(default_factory=disks.Disk)
    prepare_entry: str = ENTRY


class Outcome(Struct, frozen=True, kw_only=True):
    """What is in the catalogue now, and what each device will run it by; `fresh` is false where nothing was to do."""

    record: Installed
    choices: tuple[fitting.Choice, ...]
    bytes: int
    fresh: bool


def install(spec: ModelSpec, staging: Staging, source: Source, wish: Wish, tools: Tools) -> Outcome:
    """Install a model whose licence was accepted, under its lock. Raises InstallError with what to do."""
    try:
        return _installed(spec, staging, source, wish, tools)
    except OSError as error:
        if disks.is_full(error):
            raise disks.full(staging.folder) from error
        raise InstallError(
            f"{error.filename or staging.folder}: {error.strerror}. What has arrived is kept: run the command again."
        ) from error


def _installed(spec: ModelSpec, staging: Staging, source: Source, wish: Wish, tools: Tools) -> Outcome:
    pin, work, files = _begun(spec, staging, source, wish, tools)
    weights = _weights_by_component(files)
    choices = _choices(spec, weights, wish, tools)
    before = read_inventory(staging.target)
    if before is not None and not wish.again and _is_enough(before, pin, choices, wish):
        staging.clear()
        return Outcome(record=before.record, choices=choices, bytes=_total(before.files), fresh=False)
    work.reuse(files)
    work.make_room(files, choices, weights)
    stock = work.fetch(files)
    record, stock = work.finish(stock, choices)
    write_inventory(staging.tree, Inventory(record, stock))
    staging.publish()
    return Outcome(record=record, choices=choices, bytes=_total(stock), fresh=True)


def _begun(
    spec: ModelSpec, staging: Staging, source: Source, wish: Wish, tools: Tools
) -> tuple[Pin, _Work, list[Remote]]:
    """What is installed and its files. A commit that its owner has taken back meanwhile is not gone on with."""
    pin = _pin(staging, source, wish, tools)
    work = _Work(spec, staging, source, pin, wish, tools)
    try:
        return pin, work, work.list_files()
    except NotThere as gone:
        tools.report.note(f"{gone} What was begun cannot be gone on with: it begins anew.")
        pin = staging.begin(source.name, wish.requested, source.resolve())
    work = _Work(spec, staging, source, pin, wish, tools)
    return pin, work, work.list_files()


def _pin(staging: Staging, source: Source, wish: Wish, tools: Tools) -> Pin:
    """Go on with what is unfinished, if it is the same; else ask the source what its revision is now."""
    pin = staging.pinned()
    if pin is not None and (pin.source, pin.requested) == (source.name, wish.requested) and staging.tree.is_dir():
        staging.reopen()
        if staging.done():
            tools.report.note(
                f"Going on with an installation that was interrupted ({pin.revision[:12] or pin.source})."
            )
        return pin
    return staging.begin(source.name, wish.requested, source.resolve())


class _Work:
    """One installation's steps over its staging."""

    def __init__(self, spec: ModelSpec, staging: Staging, source: Source, pin: Pin, wish: Wish, tools: Tools) -> None:
        self._spec = spec
        self._staging = staging
        self._source = source
        self._pin = pin
        self._wish = wish
        self._tools = tools
        self._below = f"{FULL}-{pin.tag}"

    def list_files(self) -> list[Remote]:
        """What the pipeline needs of the source."""
        files = check_listing(self._source.listing(self._pin.revision))
        index = layout(self._spec, files)
        if index is None:
            return needed(self._spec, files, ())
        self._tools.report.phase("configuration", index.bytes, self._arrived([index]))
        self._fetch_one(index)
        content = (self._staging.tree / self._below / index.path).read_bytes()
        return needed(self._spec, files, components(self._spec, content))

    def reuse(self, files: list[Remote]) -> None:
        """Link what the present installation has of the same content: an upgrade fetches what changed."""
        before = read_inventory(self._staging.target)
        full = None if before is None else before.record.variants.get(FULL)
        if before is None or full is None:
            return
        known = {file.path: file for file in before.files}
        missing, report = self._missing(files), self._tools.report
        report.phase("comparing with what is here", sum(file.bytes for file in missing))
        for remote in missing:
            old = self._staging.target / full.folder / remote.path
            record = known.get(f"{full.folder}/{remote.path}")
            if record is None or not is_same_blob(old, remote, report.advance):
                continue
            target = self._staging.tree / self._below / remote.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(old, target)
            except OSError:
                return  # a file system without links: all is fetched again
            mine = f"{self._below}/{remote.path}"
            self._staging.note(FileRecord(path=mine, bytes=record.bytes, sha256=record.sha256), remote)

    def make_room(self, files: list[Remote], choices: tuple[fitting.Choice, ...], weights: dict[str, int]) -> None:
        """Raises InstallError unless what is to be fetched and what is to be quantised has room beside the floor."""
        for recipe in fitting.to_prepare(choices):
            if unknown := recipe.quantise.keys() - weights.keys():
                raise InstallError(
                    f"The recipe {recipe.name} of {self._spec.name} quantises {min(unknown)}, and it has weights of"
                    f" {', '.join(sorted(weights))}; correct its manifest."
                )
        fetched = sum(file.bytes for file in files) - self._arrived(files)
        made = sum(
            fitting.quantised_bytes(self._spec, recipe, weights)
            for recipe in fitting.to_prepare(choices)
            if not self._folder(recipe.variant).exists()
        )
        disks.require(self._tools.disk, self._staging.folder, fetched + made, self._tools.floor_bytes)

    def fetch(self, files: list[Remote]) -> list[FileRecord]:
        """All files whole, hashed, looked into, and durable."""
        self._tools.report.phase("fetching", sum(file.bytes for file in files), self._arrived(files))
        for file in self._missing(files):
            self._fetch_one(file)
        done = self._staging.done()
        stock = [done[f"{self._below}/{file.path}"][1] for file in files]
        self._staging.keep_only(self._below, {file.path for file in stock})
        return stock

    def _missing(self, files: list[Remote]) -> list[Remote]:
        done = self._staging.done()
        nothing = ("", None)
        return [file for file in files if done.get(f"{self._below}/{file.path}", nothing)[0] != file.identity]

    def _arrived(self, files: list[Remote]) -> int:
        """The bytes of these files that are here, whole files and parts."""
        missing = self._missing(files)
        parts = sum(part_bytes(self._staging.tree / self._below / file.path, file) for file in missing)
        return sum(file.bytes for file in files) - sum(file.bytes for file in missing) + parts

    def _fetch_one(self, remote: Remote) -> None:
        if not self._missing([remote]):
            return
        path = f"{self._below}/{remote.path}"
        target = self._staging.tree / path
        with Part(target, remote, self._tools.disk) as part:
            self._source.fetch(self._pin.revision, part, self._tools.report.advance)
            part.keep()
            try:
                look_into(target, remote.path)
            except Exception:
                target.unlink()
                raise
            self._staging.note(FileRecord(path=path, bytes=part.length, sha256=part.sha256), remote)

    def finish(
        self, stock: list[FileRecord], choices: tuple[fitting.Choice, ...]
    ) -> tuple[Installed, list[FileRecord]]:
        """Quantise what the choices need, drop the full weights where nobody does, and write the record of it all."""
        digest = digest_of(stock, self._below)
        variants: dict[str, Variant] = {}
        recipes = fitting.to_prepare(choices)
        wanted = {choice.recipe.variant for choice in choices if choice.recipe is not None}
        if self._wish.keep_full or FULL in wanted:
            variants[FULL] = variant_of(self._below, stock)
        for recipe in recipes:
            folder = self._prepare(recipe, choices)
            self._tools.report.phase(f"hashing {recipe.variant}", folder_bytes(folder))
            made = take_stock(self._staging.tree, folder.name, self._tools.report.advance)
            variants[recipe.variant] = variant_of(folder.name, made)
            stock = stock + made
        kept = {variant.folder for variant in variants.values()}
        for folder in self._staging.tree.iterdir():
            if folder.is_dir() and folder.name not in kept:  # another run's wish, or full weights that nobody wants
                shutil.rmtree(folder)
        stock = [file for file in stock if file.path.partition("/")[0] in kept]
        now = self._tools.now()
        record = Installed(
            revision=self._pin.revision,
            weights_sha256=digest,
            quantisation="none" if FULL in variants else next(iter(variants)),
            variants=variants,
            licence=self._spec.licence.name,
            installed_at=now,
            source=self._pin.source,
        )
        return record, stock

    def _folder(self, variant: str) -> Path:
        return self._staging.tree / f"{variant}-{self._pin.tag}"

    def _prepare(self, recipe: Recipe, choices: tuple[fitting.Choice, ...]) -> Path:
        """The folder of a recipe's weights; made beside and renamed, so that one that is there is whole."""
        folder = self._folder(recipe.variant)
        if folder.exists():
            return folder
        device = "cpu"
        if recipe.needs_cuda:
            device = next(choice.device for choice in choices if choice.recipe == recipe)
        fresh = self._staging.folder / f"preparing-{os.getpid()}"
        for left in self._staging.folder.glob("preparing-*"):
            shutil.rmtree(left)
        report = self._tools.report
        at = ("", 0)

        def tell(component: str, done: int, of: int) -> None:
            nonlocal at
            if component == at[0]:
                report.advance(done - at[1])
            else:
                report.phase(f"preparing {component}", of, done)
            at = (component, done)

        source = self._staging.tree / self._below
        prepare(self._spec, recipe, source, fresh, device=device, tell=tell, entry=self._tools.prepare_entry)
        if not fresh.is_dir():
            raise InstallError(f"{self._spec.name} was prepared by the recipe {recipe.name}, but nothing came of it.")
        for path in fresh.rglob("*"):
            if path.is_symlink() or not path.is_dir():
                look_into(path, path.relative_to(fresh).as_posix())
        sync_tree(fresh)  # or a power cut could leave the new name with empty files
        fresh.rename(folder)
        return folder


def _weights_by_component(files: list[Remote]) -> dict[str, int]:
    found: dict[str, int] = {}
    for file in files:
        if file.is_weights:
            part = file.path.rpartition("/")[0] or FLAT
            found[part] = found.get(part, 0) + file.bytes
    return found


def _choices(spec: ModelSpec, weights: dict[str, int], wish: Wish, tools: Tools) -> tuple[fitting.Choice, ...]:
    try:
        return fitting.choose(spec, weights, tools.machine, wish.recipe)
    except InstallError as error:
        if not wish.anyway:
            raise
        choices = fitting.choose_anyway(spec, tools.machine, wish.recipe, str(error))
        tools.report.note(str(error))
        return choices


def _is_enough(before: Inventory, pin: Pin, choices: tuple[fitting.Choice, ...], wish: Wish) -> bool:
    wanted = {choice.recipe.variant for choice in choices if choice.recipe is not None}
    wanted |= {FULL} if wish.keep_full else set()
    record = before.record
    return bool(pin.revision) and record.revision == pin.revision and wanted <= set(record.variants)


def _total(files: list[FileRecord]) -> int:
    return sum(file.bytes for file in files)
