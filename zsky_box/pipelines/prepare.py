"""Make a variant of a model's weights, once: `python -m zsky_box.pipelines.prepare TASK`, in a process of its own.

TASK is a JSON object: `spec`, the manifest; `recipe`, the name of the recipe whose form is wanted; `source`, the folder
with the full weights; `target`, a new folder; `device`, as the child sees it; `lifeline`, whether the process, the
first of its group, ends with its standard input. Lines of JSON on stdout tell how many components are done; the last
one, of a process that exits with 1, says what went wrong, and the target is then of no use.

One component is in memory at a time. What the recipe does not quantise is linked where the file system can, and copied
elsewhere. The weights that loading the target gives are bit for bit those of quantising the source while it loads.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from zsky_box.catalog import RECORD_NAME
from zsky_box.errors import JobFailure
from zsky_box.manifest import UNUSED, ModelSpec, Recipe
from zsky_box.pipelines.base import OutOfMemory
from zsky_box.worker_process import hold_lifeline

# What a family's pipeline needs besides the components that its index names.
_BESIDE: Final[dict[str, tuple[str, ...]]] = {"ltx2": ("latent_upsampler",)}
_MAX_FOLDER_FILES: Final = 1_000


class Task(Struct, frozen=True, kw_only=True):
    """What to make of what."""

    spec: ModelSpec
    recipe: str
    source: str
    target: str
    device: str = "cpu"
    lifeline: bool = False


class Line(Struct, frozen=True, kw_only=True):
    """`done` of `of` components are in the target; `component` is the one that is worked on, or was last."""

    component: str
    done: int
    of: int


def main(arguments: list[str]) -> int:
    """Returns the process's exit status."""
    try:
        task = msgspec.json.decode(arguments[0], type=Task)
    except (IndexError, msgspec.MsgspecError) as error:
        return _failed(f"The task cannot be read: {error}.")
    if task.lifeline:
        hold_lifeline(sys.stdin.fileno())
    recipe = next((recipe for recipe in task.spec.ways if recipe.name == task.recipe), None)
    if recipe is None:
        return _failed(f"{task.spec.name} has no recipe {task.recipe}.")
    try:
        prepare(task.spec, recipe, Path(task.source), Path(task.target), task.device, _tell)
    except JobFailure as error:
        return _failed(error.message)
    except OutOfMemory as error:
        return _failed(f"There is not enough memory to quantise {task.spec.name}: {error}.")
    except OSError as error:
        return _failed(f"{task.spec.name} cannot be written: {error.strerror or type(error).__name__}.")
    except Exception as error:  # noqa: BLE001 - the process's edge: told in a sentence, and in full on stderr
        traceback.print_exc()
        return _failed(f"{task.spec.name} cannot be quantised ({type(error).__name__}).")
    return 0


def _tell(line: Line) -> None:
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


def _failed(sentence: str) -> int:
    sys.stdout.write(msgspec.json.encode({"error": sentence}).decode() + "\n")
    sys.stdout.flush()
    return 1


def prepare(
    spec: ModelSpec, recipe: Recipe, source: Path, target: Path, device: str, tell: Callable[[Line], None]
) -> None:
    """Write the recipe's variant of the weights in `source` into `target`, which must not be there or be empty.

    Raises JobFailure where the source is broken or the device cannot quantise so, OutOfMemory, and OSError where the
    target cannot be written.
    """
    from zsky_box.pipelines.loading import failure, quiet, refuse_unsafe_files
    from zsky_box.pipelines.quantisation import refuse_unable

    if target.exists() and any(target.iterdir()):
        raise JobFailure("internal_error", f"The folder {target.name} is not empty.")
    quiet()
    refuse_unable(spec, recipe, device)
    refuse_unsafe_files(spec, source)
    parts = _parts(spec, source)
    if missing := recipe.quantise.keys() - parts.keys():
        raise failure(spec, f"its folder lacks the {min(missing)} that the recipe {recipe.name} quantises")
    target.mkdir(parents=True, exist_ok=True)
    for done, name in enumerate(parts):
        tell(Line(component=name, done=done, of=len(parts)))
        if name in recipe.quantise:
            _quantise(spec, recipe, source, target, name, parts[name], device)
        else:
            _take_over(source / name, target / name)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name != RECORD_NAME:
            _link(path, target / path.name)
    tell(Line(component=list(parts)[-1], done=len(parts), of=len(parts)))


def _parts(spec: ModelSpec, source: Path) -> dict[str, Any]:
    """The subfolders that the pipeline needs, each with the library and class that its index gives it."""
    from zsky_box.pipelines.loading import failure

    try:
        index = msgspec.json.decode((source / "model_index.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as reason:
        raise failure(spec, f"its folder is incomplete or damaged ({type(reason).__name__})") from reason
    unused = UNUSED.get(spec.family, ())
    parts: dict[str, Any] = {}
    for name, named in index.items():
        match named:
            case [str(), str()] if name not in unused and (source / name).is_dir():
                parts[name] = named
            case _:
                pass
    parts |= {name: None for name in _BESIDE.get(spec.family, ()) if (source / name).is_dir()}
    if not parts:
        raise failure(spec, "its index names no component that is there")
    return parts


def _quantise(spec: ModelSpec, recipe: Recipe, source: Path, target: Path, name: str, named: Any, device: str) -> None:
    from zsky_box.pipelines.loading import open_indexed, release

    part = open_indexed(named, name, spec, recipe, source, device)
    part.save_pretrained(str(target / name))
    del part
    release(device)
    gc.collect()


def _take_over(source: Path, target: Path) -> None:
    paths = [path for path in sorted(source.rglob("*")) if path.is_file()]
    if len(paths) > _MAX_FOLDER_FILES:
        raise JobFailure("internal_error", f"The folder {source.name} holds more than {_MAX_FOLDER_FILES} files.")
    for path in paths:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        _link(path, copy)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
