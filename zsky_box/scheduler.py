"""Which job runs where and when: first come, first served over the free devices, preferring one that holds the model.

One thread owns all workers. It knows jobs only through the narrow `JobSource` below, whose answers are already durable;
it knows no database, no HTTP, and no media. It never ends silently: what it cannot survive is told to `failed`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Final, Protocol

from zsky_box.catalog import Catalog
from zsky_box.errors import ErrorCode, JobFailure
from zsky_box.events import Done, Failed, Phase, Progress, Ready, Run
from zsky_box.manifest import WHOLE, ModelSpec
from zsky_box.requests import Work
from zsky_box.restart_budget import RestartBudget
from zsky_box.settler import Settler
from zsky_box.slot import AttemptKey, Running, Slot, SlotView
from zsky_box.worker import Dead, Worker

TICK_SECONDS: Final = 1.0
PAUSE_SECONDS_MIN: Final = 0.01
CRASH_ATTEMPTS_MAX: Final = 2
BYSTANDER_ATTEMPTS_MAX: Final = 4
"""A job whose encoder alone was at work when its child died is hardly to blame: the next job had the card."""
LOOK_AHEAD: Final = 8
"""How many more jobs than free devices are read, for those that somebody else takes or ends in the same moment."""
FAILING_SECONDS_MAX: Final = 30.0
"""For how long the jobs may be unreadable before the service stops, to be started anew."""

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
    @property
    def reference_path(self) -> str: ...


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


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long things may take, in seconds."""

    job_seconds: float
    cancel_seconds: float


class Scheduler:
    """Runs from `start` to `stop` on a thread of its own; everything public may be called from any thread.

    `failed` is called at most a few times, from a thread of the scheduler, when it cannot go on: the jobs have been
    unreadable for too long, the end of an attempt could not be stored, or its loop broke.
    """

    def __init__(
        self,
        jobs: JobSource,
        catalog: Catalog,
        devices: list[str],
        new_worker: Callable[[str, bool], Worker],
        new_budget: Callable[[], RestartBudget],
        limits: Limits,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._jobs = jobs
        self._catalog = catalog
        self._new_worker = new_worker
        self._limits = limits
        self._failed_for_good = failed
        # Test jobs have a child of their own, so that they wait for nobody and hold nobody up.
        self._slots = [Slot(device, test=False, budget=new_budget()) for device in devices]
        self._slots.append(Slot("cpu", test=True, budget=new_budget()))
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._bell_lock = threading.Lock()
        self._bell_open = True
        self._look_at = 0.0
        self._failing_since: float | None = None
        self._draining = False
        self._stopping = False
        self._idle = threading.Event()
        self._settler = Settler(settled=self.wake, lost=failed)
        self._undertakers = ThreadPoolExecutor(len(self._slots), thread_name_prefix="undertaker")
        self._thread = threading.Thread(target=self._loop, name="scheduler", daemon=True)

    def start(self) -> None:
        """Start the children and the thread that owns them."""
        self._thread.start()

    def wake(self) -> None:
        """Something changed: a job came, or one is to be cancelled. Never waits; many wakes are one."""
        with self._bell_lock:
            if self._bell_open:
                os.eventfd_write(self._bell, 1)

    def drain(self, timeout_seconds: float) -> bool:
        """Take no further jobs and wait until the running ones are stored; False when some are not in time."""
        self._draining = True
        self.wake()
        return self._idle.wait(timeout_seconds)

    def stop(self) -> None:
        """Put unfinished attempts back into the queue, end the children, and return; may be called again."""
        self._draining = self._stopping = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join()
        self._undertakers.shutdown(wait=True)
        self._settler.close()
        with self._bell_lock:
            if self._bell_open:
                self._bell_open = False
                os.close(self._bell)

    def slots(self) -> list[SlotView]:
        """The devices as they are now."""
        return [slot.view() for slot in self._slots]

    def is_ready(self) -> bool:
        """A worker is up that takes jobs of live keys."""
        return any(slot.is_up for slot in self._slots if not slot.test)

    def resident(self) -> set[str]:
        """The models that some device holds in memory."""
        return {name for slot in self._slots for name in slot.resident}

    # The loop

    def _loop(self) -> None:
        # The lifeline and the children belong to this thread from start to end.
        try:
            while not self._stopping:
                self._turn()
        except Exception as error:
            log.critical("the scheduler has failed", exc_info=True)
            self._failed_for_good(error)
        finally:
            self._end_workers()
            self._idle.set()

    def _turn(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            slot.revive(self._new_worker, now)
        rung = self._await_news(now)
        had_room = [slot.has_room for slot in self._slots]
        for slot in self._slots:
            self._hear(slot)
        # Progress and heartbeats alone change nothing about who may run.
        has_more_room = any(slot.has_room and not had for slot, had in zip(self._slots, had_room, strict=True))
        if rung or has_more_room or time.monotonic() >= self._look_at:
            self._look()
        if any(slot.running for slot in self._slots) or self._settler.pending:
            self._idle.clear()
        elif self._draining:
            self._idle.set()

    def _await_news(self, now: float) -> bool:
        """Wait for a child, a wake, or the next thing that is due; True where the bell was rung."""
        due_at = min(self._look_at, *(slot.due_at(self._limits.cancel_seconds, now) for slot in self._slots))
        pause_seconds = min(max(PAUSE_SECONDS_MIN, due_at - now), TICK_SECONDS)
        if any(slot.has_news for slot in self._slots):
            pause_seconds = 0.0
        connected = [slot.listened.connection for slot in self._slots if slot.listened is not None]
        if self._bell not in wait([self._bell, *connected], pause_seconds):
            return False
        os.eventfd_read(self._bell)
        return True

    def _hear(self, slot: Slot) -> None:
        slot.enforce(self._limits.cancel_seconds, self._undertakers, self.wake, time.monotonic())
        worker = slot.worker
        for message in slot.messages():
            match message:
                case Ready(device_name=name):
                    slot.name = name
                case Progress():
                    self._progress(slot, message)
                case Done() if worker is not None:
                    self._done(slot, worker, message)
                case Failed():
                    self._failed(slot, message)
                case Dead():
                    self._dead(slot, message)
                case _:
                    pass  # a heartbeat is noted by the worker's handle

    def _progress(self, slot: Slot, told: Progress) -> None:
        running = slot.running.get((told.job_id, told.token))
        if running is None:
            return
        running.phase = told.phase
        try:
            self._jobs.progress(told.job_id, told.token, told.phase, told.step, told.steps)
        except Exception:
            log.exception("the progress of job %s could not be noted; the job goes on", told.job_id)

    # Starting

    def _look(self) -> None:
        """What the jobs ask for now. A store that fails is asked again at the next tick, and not for ever."""
        now = time.monotonic()
        if self._failing_since is not None and now < self._look_at:
            return
        self._look_at = now + TICK_SECONDS
        try:
            self._stop_unwanted(now)
            self._jobs.expire()
            if not self._draining:
                self._dispatch(test=True)
                self._dispatch(test=False)
        except Exception:
            self._failing_since = self._failing_since or now
            if now - self._failing_since > FAILING_SECONDS_MAX:
                raise
            log.exception("the jobs cannot be read or changed; they are asked again")
        else:
            self._failing_since = None

    def _dispatch(self, *, test: bool) -> None:
        free = [slot for slot in self._slots if slot.test == test and slot.has_room]
        if not free:
            return
        waiting = self._jobs.queued(test=test, limit=len(free) + LOOK_AHEAD)
        wanted = {job.model for job in waiting[: len(free)]}
        for job in waiting:
            if not free:
                return
            slot = min(free, key=lambda slot: _unfitness(slot, job.model, wanted))
            if self._start(slot, job):
                free.remove(slot)

    def _start(self, slot: Slot, queued: QueuedJob) -> bool:
        job = self._jobs.claim(queued.id, slot.name or slot.device)
        if job is None:
            return False
        spec = self._catalog.specs.get(queued.model)
        if spec is None or self._catalog.installed(spec) is None:
            self._settle_failure((job.job_id, job.token), "internal_error", f"The model {queued.model} is gone.")
            return False
        now = time.monotonic()
        deadline_at = None if job.deadline_in_seconds is None else now + job.deadline_in_seconds
        kill_at = now + min(spec.timeout_seconds, self._limits.job_seconds)
        slot.send(_run_message(job, spec, self._catalog), Running(kill_at, deadline_at))
        return True

    def _stop_unwanted(self, now: float) -> None:
        """Tell the children which of their jobs are to be cancelled."""
        untold = {key: slot for slot in self._slots for key, running in slot.running.items() if running.end is None}
        cancelled = self._jobs.cancel_requested([job_id for job_id, _ in untold]) if untold else set[str]()
        for key, slot in untold.items():
            if key[0] in cancelled:
                slot.tell_to_stop(key, "cancelled", "The job was cancelled.", now)

    # Ending

    def _done(self, slot: Slot, worker: Worker, done: Done) -> None:
        key = (done.job_id, done.token)
        running = slot.running.pop(key, None)
        if running is None:
            return
        if running.end is not None and running.end[0] == "deadline_exceeded":
            self._settle_failure(key, *running.end)  # it came, but too late to be worth its price
            return
        versions = {**(worker.ready.versions if worker.ready else {}), **done.versions}
        device_name = slot.name or slot.device

        def complete() -> None:
            try:
                self._jobs.complete(done, device_name, versions)
            except JobFailure as failure:
                self._jobs.fail(*key, failure.error_code, failure.message)

        def give_up() -> None:
            self._jobs.fail(*key, "internal_error", "The result could not be stored.")

        self._settler.settle(complete, give_up)

    def _failed(self, slot: Slot, failed: Failed) -> None:
        key = (failed.job_id, failed.token)
        running = slot.running.pop(key, None)
        if running is None:
            return
        if failed.fatal:
            slot.replace(running, failed.error_code)
        if running.end is not None:
            self._settle_failure(key, *running.end)
        elif failed.fatal or failed.error_code == "out_of_memory":
            self._settle_retry(key, failed.error_code, failed.message, CRASH_ATTEMPTS_MAX)
        else:
            self._settle_failure(key, failed.error_code, failed.message)

    def _dead(self, slot: Slot, dead: Dead) -> None:
        lost = slot.bury(dead, time.monotonic())
        for key, running in lost:
            if running.end is not None:
                self._settle_failure(key, *running.end)
            else:
                bystander = running.phase == "encoding" and len(lost) > 1
                attempts_max = BYSTANDER_ATTEMPTS_MAX if bystander else CRASH_ATTEMPTS_MAX
                message = f"The worker on {slot.device} {dead.reason}."
                self._settle_retry(key, dead.error_code, message, attempts_max)

    def _settle_failure(self, key: AttemptKey, code: ErrorCode, message: str) -> None:
        self._settler.settle(lambda: self._jobs.fail(*key, code, message))

    def _settle_retry(self, key: AttemptKey, code: ErrorCode, message: str, attempts_max: int) -> None:
        self._settler.settle(lambda: self._jobs.retry(*key, code, message, attempts_max=attempts_max))

    def _end_workers(self) -> None:
        """All children at once, each within its worker's bound; then what they held goes back to the queue."""
        for slot in self._slots:
            slot.kill("the service stops", self._undertakers, self.wake)
        self._undertakers.shutdown(wait=True)
        for slot in self._slots:
            worker = slot.worker
            for message in slot.messages():
                if isinstance(message, Done) and worker is not None:
                    self._done(slot, worker, message)  # a result that came in the last moment counts
            for key in list(slot.running):
                self._settler.settle(lambda key=key: self._jobs.release(*key))
            slot.running.clear()
            slot.worker = None


def _unfitness(slot: Slot, model: str, wanted: set[str]) -> tuple[bool, bool, bool, bool]:
    """Best is a device that holds the model, then one that holds none, then one whose model no waiting job wants."""
    holds = model in slot.resident
    return not holds, not wanted.isdisjoint(slot.resident), bool(slot.resident), bool(slot.running)


def _run_message(job: ClaimedJob, spec: ModelSpec, catalog: Catalog) -> Run:
    work = job.work
    loadable = ((recipe, catalog.weights_folder(spec, recipe)) for recipe in spec.ways)
    recipe, folder = next(((recipe, found) for recipe, found in loadable if found), (WHOLE, catalog.folder(spec)))
    return Run(
        job_id=job.job_id,
        token=job.token,
        type=work.type,
        model=spec,
        weights_dir=str(folder),
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
        wordmarked=work.wordmarked,
        reference=job.reference_path,
        strength=work.strength,
        recipe=recipe,
    )
