"""Which files of a repository a model needs, and which file names are believed. Knows neither network nor disk."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from zsky_box.errors import InstallError
from zsky_box.manifest import UNUSED, ImageClassifierOptions, Ltx2Options, ModelSpec

INDEX_NAME: Final = "model_index.json"
FILES_MAX: Final = 10_000
TEXT_BYTES_MAX: Final = 256 * 1024**2
FILE_BYTES_MAX: Final = 1024**4
_PART_BYTES_MAX: Final = 200
_PATH_CHARACTERS_MAX: Final = 400

_COMPONENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}")
_TEXT_SUFFIXES: Final = (".json", ".txt", ".model", ".jinja")
# The names that the libraries load where no variant is asked for; `model.fp16.safetensors` and the like are left out.
_WEIGHTS: Final = re.compile(r"(?:diffusion_pytorch_model|model)(?:-\d{5}-of-\d{5})?\.safetensors")
_WEIGHTS_SUFFIX: Final = ".safetensors"
_INDEX_SUFFIX: Final = ".safetensors.index.json"


class Remote(Struct, frozen=True, kw_only=True):
    """One file as its source announces it: its length in bytes, and what its content must hash to.

    `sha256` is given for large files, `git_sha1` (of the blob, with its header) for small ones. `mark` tells one
    content from another where no hash is known before the file is read: a folder's.
    """

    path: str
    bytes: int
    sha256: str = ""
    git_sha1: str = ""
    mark: str = ""

    @property
    def identity(self) -> str:
        """What changes when the content does."""
        return self.sha256 or self.git_sha1 or self.mark

    @property
    def is_weights(self) -> bool:
        """Whether it must be safetensors by content."""
        return self.path.endswith(_WEIGHTS_SUFFIX)


def check_path(path: str) -> str:
    """The path itself; raises InstallError for one that could lead out of the folder or confuse a terminal."""
    parts = path.split("/")
    is_plain = path.isprintable() and "\\" not in path and len(path) <= _PATH_CHARACTERS_MAX
    if not is_plain or any(
        part in ("", ".", "..") or len(part.encode("utf-8", "surrogatepass")) > _PART_BYTES_MAX for part in parts
    ):
        raise InstallError(
            f"The source names a file {path[:100]!r}, which no repository needs: nothing is taken from it."
        )
    return path


def check_listing(files: Iterable[Remote]) -> dict[str, Remote]:
    """All files by path; raises InstallError for one hostile or impossible name, size, or double among them."""
    found: dict[str, Remote] = {}
    for file in files:
        check_path(file.path)
        if file.path in found:
            raise InstallError(f"The source lists {file.path} twice; nothing is taken from it.")
        if not 0 <= file.bytes <= FILE_BYTES_MAX:
            raise InstallError(
                f"The source gives {file.path} a length of {file.bytes} bytes; nothing is taken from it."
            )
        found[file.path] = file
        if len(found) > FILES_MAX:
            raise InstallError(f"The source lists more than {FILES_MAX} files; is it the right repository?")
    return found


def layout(spec: ModelSpec, files: dict[str, Remote]) -> Remote | None:
    """The file that names a pipeline's components, or None for a model that lies flat. Raises InstallError."""
    if isinstance(spec.options, ImageClassifierOptions):
        return None
    index = files.get(INDEX_NAME)
    if index is None:
        raise InstallError(
            f"There is no {INDEX_NAME} at the top of it: {spec.name} needs a folder in the diffusers layout."
        )
    return index


def components(spec: ModelSpec, index: bytes) -> tuple[str, ...]:
    """The folders that are loaded: those of `model_index.json` without what is `UNUSED`, and what lies beside them."""
    try:
        named = msgspec.json.decode(index, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InstallError(f"Its {INDEX_NAME} cannot be read ({error}).") from error
    passed_over = UNUSED.get(spec.family, ())
    found = [
        name
        for name, value in named.items()
        if not name.startswith("_") and name not in passed_over and _is_loaded(value)
    ]
    for name in found:
        if not _COMPONENT.fullmatch(name):
            raise InstallError(f"Its {INDEX_NAME} names a component {name[:100]!r}, which is no plain name.")
    if isinstance(spec.options, Ltx2Options) and spec.options.stages == 2:
        found.append("latent_upsampler")
    if not found:
        raise InstallError(f"Its {INDEX_NAME} names no component.")
    return tuple(dict.fromkeys(found))


def _is_loaded(value: Any) -> bool:
    """A component is `[library, class]`; one that is left out is `[null, null]`, an option a bare value."""
    if not isinstance(value, list):
        return False
    pair = cast(list[Any], value)
    return len(pair) == 2 and all(isinstance(part, str) for part in pair)


def needed(spec: ModelSpec, files: dict[str, Remote], folders: tuple[str, ...]) -> list[Remote]:
    """What to fetch, the small files first; `folders` is empty for a model that lies flat.

    Never pickles or code, whole checkpoints beside the folders, other precisions, samples or anything deeper.
    Raises InstallError where a component has no file, or a text is larger than one is.
    """
    chosen: list[Remote] = []
    for folder in folders:
        inside = _taken(files, f"{folder}/")
        if not inside:
            raise InstallError(f"It has no folder {folder} with files that {spec.name} could load.")
        chosen += inside
    chosen += [files[INDEX_NAME]] if folders else _taken(files, "")
    if not any(file.is_weights for file in chosen):
        raise InstallError(f"It holds no weights as safetensors that {spec.name} could load; pickles are never taken.")
    for file in chosen:
        if not file.is_weights and file.bytes > TEXT_BYTES_MAX:
            raise InstallError(f"{file.path} has {file.bytes} bytes, more than a configuration or vocabulary ever has.")
    return sorted(chosen, key=lambda file: (file.is_weights, file.path))


def _taken(files: dict[str, Remote], prefix: str) -> list[Remote]:
    inside = [file for path, file in files.items() if path.startswith(prefix) and "/" not in path.removeprefix(prefix)]
    names = {file.path.removeprefix(prefix) for file in inside}
    weights = {name for name in names if _WEIGHTS.fullmatch(name)}
    indexes = {name for name in names if name.endswith(_INDEX_SUFFIX) and name.count(".") == 3}
    texts = {name for name in names if name.endswith(_TEXT_SUFFIXES) and not name.endswith(".index.json")}
    return [file for file in inside if file.path.removeprefix(prefix) in weights | indexes | texts]


def same_weights(files: Iterable[tuple[str, str]]) -> bytes:
    """What one hash over many files is taken of: a line `sha256  path` each, sorted by path, as sha256sum prints."""
    return b"".join(f"{sha256}  {path}\n".encode() for path, sha256 in sorted(files))
