"""Which job runs where and when: first come, first served over the free devices, preferring one that holds the model.

One thread owns all workers. It knows jobs only through the narrow `JobSource` below, whose answers are already durable;
it knows no database, no HTTP, and no media.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Final, Protocol

from msgspec import Struct

from zsky_box.catalog import Catalog, ModelSpec
from zsky_box.errors import ErrorCode, JobFailure
from zsky_box.events import Done, Failed, Phase, Progress, Ready, Run
from zsky_box.requests import Work
from zsky_box.restart_budget import RestartBudget
from zsky_box.worker import Dead, Worker

TICK_SECONDS: Final = 1.0
CRASH_ATTEMPTS_MAX: Final = 2
SETTLERS: Final = 4

log = logging.getLogger(__name__)


class QueuedJob(Protocol):
    """A job that waits."""

    @property
    def id(self) -> str: ...
    @property
    def model(self) -> str: ...


class ClaimedJob(Protocol):
    """A job that is this scheduler's to run; `out_dir` exists and belongs to the attempt."""

    @property
    def job_id(self) -> str: ...
    @property
    def token(self) -> int: ...
    @property
    def work(self) -> Work: ...
    @property
    def test(self) -> bool: ...
    @property
    def out_dir(self) -> str: ...
    @property
    def stem(self) -> str: ...
    @property
    def deadline_in_seconds(self) -> float | None: ...


class JobSource(Protocol):
    """All that the scheduler needs of the jobs; every method returns after its COMMIT, but for `progress`."""

    def queued(self, *, test: bool, limit: int) -> Sequence[QueuedJob]: ...
    def claim(self, job_id: str, device: str) -> ClaimedJob | None: ...
    def progress(self, job_id: str, token: int, phase: Phase, step: int, steps: int) -> None: ...
    def complete(self, done: Done, device_name: str, versions: dict[str, str]) -> None: ...
    def fail(self, job_id: str, token: int, code: ErrorCode, message: str) -> bool: ...
    def retry(self, job_id: str, token: int, code: ErrorCode, message: str, *, attempts_max: int) -> bool: ...
    def release(self, job_id: str, token: int) -> None: ...
    def cancel_requested(self, job_ids: list[str]) -> set[str]: ...
    def expire(self) -> int: ...


class SlotView(Struct, frozen=True, kw_only=True):
    """One device as health and doctor show it."""

    device: str
    name: str
    test: bool
    state: str
    resident: tuple[str, ...]
    job_id: str | None
    restarts: int


@dataclass
class _Running:
    """An attempt in a child; `stop_code` is set once it was told to stop, and names the end it then comes to."""

    job: ClaimedJob
    kill_at: float
    deadline_at: float | None
    stop_code: ErrorCode | None = None
    stop_told_at: float = 0.0


@dataclass
class _Slot:
    """One device and the child that serves it, replaced when it dies."""

    device: str
    test: bool
    budget: RestartBudget
    worker: Worker | None = None
    running: dict[tuple[str, int], _Running] = field(default_factory=dict[tuple[str, int], _Running])
    name: str = ""
    restarts: int = 0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long things may take, in seconds."""

    job_seconds: float
    cancel_seconds: float


class Scheduler:
    """Runs from `start` to `stop` on a thread of its own; everything public may be called from any thread."""

    def __init__(
        self,
        jobs: JobSource,
        catalog: Catalog,
        devices: list[str],
        new_worker: Callable[[str, bool], Worker],
        new_budget: Callable[[], RestartBudget],
        limits: Limits,
    ) -> None:
        self._jobs = jobs
        self._catalog = catalog
        self._new_worker = new_worker
        self._limits = limits
        # Test jobs have a child of their own, so that they wait for nobody and hold nobody up.
        self._slots = [_Slot(device, test=False, budget=new_budget()) for device in devices]
        self._slots.append(_Slot("cpu", test=True, budget=new_budget()))
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._draining = False
        self._stopping = False
        self._idle = threading.Event()
        self._settlers = ThreadPoolExecutor(SETTLERS, thread_name_prefix="settle")
        self._thread = threading.Thread(target=self._loop, name="scheduler", daemon=True)

    def start(self) -> None:
        """Start the children and the thread that owns them."""
        self._thread.start()

    def wake(self) -> None:
        """Something changed: a job came, or one is to be cancelled."""
        try:
            os.write(self._wake_write, b"w")
        except BlockingIOError:
            return  # the pipe is full of wakes already

    def drain(self, timeout_seconds: float) -> bool:
        """Take no further jobs and wait for the running ones; False when some still run after the timeout."""
        self._draining = True
        self.wake()
        return self._idle.wait(timeout_seconds)

    def stop(self) -> None:
        """Put unfinished attempts back into the queue, end the children, and return."""
        self._draining = self._stopping = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join()
        self._settlers.shutdown(wait=True)

    def slots(self) -> list[SlotView]:
        """The devices as they are now."""
        return [self._slot_view(slot) for slot in self._slots]

    def is_ready(self) -> bool:
        """A worker is up that takes jobs of live keys."""
        return any(slot.worker is not None and slot.worker.ready is not None for slot in self._slots if not slot.test)

    def resident(self) -> set[str]:
        """The models that some device holds in memory."""
        return {name for slot in self._slots if slot.worker is not None for name in slot.worker.resident}

    # The loop

    def _loop(self) -> None:
        # The lifeline and the children belong to this thread from start to end.
        try:
            while not self._stopping:
                self._turn()
        except Exception:
            log.critical("the scheduler has failed; no further job will run", exc_info=True)
            raise
        finally:
            self._end_workers()
            os.close(self._wake_read)

    def _turn(self) -> None:
        for slot in self._slots:
            self._revive(slot)
        woken = wait([self._wake_read, *self._connected()], TICK_SECONDS)
        if self._wake_read in woken:
            os.read(self._wake_read, 65_536)
        for slot in self._slots:
            if slot.worker is not None:
                self._hear(slot, slot.worker)
        # Progress messages alone change nothing about who may run.
        if not woken or self._wake_read in woken or any(slot.worker and slot.worker.has_room for slot in self._slots):
            self._stop_unwanted()
            self._jobs.expire()
            if not self._draining:
                self._dispatch(test=True)
                self._dispatch(test=False)
        if not any(slot.running for slot in self._slots):
            if self._draining:
                self._idle.set()
        else:
            self._idle.clear()

    def _connected(self) -> list[int]:
        return [slot.worker.fileno() for slot in self._slots if slot.worker is not None and slot.worker.state != "dead"]

    def _revive(self, slot: _Slot) -> None:
        now = time.monotonic()
        if slot.worker is not None or self._stopping or slot.budget.wait_seconds(now) > 0:
            return
        worker = self._new_worker(slot.device, slot.test)
        try:
            worker.start()
        except OSError:
            log.exception("no worker could be started on %s", slot.device)
            slot.budget.died(now)
            return
        slot.worker = worker

    def _hear(self, slot: _Slot, worker: Worker) -> None:
        now = time.monotonic()
        if worker.is_hung(now):
            worker.kill("gave no sign of life")
        for running in list(slot.running.values()):
            self._enforce(worker, running, now)
        for message in worker.receive():
            match message:
                case Ready(device_name=name):
                    slot.name = name
                case Progress(job_id=job_id, token=token, phase=phase, step=step, steps=steps):
                    if (job_id, token) in slot.running:
                        self._jobs.progress(job_id, token, phase, step, steps)
                case Done():
                    self._done(slot, worker, message)
                case Failed():
                    self._failed(slot, message)
                case Dead():
                    self._dead(slot, message)
                case _:
                    pass  # a heartbeat is noted by the worker's handle

    # Starting

    def _dispatch(self, *, test: bool) -> None:
        free = [slot for slot in self._slots if slot.test == test and slot.worker is not None and slot.worker.has_room]
        if not free:
            return
        for job in self._jobs.queued(test=test, limit=len(free)):
            slot = next((slot for slot in free if slot.worker and job.model in slot.worker.resident), free[0])
            if self._start(slot, job):
                free.remove(slot)

    def _start(self, slot: _Slot, queued: QueuedJob) -> bool:
        worker, spec = slot.worker, self._catalog.specs.get(queued.model)
        job = self._jobs.claim(queued.id, slot.name or slot.device)
        if job is None or worker is None:
            return False
        if spec is None or self._catalog.installed(spec) is None:
            self._settle_failure(job.job_id, job.token, "internal_error", f"The model {queued.model} is gone.")
            return False
        now = time.monotonic()
        deadline = None if job.deadline_in_seconds is None else now + job.deadline_in_seconds
        kill_at = now + min(spec.timeout_seconds, self._limits.job_seconds)
        slot.running[job.job_id, job.token] = _Running(job, kill_at, deadline)
        worker.send(_run_message(job, spec, self._catalog))
        return True

    # Ending

    def _done(self, slot: _Slot, worker: Worker, done: Done) -> None:
        if slot.running.pop((done.job_id, done.token), None) is None:
            return
        versions = {**(worker.ready.versions if worker.ready else {}), **done.versions}

        def settle() -> None:
            try:
                self._jobs.complete(done, slot.name or slot.device, versions)
            except JobFailure as failure:
                self._jobs.fail(done.job_id, done.token, failure.error_code, failure.message)

        self._settle(settle)

    def _failed(self, slot: _Slot, failed: Failed) -> None:
        running = slot.running.pop((failed.job_id, failed.token), None)
        if running is None:
            return
        code, message = failed.error_code, failed.message
        if running.stop_code is not None:
            code, message = running.stop_code, _STOPPED[running.stop_code]
        if code == "out_of_memory":
            self._settle_retry(failed.job_id, failed.token, code, message)
        else:
            self._settle_failure(failed.job_id, failed.token, code, message)

    def _dead(self, slot: _Slot, dead: Dead) -> None:
        slot.worker = None
        slot.restarts += 1
        if not dead.expected:
            slot.budget.died(time.monotonic())
        for key, running in list(slot.running.items()):
            slot.running.pop(key)
            if running.stop_code is not None:
                self._settle_failure(*key, running.stop_code, _STOPPED[running.stop_code])
            elif dead.error_code == "gpu_timeout":
                self._settle_failure(*key, "gpu_timeout", f"The worker on {slot.device} {dead.reason}.")
            else:
                self._settle_retry(*key, dead.error_code, f"The worker on {slot.device} {dead.reason}.")

    def _stop_unwanted(self) -> None:
        """Tell the children which of their jobs are to be cancelled."""
        wanted = {key: running for slot in self._slots for key, running in slot.running.items()}
        untold = [key[0] for key, running in wanted.items() if running.stop_code is None]
        cancelled = self._jobs.cancel_requested(untold) if untold else set[str]()
        for slot in self._slots:
            for (job_id, _), running in slot.running.items():
                if job_id in cancelled and slot.worker is not None:
                    self._tell_to_stop(slot.worker, running, "cancelled", time.monotonic())

    def _enforce(self, worker: Worker, running: _Running, now: float) -> None:
        """A deadline of the client is asked for politely first; the box's own bound, and silence, end the child."""
        if running.deadline_at is not None and now >= running.deadline_at and running.stop_code is None:
            self._tell_to_stop(worker, running, "deadline_exceeded", now)
        if now >= running.kill_at:
            running.stop_code = running.stop_code or "gpu_timeout"
            worker.kill("took longer than a job may take")
        elif running.stop_code is not None and now >= running.stop_told_at + self._limits.cancel_seconds:
            worker.kill("did not stop when told to")

    def _tell_to_stop(self, worker: Worker, running: _Running, code: ErrorCode, now: float) -> None:
        running.stop_code, running.stop_told_at = code, now
        worker.cancel(running.job.job_id, running.job.token)

    def _settle_failure(self, job_id: str, token: int, code: ErrorCode, message: str) -> None:
        self._settle(lambda: self._jobs.fail(job_id, token, code, message))

    def _settle_retry(self, job_id: str, token: int, code: ErrorCode, message: str) -> None:
        self._settle(lambda: self._jobs.retry(job_id, token, code, message, attempts_max=CRASH_ATTEMPTS_MAX))

    def _settle(self, work: Callable[[], object]) -> None:
        """Renames, fsyncs and commits happen beside the loop: the next job's start does not wait for them."""

        def told() -> None:
            try:
                work()
            except Exception:
                # The job stays running in the store; the next start recovers it.
                log.exception("a job's end could not be stored")

        self._settlers.submit(told)

    def _end_workers(self) -> None:
        for slot in self._slots:
            if slot.worker is None:
                continue
            slot.worker.kill("the service stops")
            self._hear_last(slot, slot.worker)
            for job_id, token in list(slot.running):
                self._settle(lambda job_id=job_id, token=token: self._jobs.release(job_id, token))
            slot.running.clear()
            slot.worker = None

    def _hear_last(self, slot: _Slot, worker: Worker) -> None:
        """A result that came in the last moment counts."""
        for message in worker.receive():
            if isinstance(message, Done):
                self._done(slot, worker, message)

    def _slot_view(self, slot: _Slot) -> SlotView:
        worker = slot.worker
        if worker is not None:
            state = worker.state
        else:
            state = "quarantined" if slot.budget.is_quarantined(time.monotonic()) else "dead"
        return SlotView(
            device=slot.device,
            name=slot.name,
            test=slot.test,
            state=state,
            resident=() if worker is None else worker.resident,
            job_id=next((job_id for job_id, _ in slot.running), None),
            restarts=slot.restarts,
        )


_STOPPED: Final[dict[ErrorCode, str]] = {
    "cancelled": "The job was cancelled.",
    "deadline_exceeded": "The job was not done by its deadline.",
    "gpu_timeout": "The job took longer than a job may take on this box.",
}


def _run_message(job: ClaimedJob, spec: ModelSpec, catalog: Catalog) -> Run:
    work = job.work
    return Run(
        job_id=job.job_id,
        token=job.token,
        type=work.type,
        model=spec,
        weights_dir=str(catalog.folder(spec)),
        out_dir=job.out_dir,
        stem=job.stem,
        prompt=work.prompt,
        negative_prompt=work.negative_prompt,
        seed=work.seed,
        n=work.n,
        width=work.width,
        height=work.height,
        frames=work.frames,
        fps=work.fps,
        test=job.test,
    )
