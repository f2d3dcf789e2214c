"""A row of the audit in a person's words: who it was, and what was so before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from zsky_box.clock import rfc3339
from zsky_box.pages.usage_tables import dollars

TEXT_MAX: Final = 160
_UNSAID: Final = frozenset({"budget_id", "last_transfer_id", "transfer_id"})
"""Numbers and names within the box that say nothing to a person."""
_OF_TRANSFER: Final = frozenset({"amount", "credit", "debit", "ledger"})


def said(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What is so afterwards, each with what it was where that was something else."""
    return [part for name in after if name not in _UNSAID and (part := _change(name, before, after))]


def moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The same of a transfer: how much it moved and what became of it; between which balances is for a closer look."""
    units = [] if "amount_usd" in after else [f"{after.get('amount')} {after.get('ledger')}"]
    return units + said(before, {name: value for name, value in after.items() if name not in _OF_TRANSFER})


def actor(actor: str, names: Mapping[str, str]) -> str:
    """Who it was, and where: `browser:acc_…` is ann in the browser."""
    where, _, who = actor.partition(":")
    if who in names:
        return f"{names[who]} ({where})"
    return names.get(actor, actor)


def cut(text: str) -> str:
    """No more of it than a line of a table holds."""
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}…"


def _change(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    now, word = _shown(name, after[name]), name.removesuffix("_usd").replace("_", " ")
    if name in before and before[name] != after[name]:
        return f"{word} {_shown(name, before[name])} → {now}"
    return f"{word} {now}" if now and not (after[name] is None and _is_time(name)) else ""


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        pairs: dict[str, Any] = value
        return " and ".join(f"{of} {part}" for part, of in sorted(pairs.items(), reverse=True))
    if isinstance(value, list):
        parts: list[Any] = value
        return " ".join(str(part) for part in parts)
    if isinstance(value, int) and _is_time(name):
        text = rfc3339(value)
        return f"{text[:10]} {text[11:16]} UTC"
    return dollars(str(value)) if name.endswith("_usd") else str(value)


def _is_time(name: str) -> bool:
    """Microseconds, as the rows of a key have them; without a value there is no such moment."""
    return name.endswith("_at")
