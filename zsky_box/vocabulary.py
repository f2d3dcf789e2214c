"""What a person should know of a prompt for a model of a small world: the words that it does not know. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from zsky_box.manifest import Vocabulary

NAMED_MAX: Final = 8
"""So many unknown words are named; of more, their number is told."""
LETTERS_MAX: Final = 24
"""So much of a word is shown."""

EXAMPLES_MAX: Final = 2
"""So many of the manifest's examples are told."""

_WORD: Final = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")  # with both apostrophes that people type


def words_of(prompt: str) -> list[str]:
    """The words of a prompt in their order, in lower case."""
    return _WORD.findall(prompt.lower())


def notes_on(prompt: str, model: str, vocabulary: Vocabulary) -> list[str]:
    """Sentences on what `model` makes nothing of; none where it knows every word and has something to go by."""
    words = words_of(prompt)
    read = words[: vocabulary.words_read]
    known = {word for topic in vocabulary.knows.values() for word in topic}
    unknown = list(dict.fromkeys(word for word in read if word not in known and word not in vocabulary.passes_over))
    tries = " or ".join(f"\u201c{example}\u201d" for example in vocabulary.examples[:EXAMPLES_MAX])
    example = f"It knows a small world; try {tries}."
    notes: list[str] = []
    if known.isdisjoint(read):
        notes.append(f"{model} knows none of these words: what it makes is its own idea. {example}")
    elif unknown:
        notes.append(f"{model} does not know {named(unknown)}: it leaves that out. {example}")
    if len(words) > len(read):
        notes.append(f"{model} reads the first {vocabulary.words_read} words of a prompt.")
    return notes


def named(words: Sequence[str]) -> str:
    """Words as people list them, the first ones where there are many."""
    shown = [f"\u201c{_cut(word)}\u201d" for word in words[:NAMED_MAX]]
    if len(words) > len(shown):
        shown.append(f"{len(words) - len(shown)} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _cut(word: str) -> str:
    return word if len(word) <= LETTERS_MAX else f"{word[: LETTERS_MAX - 1]}\u2026"
