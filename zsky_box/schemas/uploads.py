"""Pictures for jobs to begin with, as clients read them."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType


class UploadView(Struct, kw_only=True):
    """A picture for jobs to begin with, as it is stored: `id` is what `image` of a `generate` takes."""

    id: str
    object: Literal["upload"] = "upload"
    width: int
    height: int
    bytes: int
    created_at: str
    removed_at: str | UnsetType = UNSET
