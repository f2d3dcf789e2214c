"""A small aligned table: the first column is read from the left, the others from the right; a missed aim is marked."""

from __future__ import annotations

from collections.abc import Sequence


def show(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a title, the columns' heads and the rows; every row has as many cells as there are heads."""
    widths = [max(len(row[place]) for row in (heads, *rows)) for place in range(len(heads))]
    print(f"\n{title}")
    for row in (heads, *rows):
        first, *others = (
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join((first, *others)).rstrip(), flush=True)


def aim(value: float, bound: float, unit: str) -> str:
    """The aim for a cell beside its figure: `< 60 ms`, and whether it was missed."""
    return f"< {bound:g} {unit}" if value < bound else f"< {bound:g} {unit} MISSED"


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
