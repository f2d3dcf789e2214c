"""What a plan costs, and which one counts in a month: terms of a month or a year, each paid for in its first month."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from msgspec import Struct, field

from tests.machine.months import month_after

MONTH_MICROS, YEAR_MICROS = 99_000_000, 948_000_000


class PlanModel(Struct):
    """One account's: the term that runs until `until` (exclusive), what follows it, and the fees of each month."""

    plan: Literal["max", "free"]
    begun: str
    follows: Literal["month", "year", "nothing"] = "month"
    until: str = ""
    is_year: bool = False
    fees: Counter[str] = field(default_factory=Counter[str])
    terms: list[tuple[str, bool]] = field(default_factory=list[tuple[str, bool]])

    def counts_in(self, month: str) -> str:
        """The plan that a month has: a cancelled one until its paid term has ended."""
        if self.plan == "free" or (self.follows == "nothing" and self.until != "" and month >= self.until):
            return "free"
        return "max"

    def roll(self, month: str) -> None:
        """Everything that has begun or ended up to this month."""
        while self.plan == "max" and self.until <= month:
            if self.follows == "nothing" and self.until:
                self.plan = "free"
            else:
                self._begin(self.until or min(month, self.begun), self.follows == "year")

    def _begin(self, month: str, is_year: bool) -> None:
        self.fees[month] += YEAR_MICROS if is_year else MONTH_MICROS
        self.terms.append((month, is_year))
        self.is_year, self.until = is_year, month_after(month, 12 if is_year else 1)

    def choose(self, plan: str, annual: bool, month: str) -> None:
        """More begins at once, less when the paid term has ended; a year begun replaces the month that runs."""
        self.roll(month)
        if plan == "free":
            if self.plan == "max":
                self.follows = "nothing"
            return
        follows = "year" if annual else "month"
        if self.plan == "free":
            self.plan, self.follows = "max", follows
            self._begin(month, annual)
        elif annual and not self.is_year:
            self.fees[month] = 0
            self.follows = follows
            self._begin(month, is_year=True)
        else:
            self.follows = follows

    def undo_after(self, month: str) -> None:
        """The clock was wrong: terms that begin after this month have not begun, and one that had to end runs on.

        What was chosen stays chosen. Months that were without a plan are not charged for.
        """
        for later in [begun for begun in self.fees if begun > month]:
            self.fees[later] = 0
        self.terms = [term for term in self.terms if term[0] <= month]
        if not self.terms:
            self.until = min(month, self.until) if self.plan == "max" else self.until
            return
        start, is_year = self.terms[-1]
        if self.plan == "free" and self.until > month:
            self.plan, self.follows, self.is_year = "max", "nothing", is_year
        until = max(month_after(start, 12 if is_year else 1), month)
        if self.plan == "max" and until < self.until:
            self.is_year, self.until = is_year, until
