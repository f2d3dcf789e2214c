"""What can happen in a simulated life, and how often: each action draws what it needs from the life's dice."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from tests.machine import clients, mishaps, owner, workers
from tests.machine.clients import Submit
from tests.machine.world import RECENT, World
from tests.stores import made
from zsky_box.errors import JobFailure, Refusal
from zsky_box.jobs.book import Attempt

USD: Final = 1_000_000
DAY: Final = 86_400
CODES: Final[tuple[Any, ...]] = (
    "internal_error",
    "gpu_timeout",
    "out_of_memory",
    "safety_blocked",
    "cancelled",
    "encode_failed",
)
LIMITS: Final = (None, None, 0, 600_000, 2_390_000, 2_400_000, 5_990_000, 20 * USD)
RULES: Final = (None, (3 * USD, 3 * USD, 9 * USD), (40 * USD, 6 * USD, 6 * USD), (8 * USD, 10 * USD, 40 * USD))
ZONES: Final = ("UTC", "America/Havana", "Pacific/Kiritimati", "America/Asuncion", "Europe/London")


class Action(NamedTuple):
    """`weight` says how often, compared with the others; `may_fail` whether the disk may fail in it.

    After a start that has failed, the box starts again.
    """

    weight: int
    do: Callable[[World, Random], None]
    may_fail: bool = True
    starts: bool = False

    @property
    def name(self) -> str:
        """As it is counted and told of."""
        return self.do.__name__


def submit(world: World, dice: Random) -> None:
    asked = Submit(
        who=dice.randrange(3),
        line=dice.choice((0, 0, 1, None)),
        kind=dice.choice(("image", "image", "video")),
        n=dice.randint(1, 6),
        key=dice.choice((None, None, f"k{dice.randrange(30)}")),
        deadline=dice.choice((None, None, 60, DAY)),
    )
    clients.submit(world, asked)


def submit_for_a_test(world: World, dice: Random) -> None:
    clients.submit(world, Submit(test=True, n=dice.randint(1, 3), key=dice.choice((None, "t"))))


def submit_the_same_again(world: World, dice: Random) -> None:
    """A client that has heard nothing, or that has forgotten."""
    if world.answers:
        account_id, test, key = dice.choice(sorted(world.answers))
        who = next(number for number, person in enumerate(world.people) if person.account_id == account_id)
        kind, n, deadline = world.answers[account_id, test, key][0].decode().split()
        until = None if deadline == "None" else int(deadline)
        again = Submit(who=who, line=dice.randrange(2), test=test, kind=kind, n=int(n), key=key, deadline=until)
        clients.submit(world, again)


def cancel(world: World, dice: Random) -> None:
    if world.known:
        clients.cancel(world, dice.randrange(RECENT))


def delete(world: World, dice: Random) -> None:
    if world.known:
        clients.delete(world, dice.randrange(RECENT))


def claim(world: World, dice: Random) -> None:
    workers.claim_all(world, test=dice.random() < 0.2)


def progress(world: World, dice: Random) -> None:
    if attempt := workers.some_attempt(world, dice.randrange(RECENT)):
        workers.progress(world, attempt, dice.choice(("loading", "denoising", "encoding")), dice.randint(0, 8))


def complete(world: World, dice: Random) -> None:
    if attempt := workers.some_attempt(world, dice.randrange(RECENT)):
        _settle(world, dice, attempt)


def complete_all(world: World, dice: Random) -> None:
    for attempt in workers.claim_all(world, test=False):
        _settle(world, dice, attempt)


def _settle(world: World, dice: Random, attempt: Attempt) -> None:
    """A result that cannot be stored at once is stored again, or the job is given up, as the settler does."""
    whole, only, again = dice.random() < 0.8, dice.randrange(6), dice.random() < 0.5
    try:
        workers.complete(world, attempt, whole=whole, only=only)
    except (JobFailure, Refusal):
        if not world.disk_may_fail:
            raise
        if not world.is_dead() and workers.is_current(world, attempt):
            _settle_otherwise(world, attempt, again=again)


def _settle_otherwise(world: World, attempt: Attempt, *, again: bool) -> None:
    if again and world.rooms.assets.attempt_folder(attempt.job_id, attempt.token).is_dir():
        world.rooms.book.complete(made(attempt), "CPU", {})
        assert world.rooms.row(attempt.job_id)["status"] == "completed"
    else:
        assert world.rooms.end(attempt, "storage_full")


def fail(world: World, dice: Random) -> None:
    if attempt := workers.some_attempt(world, dice.randrange(RECENT)):
        workers.fail(world, attempt, dice.choice(CODES))


def retry(world: World, dice: Random) -> None:
    if attempt := workers.some_attempt(world, dice.randrange(RECENT)):
        workers.retry(world, attempt, dice.randint(1, 3))


def release(world: World, dice: Random) -> None:
    if attempt := workers.some_attempt(world, dice.randrange(RECENT)):
        workers.release(world, attempt)


def refund(world: World, dice: Random) -> None:
    """Mostly of a job that something was paid for."""
    jobs = list(world.known)[-RECENT:]
    paid = [job_id for job_id, units in world.model.jobs.items() if any(unit.state == "posted" for unit in units)]
    if jobs:
        chosen = dice.choice(paid[-10:] if paid and dice.random() < 0.8 else jobs)
        owner.refund(world, chosen, dice.choice((None, frozenset({0}), frozenset({1, 2}), frozenset[int]())))


def rotate(world: World, dice: Random) -> None:
    owner.rotate(world, dice.randrange(3), dice.randrange(2), dice.choice((0, 60)))


def jump(world: World, dice: Random) -> None:
    mishaps.jump(world, dice.choice((1, 60, 3_600, DAY, 3 * DAY, -9 * 60)))


def leap(world: World, dice: Random) -> None:
    """Months pass, or a clock is set back so far that nothing is taken until the owner accepts it."""
    mishaps.jump(world, dice.choice((35 * DAY, 400 * DAY, -DAY, -40 * DAY)))


def month_end(world: World, dice: Random) -> None:
    mishaps.jump_to_the_months_end(world, dice.choice((-1, 0, 1)))


def top_up(world: World, dice: Random) -> None:
    owner.topup(world, dice.randrange(3), dice.choice((0, 3, 12, 40)) * USD)


def correct(world: World, dice: Random) -> None:
    owner.correct(world, dice.randrange(3), dice.choice((-2 * USD, -50_000, 0, 50_000)))


def toggle(world: World, dice: Random) -> None:
    owner.toggle(world, dice.randrange(3), dice.choice((None, True, True, True)))


def cap(world: World, dice: Random) -> None:
    owner.set_cap(world, dice.randrange(3), dice.choice((4, 6, 6, 6, 12, 1_000)) * USD)


def ceiling(world: World, dice: Random) -> None:
    owner.set_ceiling(world, dice.randrange(3), dice.choice(LIMITS))


def box_ceiling(world: World, dice: Random) -> None:
    owner.set_box_ceiling(world, dice.choice(LIMITS))


def key_cap(world: World, dice: Random) -> None:
    owner.set_key_cap(world, dice.randrange(3), dice.randrange(2), dice.choice(LIMITS))


def rule(world: World, dice: Random) -> None:
    owner.set_rule(world, dice.randrange(3), dice.choice(RULES))


def plan(world: World, dice: Random) -> None:
    owner.choose_plan(world, dice.randrange(3), dice.choice(("max", "max", "free")), annual=dice.random() < 0.4)


def sweep(world: World, _: Random) -> None:
    owner.sweep(world)


def accept_the_clock(world: World, _: Random) -> None:
    owner.accept_clock(world)


def stop_and_start(world: World, _: Random) -> None:
    mishaps.stop_and_start(world)


def another_zone(world: World, dice: Random) -> None:
    mishaps.start_in_another_zone(world, dice.choice(ZONES))


ACTIONS: Final = (
    Action(30, submit),
    Action(3, submit_for_a_test),
    Action(6, submit_the_same_again),
    Action(5, cancel),
    Action(3, delete),
    Action(10, claim),
    Action(10, progress, may_fail=False),  # its writes may share a commit or not
    Action(22, complete),
    Action(3, complete_all),
    Action(8, fail),
    Action(4, retry),
    Action(2, release),
    Action(8, refund),
    Action(9, top_up),
    Action(2, correct),
    Action(6, toggle),
    Action(4, cap),
    Action(2, ceiling),
    Action(2, box_ceiling),
    Action(2, key_cap),
    Action(3, rule),
    Action(2, rotate),
    Action(4, plan),
    Action(4, sweep),
    Action(2, accept_the_clock),
    Action(8, jump),
    Action(1, leap),
    Action(3, month_end),
    Action(2, stop_and_start, starts=True),
    Action(1, another_zone, starts=True),
)
