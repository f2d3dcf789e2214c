"""Tables as CSV (RFC 4180) that a spreadsheet may open: what clients have written is never read as a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

MEDIA_TYPE: Final = "text/csv; header=present"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")

Cell = str | int | None


def lines(rows: Iterable[Sequence[Cell]]) -> bytes:
    """Rows as bytes, each ended by CR LF; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def told(text: str) -> str:
    """What a person has written, as a cell: one that would begin a formula gets an apostrophe before it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def compact(value: Any) -> str:
    """JSON in a cell; an empty object is an empty cell. It begins with a bracket, never a formula."""
    return msgspec.json.encode(value).decode() if value else ""
