"""Public identifiers: a prefix that says what it names, and 130 random bits in Crockford's base 32, lower case."""

from __future__ import annotations

import secrets
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH: Final = 26


def new(prefix: str) -> str:
    """For example `job_3q9…`."""
    bits = secrets.randbits(5 * _LENGTH)
    return f"{prefix}_" + "".join(_ALPHABET[bits >> 5 * place & 31] for place in range(_LENGTH))
