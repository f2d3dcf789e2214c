"""The worker child of `gpu`: the box's own, but for this: what it loads from a hollow folder is filled at random."""

from __future__ import annotations

import dataclasses
import sys

from scripts.bench.hollow import fill
from zsky_box.events import Run
from zsky_box.pipelines.base import Pipeline
from zsky_box.worker_engine import real_engine
from zsky_box.worker_main import main

if __name__ == "__main__":
    engine = real_engine()

    def load(run: Run, device: str) -> Pipeline:
        pipeline = engine.load(run, device)
        fill(pipeline)
        return pipeline

    main(sys.argv[1:], dataclasses.replace(engine, load=load))
