"""One device of the box: the child that serves it now, the attempts in that child, and how each of them must end.

Everything here belongs to the scheduler's thread, but for `view` and `is_up`, which only read. Ending a child can take
seconds, so it happens on a thread of its own; until it is over nobody else touches that child.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from math import inf

from msgspec import Struct

from zsky_box.dispatch import Held
from zsky_box.errors import ErrorCode
from zsky_box.events import Phase, Run, ToParent
from zsky_box.requests import Work
from zsky_box.restart_budget import RestartBudget
from zsky_box.worker import Dead, Worker

AttemptKey = tuple[str, int]

log = logging.getLogger(__name__)


class SlotView(Struct, frozen=True, kw_only=True):
    """One device as health, metrics and doctor show it.

    `label` tells it from all others: `cuda:1`, `cpu-2` where several workers share the processor, `test`. `reason` says
    why it is quarantined, in a clause about it.
    """

    device: str
    label: str
    name: str
    test: bool
    state: str
    resident: tuple[str, ...]
    job_id: str | None
    restarts: int
    reason: str = ""
    bytes_held: int = 0
    paused: bool = False
    job_ids: tuple[str, ...] = ()
    """All that are with its child, the first the longest: beside one that has the device, encoders' tails."""


@dataclass
class Running:
    """An attempt in a child; `end` is set once it was told to stop, and is the end that it then comes to.

    `expected_seconds` is for how long it is expected to have the device, loading counted, `tail_seconds` what it takes
    besides.
    One that is `alone` gets no other job beside its encoder's tail, which might take it along.
    """

    kill_at: float
    deadline_at: float | None
    account_id: str = ""
    work: Work | None = None
    model: str = ""
    alone: bool = False
    recipe: str = ""
    recipe_index: int = 0
    started_at: float = 0.0
    expected_seconds: float = 0.0
    tail_seconds: float = 0.0
    working_bytes: int = 0
    phase: Phase = "loading"
    end: tuple[ErrorCode, str] | None = None
    told_at: float = 0.0

    @property
    def expected_end_at(self) -> float:
        """When it is expected to leave the device."""
        return self.started_at + self.expected_seconds

    def patience_ends_at(self, cancel_seconds: float) -> float:
        """When a child that was told to stop and has not is ended.

        A cancel that comes when only the encoder's tail is left is not heard any more, and costs no child its life.
        """
        too_late = self.phase == "encoding" and self.end is not None and self.end[0] == "cancelled"
        return inf if self.end is None or too_late else self.told_at + cancel_seconds


@dataclass
class Slot:
    """A device and its child, replaced when it dies, within the budget. All instants are monotonic seconds.

    `held` is what the child was told to hold, counted in bytes before it did. While the slot is paused it takes no
    jobs; while it is unloaded it has no child, so that the device's memory is somebody else's.
    `fault` says what is wrong with the device itself, as long as that is known: no child is started on it. A child that
    was `ended_for_fault` counts neither against the device's budget nor against its jobs.
    """

    device: str
    test: bool
    budget: RestartBudget
    label: str = ""
    worker: Worker | None = None
    running: dict[AttemptKey, Running] = field(default_factory=dict[AttemptKey, Running])
    name: str = ""
    flops: float = 0.0
    restarts: int = 0
    held: dict[str, Held] = field(default_factory=dict[str, Held])
    is_paused: bool = False
    is_unloaded: bool = False
    fault: str = ""
    ended_for_fault: bool = False
    _ending: Future[None] | None = None
    _excused: bool = False
    _failed_job: str = ""

    @property
    def has_room(self) -> bool:
        """Whether a Run may be sent to the child now."""
        is_taken = self.is_paused or any(running.alone for running in self.running.values())
        return self.worker is not None and self._ending is None and not is_taken and self.worker.has_room

    @property
    def is_up(self) -> bool:
        """Whether the child has said that it can work, and is not on its way out."""
        worker = self.worker
        return worker is not None and self._ending is None and worker.state in ("ready", "loading", "running")

    @property
    def resident(self) -> tuple[str, ...]:
        """The models in the child's memory."""
        worker = self.worker
        return () if worker is None else worker.resident

    @property
    def listened(self) -> Worker | None:
        """The child whose connection can be waited for."""
        return self.worker if self.worker and self._ending is None and self.worker.state != "dead" else None

    @property
    def has_news(self) -> bool:
        """Whether the child's end waits to be heard, which no connection tells."""
        if self._ending is not None:
            return self._ending.done()
        return self.worker is not None and self.worker.state == "dead"

    def revive(self, new_worker: Callable[[str, bool], Worker], now: float) -> None:
        """Start a child where there is none, the device is well and ours to use, and the budget allows it."""
        is_kept_off = bool(self.fault) or self.is_unloaded
        if self.worker is not None or is_kept_off or self.budget.wait_seconds(now) > 0:
            return
        self.ended_for_fault = False
        worker = new_worker(self.device, self.test)
        try:
            worker.start()
        except OSError:
            log.exception("no worker could be started on %s", self.device)
            self.budget.died(now)
            return
        self.worker = worker

    def hold(self, model: str, held: Held, evict: Iterable[str]) -> None:
        """Note what the child will hold once it has done what it is told next."""
        for name in evict:
            self.held.pop(name, None)
        self.held[model] = held

    def heed(self, resident: Iterable[str]) -> None:
        """The child has told what it holds; while nothing runs that may be loading, that is the truth."""
        if not self.running:
            self.held = {name: self.held[name] for name in resident if name in self.held}

    def send(self, run: Run, running: Running) -> None:
        """Give the child an attempt; only where there is room."""
        if self.worker is None:
            raise ValueError(f"there is no worker on {self.device} to send job {run.job_id} to")
        self.running[run.job_id, run.token] = running
        self.worker.send(run)

    def messages(self) -> Sequence[ToParent | Dead]:
        """What the child has said since the last call; nothing while it is being ended."""
        if self.worker is None or (self._ending is not None and not self._ending.done()):
            return ()
        if self._ending is not None:
            ended, self._ending = self._ending, None
            if error := ended.exception():
                log.error("the worker on %s could not be ended", self.device, exc_info=error)
        return self.worker.receive()

    def tell_to_stop(self, key: AttemptKey, code: ErrorCode, message: str, now: float) -> None:
        """Ask the child politely, once, to stop an attempt."""
        running = self.running[key]
        if running.end is None and self.worker is not None and self._ending is None:
            running.end, running.told_at = (code, message), now
            self.worker.cancel(*key)

    def enforce(self, cancel_seconds: float, threads: Executor, over: Callable[[], None], now: float) -> None:
        """End the child that is silent, or that holds an attempt for longer than it may."""
        if self.worker is None or self._ending is not None:
            return
        if self.worker.is_hung(now):
            reason = "gave no sign of life"
            for running in self.running.values():
                # An encoder's tail runs beside the card's work: what hangs is most likely the other one.
                if running.phase != "encoding" or len(self.running) == 1:
                    running.end = running.end or ("gpu_timeout", f"The worker on {self.device} {reason}.")
            self.kill(reason, threads, over)
            return
        for key, running in self.running.items():
            if running.deadline_at is not None and now >= running.deadline_at:
                self.tell_to_stop(key, "deadline_exceeded", "The job was not done by its deadline.", now)
            if now >= running.kill_at:
                running.end = running.end or ("gpu_timeout", "The job took longer than a job may take on this box.")
                self.kill("took longer than a job may take", threads, over)
                return
            if now >= running.patience_ends_at(cancel_seconds):
                self.kill("did not stop when told to", threads, over)
                return

    def due_at(self, cancel_seconds: float, now: float) -> float:
        """When something is to be done here, whatever is heard until then: a child started, an attempt ended."""
        if self.worker is None:
            return inf if self.fault or self.is_unloaded else now + self.budget.wait_seconds(now)
        if self._ending is not None:
            return inf
        instants = [inf]
        for running in self.running.values():
            instants += [running.kill_at, running.patience_ends_at(cancel_seconds)]
            if running.end is None and running.deadline_at is not None:
                instants.append(running.deadline_at)
        return min(instants)

    def kill(
        self, reason: str, threads: Executor, over: Callable[[], None], error_code: ErrorCode = "gpu_timeout"
    ) -> None:
        """End the child beside the loop; `over` is called when it is gone, and `messages` then has its last words."""
        if self.worker is not None and self._ending is None:
            self._ending = threads.submit(self.worker.kill, reason, error_code)
            self._ending.add_done_callback(lambda _: over())

    def quarantine(self, fault: str, threads: Executor, over: Callable[[], None]) -> None:
        """The device itself has a fault, told in a clause about it: its child is ended, and none is started on it."""
        if not self.fault:
            log.error("%s is quarantined: it %s", self.label, fault)
        self.fault = fault
        self.ended_for_fault = self.worker is not None
        self.kill(f"was ended, since the card {fault}", threads, over, "internal_error")

    def unload(self, threads: Executor, over: Callable[[], None]) -> None:
        """The device's memory is wanted by somebody else: its child is ended, and its attempts are not its any more."""
        self.running.clear()
        self._excused = self.worker is not None
        self.kill("was ended to free the device's memory", threads, over)

    def restore(self) -> None:
        """The device is well again."""
        if self.fault:
            log.warning("%s serves again; it was quarantined since it %s", self.label, self.fault)
        self.fault = ""

    def replace(self, job_id: str, running: Running, error_code: ErrorCode) -> None:
        """The child asks to be replaced, after this attempt has run out of memory or the device has failed.

        A job that is too large says nothing against the device; a model that does not even load does.
        """
        self._excused = error_code == "out_of_memory" and running.phase != "loading"
        self._failed_job = "" if error_code == "out_of_memory" else job_id

    def bury(self, dead: Dead, now: float) -> list[tuple[AttemptKey, Running]]:
        """The child is gone: book its death, and return the attempts that went with it."""
        self.worker = None
        self.held = {}
        self.restarts += 1
        if not dead.expected and not self._excused and not self.ended_for_fault:
            self.budget.died(now, self._failed_job)
            if self.budget.is_quarantined(now):
                log.error("%s is quarantined: it %s", self.label, self.budget.reason)
        self._excused, self._failed_job = False, ""
        lost = list(self.running.items())
        self.running.clear()
        return lost

    def view(self) -> SlotView:
        """The device as it is now; from any thread."""
        worker, reason = self.worker, self.fault
        job_ids = tuple(job_id for job_id, _ in list(self.running))
        if not reason and worker is None and self.budget.is_quarantined(time.monotonic()):
            reason = self.budget.reason
        if reason:
            state = "quarantined"
        elif worker is not None:
            state = "draining" if self._ending is not None else worker.state
        else:
            state = "dead"
        return SlotView(
            device=self.device,
            label=self.label,
            name=self.name,
            test=self.test,
            state=state,
            resident=self.resident,
            job_id=job_ids[0] if job_ids else None,
            job_ids=job_ids,
            restarts=self.restarts,
            reason=reason,
            bytes_held=0 if worker is None else worker.bytes_held,
            paused=self.is_paused,
        )


def labels(devices: Sequence[str]) -> list[str]:
    """A name for each that no other has: the device's own, numbered where several workers share it."""
    return [
        device if devices.count(device) == 1 else f"{device}-{devices[:place].count(device) + 1}"
        for place, device in enumerate(devices)
    ]
