"""How often a worker child may be replaced: a few times with growing pauses, then a rest. The caller has the clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class RestartBudget:
    """At most `restarts` unexpected deaths within `within_seconds` are answered by a new child; one more quarantines.

    The k-th restart within the window waits `backoff_seconds`·2^(k-1), at most `backoff_max_seconds`. A quarantine
    lasts `cool_down_seconds`, and after it the device starts with a clean record. All instants are monotonic seconds.
    """

    restarts: int = 5
    within_seconds: float = 600.0
    backoff_seconds: float = 0.5
    backoff_max_seconds: float = 30.0
    cool_down_seconds: float = 900.0
    _deaths: deque[float] = field(default_factory=deque[float], init=False)
    _start_at: float = field(default=0.0, init=False)
    _quarantined_until: float | None = field(default=None, init=False)

    def died(self, now: float) -> None:
        """Record an unexpected death (a child that was asked to stop does not count)."""
        while self._deaths and now - self._deaths[0] > self.within_seconds:
            self._deaths.popleft()
        self._deaths.append(now)
        if len(self._deaths) > self.restarts:
            self._deaths.clear()
            self._quarantined_until = self._start_at = now + self.cool_down_seconds
        else:
            pause_seconds = self.backoff_seconds * 2 ** (len(self._deaths) - 1)
            self._start_at = now + min(pause_seconds, self.backoff_max_seconds)

    def wait_seconds(self, now: float) -> float:
        """How long from `now` until the next child may be started; 0 where it may be started at once."""
        return max(0.0, self._start_at - now)

    def is_quarantined(self, now: float) -> bool:
        """Whether the device rests because its children kept dying."""
        return self._quarantined_until is not None and now < self._quarantined_until
