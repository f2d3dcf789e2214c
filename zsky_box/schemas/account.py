"""The caller, as the caller reads it."""

from __future__ import annotations

from msgspec import Struct

from zsky_box.manifest import JobType
from zsky_box.schemas.money import PeriodView, UnitsView


class KeyView(Struct, kw_only=True):
    """The key that made the request, without its secret."""

    id: str
    name: str
    last_four: str
    scopes: list[str]


class MeView(Struct, kw_only=True):
    """Who the caller is, and what is left of the month."""

    account: str
    name: str
    plan: str
    test: bool
    key: KeyView
    included: dict[JobType, UnitsView]
    period: PeriodView
