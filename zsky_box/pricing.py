"""Money in integer micros of a dollar, and what a job costs. Pure functions; no float comes near."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Final

from zsky_box.catalog import JobType
from zsky_box.settings import Settings

MICROS_PER_USD: Final = 1_000_000
_USD_MAX: Final = 10**9


def micros(text: str) -> int:
    """Micros of a decimal amount in dollars: at most two decimals, at most a billion; raises ValueError otherwise."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not an amount of dollars") from None
    # The bound comes first: to round a huge amount is itself an InvalidOperation.
    if not amount.is_finite() or abs(amount) > _USD_MAX or amount != round(amount, 2):
        raise ValueError(f"{text!r} is not an amount of dollars with at most two decimals")
    return int(amount * MICROS_PER_USD)


def usd(amount_micros: int) -> str:
    """The decimal string of an amount: two decimals, more only where the micros need them."""
    amount = Decimal(amount_micros) / MICROS_PER_USD
    return f"{amount:.2f}" if amount_micros % 10_000 == 0 else str(amount.normalize())


def price_micros(job_type: JobType, settings: Settings) -> int:
    """What one unit of this type costs beyond the included ones."""
    return micros(settings.video_usd if job_type == "video" else settings.image_usd)
