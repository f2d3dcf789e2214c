"""How a test drives a Worker: start it on the double, give it Runs, wait for what it says, always within a bound."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from zsky_box.events import Run, ToParent
from zsky_box.manifest import LeaderOptions, Licence, Limits, ModelSpec
from zsky_box.worker import Dead, Patience, Worker

ACTING_OUT = "tests.doubles.worker_acting_out"
BOUND_SECONDS = 60.0
QUICK = Patience(heartbeat_seconds=0.1, silence_seconds=1.0, stop_seconds=10.0, term_seconds=0.5, kill_seconds=5.0)

Said = list[ToParent | Dead]
Wanted = TypeVar("Wanted")

SPEC = ModelSpec(
    name="leader",
    title="Double",
    makes=("video", "image"),
    licence=Licence(name="Apache-2.0"),
    limits=Limits(
        resolutions=("480p",), aspect_ratios=("16:9",), fps=(24,), min_duration_seconds=0.1, max_duration_seconds=10.0
    ),
    options=LeaderOptions(),
    bundled=True,
)


def a_run(out_dir: Path, prompt: str = "a quiet lake", **changes: Any) -> Run:
    """A small Run; an image job where `type="image"`, with `n` of them."""
    run = Run(
        job_id="job-1",
        token=1,
        type="video",
        model=SPEC,
        weights_dir="/nowhere",
        out_dir=str(out_dir),
        stem="lake",
        prompt=prompt,
        negative_prompt="",
        seed=7,
        n=1,
        width=64,
        height=36,
        frames=25,
        fps=24,
        test=False,
    )
    return msgspec.structs.replace(run, **changes)


@contextmanager
def working(*, is_ready: bool = True, **options: Any) -> Generator[Worker]:
    """A started Worker on the double, ready unless told otherwise; it is killed at the end, whatever the test did."""
    chosen: dict[str, Any] = {"device": "cpu", "entry": ACTING_OUT, "patience": QUICK} | options
    worker = Worker(**chosen)
    worker.start()
    try:
        if is_ready:
            hear(worker, lambda _: worker.ready is not None)
        yield worker
    finally:
        worker.kill("the test is over")


def hear(worker: Worker, enough: Callable[[Said], bool]) -> Said:
    """Collect what the worker says until it is enough; fails after a bound, or when the worker dies before."""
    said: Said = []
    give_up_at = time.monotonic() + BOUND_SECONDS
    while True:
        said += worker.receive()
        if enough(said):
            return said
        left_seconds = give_up_at - time.monotonic()
        assert left_seconds > 0, f"not heard within {BOUND_SECONDS} s: {said}"
        assert not worker.dead, f"died before: {said}"
        wait([worker.connection], left_seconds)


def hear_one(worker: Worker, kind: type[Wanted]) -> Wanted:
    """Wait for a message of one kind, and return the first."""
    said = hear(worker, lambda said: any(isinstance(message, kind) for message in said))
    return next(message for message in said if isinstance(message, kind))


def is_gone(pid: int) -> bool:
    """Whether a process that is not ours to reap ends within the bound; a zombie has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(BOUND_SECONDS * 1000))
    finally:
        os.close(pidfd)
