"""The machine that Hypothesis drives: each rule is one thing that is done in a world; after it, every rule holds."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.machine import clients, mishaps, owner, workers
from tests.machine.clients import Submit
from tests.machine.world import RECENT, World
from zsky_box.jobs.book import Attempt

MINUTE, DAY = 60, 86_400
USD = 1_000_000
MEMORY = Path("/dev/shm")  # noqa: S108 - a fresh folder in it
WHO = st.integers(0, 2)
LINE = st.integers(0, 1)
PICK = st.integers(0, RECENT - 1)
LIMITS = st.sampled_from([None, 0, 600_000, 2_390_000, 2_400_000, 5_990_000, 20 * USD])
CAPS = st.sampled_from([5 * USD, 6 * USD, 6 * USD, 12 * USD, 20 * USD, 1_000 * USD, 4_990_000, 1_001 * USD])
RULES = st.sampled_from([None, (2 * USD, 3 * USD, 9 * USD), (40 * USD, 6 * USD, 6 * USD), (1 * USD, 4 * USD, 4 * USD)])
ZONES = st.sampled_from(["UTC", "America/Havana", "Pacific/Kiritimati", "America/Asuncion", "Asia/Kathmandu"])
CODES = st.sampled_from(
    ["internal_error", "gpu_timeout", "out_of_memory", "safety_blocked", "cancelled", "encode_failed"]
)


def has_jobs(machine: Life) -> bool:
    return bool(machine.world.known)


def has_work(machine: Life) -> bool:
    return bool(machine.world.attempts or machine.world.rooms.queued(test=False))


class Life(RuleBasedStateMachine):
    """Jobs, workers, time and crashes; the money is in `MoneyLife`."""

    def __init__(self) -> None:
        super().__init__()
        # Where there is memory to write to, nobody waits for a disk: what is under test here survives no power cut.
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.world = World(self.folder)

    def teardown(self) -> None:
        self.world.rooms.close()
        shutil.rmtree(self.folder)

    def attempt(self, pick: int) -> Attempt:
        found = workers.some_attempt(self.world, pick)
        assume(found is not None)
        assert found is not None
        return found

    @initialize(
        units=st.lists(st.integers(1, 4), min_size=2, max_size=4),
        step=st.booleans(),
        wallet=st.sampled_from([0, 4 * USD, 7 * USD, 50 * USD]),
    )
    def begin_late_in_the_month(self, units: list[int], step: bool, wallet: int) -> None:
        """Hypothesis leaves some rules out of each life: without these jobs, many would have none."""
        self.world.rooms.clock.set("2026-11-29T12:00:00Z")
        for who in range(3) if wallet else ():
            owner.toggle(self.world, who, enabled=True)
            owner.topup(self.world, who, wallet)
        for who, n in enumerate(units):
            clients.submit(self.world, Submit(who=who % 3, n=n))
        if step:
            workers.progress(self.world, self.attempt(0), "denoising", 1)

    # Clients

    @rule(
        who=WHO,
        line=st.sampled_from([0, 1, 0, 1, None]),
        kind=st.sampled_from(["image", "image", "video"]),
        n=st.integers(1, 6),
        key=st.sampled_from([None, None, None, None, "a", "b"]),
        deadline=st.sampled_from([None, None, MINUTE, DAY]),
    )
    def submit(self, **asked: Any) -> None:
        clients.submit(self.world, Submit(**asked))

    @rule(who=WHO, line=LINE, kind=st.sampled_from(["image", "video"]))
    def submit_until_refused(self, who: int, line: int, kind: str) -> None:
        """A runaway script: it stops at the first refusal, which comes at the latest where its queue is full."""
        before = -1
        while before < len(self.world.known):
            before = len(self.world.known)
            clients.submit(self.world, Submit(who=who, line=line, kind=kind, n=3))

    @rule(n=st.integers(1, 3), key=st.sampled_from([None, "a"]))
    def submit_for_a_test(self, n: int, key: str | None) -> None:
        clients.submit(self.world, Submit(test=True, n=n, key=key))

    @precondition(has_jobs)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        clients.cancel(self.world, pick)

    @precondition(has_jobs)
    @rule(pick=PICK)
    def delete(self, pick: int) -> None:
        clients.delete(self.world, pick)

    # Workers

    @rule(test=st.sampled_from([False, False, True]))
    def claim_all(self, test: bool) -> None:
        workers.claim_all(self.world, test=test)

    @precondition(has_work)
    @rule(pick=PICK, phase=st.sampled_from(["loading", "denoising", "encoding"]), step=st.integers(0, 8))
    def progress(self, pick: int, phase: str, step: int) -> None:
        workers.progress(self.world, self.attempt(pick), phase, step)

    @precondition(has_work)
    @rule(pick=PICK, whole=st.booleans(), only=st.integers(0, 3))
    def complete(self, pick: int, whole: bool, only: int) -> None:
        workers.complete(self.world, self.attempt(pick), whole=whole, only=only)

    @rule()
    def complete_all(self) -> None:
        for attempt in workers.claim_all(self.world, test=False):
            workers.complete(self.world, attempt, whole=True, only=0)

    @precondition(has_work)
    @rule(pick=PICK, code=CODES)
    def fail(self, pick: int, code: str) -> None:
        workers.fail(self.world, self.attempt(pick), code)

    @precondition(has_work)
    @rule(pick=PICK, attempts_max=st.integers(1, 3))
    def retry(self, pick: int, attempts_max: int) -> None:
        workers.retry(self.world, self.attempt(pick), attempts_max)

    @precondition(has_work)
    @rule(pick=PICK)
    def release(self, pick: int) -> None:
        workers.release(self.world, self.attempt(pick))

    @precondition(has_work)
    @rule(pick=PICK, endings=st.tuples(st.sampled_from("cfr"), st.sampled_from("fr")))
    def end_twice(self, pick: int, endings: tuple[str, str]) -> None:
        for ending in endings:
            if ending == "c":
                self.complete(pick, whole=True, only=0)
            elif ending == "f":
                self.fail(pick, "gpu_timeout")
            else:
                self.retry(pick, 3)

    # Time and crashes

    @precondition(has_work)
    @rule(pick=PICK, point=st.sampled_from(sorted(mishaps.KILLED_AT)), result=st.booleans())
    def the_box_is_killed_while_it_ends_a_job(self, pick: int, point: str, result: bool) -> None:
        mishaps.kill_while_ending(self.world, self.attempt(pick), point, result=result)

    @rule(seconds=st.sampled_from([1, MINUTE, DAY, 3 * DAY, 35 * DAY, -9 * MINUTE, -DAY]))
    def the_clock_jumps_and_the_late_expire(self, seconds: int) -> None:
        mishaps.jump(self.world, seconds)

    @rule(seconds_after=st.sampled_from([-1, 0, 1]))
    def the_month_ends(self, seconds_after: int) -> None:
        mishaps.jump_to_the_months_end(self.world, seconds_after)

    @rule()
    def the_box_stops_and_starts(self) -> None:
        mishaps.stop_and_start(self.world)

    # What must always be true

    @invariant()
    def every_account_stands_where_the_model_says(self) -> None:
        self.world.check_step()

    @invariant()
    def every_rule_holds_and_nothing_that_was_told_is_taken_back(self) -> None:
        self.world.check_all()


class MoneyLife(Life):
    """What the owner and the users do with money, plans and keys."""

    @rule(who=WHO, amount=st.sampled_from([0, 1 * USD, 2_650_000, 10 * USD, 50 * USD]))
    def topup(self, who: int, amount: int) -> None:
        owner.topup(self.world, who, amount)

    @rule(who=WHO, amount=st.sampled_from([-2 * USD, -50_000, 0, 50_000]))
    def correct(self, who: int, amount: int) -> None:
        owner.correct(self.world, who, amount)

    @precondition(has_jobs)
    @rule(pick=PICK, ordinals=st.sampled_from([None, frozenset({0}), frozenset({1, 2}), frozenset[int]()]))
    def refund(self, pick: int, ordinals: frozenset[int] | None) -> None:
        owner.refund(self.world, clients.recent(self.world, pick).id, ordinals)

    @rule(who=WHO, enabled=st.sampled_from([None, True, True, False]))
    def toggle(self, who: int, enabled: bool | None) -> None:
        owner.toggle(self.world, who, enabled)

    @rule(who=WHO, cap=CAPS)
    def set_cap(self, who: int, cap: int) -> None:
        owner.set_cap(self.world, who, cap)

    @rule(who=WHO, ceiling=LIMITS)
    def set_the_accounts_ceiling(self, who: int, ceiling: int | None) -> None:
        owner.set_ceiling(self.world, who, ceiling)

    @rule(ceiling=LIMITS)
    def set_the_boxes_ceiling(self, ceiling: int | None) -> None:
        owner.set_box_ceiling(self.world, ceiling)

    @rule(who=WHO, line=LINE, cap=LIMITS)
    def set_the_keys_cap(self, who: int, line: int, cap: int | None) -> None:
        owner.set_key_cap(self.world, who, line, cap)

    @rule(who=WHO, which=RULES)
    def set_the_rule(self, who: int, which: tuple[int, int, int] | None) -> None:
        owner.set_rule(self.world, who, which)

    @rule(who=WHO, line=LINE, overlap=st.sampled_from([0, MINUTE]))
    def rotate_a_key(self, who: int, line: int, overlap: int) -> None:
        owner.rotate(self.world, who, line, overlap)

    @rule(who=WHO, plan=st.sampled_from(["max", "free"]), annual=st.booleans())
    def choose_a_plan(self, who: int, plan: str, annual: bool) -> None:
        owner.choose_plan(self.world, who, plan, annual)

    @rule()
    def the_hourly_sweep(self) -> None:
        owner.sweep(self.world)

    @rule()
    def the_owner_accepts_the_clock(self) -> None:
        owner.accept_clock(self.world)

    @rule(zone=ZONES)
    def the_box_starts_in_another_zone(self, zone: str) -> None:
        mishaps.start_in_another_zone(self.world, zone)
