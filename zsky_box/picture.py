"""What the service and the child that decodes a stranger's picture say to each other, and how a picture is recognised.

A picture is what its first bytes say, whatever its name or its declared type. Knows no Pillow: the child does.
"""

from __future__ import annotations

import binascii
from typing import Final, Literal

from msgspec import Struct

Kind = Literal["PNG", "JPEG", "WEBP"]
Reason = Literal["damaged", "animated", "too_many_pixels", "too_small", "too_costly", "not_stored"]

TYPES: Final = ("image/png", "image/jpeg", "image/webp")
DATA_URI: Final = "data:"
LONG_SIDE_MAX: Final = 4_096
"""Larger pictures are made smaller: no model here renders more."""
SIDE_MIN: Final = 16
"""What a picture has at least in each direction once its long side is within the bound."""

_BASE64_STEP: Final = 1 << 20
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"


class Task(Struct, frozen=True, kw_only=True):
    """What the child is told on its command line, as JSON; the picture itself comes on its standard input."""

    kind: Kind
    pixels_max: int
    path: str


class Clean(Struct, frozen=True, kw_only=True, tag="clean"):
    """The re-encoded picture lies at the task's path, fsynced: an 8-bit RGB PNG without metadata."""

    width: int
    height: int
    bytes: int
    sha256: str


class Refused(Struct, frozen=True, kw_only=True, tag="refused"):
    """Nothing was made, and nothing of use lies at the path."""

    reason: Reason


Answer = Clean | Refused


def kind_of(content: bytes) -> Kind | None:
    """What a picture is by its first bytes; None for everything that is not taken."""
    if content.startswith(_PNG):
        return "PNG"
    if content.startswith(_JPEG):
        return "JPEG"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "WEBP"
    return None


def of_data_uri(text: str) -> bytes:
    """The bytes of `data:image/png;base64,…`, or of `image/jpeg` or `image/webp`; raises ValueError with what to send.

    Padding and alphabet are RFC 4648's, and nothing else is in it. The interpreter is let go of now and then: a thread
    may do this beside others.
    """
    head, comma, _ = text[:_HEAD_MAX].partition(",")
    if not comma or head.lower() not in _HEADS:
        raise ValueError(f"a data URI begins with {', '.join(_HEADS[:-1])} or {_HEADS[-1]}, and a comma")
    start, end = len(head) + 1, len(text)
    # Padding stands at the end alone, and fills up the last four: binascii lets some of it pass.
    if (end - start) % 4 or text.find("=", start, end - 2) >= 0:
        raise ValueError(_NO_BASE64)
    try:
        steps = range(start, end, _BASE64_STEP)
        content = b"".join(binascii.a2b_base64(text[at : at + _BASE64_STEP], strict_mode=True) for at in steps)
    except ValueError:  # binascii.Error is one
        raise ValueError(_NO_BASE64) from None
    if not content:
        raise ValueError("the data URI has nothing in it")
    return content


_HEADS: Final = tuple(f"data:{kind};base64" for kind in TYPES)
_HEAD_MAX: Final = max(map(len, _HEADS)) + 1
_NO_BASE64: Final = "what follows the comma is not base64; use the alphabet with + and /, padded with ="
