"""A statement as a person reads it: fees, units, a line for each charge with its job, and totals that add up."""

from __future__ import annotations

from collections.abc import Iterator

from zsky_box.clock import rfc3339
from zsky_box.db import Row
from zsky_box.pricing import usd
from zsky_box.statements.reading import Pages, Statement, credit_pages, line_pages, signed_micros
from zsky_box.statements.rendering import why

_AMOUNT_WIDTH = 12


def text_pieces(store: Pages, found: Statement) -> Iterator[bytes]:
    """Its lines in pieces of a page each."""
    yield _text(_head(found))
    for page in line_pages(store, found):
        yield _text(
            [
                _line(
                    f"{rfc3339(row['at'])}  {row['kind']:<6}  {row['type']:<5}  {row['job_id']}/{row['ordinal']}"
                    f"{_note(row)}",
                    signed_micros(row),
                )
                for row in page
            ]
        )
    yield _text([_line("Overage", found.overage_micros), _line("Total", found.plan_fee_micros + found.overage_micros)])
    yield _text(["", _line("Wallet before the month", found.wallet.opening)])
    for page in credit_pages(store, found):
        yield _text(
            [
                _line(f"{rfc3339(row['at'])}  {row['kind']} by {row['actor']}{_note(row)}", signed_micros(row))
                for row in page
            ]
        )
    yield _text([_line("Wallet after it", found.wallet.closing)])


def _head(found: Statement) -> list[str]:
    state = "open" if found.closed_at is None else f"closed {rfc3339(found.closed_at)}"
    lines = [f"{found.account.name} ({found.account.id}), {found.period.key} in {found.timezone}, {state}", ""]
    lines += [_line(text, amount) for text, amount in found.plan_lines]
    for kind, units in found.included.items():
        held = f", {units.pending} held" if units.pending else ""
        lines.append(f"Included {kind}s: {units.used} of {units.granted} used{held}")
    if found.pending_micros:
        lines.append(f"Held for open jobs: ${usd(found.pending_micros)}")
    return lines


def _note(row: Row) -> str:
    """What was said of it, on the line: a person may have written line breaks, or worse for a terminal."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in why(row)).split())
    return f": {text}" if text else ""


def _line(text: str, amount_micros: int) -> str:
    sign = "-" if amount_micros < 0 else ""
    return f"{sign + '$' + usd(abs(amount_micros)):>{_AMOUNT_WIDTH}}  {text}"


def _text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
