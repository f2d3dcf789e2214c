"""The rule that cannot be switched off: no sexual content with minors.

A prompt is refused when it holds, anywhere, one term for a minor and one for sexual content: a filter of words, which
knows no picture and no intention. Its tests measure what it finds and misses, and docs/safety.md tells it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, get_args

from msgspec import Struct

from zsky_box.policy.lexicon import LEXICON, NUMBERS, Kind
from zsky_box.policy.reading import Reading, folded
from zsky_box.policy.terms import AGE, Terms

_REFUSED: Final[frozenset[tuple[Kind, Kind]]] = frozenset(
    {("child", "sexual"), ("child", "suggestive"), ("young", "sexual"), ("alone", "alone")}
)
"""What may not stand together; a term that is `alone` stands together with itself. `young` with `suggestive` may: a
girl, in that sense, is as often a woman."""


class _Mark(Struct, frozen=True):
    """What a term denotes, in these languages; `here`: only beside terms of one of them."""

    kind: Kind
    languages: frozenset[str] = frozenset()
    here: bool = False

    def counts_beside(self, other: _Mark) -> bool:
        return not (self.here or other.here) or not self.languages.isdisjoint(other.languages)


_HARMLESS: Final = _Mark("harmless")


def concerns_minors(text: Reading) -> bool:
    """Whether a prompt asks for sexual content with minors, as far as its words tell."""
    found = _TERMS.found(text, harmless=_HARMLESS)
    return any((one.kind, other.kind) in _REFUSED and one.counts_beside(other) for one in found for other in found)


def _marked() -> Iterator[tuple[str, _Mark]]:
    """Every term of the lexicon once, with the languages that share it."""
    languages: dict[tuple[str, Kind], set[str]] = {}
    here: set[str] = set()
    for language, lexicon in LEXICON.items():
        here.update(listed(lexicon.here))
        for kind in get_args(Kind):
            for term in expanded(getattr(lexicon, kind)):
                languages.setdefault((term, kind), set()).add(language)
    for (term, kind), shared in languages.items():
        yield term, _HARMLESS if kind == "harmless" else _Mark(kind, frozenset(shared), term in here)


def listed(terms: str) -> list[str]:
    """The terms of a field of the lexicon."""
    return [" ".join(term.split()) for term in terms.split(",") if term.strip()]


def expanded(terms: str) -> Iterator[str]:
    """The same, with one for each number where a number and the next word are written together."""
    for term in listed(terms):
        if _TOGETHER.match(term):
            yield from (term.replace(AGE, number) for number in NUMBERS.split())
        else:
            yield term


_TOGETHER: Final = re.compile(rf"{AGE}\w")
_TERMS: Final = Terms(_marked(), numbers=frozenset(folded(NUMBERS).split()))
