"""Boxes with settings of their own, for one test each."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.running import RunningBox
from tests.waiting import until

BEGINNERS = {
    "beginner": "reference_image = true\nstrength = true",
    "starter": "reference_image = true",
}


@contextmanager
def running(folder: Path, *, double: bool = True, ready: bool = True, **options: object) -> Generator[RunningBox]:
    """A started box on the processor; whatever the test did, it does not outlive it."""
    chosen: dict[str, Any] = {"devices": "cpu", **options}
    box = RunningBox(folder, double=double, **chosen)
    try:
        yield box.start(ready=ready)
    finally:
        box.kill()


def at_rest(box: RunningBox) -> RunningBox:
    """Wait until no job of the owner is open; a box that was begun with a past makes what had been cut off."""

    def are_open() -> bool:
        pages = [
            client.get("/v1/jobs", params={"status": status, "limit": 1}).json() for status in ("queued", "running")
        ]
        return any(page["data"] for page in pages)

    with box.client() as client:
        until(lambda: not are_open(), "all jobs have ended")
    return box


def add_models(folder: Path) -> None:
    """Models that begin with a picture, laid into a data folder as its owner would."""
    (folder / "models").mkdir(parents=True)
    for name, limits in BEGINNERS.items():
        (folder / "models" / f"{name}.toml").write_text(
            f'name = "{name}"\ntitle = "{name}"\nmakes = ["video", "image"]\n[licence]\nname = "none"\n'
            '[limits]\nresolutions = ["480p"]\naspect_ratios = ["16:9"]\nfps = [24]\nmin_duration_seconds = 1.0\n'
            f'max_duration_seconds = 9.0\n{limits}\n[options]\nfamily = "leader"\n'
        )
        (folder / "weights" / name).mkdir(parents=True)
        (folder / "weights" / name / "installed.json").write_text("{}")
