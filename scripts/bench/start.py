"""How soon a started service answers, how soon it takes jobs, and how much memory the parent holds.

    python -m scripts.bench.start [--rounds 5] [--jobs 100000]

"healthz" is the time from the start of the process to the first answer; "readyz" that to a worker that takes jobs. The
tiny models are installed: the worker says that it is ready and goes on to import torch and diffusers, so "first image"
is the time until a job that needs them is done. Beside these stands a bare import of the two. A round measures each
store once, and they take turns. "after use" is after 20 images, 20 pages of the list of jobs and the OpenAPI document.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from scripts.bench.box import Box, Client, Ends
from scripts.bench.filled import OUTPUTS, fill
from scripts.bench.table import aim, show
from scripts.tiny_models import install_tiny, tiny_manifests

FEW: Final = 10
AIM_START_SECONDS: Final = 1.5
AIM_RESIDENT_MIB: Final = 150.0
USES: Final = 20


def started(template: Path, key: str) -> dict[str, float]:
    """Seconds to each mark of a start over a fresh copy, and the parent's memory in MiB before and after use."""
    with tempfile.TemporaryDirectory(prefix="zsky-bench-") as parent:
        folder = Path(parent) / "data"
        shutil.copytree(template, folder, ignore=shutil.ignore_patterns(OUTPUTS))
        box = Box(folder, key, outputs=template / OUTPUTS, included_images=10**9)
        box.start()
        try:
            seen = {path: box.wait_for(f"/{path}") for path in ("healthz", "readyz")}
            seen["rss"] = box.resident_mib()
            with Client(box) as client, Ends(box) as ends:
                ends.wait_for(client.submit(type="image", prompt="a lighthouse", model="tiny-klein", resolution="480p"))
                seen["first image"] = box.age_seconds()
                use(client, ends)
            return seen | {"rss after use": box.resident_mib()}
        finally:
            box.stop()


def use(client: Client, ends: Ends) -> None:
    """What a client does in a while."""
    for _ in range(USES):
        ends.wait_for(client.submit(type="image", prompt="a lighthouse", model="leader", resolution="480p"))
        client.call("GET", "/v1/jobs?limit=100")
    client.call("GET", "/v1/openapi.json")


def bare_import() -> float:
    """Seconds of a fresh interpreter that imports torch and diffusers and leaves."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, diffusers"], check=True)
    return time.perf_counter() - began


def make(folder: Path, jobs: int) -> str:
    """A box with a past and the tiny models; returns its key."""
    key = fill(folder, jobs)["live"]
    tiny_manifests(folder / "models")
    install_tiny(folder / "weights")
    return key


def told(store: str, measured: list[dict[str, float]], bare: list[float]) -> list[list[str]]:
    """The table's rows of one store."""
    middle = {name: statistics.median(one[name] for one in measured) for name in measured[0]}
    rows = [
        [f"start to healthz, {store}", f"{middle['healthz']:.2f} s", aim(middle["healthz"], AIM_START_SECONDS, "s")]
    ]
    for name in ("readyz", "first image"):
        ratio = statistics.median(one[name] / other for one, other in zip(measured, bare, strict=True))
        rows.append([f"start to {name}, {store}", f"{middle[name]:.2f} s", f"{ratio:.2f} of the import"])
    rows += [
        [f"{name}, {store}", f"{middle[name]:.0f} MiB", aim(middle[name], AIM_RESIDENT_MIB, "MiB")]
        for name in ("rss", "rss after use")
    ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=100_000, help="jobs in the large store (default: %(default)s)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zsky-bench-") as parent:
        stores = {jobs: Path(parent) / str(jobs) for jobs in (FEW, asked.jobs)}
        print(f"filling a store with {asked.jobs:,} jobs", file=sys.stderr)
        keys = {jobs: make(folder, jobs) for jobs, folder in stores.items()}
        bare_import()  # reads the libraries into the page cache
        seen: dict[int, list[dict[str, float]]] = {jobs: [] for jobs in stores}
        bare: list[float] = []
        for _ in range(asked.rounds):
            for jobs, folder in stores.items():
                seen[jobs].append(started(folder, keys[jobs]))
            bare.append(bare_import())
    rows: list[list[str]] = []
    for jobs, measured in seen.items():
        rows += told(f"{jobs:,} jobs", measured, bare)
    rows.append(["bare import of torch and diffusers", f"{statistics.median(bare):.2f} s", ""])
    show(f"start of the service, medians of {asked.rounds}", ["", "measured", "aim"], rows)


if __name__ == "__main__":
    main()
