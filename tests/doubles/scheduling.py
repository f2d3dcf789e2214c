"""A scheduler without processes or a database: real Worker handles whose child is the test, and jobs in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, cast

import msgspec

from tests.doubles.driving import SPEC
from zsky_box.catalog import Catalog
from zsky_box.dispatch import Waiting
from zsky_box.errors import ErrorCode
from zsky_box.estimates import Estimates, Timing
from zsky_box.events import Cancel, Done, Failed, Heartbeat, Phase, Progress, Ready, Run, ToParent, encode
from zsky_box.events import decode_to_child as decode
from zsky_box.observer import Observer
from zsky_box.placement import Card
from zsky_box.requests import Work
from zsky_box.restart_budget import RestartBudget
from zsky_box.scheduler import Scheduler
from zsky_box.slot import labels
from zsky_box.starter import Rules
from zsky_box.turns import URGENT_SECONDS
from zsky_box.worker import Patience, Worker

BOUND_SECONDS = 60.0
POLL_SECONDS = 0.02
MODELS = ("a", "b", "c")
HOST_BYTES = 1 << 50


class FakeProcess:
    """The child is whoever calls `say` and `hear`. While `ending` is clear it does not end, as in a stuck driver."""

    pid = 0

    def __init__(self) -> None:
        self.connection, self._there = Pipe()
        self._closing = threading.Lock()
        self.exit_code: int | None = 0
        self.ended = threading.Event()
        self.ending = threading.Event()
        self.ending.set()

    def end(self, **_: float) -> int | None:
        assert self.ending.wait(BOUND_SECONDS)
        self._hang_up()
        self.ended.set()
        return self.exit_code

    def say(self, message: ToParent) -> None:
        self._there.send_bytes(encode(message))

    def hear(self) -> Any:
        assert self._there.poll(BOUND_SECONDS), "nothing was said to the child"
        return decode(self._there.recv_bytes())

    def hears_nothing(self) -> bool:
        return not self._there.poll()

    def hear_run(self) -> Run:
        message = self.hear()
        assert isinstance(message, Run)
        return message

    def hear_cancel(self) -> Cancel:
        message = self.hear()
        assert isinstance(message, Cancel)
        return message

    def crash(self, exit_code: int = -11) -> None:
        self.exit_code = exit_code
        self._hang_up()

    def _hang_up(self) -> None:
        with self._closing:
            self._there.close()

    # What a child says in its life

    def get_ready(self, *resident: str) -> None:
        self.say(Ready(pid=1, device="cpu", device_name="a fake card", versions={"fake": "1"}))
        self.say(Heartbeat(resident=resident))

    def report(self, run: Run, phase: Phase, step: int = 1) -> None:
        self.say(Progress(job_id=run.job_id, token=run.token, phase=phase, step=step, steps=4))

    def finish(self, run: Run) -> None:
        self.say(Done(job_id=run.job_id, token=run.token, files=(), missing=(), notes=(), versions={}, seconds={}))

    def fail(self, run: Run, code: ErrorCode, *, fatal: bool = False) -> None:
        self.say(Failed(job_id=run.job_id, token=run.token, error_code=code, message=f"It {code}.", fatal=fatal))


class FakeWorker(Worker):
    """The service's own handle on a child that is no process."""

    process: FakeProcess
    turns = 0
    on_start: Callable[[FakeWorker], None]

    def start(self) -> None:
        self.process = FakeProcess()
        self._process = cast("Any", self.process)
        self.last_heard = time.monotonic()
        self.on_start(self)

    def is_hung(self, now: float) -> bool:
        self.turns += 1
        return super().is_hung(now)


@dataclass
class FakeJob:
    id: str
    model: str = "a"
    test: bool = False
    batch: bool = False
    deadline_in_seconds: float | None = None
    status: str = "queued"
    token: int = 0
    attempts: int = 0
    end: str | None = None
    cancelled: bool = False
    account_id: str = "acct-1"
    waited_seconds: float = 0.0
    start_in_seconds: float | None = None
    recipe_floor: int = 0
    why: list[str] = field(default_factory=list[str])
    job_id: str = ""
    out_dir: str = "/nowhere"
    stem: str = "stem"
    reference_path: str = ""
    work: Work = field(
        default_factory=lambda: Work(
            type="image",
            model="a",
            prompt="x",
            negative_prompt="",
            seed=1,
            n=1,
            width=64,
            height=36,
            frames=0,
            fps=0,
        )
    )

    def __post_init__(self) -> None:
        self.job_id = self.id


class FakeJobs:
    """The jobs in memory. A method named in `broken` raises what is set there; one in `held` waits for its event."""

    def __init__(self) -> None:
        self.jobs: dict[str, FakeJob] = {}
        self.calls: list[tuple[str, ...]] = []
        self.broken: dict[str, Exception] = {}
        self.held: dict[str, threading.Event] = {}
        self.pauses: dict[str, bool] = {}
        self.quiet = False
        self.timings: list[Timing] = []
        self.taken_by_others: set[str] = set()
        self.wake: Callable[[], None] = lambda: None
        self._changed = threading.Condition()

    def add(self, job_id: str, **facts: Any) -> FakeJob:
        job = self.jobs[job_id] = FakeJob(job_id, **facts)
        self.wake()
        return job

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that a call brings about, or that shows elsewhere a moment after it."""
        give_up_at = time.monotonic() + BOUND_SECONDS
        with self._changed:
            while not condition():
                assert time.monotonic() < give_up_at, f"did not come to pass; calls: {self.calls[-20:]}"
                self._changed.wait(POLL_SECONDS)

    def until_ended(self, job_id: str) -> FakeJob:
        self.until(lambda: self.jobs[job_id].end is not None)
        return self.jobs[job_id]

    def count(self, name: str) -> int:
        return sum(call[0] == name for call in self.calls)

    def _called(self, name: str, *facts: object) -> None:
        with self._changed:  # whoever sees the call also knows that it is held or broken
            self.calls.append((name, *map(str, facts)))
            held, broken = self.held.get(name), self.broken.get(name)
            self._changed.notify_all()
        if held is not None:
            assert held.wait(BOUND_SECONDS)
        if broken is not None:
            raise broken

    def _end(self, job: FakeJob, status: str, end: str) -> None:
        with self._changed:
            job.status, job.end = status, end
            self._changed.notify_all()

    def _mine(self, job_id: str, token: int) -> FakeJob | None:
        job = self.jobs[job_id]
        return job if job.status == "running" and job.token == token else None

    # JobSource

    def heads(self, *, test: bool, per_flow: int) -> Sequence[Sequence[Waiting]]:
        self._called("heads", test)
        flows: dict[tuple[bool, str, str], list[Waiting]] = {}
        urgent: list[list[Waiting]] = []
        for place, job in enumerate(list(self.jobs.values())):
            if job.status == "queued" and job.test == test:
                waiting = Waiting(
                    id=job.id,
                    account_id=job.account_id,
                    model=job.model,
                    batch=job.batch,
                    work=msgspec.structs.replace(job.work, model=job.model),
                    waited_seconds=job.waited_seconds or 1.0 / (1 + place),
                    start_in_seconds=job.start_in_seconds,
                    recipe_floor=job.recipe_floor,
                )
                if job.start_in_seconds is not None and job.start_in_seconds <= URGENT_SECONDS:
                    urgent.append([waiting])
                else:
                    flows.setdefault((job.batch, job.account_id, job.model), []).append(waiting)
        return urgent + [flow[:per_flow] for flow in flows.values() if per_flow]

    def claim(self, job_id: str, device: str, why: str = "") -> FakeJob | None:
        self._called("claim", job_id, device)
        self.jobs[job_id].why.append(why)
        job = self.jobs[job_id]
        if job_id in self.taken_by_others or job.status != "queued":
            return None
        job.status, job.token, job.attempts = "running", job.token + 1, job.attempts + 1
        return job

    def progress(self, job_id: str, token: int, phase: Phase, step: int, steps: int) -> None:
        self._called("progress", job_id, token, phase, step, steps)

    def preview(self, job_id: str, token: int, jpeg: bytes) -> None:
        self._called("preview", job_id, token, len(jpeg))

    def complete(self, done: Done, device_name: str, versions: dict[str, str], recipe: str = "") -> None:  # noqa: ARG002
        self._called("complete", done.job_id, device_name, versions)
        if job := self._mine(done.job_id, done.token):
            self._end(job, "completed", "completed")

    def fail(self, job_id: str, token: int, code: ErrorCode, message: str) -> bool:
        self._called("fail", job_id, code, message)
        job = self._mine(job_id, token)
        if job:
            self._end(job, "failed", code)
        return job is not None

    def retry(
        self, job_id: str, token: int, code: ErrorCode, message: str, *, attempts_max: int, recipe_floor: int = 0
    ) -> bool:
        self._called("retry", job_id, code, message)
        job = self._mine(job_id, token)
        if job is None:
            return False
        if job.attempts >= attempts_max:
            self._end(job, "failed", code)
            return False
        job.status, job.recipe_floor = "queued", max(job.recipe_floor, recipe_floor)
        self.wake()
        return True

    def release(self, job_id: str, token: int) -> None:
        self._called("release", job_id)
        if job := self._mine(job_id, token):
            job.status, job.attempts = "queued", job.attempts - 1

    def cancel_requested(self, job_ids: list[str]) -> set[str]:
        self._called("cancel_requested")
        return {job_id for job_id in job_ids if self.jobs[job_id].cancelled}

    def expire(self) -> int:
        self._called("expire")
        return 0

    def miss(self, job_id: str) -> None:
        self._called("miss", job_id)
        self._end(self.jobs[job_id], "failed", "deadline_exceeded")

    def paused(self) -> Mapping[str, bool]:
        self._called("paused")
        return dict(self.pauses)

    def is_quiet(self) -> bool:
        return self.quiet

    def timed(self, timings: Sequence[Timing]) -> None:
        self.timings.extend(timings)

    def measured(self, card: str, flops: float) -> None:
        self._called("measured", card, flops)


class Stage:
    """A scheduler over fakes. `children("cpu")` are the live device's, in the order in which they were started."""

    def __init__(
        self,
        *devices: str,
        patience: Patience | None = None,
        job_seconds: float = 60.0,
        cancel_seconds: float = 60.0,
        restarts: int = 5,
        preview_steps: int = 0,
        observer: Observer | None = None,
        card_bytes: int = HOST_BYTES,
        **rules: Any,
    ) -> None:
        self.jobs = FakeJobs()
        self.failures: list[BaseException] = []
        self.workers: list[tuple[str, FakeWorker]] = []
        self.start_fails = 0
        self._patience = patience or Patience(start_seconds=1e9, silence_seconds=1e9)
        self._appeared = threading.Condition()
        catalog = self.catalog = Catalog([], Path("/nowhere"))
        catalog.specs = {name: msgspec.structs.replace(SPEC, name=name) for name in MODELS}
        chosen = list(devices) or ["cpu"]
        self.estimates = Estimates()
        self.rules = Rules(
            host_total_bytes=HOST_BYTES,
            job_seconds=job_seconds,
            cancel_seconds=cancel_seconds,
            preview_steps=preview_steps,
            **rules,
        )
        self.scheduler = Scheduler(
            self.jobs,
            catalog,
            chosen,
            {label: Card(device=label, total_bytes=card_bytes, capability=9.0) for label in labels(chosen)},
            self.estimates,
            self._new_worker,
            lambda: RestartBudget(restarts=restarts, backoff_seconds=0.01),
            self.rules,
            self.failures.append,
            observer=observer,
        )
        self.jobs.wake = self.scheduler.wake

    def __enter__(self) -> Stage:
        self.scheduler.start()
        return self

    def __exit__(self, *_: object) -> None:
        for _device, worker in self.workers:
            worker.process.ending.set()
        for event in self.jobs.held.values():
            event.set()
        self.scheduler.stop()

    def _new_worker(self, device: str, test: bool) -> Worker:
        def started(worker: FakeWorker) -> None:
            if self.start_fails and not test:
                self.start_fails -= 1
                raise OSError("no more processes")
            with self._appeared:
                self.workers.append(("test" if test else device, worker))
                self._appeared.notify_all()

        worker = FakeWorker(device, patience=self._patience)
        worker.on_start = started
        return worker

    def child(self, device: str = "cpu", number: int = 0) -> FakeProcess:
        """The device's child number so and so, as soon as it is started."""

        def found() -> list[FakeWorker]:
            return [worker for name, worker in self.workers if name == device]

        with self._appeared:
            assert self._appeared.wait_for(lambda: len(found()) > number, BOUND_SECONDS), f"no child {number}: {device}"
        return found()[number].process
