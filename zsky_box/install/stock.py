"""What is installed, file by file: `installed.json` and `files.json` of a model's folder, and whether they are true."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from zsky_box.catalog import RECORD_NAME, Installed, Variant
from zsky_box.errors import InstallError
from zsky_box.install.listing import same_weights
from zsky_box.install.part import CHUNK_BYTES
from zsky_box.secretfile import sync_folder

FILES_NAME: Final = "files.json"
FLAT: Final = "model"
"""What the one component of a model without a pipeline is called."""


class FileRecord(Struct, frozen=True, kw_only=True):
    """One file below the model's folder."""

    path: str
    bytes: int
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class Inventory(Struct, frozen=True):
    """A model's record, and all of its files."""

    record: Installed
    files: list[FileRecord]


class Finding(Struct, frozen=True):
    """One file that is not as it was installed."""

    path: str
    fault: str


def digest_of(files: list[FileRecord], folder: str) -> str:
    """One hash of all files below `folder`, as the catalogue's `weights_sha256`."""
    prefix = f"{folder}/"
    below = [(file.path.removeprefix(prefix), file.sha256) for file in files if file.path.startswith(prefix)]
    return hashlib.sha256(same_weights(below)).hexdigest()


def variant_of(folder: str, stock: list[FileRecord]) -> Variant:
    """One form of the weights as the catalogue must know it: its folder, and the bytes of each component."""
    parts: dict[str, int] = {}
    for file in stock:
        below = file.path.removeprefix(f"{folder}/")
        if below != file.path and file.path.endswith(".safetensors"):
            part = below.rpartition("/")[0] or FLAT
            parts[part] = parts.get(part, 0) + file.bytes
    return Variant(folder=folder, components=parts, weights_sha256=digest_of(stock, folder))


def read_inventory(folder: Path) -> Inventory | None:
    """Both records of a model's folder, or None where one is missing or damaged."""
    try:
        record = msgspec.json.decode((folder / RECORD_NAME).read_bytes(), type=Installed)
        files = msgspec.json.decode((folder / FILES_NAME).read_bytes(), type=list[FileRecord])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return Inventory(record, files)


def write_inventory(folder: Path, inventory: Inventory) -> None:
    """Write both, durably; the record last, because it is what makes a folder a model."""
    write_durable(folder / FILES_NAME, msgspec.json.format(msgspec.json.encode(inventory.files)))
    write_durable(folder / RECORD_NAME, msgspec.json.format(msgspec.json.encode(inventory.record)))


def write_durable(path: Path, content: bytes) -> None:
    """Replace a file at once and for good."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def folder_bytes(folder: Path) -> int:
    """What all files below a folder hold."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def take_stock(folder: Path, below: str, done: Callable[[int], None] = lambda _: None) -> list[FileRecord]:
    """The record of every file in `folder`/`below`; `done` is told the bytes as they are read."""
    found: list[FileRecord] = []
    for path in sorted((folder / below).rglob("*")):
        if path.is_symlink():
            raise InstallError(f"{path} is a link, and a model's folder holds files only.")
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            found.append(FileRecord(path=name, bytes=path.stat().st_size, sha256=_hashed(path, done)))
    return found


def compare(folder: Path, done: Callable[[int], None] = lambda _: None) -> list[Finding]:
    """Read everything and name what is not as installed: changed, missing, or more than there should be.

    Raises InstallError where there is no record to compare with.
    """
    inventory = read_inventory(folder)
    if inventory is None:
        raise InstallError(f"{folder} has no {RECORD_NAME} and {FILES_NAME} that can be read; install the model again.")
    findings: list[Finding] = []
    for file in inventory.files:
        path = folder / file.path
        if path.is_symlink() or not path.is_file():
            findings.append(Finding(file.path, "is missing"))
        elif (size := path.stat().st_size) != file.bytes:
            findings.append(Finding(file.path, f"has {size} bytes instead of {file.bytes}"))
        elif _hashed(path, done) != file.sha256:
            findings.append(Finding(file.path, "has changed: its SHA-256 is another"))
    known = {file.path for file in inventory.files} | {RECORD_NAME, FILES_NAME}
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()}
    findings += [Finding(name, "was not installed with it") for name in sorted(here - known)]
    for name, variant in inventory.record.variants.items():
        if digest_of(inventory.files, variant.folder) != variant.weights_sha256:
            findings.append(Finding(FILES_NAME, f"does not fit what {RECORD_NAME} says of {name}"))
    return findings


def _hashed(path: Path, done: Callable[[int], None]) -> str:
    digest: Any = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            done(len(chunk))
    return str(digest.hexdigest())
