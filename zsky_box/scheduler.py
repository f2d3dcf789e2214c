"""Which job runs where and when: the loop that owns all workers. What starts next is decided by `starter`.

It knows jobs only through the narrow `JobSource`, whose answers are already durable; it knows no database, no HTTP, and
no media. It never ends silently: what it cannot survive is told to `failed`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from queue import SimpleQueue
from typing import Final

from zsky_box.catalog import Catalog
from zsky_box.dispatch import Left, Outlook
from zsky_box.errors import ErrorCode, JobFailure
from zsky_box.estimates import Estimates
from zsky_box.events import Done, Failed, Heartbeat, Progress, Ready
from zsky_box.job_source import JobSource
from zsky_box.observer import Nobody, Observer
from zsky_box.placement import Card
from zsky_box.restart_budget import RestartBudget
from zsky_box.settler import Settler
from zsky_box.slot import AttemptKey, Slot, SlotView, labels
from zsky_box.standstill import standstill
from zsky_box.starter import TEST_LABEL, Rules, Starter
from zsky_box.turns import Standing
from zsky_box.worker import Dead, Worker

TICK_SECONDS: Final = 1.0
PAUSE_SECONDS_MIN: Final = 0.01
CRASH_ATTEMPTS_MAX: Final = 2
BYSTANDER_ATTEMPTS_MAX: Final = 4
"""A job whose encoder alone was at work when its child died is hardly to blame: the next job had the card. Nor is one
whose card failed."""
FAILING_SECONDS_MAX: Final = 30.0
"""For how long the jobs may be unreadable before the service stops, to be started anew."""

log = logging.getLogger(__name__)


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
        cards: Mapping[str, Card],
        estimates: Estimates,
        new_worker: Callable[[str, bool], Worker],
        new_budget: Callable[[], RestartBudget],
        rules: Rules,
        failed: Callable[[BaseException], None],
        *,
        observer: Observer | None = None,
    ) -> None:
        self._jobs = jobs
        self._estimates = estimates
        self._observer = observer or Nobody()
        self._new_worker = new_worker
        self._cancel_seconds = rules.cancel_seconds
        self._failed_for_good = failed
        # Test jobs have a child of their own, so that they wait for nobody and hold nobody up.
        self._slots = [
            Slot(device, test=False, budget=new_budget(), label=label)
            for device, label in zip(devices, labels(devices), strict=True)
        ]
        self._slots.append(Slot("cpu", test=True, budget=new_budget(), label=TEST_LABEL))
        beside = {TEST_LABEL: Card(device=TEST_LABEL, total_bytes=rules.host_total_bytes)}
        self._starters = {
            test: Starter(jobs, catalog, {**cards, **beside}, estimates, rules, test=test) for test in (False, True)
        }
        self._card_news: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._bell_lock = threading.Lock()
        self._bell_open = True
        self._look_at = 0.0
        self._failing_since: float | None = None
        self._draining = False
        self._quiet = False
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

    def outlook(self, *, test: bool = False) -> tuple[Outlook, ...]:
        """The devices as they were at the last look, for those who estimate."""
        return self._starters[test].outlook()

    def left(self, job_id: str) -> Left | None:
        """How far a running job is in time, as far as that was to be expected; None where it does not run."""
        now = time.monotonic()
        for slot in self._slots:
            for (running_id, _), running in list(slot.running.items()):
                if running_id == job_id:
                    return Left(now - running.started_at, running.expected_end_at + running.tail_seconds - now)
        return None

    def reason(self, job_id: str, *, test: bool = False) -> str | None:
        """Why no device takes jobs now, else why a queued job was passed over when its turn last came, if it was."""
        devices = [slot.view() for slot in self._slots if slot.test == test]
        return standstill(devices, quiet=self._quiet and not test) or self._starters[test].reason(job_id)

    def standing(self, *, test: bool = False) -> Standing:
        """What decides whose turn it is among the jobs that wait."""
        return self._starters[test].standing()

    def tell_card(self, device: str, fault: str) -> None:
        """What is wrong with a card, in a clause about it, or nothing any more where `fault` is empty."""
        self._card_news.put((device, fault))
        self.wake()

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
        self._heed_cards()
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
        due_at = min(self._look_at, *(slot.due_at(self._cancel_seconds, now) for slot in self._slots))
        pause_seconds = min(max(PAUSE_SECONDS_MIN, due_at - now), TICK_SECONDS)
        if any(slot.has_news for slot in self._slots):
            pause_seconds = 0.0
        connected = [slot.listened.connection for slot in self._slots if slot.listened is not None]
        if self._bell not in wait([self._bell, *connected], pause_seconds):
            return False
        os.eventfd_read(self._bell)
        return True

    def _heed_cards(self) -> None:
        while not self._card_news.empty():
            device, fault = self._card_news.get()
            for slot in self._slots:
                if slot.device == device and not slot.test:
                    if fault:
                        slot.quarantine(fault, self._undertakers, self.wake)
                    else:
                        slot.restore()

    def _hear(self, slot: Slot) -> None:
        slot.enforce(self._cancel_seconds, self._undertakers, self.wake, time.monotonic())
        worker = slot.worker
        for message in slot.messages():
            match message:
                case Ready(device_name=name):
                    slot.name = name
                case Heartbeat():
                    self._heed(slot, message)
                case Progress():
                    self._progress(slot, message)
                case Done() if worker is not None:
                    self._done(slot, worker, message)
                case Failed():
                    self._failed(slot, message)
                case Dead():
                    self._dead(slot, message)
                case _:
                    pass  # of a child that is gone

    def _heed(self, slot: Slot, told: Heartbeat) -> None:
        slot.heed(told.resident)
        # Told with every beat; two cards of one name differ a little, and the last child that was started counts.
        if told.flops > 0 and slot.name and slot.flops != told.flops:
            slot.flops = told.flops
            self._estimates.measured(slot.name, told.flops)
            self._jobs.measured(slot.name, told.flops)

    def _progress(self, slot: Slot, told: Progress) -> None:
        running = slot.running.get((told.job_id, told.token))
        if running is None:
            return
        running.phase = told.phase
        try:
            if told.preview:
                self._jobs.preview(told.job_id, told.token, told.preview)
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
                self._heed_pauses()
                self._start_jobs(test=True)
                self._start_jobs(test=False)
        except Exception:
            self._failing_since = self._failing_since or now
            if now - self._failing_since > FAILING_SECONDS_MAX:
                raise
            log.exception("the jobs cannot be read or changed; they are asked again")
        else:
            self._failing_since = None

    def _start_jobs(self, *, test: bool) -> None:
        slots = [slot for slot in self._slots if slot.test == test]
        for key, why in self._starters[test].start_jobs(slots):
            self._settle_failure(key, "internal_error", why)

    def _heed_pauses(self) -> None:
        """Devices that are paused end what runs and take nothing new; those to be unloaded give it back at once."""
        self._quiet, paused = self._jobs.is_quiet(), self._jobs.paused()
        for slot in self._slots:
            if slot.test:
                continue
            slot.is_paused = slot.device in paused
            unload = paused.get(slot.device, False)
            if unload and not slot.is_unloaded:
                self._unload(slot)
            slot.is_unloaded = unload

    def _unload(self, slot: Slot) -> None:
        """The device's memory is wanted now: what runs there goes back to the queue, free, and its child is ended."""
        for key, running in list(slot.running.items()):
            self._starters[slot.test].gave_up(running)
            self._settler.settle(lambda key=key: self._jobs.release(*key))
        slot.unload(self._undertakers, self.wake)

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
        self._starters[slot.test].learn(slot, running, done)
        self._observer.made(slot.label, running.model, done.seconds, test=slot.test)
        versions = {**(worker.ready.versions if worker.ready else {}), **done.versions}
        device_name = slot.name or slot.device

        def complete() -> None:
            try:
                self._jobs.complete(done, device_name, versions, running.recipe)
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
        error_code = running.end[0] if running.end else failed.error_code
        self._observer.attempt_failed(slot.label, running.model, error_code)
        self._starters[slot.test].gave_up(running)
        if failed.fatal:
            slot.replace(failed.job_id, running, failed.error_code)
        if running.end is not None:
            self._settle_failure(key, *running.end)
        elif failed.error_code == "out_of_memory":
            # The next try is by the model's next recipe, which needs less.
            floor = running.recipe_index + 1
            self._settle_retry(key, failed.error_code, failed.message, CRASH_ATTEMPTS_MAX, floor)
        elif failed.fatal:
            self._settle_retry(key, failed.error_code, failed.message, CRASH_ATTEMPTS_MAX)
        else:
            self._settle_failure(key, failed.error_code, failed.message)

    def _dead(self, slot: Slot, dead: Dead) -> None:
        lost = slot.bury(dead, time.monotonic())
        for key, running in lost:
            error_code = running.end[0] if running.end else dead.error_code
            self._observer.attempt_failed(slot.label, running.model, error_code)
            self._starters[slot.test].gave_up(running)
            if running.end is not None:
                self._settle_failure(key, *running.end)
            else:
                bystander = (running.phase == "encoding" and len(lost) > 1) or slot.ended_for_fault
                attempts_max = BYSTANDER_ATTEMPTS_MAX if bystander else CRASH_ATTEMPTS_MAX
                message = f"The worker on {slot.device} {dead.reason}."
                floor = running.recipe_index + 1 if dead.error_code == "out_of_memory" and not bystander else 0
                self._settle_retry(key, dead.error_code, message, attempts_max, floor)

    def _settle_failure(self, key: AttemptKey, code: ErrorCode, message: str) -> None:
        self._settler.settle(lambda: self._jobs.fail(*key, code, message))

    def _settle_retry(
        self, key: AttemptKey, code: ErrorCode, message: str, attempts_max: int, recipe_floor: int = 0
    ) -> None:
        self._settler.settle(
            lambda: self._jobs.retry(*key, code, message, attempts_max=attempts_max, recipe_floor=recipe_floor)
        )

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
