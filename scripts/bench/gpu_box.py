"""The box's side of `gpu`: jobs sent to a worker child as the service sends them, and timed to its answer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Final

import pynvml
from msgspec.structs import replace

from zsky_box.events import Done, Failed, Heartbeat, Progress, Run
from zsky_box.worker import Dead, Patience, Worker

ENTRY: Final = "scripts.bench.gpu_child"
PATIENCE: Final = Patience(start_seconds=600.0, silence_seconds=1_800.0, stop_seconds=120.0)
JOB_SECONDS_MAX: Final = 3_600.0
TURN_SECONDS: Final = 0.05
BACKLOG: Final = 4
AT_ONCE: Final = (1, 2, 4)


@dataclass(kw_only=True)
class Told:
    """What was measured: `seconds` from the sending to Done, `phases` the medians of what the child booked.

    `busy_percent` is the mean of what NVML says of the card until the backlog's last job has left it, None where there
    is no card.
    """

    seconds: list[float]
    phases: dict[str, float]
    peak_bytes: int
    flops: float
    backlog_jobs: int
    backlog_seconds: float
    busy_percent: float | None


@dataclass
class Batch:
    """The images of one job, some of them denoised at once."""

    seconds_an_image: float
    peak_bytes: int


@dataclass
class Line:
    """A worker child, and what it has said."""

    worker: Worker
    flops: float = 0.0
    done: list[tuple[float, Done]] = field(default_factory=list[tuple[float, Done]])

    def turn(self) -> None:
        """Wait a moment and take what was said; raises RuntimeError where a job or the child failed."""
        wait([self.worker.connection], TURN_SECONDS)
        for message in self.worker.receive():
            match message:
                case Heartbeat():
                    self.flops = message.flops or self.flops
                case Done():
                    self.done.append((time.perf_counter(), message))
                case Failed():
                    raise RuntimeError(f"the job failed: {message.message}")
                case Dead():
                    raise RuntimeError(f"the worker {message.reason}")
                case Progress():
                    pass
                case _:
                    pass

    def run(self, run: Run) -> tuple[float, Done]:
        """One job alone: seconds from the sending to its Done."""
        self.wait_for_room()
        count, began = len(self.done), time.perf_counter()
        self.worker.send(run)
        while len(self.done) == count:
            self.turn()
            if time.perf_counter() - began > JOB_SECONDS_MAX:
                raise RuntimeError(f"the job is not done after {JOB_SECONDS_MAX:g} s")
        ended, done = self.done[-1]
        return ended - began, done

    def wait_for_room(self) -> None:
        """Until the child takes a job; its own patience bounds it."""
        while not self.worker.has_room:
            self.turn()
            if self.worker.is_hung(time.monotonic()):
                raise RuntimeError("the worker does not answer")

    def close(self) -> None:
        """Ask the child to leave, and end it where it does not."""
        self.worker.stop()
        until = time.monotonic() + PATIENCE.stop_seconds
        while not self.worker.dead and time.monotonic() < until:
            wait([self.worker.connection], TURN_SECONDS)
            self.worker.receive()
        self.worker.kill("did not leave")


def started(run: Run, device: str) -> Line:
    """A child that is ready and has the family's libraries in memory."""
    worker = Worker(device, warm=(run.model.family,), patience=PATIENCE, entry=ENTRY)
    worker.start()
    return Line(worker)


def measure_box(run: Run, device: str, rounds: int) -> Told:
    """One job to load and warm up, `rounds` measured ones, then a backlog."""
    line = started(run, device)
    try:
        line.run(run)
        told = [line.run(replace(run, token=token)) for token in range(1, rounds + 1)]
        backlog_seconds, busy_percent = backlog(line, run, device)
    finally:
        line.close()
    names = dict.fromkeys(phase for _, done in told for phase in done.seconds)
    return Told(
        seconds=[seconds for seconds, _ in told],
        phases={phase: statistics.median(done.seconds.get(phase, 0.0) for _, done in told) for phase in names},
        peak_bytes=max(done.peak_bytes for _, done in told),
        flops=line.flops,
        backlog_jobs=BACKLOG,
        backlog_seconds=backlog_seconds,
        busy_percent=busy_percent,
    )


def backlog(line: Line, run: Run, device: str) -> tuple[float, float | None]:
    """Seconds for BACKLOG jobs, each sent as soon as the child has room, and how busy the card was."""
    line.wait_for_room()
    waiting = [replace(run, job_id=f"backlog-{place}", stem=f"backlog-{place}") for place in range(BACKLOG)]
    count, began = len(line.done), time.perf_counter()
    seen: list[int] = []
    while len(line.done) < count + BACKLOG:
        while waiting and line.worker.has_room:
            line.worker.send(waiting.pop(0))
        line.turn()
        # The last job's encoder works when there is nothing left for the card to do.
        is_due = bool(waiting) or any(phase != "encoding" for phase in line.worker.attempts.values())
        if device != "cpu" and is_due:
            seen.append(utilisation_percent(int(device.removeprefix("cuda:"))))
        if time.perf_counter() - began > BACKLOG * JOB_SECONDS_MAX:
            raise RuntimeError("the backlog does not end")
    return line.done[-1][0] - began, statistics.fmean(seen) if seen else None


def utilisation_percent(card: int) -> int:
    """The share of the driver's last sampling period in which a kernel ran."""
    pynvml.nvmlInit()
    try:
        return int(pynvml.nvmlDeviceGetUtilizationRates(pynvml.nvmlDeviceGetHandleByIndex(card)).gpu)
    finally:
        pynvml.nvmlShutdown()


def batches(run: Run, device: str) -> Iterator[tuple[int, Batch]]:
    """Four images as one job, one, two and four of them to a forward pass; the model is loaded once for each."""
    for at_once in AT_ONCE:
        several = replace(run, n=4, recipe=replace(run.recipe, images_at_once=at_once))
        line = started(run, device)
        try:
            line.run(several)
            seconds, done = line.run(replace(several, token=1))
        finally:
            line.close()
        yield at_once, Batch(seconds / 4, done.peak_bytes)
