"""Quantising a model's weights once, in a child process that knows the libraries: this side starts it and listens."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import msgspec
from msgspec import Struct

from zsky_box.errors import InstallError
from zsky_box.manifest import ModelSpec, Recipe
from zsky_box.worker_process import environment, obituary

ENTRY: Final = "zsky_box.pipelines.prepare"
SECONDS_MAX: Final = 4 * 3600.0
LINE_BYTES_MAX: Final = 64 * 1024
LINES_MAX: Final = 1_000_000


class _Said(Struct, frozen=True):
    """One line of the child's output."""

    component: str = ""
    done: int = 0
    of: int = 0
    error: str = ""


def prepare(
    spec: ModelSpec,
    recipe: Recipe,
    source: Path,
    target: Path,
    *,
    device: str,
    tell: Callable[[str, int, int], None],
    entry: str = ENTRY,
) -> None:
    """Write to `target` what `recipe` loads, out of the full weights in `source`.

    `device` is the service's name for it; `tell` is given a component, how much of it is done, and of how much. Raises
    InstallError with the child's own sentence, or with how it died.
    """
    inside = "cpu" if device == "cpu" else "cuda:0"
    order = {"spec": spec, "recipe": recipe.name, "source": str(source), "target": str(target), "device": inside}
    # Its input is its lifeline: where this process is killed, the other must not go on with all that memory.
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", entry, msgspec.json.encode({**order, "lifeline": True}).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(device, None),
        start_new_session=True,
    )
    overdue = threading.Timer(SECONDS_MAX, child.kill)
    overdue.start()
    try:
        trouble = _listen(child.stdout, tell) if child.stdout is not None else ""
        status = child.wait()
    finally:
        overdue.cancel()
        child.kill()
        child.communicate()  # which lets the pipes go, too
    if status != 0:
        raise InstallError(
            f"{spec.name} could not be prepared by the recipe {recipe.name}: {trouble or _end(status)}"
            " What was fetched is kept: run the command again, or choose another --recipe."
        )


def _listen(output: IO[bytes], tell: Callable[[str, int, int], None]) -> str:
    trouble = ""
    with output as lines:
        for _ in range(LINES_MAX):
            line = lines.readline(LINE_BYTES_MAX)
            if not line:
                break
            try:
                said = msgspec.json.decode(line, type=_Said)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # a library that prints
            if said.error:
                trouble = said.error
            elif said.component:
                tell(said.component, said.done, said.of)
    return trouble


def _end(status: int) -> str:
    return f"its process {obituary(status)[0]}."
