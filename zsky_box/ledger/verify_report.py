"""What a rule is, what a verification says, and how it tells how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from msgspec import Struct

from zsky_box.db import Row, Rows

Told = Callable[[int], None]
"""Called now and then with the number of rows read since the last call."""
_TOLD_EVERY_ROWS: Final = 5_000


class Fault(Struct, frozen=True):
    """The first row that breaks a rule: in which table, which one, and a sentence that says how."""

    rule: str
    table: str
    row: str
    told: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.table} {self.row} {self.told}"


class Rule(Struct, frozen=True):
    """A sentence that holds for every row of a table, and the query for those that break it: `row` and `told`."""

    name: str
    table: str
    broken: str

    def first_fault(self, rows: Rows) -> Fault | None:
        """The first row that breaks the rule, or None."""
        for row in rows.each(self.broken):
            return Fault(self.name, self.table, str(row["row"]), str(row["told"]))
        return None


class Report(Struct, frozen=True):
    """What was read, and the first broken row of each rule that is broken."""

    transfers: int
    audit_rows: int
    jobs: int
    files: int | None
    """None where they were not looked at."""
    faults: tuple[Fault, ...]

    @property
    def first(self) -> Fault | None:
        """The first fault of all, None where everything holds."""
        return self.faults[0] if self.faults else None


class Watched(Rows):
    """One state of the store whose long reads are counted while they go on."""

    def __init__(self, rows: Rows, told: Told) -> None:
        self._rows = rows
        self._told = told

    def one(self, sql: str, parameters: dict[str, Any] | tuple[Any, ...] = ()) -> Row | None:
        """The first row or None."""
        return self._rows.one(sql, parameters)

    def all(self, sql: str, parameters: dict[str, Any] | tuple[Any, ...] = ()) -> list[Row]:
        """All rows of a bounded query."""
        return self._rows.all(sql, parameters)

    def each(self, sql: str, parameters: dict[str, Any] | tuple[Any, ...] = ()) -> Iterator[Row]:
        """Row by row, told of in portions."""
        read = 0
        for row in self._rows.each(sql, parameters):
            yield row
            read += 1
            if read == _TOLD_EVERY_ROWS:
                self._told(read)
                read = 0
        self._told(read)
