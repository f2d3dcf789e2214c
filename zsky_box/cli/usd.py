"""Amounts of dollars as a person types them: ASCII digits with at most two decimals, read without a float."""

from __future__ import annotations

import re
from typing import Any, Final

import click

from zsky_box.pricing import MICROS_PER_USD

_WRITTEN: Final = re.compile(r"(-?)([0-9]{1,9})(?:\.([0-9]{1,2}))?", re.ASCII)
_TOO_LARGE: Final = re.compile(r"-?[0-9]{10,}(?:\.[0-9]{1,2})?", re.ASCII)
_CENTS: Final = 100


class Usd(click.ParamType[int]):
    """Micros of an amount; `signed` allows a leading minus."""

    name = "usd"

    def __init__(self, *, signed: bool = False) -> None:
        self._signed = signed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Micros; anything but an amount is a usage error."""
        if isinstance(value, int):
            return value
        match = _WRITTEN.fullmatch(value)
        if match is None and _TOO_LARGE.fullmatch(value):
            self.fail(f"{value!r} is too large: at most nine digits stand before the point.", param, ctx)
        if match is None or (match[1] and not self._signed):
            self.fail(f"{value!r} is not an amount of dollars such as 12.50.", param, ctx)
        micros = int(match[2]) * MICROS_PER_USD + int((match[3] or "").ljust(2, "0")) * (MICROS_PER_USD // _CENTS)
        return -micros if match[1] else micros


class UsdLimit(click.ParamType[int | None]):
    """The same for a limit, which the word `none` lifts; a plain None never reaches a command by mistake."""

    name = "usd|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Micros, or None for no limit."""
        return None if value == "none" else USD.convert(value, param, ctx)


USD: Final = Usd()
SIGNED_USD: Final = Usd(signed=True)
LIMIT: Final = UsdLimit()
