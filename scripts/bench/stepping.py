"""A box whose worker only counts its steps, and writes down when it told of each: what `paint` measures from.

`python -m scripts.bench.stepping serve DATA PORT` is the service; the same module is its worker, which for each step
appends a line to the file that the environment names: the wall clock in nanoseconds, the step, and its preview in
base64, or `-` where none was asked for.
"""

from __future__ import annotations

import base64
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

from tests.doubles import worker_acting_out as double
from zsky_box.events import Run
from zsky_box.pipelines.base import Reporter
from zsky_box.worker_engine import Engine
from zsky_box.worker_main import main

STEPS: Final = 100
STEP_SECONDS: Final = 0.1
STEPS_FILE: Final = "BENCH_STEPS"
"""The environment's name for the file that the worker writes to."""
MODULE: Final = "scripts.bench.stepping"


class Stepping(double.ActingPipeline):
    """Steps at an even pace; the pictures are the acting worker's."""

    def video(self, run: Run, report: Reporter) -> Any:
        """One clip, after `STEPS` steps of `STEP_SECONDS`."""
        with Path(os.environ[STEPS_FILE]).open("a", encoding="ascii") as told:
            report.phase("denoising")
            for step in range(1, STEPS + 1):
                time.sleep(STEP_SECONDS)
                shown: list[bytes] = []

                def preview(step: int = step, shown: list[bytes] = shown) -> bytes:
                    shown.append(double.image(64, 36, "JPEG", 2 * step))
                    return shown[0]

                at_ns = time.time_ns()
                report.step(step, STEPS, preview)
                picture = base64.b64encode(shown[0]).decode() if shown else "-"
                told.write(f"{at_ns} {step} {picture}\n")
        return super().video(run, Silent())


class Silent:
    """A reporter to whom the acting worker's own steps are told, and nobody else."""

    def phase(self, phase: Any) -> None: ...

    def step(self, step: int, steps: int, preview: Any = None) -> None: ...


def _load(run: Run, device: str) -> Stepping:
    return Stepping(run, device)


def _serve(folder: str, port: str) -> int:
    from zsky_box import app, settings  # the worker knows nothing of the service

    return app.serve(Path(folder), settings.load(Path(folder), port=port), worker_entry=MODULE)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        sys.exit(_serve(*sys.argv[2:]))
    main(
        sys.argv[1:],
        Engine(
            load=_load,
            load_check=double.load_check,
            warm=double.warm,
            measure=double.measure,
            versions=double.versions,
            feed_clip=double.feed_clip,
            write_still=double.write_still,
        ),
    )
