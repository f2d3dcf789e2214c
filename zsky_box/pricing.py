"""Money in integer micros of a dollar, and what a job costs. Pure functions; no float comes near."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Final

from zsky_box.manifest import JobType
from zsky_box.settings import Settings

MICROS_PER_USD: Final = 1_000_000
_USD_MAX: Final = 10**9
_LOOSE: Final = re.compile(r"[\s_]")
_WRITTEN: Final = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,2})?")


def micros(text: str) -> int:
    """Micros of a decimal amount in dollars: at most two decimals, at most a billion; raises ValueError otherwise.

    Numbers of JSON come as their text too, and may have an exponent; nothing else that Decimal would take is one.
    """
    try:
        amount = Decimal(text) if text.isascii() and not _LOOSE.search(text) else Decimal("NaN")
    except InvalidOperation:
        raise ValueError(f"{text!r} is not an amount of dollars") from None
    # The bound comes first: to round a huge amount is itself an InvalidOperation.
    if not amount.is_finite() or abs(amount) > _USD_MAX or amount != round(amount, 2):
        raise ValueError(f"{text!r} is not an amount of dollars with at most two decimals")
    return int(amount * MICROS_PER_USD)


def given_micros(given: object) -> int:
    """Micros of an amount as a request gives it: text of digits with at most two decimals, or such a number.

    A number with a fraction is its decimal text, read as a Decimal: a float is none. Raises ValueError.
    """
    if isinstance(given, str) and _WRITTEN.fullmatch(given):
        return micros(given)
    if isinstance(given, int | Decimal) and not isinstance(given, bool) and 0 <= given <= _USD_MAX:
        return micros(str(given))
    raise ValueError("it is not an amount of dollars with at most two decimals")


def usd(amount_micros: int) -> str:
    """The decimal string of an amount: two decimals, more only where the micros need them."""
    amount = Decimal(amount_micros) / MICROS_PER_USD
    return f"{amount:.2f}" if amount_micros % 10_000 == 0 else str(amount.normalize())


def price_micros(job_type: JobType, settings: Settings) -> int:
    """What one unit of this type costs beyond the included ones."""
    return micros(settings.video_usd if job_type == "video" else settings.image_usd)
