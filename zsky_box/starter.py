"""What starts now: the devices as the dispatcher sees them, its decisions carried out, and what comes of them learnt.

Belongs to the scheduler's thread, but for what says otherwise.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from zsky_box.catalog import Catalog
from zsky_box.dispatch import CardView, Dispatcher, Held, Outlook, Start, Waiting
from zsky_box.errors import JobFailure
from zsky_box.estimates import Estimates, Kind, Timing, counted, shape_of
from zsky_box.events import Check, Done, Run
from zsky_box.job_source import ClaimedJob, JobSource
from zsky_box.manifest import ModelSpec
from zsky_box.placement import Card, host_bytes
from zsky_box.slot import AttemptKey, Running, Slot
from zsky_box.turns import Standing
from zsky_box.ways import InstalledWays

SPARE_HEADS: Final = 8
"""So many more jobs than free devices are read of each flow: some of them wait for a busy card, and some are taken or
ended by somebody else meanwhile."""
HURRY: Final = 8.0
"""A job may take so many times what it usually takes here, before its child counts as hung."""
HURRY_SECONDS_MIN: Final = 120.0
LOOKS_MAX: Final = 8
"""So often in a turn is decided anew where jobs are gone by the time that they are claimed."""
TEST_LABEL: Final = "test"
EARLY: Final = 0.5
"""A start deadline counts as missed when even half of what is expected would be too late."""

log = logging.getLogger(__name__)


class Rules(Struct, frozen=True, kw_only=True):
    """The owner's word on the cards: what stays, what never goes there, and what every job is checked and shown by."""

    host_total_bytes: int
    job_seconds: float
    cancel_seconds: float
    pins: Mapping[str, frozenset[str]] = {}
    exclusions: Mapping[str, frozenset[str]] = {}
    preview_steps: int = 0


class Starter:
    """Starts jobs on slots of one kind: those of live keys, or the one of test keys."""

    def __init__(
        self,
        jobs: JobSource,
        catalog: Catalog,
        cards: Mapping[str, Card],
        estimates: Estimates,
        rules: Rules,
        *,
        test: bool,
    ) -> None:
        self._jobs = jobs
        self._catalog = catalog
        self._cards = cards
        self._estimates = estimates
        self._rules = rules
        self._test = test
        self._ways = InstalledWays(catalog, estimates)
        self._dispatcher = Dispatcher(self._ways)
        self._lock = threading.Lock()
        self._outlook: tuple[Outlook, ...] = ()

    def start_jobs(self, slots: Sequence[Slot]) -> list[tuple[AttemptKey, str]]:
        """Give the free devices what the dispatcher decides; returns the claimed jobs that cannot be run, and why."""
        lost: list[tuple[AttemptKey, str]] = []
        gone: set[str] = set()
        for _ in range(LOOKS_MAX):
            if not any(slot.has_room for slot in slots) or not self._look(slots, lost, gone):
                break
        now = time.monotonic()
        self._end_early(slots, now)
        with self._lock:
            self._outlook = tuple(self._outlook_of(slot, now) for slot in slots)
        return lost

    def _look(self, slots: Sequence[Slot], lost: list[tuple[AttemptKey, str]], gone: set[str]) -> bool:
        """One decision, carried out; whether another one is due, since jobs were `gone` that it had counted on."""
        now = time.monotonic()
        by_label = {slot.label: slot for slot in slots}
        per_flow = sum(slot.has_room for slot in slots) + len(gone) + SPARE_HEADS
        heads = self._jobs.heads(test=self._test, per_flow=per_flow)
        flows = [[job for job in flow if job.id not in gone] for flow in heads]
        flows = [flow for flow in flows if flow]
        views = [self._view(slot, now) for slot in slots if slot.is_up and not slot.is_paused]
        left_bytes = self._rules.host_total_bytes - self._held_elsewhere(slots, now)
        starts = self._dispatcher.decide(flows, views, left_bytes, now)
        vain = {start.job.id for start in starts if not self._carry_out(by_label[start.device], start, now, lost)}
        gone |= vain
        ended = [job.id for job in self._dispatcher.without_room if self._end_hopeless(job, lost)]
        gone |= set(ended)
        return bool(vain or ended)

    def _held_elsewhere(self, slots: Sequence[Slot], now: float) -> int:
        """What the children of devices that take no jobs now hold of host memory all the same."""
        resting = [self._view(slot, now) for slot in slots if slot.is_paused or not slot.is_up]
        return sum(
            sum(host_bytes(view.card, held.needs) for held in view.held.values())
            + (view.busy_bytes if view.card.is_cpu else 0)
            for view in resting
        )

    def _end_hopeless(self, job: Waiting, lost: list[tuple[AttemptKey, str]]) -> bool:
        """Claim a job, to be ended, where no device of the box can run it now or later; whether it was so."""
        pins, excluded = self._rules.pins, self._rules.exclusions
        cards = [
            self._ways.beside_pinned(card, pins.get(label, ()), job.model)
            for label, card in self._cards.items()
            if (label == TEST_LABEL) == self._test and job.model not in excluded.get(label, ())
        ]
        if not self._ways.is_here(job.model):
            why = f"The model {job.model} is gone."
        elif not self._ways.what_fits(job.model, job.work, cards, self._rules.host_total_bytes, floor=job.recipe_floor):
            why = "No device of this box has room for it any more."
        else:
            return False
        claimed = self._jobs.claim(job.id, "none", why)
        if claimed is not None:
            lost.append(((claimed.job_id, claimed.token), why))
        return True

    def _outlook_of(self, slot: Slot, now: float) -> Outlook:
        view = self._view(slot, now)
        return Outlook(
            card=view.card,
            name=view.name,
            free_at=now + view.free_in_seconds,
            paused=slot.is_paused or not slot.is_up,
            held={name: held.load_seconds for name, held in view.held.items()},
            room_bytes=view.card.total_bytes - sum(held.needs.held_bytes for held in view.held.values()),
            excluded=view.excluded,
            changed_at=self._dispatcher.changed_at,
        )

    def outlook(self) -> tuple[Outlook, ...]:
        """The devices at the last look; from any thread."""
        with self._lock:
            return self._outlook

    def reason(self, job_id: str) -> str | None:
        """Why a queued job was passed over, if its turn has come; from any thread."""
        return self._dispatcher.reason(job_id)

    def standing(self) -> Standing:
        """What decides whose turn it is; from any thread."""
        return self._dispatcher.standing()

    def _view(self, slot: Slot, now: float) -> CardView:
        busy = [running for running in slot.running.values() if running.phase != "encoding"]
        # What takes longer than it was expected to may take as long again: nobody waits for it as if it ended at once.
        left_seconds = max((abs(running.expected_end_at - now) for running in busy), default=0.0)
        return CardView(
            card=self._cards[slot.label],
            name=slot.name,
            is_free=slot.has_room,
            free_in_seconds=0.0 if slot.has_room else max(0.5, left_seconds),
            held=dict(slot.held),
            busy_bytes=max((running.working_bytes for running in busy), default=0),
            pinned=self._rules.pins.get(slot.label, frozenset()),
            excluded=self._rules.exclusions.get(slot.label, frozenset()),
        )

    def _carry_out(self, slot: Slot, start: Start, now: float, lost: list[tuple[AttemptKey, str]]) -> bool:
        """Claim the job and send it; whether the device is at work now."""
        waiting, way = start.job, start.way
        expected = start.load_seconds + way.run_seconds
        job = self._jobs.claim(waiting.id, slot.name or slot.device, start.why)
        if job is None:
            self._dispatcher.ended(waiting.account_id, waiting.model, expected_seconds=expected, seconds=0.0)
            return False
        spec = self._catalog.specs.get(waiting.model)
        folder = None if spec is None else self._catalog.weights_folder(spec, way.recipe)
        if spec is None or folder is None:
            lost.append(((job.job_id, job.token), f"The model {waiting.model} is gone."))
            return False
        try:
            check = None if job.test else self._catalog.check()
        except JobFailure as failure:
            lost.append(((job.job_id, job.token), failure.message))
            return False
        running = Running(
            kill_at=now + self._bound_seconds(spec, slot, start),
            deadline_at=None if job.deadline_in_seconds is None else now + job.deadline_in_seconds,
            account_id=waiting.account_id,
            model=waiting.model,
            # It was lost once: should that have been beside a job that crashes, it is not to be lost beside another.
            alone=job.token > 1,
            work=waiting.work,
            recipe=way.recipe.name,
            recipe_index=way.index,
            started_at=now,
            expected_seconds=expected,
            tail_seconds=way.tail_seconds,
            working_bytes=way.needs.working_bytes,
        )
        held = Held(recipe=way.recipe, needs=way.needs, load_seconds=way.load_seconds)
        slot.hold(waiting.model, held, start.evict)
        slot.send(run_message(job, spec, start, str(folder), check, self._rules), running)
        return True

    def _bound_seconds(self, spec: ModelSpec, slot: Slot, start: Start) -> float:
        """How long the job may take before its child counts as hung."""
        most = min(spec.timeout_seconds, self._rules.job_seconds)
        if not self._estimates.has_run(spec, start.way.recipe, slot.name, start.job.work):
            return most
        usual = start.load_seconds + start.way.run_seconds + start.way.tail_seconds
        return min(most, max(HURRY_SECONDS_MIN, HURRY * usual))

    def _end_early(self, slots: Sequence[Slot], now: float) -> None:
        """Void the jobs whose start deadline will pass before a device is free: early, and not at the last moment.

        A device that is paused or not up yet may be there at any moment: then none is given up.
        """
        if any(slot.is_paused or not slot.is_up for slot in slots):
            return
        views = [self._view(slot, now) for slot in slots]
        for job in (job for flow in self._jobs.heads(test=self._test, per_flow=0) for job in flow):
            able = [view.free_in_seconds for view in views if job.model not in view.excluded]
            if job.start_in_seconds is not None and job.start_in_seconds < EARLY * min(able, default=0.0):
                self._jobs.miss(job.id)

    # What came of it

    def gave_up(self, running: Running) -> None:
        """An attempt has ended without a result: its account is charged the card's time that it really had."""
        had = 0.0 if running.phase == "encoding" else time.monotonic() - running.started_at - running.expected_seconds
        self._dispatcher.ended(
            running.account_id,
            running.model,
            expected_seconds=running.expected_seconds,
            seconds=max(0.0, running.expected_seconds + had),
        )

    def learn(self, slot: Slot, running: Running, done: Done) -> None:
        """Remember how long a job took, and put right what its account was charged in card-seconds."""
        work = running.work
        if work is None:
            return
        seconds = dict(done.seconds)
        weights = seconds.pop("weights", 0.0)
        tail = seconds.pop("encoding", 0.0)
        run = max(0.0, sum(seconds.values()) - weights)
        expected = running.expected_seconds
        self._dispatcher.ended(running.account_id, work.model, expected_seconds=expected, seconds=run + weights)
        spec = self._catalog.specs.get(work.model)
        if spec is None or running.recipe_index >= len(spec.ways):
            return
        recipe = spec.ways[running.recipe_index]
        shape, count = shape_of(work), counted(spec, recipe, work)

        def took(kind: Kind, shape: str, operations: float, seconds: float) -> Timing:
            return Timing(
                kind=kind,
                model=spec.name,
                recipe=recipe.name,
                card=slot.name,
                shape=shape,
                operations=operations,
                seconds=seconds,
            )

        timings = [took("run", shape, count, run), took("tail", shape, count, tail), took("load", "", 0.0, weights)]
        timings = [timing for timing in timings if timing.seconds > 0]
        for timing in timings:
            self._estimates.learn(timing)
        self._jobs.timed(timings)


def run_message(job: ClaimedJob, spec: ModelSpec, start: Start, folder: str, check: Check | None, rules: Rules) -> Run:
    """The order that a child is given."""
    work = job.work
    return Run(
        job_id=job.job_id,
        token=job.token,
        type=work.type,
        model=spec,
        weights_dir=folder,
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
        recipe=start.way.recipe,
        evict=start.evict,
        reference=job.reference_path,
        strength=work.strength,
        preview_steps=rules.preview_steps,
        check=check,
    )
