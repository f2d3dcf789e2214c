"""How long mini takes on the processor, and how much memory: `python -m scripts.bench.mini [--folder models/mini]`.

A worker child of its own makes 1080p clips and images from the shipped manifest, one after another: seconds from the
order until the finished file is on the disk and hashed, and beside them the processor's seconds, of ffmpeg too, which
are the same on a busy machine. The first of all also imports torch and loads the weights.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from multiprocessing.connection import wait
from pathlib import Path
from statistics import median
from typing import Final, TypeVar

from scripts.bench.table import aim, show
from zsky_box.catalog import read_manifest
from zsky_box.events import Done, Failed, Ready, Run
from zsky_box.formats import output_size
from zsky_box.manifest import JobType, ModelSpec
from zsky_box.settings import CHECKOUT
from zsky_box.worker import Dead, Patience, Worker

AIM_SECONDS: Final[dict[JobType, float]] = {"video": 8.0, "image": 2.0}
GATE_SECONDS: Final[dict[JobType, float]] = {"video": 20.0, "image": 4.0}
MEMORY_GIB: Final = 2.0
START_SECONDS: Final = 120.0
RUN_SECONDS: Final = 300.0
_ENTRY: Final = "zsky_box.worker_main"

T = TypeVar("T", Ready, Done)


def main() -> int:
    """Print the table; 1 where a run fails or there are no weights."""
    parser = argparse.ArgumentParser(description="Measure mini on the processor.")
    parser.add_argument("--folder", type=Path, default=CHECKOUT / "models" / "mini", help="the weights")
    parser.add_argument("--rounds", type=int, default=5, help="clips and images, each")
    asked = parser.parse_args()
    if not (asked.folder / "model_index.json").is_file():
        print(f"{asked.folder} holds no model.", file=sys.stderr)
        return 1
    spec = read_manifest(CHECKOUT / "models" / "mini.toml")
    worker = Worker("cpu", patience=Patience(start_seconds=START_SECONDS), entry=_ENTRY)
    worker.start()
    try:
        pid = heard(worker, Ready, START_SECONDS).pid
        with tempfile.TemporaryDirectory(prefix="zsky-bench-") as folder:
            first = timed(worker, order(spec, "image", asked.folder, Path(folder), 0))[0]
            rows = [measured(worker, pid, spec, kind, asked.folder, Path(folder), asked.rounds) for kind in AIM_SECONDS]
        peak_gib = peak_bytes(pid) / 1024**3
    finally:
        worker.kill("the bench is over")
    show(
        f"mini, 1080p, on {os.cpu_count()} cores (median of {asked.rounds})",
        ("", "seconds", "slowest", "processor", "denoising", "decoding", "encoding", "aim", "gate"),
        rows,
    )
    print(f"first image of a fresh worker, torch imported and weights loaded: {first:.1f} s")
    print(f"peak memory of the worker: {peak_gib:.2f} GiB ({aim(peak_gib, MEMORY_GIB, 'GiB')})")
    return 0


def measured(
    worker: Worker, pid: int, spec: ModelSpec, kind: JobType, weights: Path, out: Path, rounds: int
) -> list[str]:
    """One row: the job's time, the processor's, and its phases'."""
    before = processor_seconds(pid)
    made = [timed(worker, order(spec, kind, weights, out, 1 + number)) for number in range(rounds)]
    busy = (processor_seconds(pid) - before) / rounds
    seconds = [taken for taken, _ in made]
    phases = [
        f"{median(done.seconds.get(phase, 0.0) for _, done in made):.2f}"
        for phase in ("denoising", "decoding", "encoding")
    ]
    taken = median(seconds)
    bounds = (aim(taken, bound[kind], "s") for bound in (AIM_SECONDS, GATE_SECONDS))
    figures = (f"{each:.2f}" for each in (taken, max(seconds), busy))
    return ["clip of 3 s" if kind == "video" else "image", *figures, *phases, *bounds]


def order(spec: ModelSpec, kind: JobType, weights: Path, out: Path, number: int) -> Run:
    """A job at 1080p, of a prompt that mini knows."""
    width, height = output_size("1080p", "16:9")
    frames = round(spec.default_duration_seconds * spec.default_fps) if kind == "video" else 0
    vocabulary = spec.limits.vocabulary
    assert vocabulary is not None
    return Run(
        job_id=f"{kind}-{number}",
        token=1,
        type=kind,
        model=spec,
        weights_dir=str(weights),
        out_dir=str(out),
        stem=f"{kind}-{number}",
        prompt=vocabulary.examples[0],
        negative_prompt="",
        seed=number,
        n=1,
        width=width,
        height=height,
        frames=frames,
        fps=spec.default_fps if frames else 0,
        test=False,
        recipe=spec.ways[0],
    )


def timed(worker: Worker, run: Run) -> tuple[float, Done]:
    """Seconds until the job is done."""
    began = time.monotonic()
    worker.send(run)
    done = heard(worker, Done, RUN_SECONDS)
    return time.monotonic() - began, done


def heard(worker: Worker, kind: type[T], seconds: float) -> T:
    """What the child says next of this kind; ends the bench where it fails or takes too long."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        wait([worker.connection], left)
        for message in worker.receive():
            if isinstance(message, kind):
                return message
            if isinstance(message, Failed | Dead):
                sys.exit(f"The worker failed: {message}")
    sys.exit(f"The worker did not answer within {seconds:g} s.")


def processor_seconds(pid: int) -> float:
    """What a process and those of its children that have ended have computed."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    """The most that a process has had in memory."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    (kibibytes,) = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return kibibytes * 1024


if __name__ == "__main__":
    sys.exit(main())
