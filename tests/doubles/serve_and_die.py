"""The whole service, which kills itself at a named point: `… serve_and_die DATA PORT POINT COUNT DAYS [NAME=VALUE …]`.

A point is a method of the service and a side of it. The `COUNT`-th time it is reached in a way that matters, the
process ends as a power cut would end it: at once, in the middle, from inside. `never` is the service unharmed. Its
clock is `DAYS` ahead.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

from tests.doubles import serve
from zsky_box import clock, control, ledger, overage, plans, statements
from zsky_box.api import overage as overage_routes
from zsky_box.assets import Assets
from zsky_box.bookkeeping import Bookkeeping
from zsky_box.db import Store
from zsky_box.feed import Feed
from zsky_box.jobs.book import JobBook
from zsky_box.jobs.desk import Desk
from zsky_box.ledger import charge, wallet
from zsky_box.statements import closing

within = threading.local()


def always(*_: Any) -> bool:
    return True


def denoises(_book: Any, _job_id: str, _token: int, phase: str, step: int, _steps: int) -> bool:
    return phase == "denoising" and step >= 1


def tells_the_end(_feed: Any, _channel: Any, kind: str, _job_id: str, data: dict[str, Any]) -> bool:
    return kind == "status" and data["status"] == "completed"


def is_of_an_attempt(_assets: Any, _job_id: str, token: int | None = None) -> bool:
    return token is not None  # without one it is the start that tidies up


def has_something_to_remove(assets: Any, _now: int) -> bool:
    return bool(assets._store.all("SELECT 1 FROM asset WHERE removed_at IS NOT NULL AND purged_at IS NULL"))


def is_within_purge(*_: Any) -> bool:
    return bool(getattr(within, "purge", False))


def fills(tx: Any, account: Any, need: int, period: Any, _at: int) -> bool:
    return need > 0 and wallet.replenishable_micros(tx, account, need, period.key) > 0


def asks_for(*kinds: type) -> Callable[..., bool]:
    def matters(command: control.Command, _means: control.Means) -> bool:
        return isinstance(command, kinds)

    return matters


def changes(name: str) -> Callable[..., bool]:
    def matters(_box: Any, _caller: Any, _key: Any, change: Callable[..., Any]) -> bool:
        return change.__qualname__.startswith(name)

    return matters


def closes(books: Any, account: Any) -> bool:
    with books._store.snapshot() as rows:
        return statements.is_due(rows, account, books._clock(), books._terms)


@dataclass(frozen=True)
class Point:
    """Where the process dies: before or after a call of `owner.name` that matters."""

    owner: type | ModuleType
    name: str
    side: Literal["before", "after"]
    matters: Callable[..., bool] = always


POINTS = {
    "submit, before COMMIT": Point(Desk, "_submit", "after"),
    "submit, after COMMIT and before the answer": Point(Desk, "submit", "after"),
    "claimed, without a folder": Point(Assets, "begin", "before"),
    "the attempt's folder made": Point(Assets, "begin", "after"),
    "while it runs": Point(JobBook, "progress", "after", denoises),
    "done, before the files are adopted": Point(Assets, "adopt", "before"),
    "files adopted, before COMMIT": Point(Assets, "adopt", "after"),
    "completed in a transaction without COMMIT": Point(JobBook, "_complete", "after"),
    "completed, before anybody is told": Point(Feed, "publish", "before", tells_the_end),
    "failed in a transaction without COMMIT": Point(JobBook, "_fail", "after"),
    "failed, before its files are discarded": Point(Assets, "discard", "before", is_of_an_attempt),
    "removal recorded, before the file is unlinked": Point(Assets, "purge", "before", has_something_to_remove),
    "file unlinked, before that is recorded": Point(Store, "write", "before", is_within_purge),
}

MONEY_POINTS = {
    "reserve from the wallet, before COMMIT": Point(charge, "_hold_money", "after"),
    "reserve from the wallet, after COMMIT and before the answer": Point(Desk, "submit", "after"),
    "replenish within a reserve, before COMMIT": Point(wallet, "replenish", "after", fills),
    "top-up, before COMMIT": Point(overage, "topup", "after"),
    "top-up, after COMMIT and before the answer": Point(control, "run", "after", asks_for(control.TopUp)),
    "refund, before COMMIT": Point(ledger, "refund", "after"),
    "refund, after COMMIT and before the answer": Point(control, "run", "after", asks_for(control.RefundJob)),
    "toggle, before COMMIT": Point(overage, "toggle", "after"),
    "toggle, after COMMIT and before the answer": Point(overage_routes, "_changed", "after", changes("toggle")),
    "cap, before COMMIT": Point(overage, "set_cap", "after"),
    "cap, after COMMIT and before the answer": Point(overage_routes, "_changed", "after", changes("set_cap")),
    "plan change, before COMMIT": Point(plans, "choose", "after"),
    "plan change, after COMMIT and before the answer": Point(control, "run", "after", asks_for(control.ChoosePlan)),
    "posted from the wallet, before COMMIT": Point(JobBook, "_complete", "after"),
}
CLOSING_POINTS = {
    "closing, before COMMIT": Point(closing, "_close", "after"),
    "closing, after COMMIT": Point(Bookkeeping, "_keep", "after", closes),
}
ALL_POINTS = POINTS | MONEY_POINTS | CLOSING_POINTS


def die() -> None:
    """What `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()  # not a line further, on this thread or another


def arm(point: Point, count: int) -> None:
    """Wrap the point's method so that its `count`-th call that matters is the process's last."""
    reached = itertools.count(1)
    original = getattr(point.owner, point.name)

    def is_time(*arguments: Any) -> bool:
        return point.matters(*arguments) and next(reached) == count

    @functools.wraps(original)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        last = is_time(*arguments)
        if last and point.side == "before":
            die()
        result = original(*arguments, **options)
        if last:
            die()
        return result

    @functools.wraps(original)
    async def wrapped_async(*arguments: Any, **options: Any) -> Any:
        result = await original(*arguments, **options)
        if is_time(*arguments):
            die()
        return result

    setattr(point.owner, point.name, wrapped_async if inspect.iscoroutinefunction(original) else wrapped)


def mark_purge() -> None:
    """Note on each thread whether it is in `Assets.purge`."""
    original = Assets.purge

    def marked(self: Assets, now: int) -> int:
        within.purge = True
        try:
            return original(self, now)
        finally:
            within.purge = False

    Assets.purge = marked


def set_clock_ahead(days: int) -> None:
    """Months do not pass while a test runs: its clock is set."""
    ahead_ns = days * 86_400 * 10**9
    clock.__dict__["time"] = SimpleNamespace(time_ns=lambda: time.time_ns() + ahead_ns)


def main(folder: str, port: str, point: str, count: str, days: str, *options: str) -> int:
    """Serve until the point is reached, or for ever."""
    mark_purge()
    set_clock_ahead(int(days))
    if point != "never":
        arm(ALL_POINTS[point], int(count))
    return serve.main(folder, port, *options)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
