"""What the value of a setting may be beyond its kind: a check for each, and what is allowed in a person's words."""

from __future__ import annotations

import ipaddress
import re
from decimal import Decimal, InvalidOperation
from typing import Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from zsky_box.hours import parse_hours
from zsky_box.proxies import networks

RULES_MAX: Final = 100
TERMS_MAX: Final = 5_000
"""In all rules together."""


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _is_amount(text: str, least: str, most: str) -> bool:
    try:
        amount = Decimal(text) if text.isascii() and "_" not in text and text == text.strip() else Decimal("NaN")
    except InvalidOperation:
        return False
    return amount.is_finite() and Decimal(least) <= amount <= Decimal(most) and amount == round(amount, 2)


def _is_price(text: str) -> bool:
    # A movement of nothing is none: who wants to give units away includes more of them.
    return _is_amount(text, "0.01", "1000")


def _is_fee(text: str) -> bool:
    return _is_amount(text, "0", "1000000")


def _is_hours(text: str) -> bool:
    try:
        parse_hours(text)
    except ValueError:
        return False
    return True


def _is_devices(text: str) -> bool:
    parts = [part.strip() for part in text.split(",")]
    return parts == ["auto"] or all(part == "cpu" or (part.isascii() and part.isdigit()) for part in parts)


def _is_hub_url(text: str) -> bool:
    return _is_url(text)


def _is_public_url(text: str) -> bool:
    return text == "" or (_is_url(text) and urlsplit(text)[2:] == ("", "", "") and not set("?#@\\ ") & set(text))


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        named = bool(parts.hostname) and parts.port != 0  # to look at a port that is none raises
    except ValueError:
        return False
    return named and text.startswith(("http://", "https://")) and not text.endswith("/")


def _is_hosts(text: str) -> bool:
    return text.strip() == "" or all(_is_host(part.strip()) for part in text.split(","))


def _is_proxies(text: str) -> bool:
    try:
        networks(text)
    except ValueError:
        return False
    return True


def _is_listened_on(text: str) -> bool:
    return not text.startswith("[") and _is_host(text)


def _is_folder(text: str) -> bool:
    # From which folder a service is started is chance.
    return text == "" or (text.startswith(("/", "~")) and "\0" not in text)


def _is_host(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        return _HOST_NAME.fullmatch(text) is not None


def _is_terms(rules: dict[str, tuple[str, ...]]) -> bool:
    return len(rules) <= RULES_MAX and sum(map(len, rules.values())) <= TERMS_MAX


# A last part of digits alone would be read as an address by some programs.
_HOST_NAME: Final = re.compile(r"(?=.{1,253}$)([A-Za-z0-9_-]{1,63}\.)*(?![0-9]+$)[A-Za-z0-9_-]{1,63}")
_PRICE: Final = "a price from 0.01 to 1000 with at most two decimals"
_FEE: Final = "an amount from 0 to 1000000 with at most two decimals"
PATTERNS: Final = {  # where the kind is a pattern: what it lets through
    "log_level": "debug, info, warning or error",
    "metrics_token": "empty, or 16 to 200 letters, digits and marks without a space",
}
RULES: Final = (  # name, check, and what is allowed
    ("host", _is_listened_on, "an address of this machine such as 127.0.0.1, 0.0.0.0 for all of them, or its name"),
    ("outputs", _is_folder, "empty, or the whole path of a folder, such as /mnt/results"),
    ("timezone", _is_zone, "the name of an IANA time zone, such as Europe/Berlin"),
    ("video_usd", _is_price, _PRICE),
    ("image_usd", _is_price, _PRICE),
    ("plan_month_usd", _is_fee, _FEE),
    ("plan_year_usd", _is_fee, _FEE),
    ("low_wallet_usd", _is_fee, _FEE),
    ("devices", _is_devices, "auto, cpu, card numbers such as 0,1, or a list such as cpu,cpu"),
    ("hub_url", _is_hub_url, "http(s)://host[:port] without a final slash"),
    ("blocked_terms", _is_terms, f"up to {RULES_MAX} rules with up to {TERMS_MAX} terms together"),
    ("quiet_hours", _is_hours, "empty, or hours such as mon-fri 09:00-18:00; sat 10:00-12:00"),
    ("allowed_hosts", _is_hosts, "empty, or host names and addresses such as box.studio.example, 10.0.0.7"),
    ("trusted_proxies", _is_proxies, "empty, or addresses and networks such as 127.0.0.1, 10.0.0.0/24, fd00::/64"),
    ("public_url", _is_public_url, "empty, or http(s)://host[:port] without a final slash"),
)
