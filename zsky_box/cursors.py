"""The cursors of lists: opaque to clients, and good for the list that gave them only."""

from __future__ import annotations

import base64
import binascii

from zsky_box.errors import FieldError, InvalidFields


def written(kind: str, number: int) -> str:
    """A cursor that continues after a number of a list; `kind` is the list's own letter."""
    return base64.urlsafe_b64encode(f"{kind}{number}".encode()).decode().rstrip("=")


def read(kind: str, cursor: str) -> int:
    """The number of a cursor of this list; raises 422 for anything else."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (ValueError, binascii.Error):
        text = ""
    if not (text.startswith(kind) and text[1:].isdigit() and len(text) < 20):
        raise InvalidFields(
            [FieldError("cursor", "invalid_field", "cursor: use the next_cursor of a page as it came.")]
        )
    return int(text[1:])
