"""A month's usage as the tables behind its charts: by day, by key and by model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Struct

from zsky_box.api.browser import BROWSER
from zsky_box.keys import Key
from zsky_box.pricing import micros, usd
from zsky_box.usage import UsageRow

MINUS: Final = "\N{MINUS SIGN}"


class Sums(Struct, kw_only=True):
    """What was made under one name: results that were charged and not paid back, and money in micros."""

    name: str
    label: str
    videos: int = 0
    images: int = 0
    video_micros: int = 0
    image_micros: int = 0
    jobs: int = 0
    failed: int = 0

    @property
    def results(self) -> int:
        """Of both types."""
        return self.videos + self.images

    @property
    def micros(self) -> int:
        """Of both types."""
        return self.video_micros + self.image_micros

    def add(self, row: UsageRow) -> None:
        """Count a row of the usage."""
        made, spent = row.included_units + row.wallet_units, micros(row.amount_usd)
        self.jobs += row.jobs
        self.failed += row.failed
        if row.type == "video":
            self.videos += made
            self.video_micros += spent
        else:
            self.images += made
            self.image_micros += spent


def total(rows: Iterable[UsageRow]) -> Sums:
    """The whole month."""
    sums = Sums(name="", label="Total")
    for row in rows:
        sums.add(row)
    return sums


def by_day(rows: Iterable[UsageRow]) -> list[Sums]:
    """The days on which there was something, in their order."""
    return sorted(_grouped(rows, lambda row: row.day, lambda row: row.day), key=lambda sums: sums.name)


def by_key(rows: Iterable[UsageRow], labels: dict[str, str]) -> list[Sums]:
    """The keys, the busiest first."""
    return _busiest(_grouped(rows, lambda row: row.key.id, lambda row: labels.get(row.key.id, row.key.id)))


def by_model(rows: Iterable[UsageRow]) -> list[Sums]:
    """The models, the busiest first."""
    return _busiest(_grouped(rows, lambda row: row.model, lambda row: row.model))


def key_labels(keys: Iterable[Key]) -> dict[str, str]:
    """What a person calls each key, by its id; what was made in the browser came through none."""
    named = {key.id: key.name or f"Key …{key.last_four}" for key in keys}
    return {BROWSER: "Browser", **named}


def dollars(amount_usd: str) -> str:
    """An amount as a person reads it: `$1,250.50`, or with a minus before it; text that is none as it is."""
    whole, point, cents = amount_usd.removeprefix("-").partition(".")
    grouped = f"{int(whole):,}" if whole.isascii() and whole.isdigit() else whole
    return f"{MINUS if amount_usd.startswith('-') else ''}${grouped}{point}{cents}"


def micro_dollars(amount_micros: int) -> str:
    """The same of micros."""
    return dollars(usd(amount_micros))


def _grouped(
    rows: Iterable[UsageRow], name_of: Callable[[UsageRow], str], label_of: Callable[[UsageRow], str]
) -> list[Sums]:
    found: dict[str, Sums] = {}
    for row in rows:
        name = name_of(row)
        if name not in found:
            found[name] = Sums(name=name, label=label_of(row))
        found[name].add(row)
    return list(found.values())


def _busiest(found: list[Sums]) -> list[Sums]:
    return sorted(found, key=lambda sums: (-sums.results, -sums.micros, sums.label, sums.name))
