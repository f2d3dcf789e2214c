"""`zsky-box models bench`: one model in a worker child of its own, twice, and what that took. No job, no charge."""

from __future__ import annotations

import tempfile
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Final, TypeVar

from zsky_box.catalog import Catalog
from zsky_box.cli.command import CommandError
from zsky_box.events import Done, Failed, Ready, Run
from zsky_box.formats import Resolution, frame_count, output_size
from zsky_box.manifest import ModelSpec, Recipe
from zsky_box.settings import Settings
from zsky_box.worker import Dead, Patience, Worker

RUNS: Final = 2
PROMPT: Final = "a red fox runs through fresh snow, morning light"
SEED: Final = 1
_POLL_SECONDS: Final = 0.5
_WORKER_ENTRY: Final = "zsky_box.worker_main"

T = TypeVar("T", Ready, Done)


def recipe_for(catalog: Catalog, spec: ModelSpec, device: str, wanted: str | None) -> Recipe:
    """The recipe named, else the best whose weights are here and that the device can; raises CommandError."""
    able = [
        recipe
        for recipe in spec.ways
        if catalog.weights_folder(spec, recipe) is not None and not (device == "cpu" and recipe.needs_cuda)
    ]
    chosen = [recipe for recipe in able if wanted in (None, recipe.name)]
    if not chosen:
        names = ", ".join(recipe.name for recipe in able) or "none"
        raise CommandError(f"{spec.name} cannot run on {device} by that recipe; by what is installed: {names}.")
    return chosen[0]


def measure(
    catalog: Catalog, spec: ModelSpec, recipe: Recipe, device: str, resolution: Resolution, settings: Settings
) -> dict[str, Any]:
    """Run it `RUNS` times; the first one loads. Raises CommandError where a run fails."""
    patience = Patience(
        start_seconds=settings.worker_start_timeout_seconds, silence_seconds=settings.worker_silence_timeout_seconds
    )
    worker = Worker(device, ffmpeg=settings.ffmpeg or None, patience=patience, entry=_WORKER_ENTRY)
    with tempfile.TemporaryDirectory(prefix="zsky-bench-") as folder:
        worker.start()
        try:
            _until(worker, Ready, settings.worker_start_timeout_seconds)
            runs = [
                _one(worker, _run(catalog, spec, recipe, resolution, Path(folder), number), spec)
                for number in range(RUNS)
            ]
            name = worker.ready.device_name if worker.ready else device
        finally:
            _leave(worker)
    first = _run(catalog, spec, recipe, resolution, Path(folder), 0)
    size = {"width": first.width, "height": first.height, "frames": first.frames}
    return {"model": spec.name, "recipe": recipe.name, "device": device, "device_name": name, **size, "runs": runs}


def _run(catalog: Catalog, spec: ModelSpec, recipe: Recipe, resolution: Resolution, folder: Path, number: int) -> Run:
    ratio = "16:9" if "16:9" in spec.limits.aspect_ratios else spec.limits.aspect_ratios[0]
    width, height = output_size(resolution, ratio)
    fps = spec.default_fps if "video" in spec.makes else 0
    return Run(
        job_id=f"bench-{number}",
        token=1,
        type=spec.makes[0],
        model=spec,
        weights_dir=str(catalog.weights_folder(spec, recipe)),
        out_dir=str(folder),
        stem=f"bench-{number}",
        prompt=PROMPT,
        negative_prompt="",
        seed=SEED + number,
        n=1,
        width=width,
        height=height,
        frames=frame_count(spec.default_duration_seconds, fps, spec.frame_step) if fps else 0,
        fps=fps,
        test=False,
        recipe=recipe,
    )


def _one(worker: Worker, run: Run, spec: ModelSpec) -> dict[str, Any]:
    began = time.monotonic()
    worker.send(run)
    done = _until(worker, Done, spec.timeout_seconds)
    return {
        "seconds": round(time.monotonic() - began, 3),
        "phases": {phase: round(seconds, 3) for phase, seconds in done.seconds.items()},
        "peak_bytes": done.peak_bytes,
    }


def _leave(worker: Worker) -> None:
    """Let the child go, by force where it does not."""
    worker.stop()
    while worker.dead is None and not worker.is_hung(time.monotonic()):
        wait([worker.connection], _POLL_SECONDS)
        worker.receive()
    worker.kill("did not leave when the bench was over")


def _until(worker: Worker, kind: type[T], seconds: float) -> T:
    """What the child says next of this kind; raises CommandError where it fails, falls silent or takes too long."""
    until = time.monotonic() + seconds
    while (now := time.monotonic()) < until and not worker.is_hung(now):
        wait([worker.connection], _POLL_SECONDS)
        for message in worker.receive():
            if isinstance(message, kind):
                return message
            if isinstance(message, Failed):
                raise CommandError(f"{message.message} ({message.error_code})")
            if isinstance(message, Dead):
                raise CommandError(f"The worker on {worker.device} {message.reason}.")
    raise CommandError(f"The worker on {worker.device} did not answer within {seconds:g} s.")
