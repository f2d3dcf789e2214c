"""Whose turn it is: start-time fair queueing over the accounts, and over the models of each. Pure.

Each account has had so many card-seconds; whoever has had least comes next (Goyal, Vin and Cheng, "Start-time Fair
Queueing", 1996). An account that comes back begins where the others are: time in which it asked for nothing is not
saved up. Within an account the same rule holds between its models, so that an image need not wait behind 300 clips.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

REMEMBERED_MAX: Final = 10_000


class Shares:
    """The card-seconds of each claimant, as tags of virtual time."""

    def __init__(self) -> None:
        self._tags: dict[str, float] = {}
        self._present: set[str] = set()
        self.now = 0.0

    def meet(self, claimants: Iterable[str]) -> None:
        """These want something at present; who did not until now begins at the present virtual time."""
        present = set(claimants)
        for claimant in present - self._present:
            self._tags[claimant] = max(self._tags.get(claimant, 0.0), self.now)
        self._present = present
        if len(self._tags) > REMEMBERED_MAX:
            self._tags = {
                claimant: tag for claimant, tag in self._tags.items() if tag > self.now or claimant in present
            }

    def tag(self, claimant: str) -> float:
        """The virtual time up to which a claimant has been served."""
        return self._tags.get(claimant, self.now)

    def tags(self) -> dict[str, float]:
        """All of them, as they are now."""
        return self._tags.copy()

    def serve(self, claimant: str, seconds: float) -> None:
        """A claimant was given so many seconds of a card."""
        start = self.tag(claimant)
        self.now = max(self.now, start)
        self._tags[claimant] = start + seconds

    def correct(self, claimant: str, seconds: float) -> None:
        """What it was given turned out to be so much longer (or shorter: negative)."""
        if claimant in self._tags:
            self._tags[claimant] += seconds
