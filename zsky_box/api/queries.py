"""The query of a list: every value read by its name, and everything that is wrong told at once."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from zsky_box.clock import parse_rfc3339
from zsky_box.errors import FieldError, InvalidFields

_NAME_MAX: Final = len("metadata[]") + 64
_ERRORS_MAX: Final = 100
_SHOWN_MAX: Final = 64

Readers = Mapping[str, Callable[[str], Any]]
"""What reads each known name's value; a ValueError says what is allowed."""


class Family(NamedTuple):
    """Filters of one form, such as `metadata[KEY]`, whose names `pattern` reads the key out of; at most so many."""

    name: str
    pattern: re.Pattern[str]
    most: int


def read(items: Iterable[tuple[str, str]], readers: Readers, family: Family | None = None) -> dict[str, Any]:
    """The values by name, absent ones left out, a family's as pairs of key and value under its own name.

    Raises InvalidFields with everything that is wrong.
    """
    given, values, pairs, errors = list(items), dict[str, Any](), list[tuple[str, str]](), list[FieldError]()
    for name, value in given:
        try:
            if name in readers:
                values[name] = readers[name](value)
            elif family is not None and (match := family.pattern.fullmatch(name)):
                pairs.append((match[1], value))
            else:
                errors.append(_unknown(name[:_SHOWN_MAX], [*readers, *([f"{family.name}[KEY]"] if family else [])]))
        except ValueError as error:
            errors.append(FieldError(name, "invalid_field", f"{name}: {error}."))
    count = Counter(name[:_NAME_MAX] for name, _ in given)
    errors += [FieldError(name, "invalid_field", f"{name}: give it once.") for name, n in count.items() if n > 1]
    if family is not None:
        values[family.name] = tuple(pairs)
        if len(pairs) > family.most:
            errors.append(FieldError(family.name, "invalid_field", f"{family.name}: at most {family.most} filters."))
    if errors:
        raise InvalidFields(errors[:_ERRORS_MAX])
    return values


def limit(most: int) -> Callable[[str], int]:
    """A whole number from 1 to `most`."""

    def read_limit(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= most):
            raise ValueError(f"give a whole number from 1 to {most}")
        return int(text)

    return read_limit


def one_of(allowed: Sequence[str]) -> Callable[[str], str]:
    """One of some words."""

    def read_word(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"is one of {', '.join(allowed)}")
        return text

    return read_word


def time(text: str) -> int:
    """Microseconds of an RFC 3339 time."""
    try:
        return parse_rfc3339(text)
    except (ValueError, OverflowError):
        raise ValueError("give an RFC 3339 time such as 2026-11-01T00:00:00Z") from None


def _unknown(name: str, names: Sequence[str]) -> FieldError:
    close = difflib.get_close_matches(name, names, n=1)
    others = f"filters are {', '.join(names)}." if names else "this call takes none."
    hint = f"did you mean {close[0]!r}?" if close else others
    return FieldError(name, "unknown_field", f"There is no filter {name!r}; {hint}")
