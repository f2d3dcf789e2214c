"""What the service adds to a job: from the submit to `completed`, beside the same pipeline and encoder called directly.

    python -m scripts.bench.overhead [--pairs 15]

The direct side is this process, with the model loaded and warm; it writes, syncs and hashes the same files. The other
side is a running box with the model resident; its client sends `POST /v1/generate` over a kept-alive connection and
waits on the account's event stream (no polling). Both make the same job, by turns, and their results must have the same
SHA-256. "added" is the median over the pairs of one less the other; "at best" compares the fastest of each side, which
a busy machine disturbs least. Both sides compute on half of the cores, because torch's threads wait for each other as
soon as the machine does something else: the box has two workers on the processor, of which one stays idle.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Final

from scripts.bench.box import Box, Client, Ends
from scripts.bench.table import aim, quantile, show
from scripts.tiny_models import install_tiny, tiny_manifests
from tests.running import make_owner
from zsky_box.assets import stem
from zsky_box.catalog import Catalog, open_catalog
from zsky_box.events import File, Phase, Run
from zsky_box.manifest import WHOLE, ModelSpec
from zsky_box.media.stills import write_still
from zsky_box.media.video import feed_clip
from zsky_box.pipelines import loader
from zsky_box.pipelines.base import Pipeline
from zsky_box.requests import Work, resolve
from zsky_box.schemas import GenerateBody

DEVICES: Final = "cpu,cpu"  # the workers share the cores
THREADS: Final = max(1, (os.cpu_count() or 1) // 2)
AIM_ADDED_MS: Final = 60.0
AIM_ADDED_PERCENT: Final = 5.0
PROMPT: Final = "a lighthouse in the fog"
JOBS: Final[dict[str, dict[str, Any]]] = {
    "tiny image (klein)": {"type": "image", "model": "tiny-klein", "resolution": "480p"},
    "tiny clip (ltx2)": {"type": "video", "model": "tiny-ltx2", "resolution": "480p", "duration": 0.4},
    "leader image": {"type": "image", "model": "leader", "resolution": "1080p"},
    "leader clip": {"type": "video", "model": "leader", "resolution": "1080p", "duration": 1.0},
}


class Unheard:
    """A reporter to whom nobody listens."""

    def phase(self, phase: Phase) -> None: ...

    def step(self, step: int, steps: int, preview: Callable[[], bytes] | None = None) -> None: ...


class Direct:
    """One job's pipeline in this process."""

    def __init__(self, body: dict[str, Any], catalog: Catalog, parent: Path) -> None:
        work = resolve(GenerateBody(**body), catalog, test=False, require_real_model=False).work
        spec = catalog.specs[work.model]
        self._run = _run(work, spec, catalog.folder(spec))
        self._pipeline: Pipeline = loader(spec.family)(spec, WHOLE, catalog.folder(spec), "cpu")
        self._parent = parent

    def make(self) -> tuple[float, str]:
        """Seconds, and the result's SHA-256."""
        folder = Path(tempfile.mkdtemp(dir=self._parent))
        began = time.perf_counter()
        files = self._files(folder)
        seconds = time.perf_counter() - began
        shutil.rmtree(folder)
        return seconds, files[0].sha256

    def _files(self, folder: Path) -> list[File]:
        run = self._run
        if run.type == "video":
            return feed_clip(self._pipeline.video(run, Unheard()), folder, run.stem, seed=run.seed).finish()
        stills = list(islice(self._pipeline.images(run, Unheard()), run.n))
        return write_still(stills[0], folder, run.stem, 0)

    def close(self) -> None:
        """Give the model's memory back."""
        self._pipeline.close()


def _run(work: Work, spec: ModelSpec, weights: Path) -> Run:
    return Run(
        job_id="job_direct",
        token=1,
        type=work.type,
        model=spec,
        weights_dir=str(weights),
        out_dir="",
        stem=stem(work.prompt, work.seed),
        prompt=work.prompt,
        negative_prompt=work.negative_prompt,
        seed=work.seed,
        n=work.n,
        width=work.width,
        height=work.height,
        frames=work.frames,
        fps=work.fps,
        test=False,
    )


def through_the_box(client: Client, ends: Ends, body: dict[str, Any]) -> tuple[float, str]:
    """Seconds from the submit to the news of its end, and the result's SHA-256."""
    began = time.perf_counter()
    job = ends.wait_for(client.submit(**body))
    return time.perf_counter() - began, job["result"]["sha256"]


def measured(direct: Direct, client: Client, ends: Ends, body: dict[str, Any], pairs: int) -> list[tuple[float, float]]:
    """Seconds through the box and directly, by turns; raises RuntimeError where the two made different results."""
    made = {direct.make()[1], through_the_box(client, ends, body)[1]}  # loads and warms the model
    seconds: list[tuple[float, float]] = []
    for number in range(pairs):
        if number % 2:
            own, own_sha = direct.make()
            boxed, boxed_sha = through_the_box(client, ends, body)
        else:
            boxed, boxed_sha = through_the_box(client, ends, body)
            own, own_sha = direct.make()
        seconds.append((boxed, own))
        made |= {own_sha, boxed_sha}
    if len(made) != 1:
        raise RuntimeError(f"{body}: the two sides made different results: {made}")
    return seconds


def told(name: str, seconds: list[tuple[float, float]]) -> list[str]:
    """One job's row; the middle half of the pairs says how far to trust it."""
    added_ms = [(boxed - own) * 1000 for boxed, own in seconds]
    boxed_ms, own_ms = (statistics.median(side) * 1000 for side in zip(*seconds, strict=True))
    added = statistics.median(added_ms)
    percent = 100 * added / own_ms
    half = f"{quantile(added_ms, 0.25):.0f} to {quantile(added_ms, 0.75):.0f}"
    best = (min(boxed for boxed, _ in seconds) - min(own for _, own in seconds)) * 1000
    cells = [f"{own_ms:.0f}", f"{boxed_ms:.0f}", f"{added:.0f}", half, f"{best:.0f}", f"{percent:.1f}"]
    return [name, *cells, aim(added, AIM_ADDED_MS, "ms"), aim(percent, AIM_ADDED_PERCENT, "%")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--only", choices=JOBS, metavar="JOB", help=f"one of: {', '.join(JOBS)}")
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(THREADS)  # read by torch, which the first model imports
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="zsky-bench-") as parent:
        folder = Path(parent) / "data"
        key = make_owner(folder)["live"]
        tiny_manifests(folder / "models")
        install_tiny(folder / "weights")
        catalog = open_catalog(folder)
        box = Box(folder, key, devices=DEVICES, included_images=10**6, included_videos=10**6)
        with box, Client(box) as client, Ends(box) as ends:
            for name, asked_for in JOBS.items():
                if asked.only in (None, name):
                    body = {"prompt": PROMPT, "seed": 7, **asked_for}
                    direct = Direct(body, catalog, Path(parent))
                    rows.append(told(name, measured(direct, client, ends, body, asked.pairs)))
                    direct.close()
    heads = ["", "direct ms", "box ms", "added ms", "middle half", "at best", "added %", "aim", "aim"]
    show(f"submit to completed beside the pipeline and encoder alone, medians of {asked.pairs} pairs", heads, rows)


if __name__ == "__main__":
    main()
