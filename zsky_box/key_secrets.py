"""What an API key is written as, and what is kept of it.

A key is `zs_live_` or `zs_test_`, 30 base62 characters drawn from a secure source (178 bits) and 6 of a checksum, so
that a mistyped key is recognised without touching the store. Kept is a keyed hash of it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import zlib
from typing import Final

_LIVE: Final = "zs_live_"
_TEST: Final = "zs_test_"
_BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_DRAWN_LENGTH: Final = 30
_CHECKSUM_LENGTH: Final = 6


def new(*, test: bool) -> str:
    """A secret that nobody has had before."""
    stem = (_TEST if test else _LIVE) + "".join(secrets.choice(_BASE62) for _ in range(_DRAWN_LENGTH))
    return stem + _checksum(stem)


def well_formed(secret: str) -> bool:
    """Prefix, alphabet, length and checksum are right; says nothing about whether the key was ever issued."""
    prefix, body = secret[: len(_LIVE)], secret[len(_LIVE) :]
    if prefix not in (_LIVE, _TEST) or len(body) != _DRAWN_LENGTH + _CHECKSUM_LENGTH or not body.isascii():
        return False
    return body.isalnum() and hmac.compare_digest(body[_DRAWN_LENGTH:], _checksum(prefix + body[:_DRAWN_LENGTH]))


def digest(pepper: bytes, secret: str) -> bytes:
    """What is kept of a secret: worthless without the box's own pepper."""
    return hmac.digest(pepper, secret.encode(), hashlib.sha256)


def _checksum(stem: str) -> str:
    number = zlib.crc32(stem.encode())
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_BASE62))
        digits = _BASE62[digit] + digits
    return digits
