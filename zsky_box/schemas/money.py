"""Money and included units as clients read them."""

from __future__ import annotations

from msgspec import Struct

from zsky_box.manifest import JobType


class UnitsView(Struct, kw_only=True):
    """Included units of this period."""

    granted: int
    used: int
    pending: int
    left: int


class PeriodView(Struct, kw_only=True):
    """`[start, end)` in RFC 3339, UTC."""

    start: str
    end: str


class PricesView(Struct, kw_only=True):
    """What one unit costs beyond the included ones."""

    video_usd: str
    image_usd: str


class OverageView(Struct, kw_only=True):
    """What is spent beyond the included units, and how much may be; money as decimal strings of US dollars."""

    enabled: bool
    cap_usd: str
    spend_usd: str
    pending_usd: str
    remaining_usd: str
    wallet_usd: str
    plan: str
    prices: PricesView
    included: dict[JobType, UnitsView]
    period: PeriodView


class QuoteView(Struct, kw_only=True):
    """What a `generate` of the same body would cost and meet now.

    `refusal` is the code that it would be refused with, `refusal_detail` its sentence; both are null where it would be
    accepted. `model` is null where there is none to ask. `notes` are what the job would begin with.
    """

    amount_usd: str
    included_units: int
    wallet_units: int
    would_accept: bool
    refusal: str | None
    refusal_detail: str | None
    model: str | None
    fits: bool
    eta_seconds: float | None
    notes: list[str]
