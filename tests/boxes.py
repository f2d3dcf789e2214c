"""Boxes with settings of their own, for one test each."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.running import RunningBox


@contextmanager
def running(folder: Path, *, double: bool = True, ready: bool = True, **options: object) -> Generator[RunningBox]:
    """A started box on the processor; whatever the test did, it does not outlive it."""
    box = RunningBox(folder, double=double, **{"devices": "cpu", **options})
    try:
        yield box.start(ready=ready)
    finally:
        box.kill()
