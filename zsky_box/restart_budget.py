"""How often a worker child may be replaced: a few times with growing pauses, then a rest. The caller has the clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

FAILED_JOBS_MAX: Final = 2


@dataclass(kw_only=True)
class RestartBudget:
    """At most `restarts` unexpected deaths within `within_seconds` are answered by a new child; one more quarantines.

    So do two jobs within that time that met an error of the device itself: a card that fails has no use for more of
    them. One job that meets it twice may as well have caused it, and counts once. The k-th restart within the window
    waits `backoff_seconds`·2^(k-1), at most `backoff_max_seconds`. A quarantine lasts `cool_down_seconds`, and after it
    the device starts with a clean record. All instants are monotonic seconds.
    """

    restarts: int = 5
    within_seconds: float = 600.0
    backoff_seconds: float = 0.5
    backoff_max_seconds: float = 30.0
    cool_down_seconds: float = 900.0
    reason: str = field(default="", init=False)
    """Why the last quarantine was, in a clause about the device."""
    _deaths: deque[float] = field(default_factory=deque[float], init=False)
    _failures: dict[str, float] = field(default_factory=dict[str, float], init=False)
    _start_at: float = field(default=0.0, init=False)
    _quarantined_until: float | None = field(default=None, init=False)

    def died(self, now: float, failed_job: str = "") -> None:
        """Record an unexpected death (a child that was asked to stop does not count).

        `failed_job` is the job that met an error of the device, where that is why the child is gone.
        """
        since = now - self.within_seconds
        while self._deaths and self._deaths[0] < since:
            self._deaths.popleft()
        self._deaths.append(now)
        self._failures = {job: at for job, at in self._failures.items() if at >= since}
        if failed_job:
            self._failures[failed_job] = now
        if len(self._failures) >= FAILED_JOBS_MAX:
            self._quarantine(now, "reported errors to one job after another")
        elif len(self._deaths) > self.restarts:
            self._quarantine(now, f"lost {len(self._deaths)} workers in {self.within_seconds:g} s")
        else:
            pause_seconds = self.backoff_seconds * 2 ** (len(self._deaths) - 1)
            self._start_at = now + min(pause_seconds, self.backoff_max_seconds)

    def _quarantine(self, now: float, reason: str) -> None:
        self._deaths.clear()
        self._failures.clear()
        self.reason = reason
        self._quarantined_until = self._start_at = now + self.cool_down_seconds

    def wait_seconds(self, now: float) -> float:
        """How long from `now` until the next child may be started; 0 where it may be started at once."""
        return max(0.0, self._start_at - now)

    def is_quarantined(self, now: float) -> bool:
        """Whether the device rests because its children kept dying."""
        return self._quarantined_until is not None and now < self._quarantined_until
