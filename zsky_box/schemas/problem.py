"""What a refusal says of itself."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from zsky_box.errors import FieldError


class Problem(Struct, kw_only=True):
    """RFC 9457 problem details: `code` is stable, `detail` says what to do."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    field: str | UnsetType = UNSET
    errors: list[FieldError] | UnsetType = UNSET
