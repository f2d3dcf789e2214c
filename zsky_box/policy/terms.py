"""Terms to be found in a text: words or phrases, each with a mark of its own. Whole words, or with a final `*` whatever
begins so. Finding takes a time that grows with the text, and hardly with the number of terms.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, Generic, TypeVar

from zsky_box.policy.reading import SPELLED_MIN, Reading, folded, latin, pieces

M = TypeVar("M")

WORDS_MAX: Final = 16
"""Of one term; a letter of a script without spaces counts as a word."""
ANY_BEGINNING: Final = "*"
AGE: Final = "#"
"""Stands for a number under eighteen, in figures or as a word, in terms that are made with `numbers`."""
_ADULT: Final = 18


class _Node(Generic[M]):
    """What may follow the words that led here; `mark` where a term ends here."""

    def __init__(self) -> None:
        self.next: dict[str, _Node[M]] = {}
        self.beginnings: list[str] = []
        self.marks_of_beginnings: list[M] = []
        self.mark: M | None = None

    def begun(self, word: str) -> M | None:
        """The mark of the beginning that a word has; of the sorted beginnings none begins with another."""
        place = bisect_right(self.beginnings, word) - 1
        if place >= 0 and word.startswith(self.beginnings[place]):
            return self.marks_of_beginnings[place]
        return None


class Terms(Generic[M]):
    """Given as (term, mark), earlier ones first. Raises ValueError for a term without a word, or with too many."""

    def __init__(self, terms: Iterable[tuple[str, M]], *, numbers: frozenset[str] = frozenset()) -> None:
        self._root: _Node[M] = _Node()
        self._letters: _Node[M] = _Node()
        self._numbers = numbers
        beginnings: dict[int, tuple[_Node[M], list[tuple[str, M]]]] = {}
        for term, mark in terms:
            for words in _spellings(term):
                node = self._root
                last = words[-1]
                for word in words[:-1]:
                    node = node.next.setdefault(word, _Node())
                if last.endswith(ANY_BEGINNING):
                    beginnings.setdefault(id(node), (node, []))[1].append((last.removesuffix(ANY_BEGINNING), mark))
                else:
                    leaf = node.next.setdefault(last, _Node())
                    leaf.mark = mark if leaf.mark is None else leaf.mark
                if len(words) == 1:
                    self._add_letters(last.removesuffix(ANY_BEGINNING), mark)
        for node, begun in beginnings.values():
            node.beginnings, node.marks_of_beginnings = _shortest(begun)

    def _add_letters(self, word: str, mark: M) -> None:
        if len(word) < SPELLED_MIN:
            return
        node = self._letters
        for letter in word:
            node = node.next.setdefault(letter, _Node())
        node.mark = mark if node.mark is None else node.mark

    def found(self, text: Reading, *, harmless: M | None = None) -> set[M]:
        """The marks of all terms in a text. Where the longest term at a place is `harmless`, no other begins inside."""
        marks: set[M] = set()
        words, others = text.words, text.others
        starting = {word for word in set(words) if self._may_start(word)}
        passed = 0
        for place, word in enumerate(words):
            if place < passed or (word not in starting and place not in others):
                continue
            here = list(self._at(text, self._root, place))
            end, longest = max(here, key=lambda match: match[0], default=(place, None))
            if longest is not None and longest == harmless:
                passed = end
            else:
                marks.update(mark for _, mark in here)
        for run in text.spelled:
            marks.update(self._spelled(run))
        marks.discard(harmless)  # pyright: ignore[reportArgumentType] - None is in no set of marks
        return marks

    def _may_start(self, word: str) -> bool:
        root = self._root
        return word in root.next or root.begun(word) is not None or (AGE in root.next and self._is_age(word))

    def _is_age(self, word: str) -> bool:
        return word in self._numbers or (word.isdecimal() and len(word) <= 2 and int(word) < _ADULT)

    def _at(self, text: Reading, node: _Node[M], place: int) -> Iterator[tuple[int, M]]:
        """The terms from a place on, each as the place after its last word, and its mark."""
        if place >= len(text.words):
            return
        for word, count in ((text.words[place], 1), *text.others.get(place, ())):
            end = place + count
            if (mark := node.begun(word)) is not None:
                yield end, mark
            following = [node.next.get(word)]
            if AGE in node.next and self._is_age(word):
                following.append(node.next[AGE])
            for child in following:
                if child is None:
                    continue
                if child.mark is not None:
                    yield end, child.mark
                if child.next or child.beginnings:
                    yield from self._at(text, child, end)

    def _spelled(self, run: str) -> Iterator[M]:
        for start in range(len(run)):
            node = self._letters.next.get(run[start])
            end = start + 1
            while node is not None:
                if node.mark is not None:
                    yield node.mark
                node = node.next.get(run[end]) if end < len(run) else None
                end += 1


def _spellings(term: str) -> list[list[str]]:
    """A term as the words that are looked for: as it is written, and in Latin letters where some look alike."""
    begins = term.rstrip().endswith(ANY_BEGINNING)
    words = [word for part in folded(term).split() for word in ([AGE] if part == AGE else pieces(part))]
    if not 1 <= len(words) <= WORDS_MAX:
        raise ValueError(f"a term has 1 to {WORDS_MAX} words, {term!r} has {len(words)}")
    spellings = [words]
    if (alike := [latin(word) for word in words]) != words and "ñ" not in "".join(words):
        spellings.append(alike)
    return [[*spelling[:-1], spelling[-1] + ANY_BEGINNING * begins] for spelling in spellings]


def _shortest(begun: list[tuple[str, M]]) -> tuple[list[str], list[M]]:
    """Sorted, and without those that begin with a shorter one: every word that they would find, it finds."""
    kept: list[tuple[str, M]] = []
    for beginning, mark in sorted(begun, key=lambda pair: pair[0]):
        if not kept or not beginning.startswith(kept[-1][0]):
            kept.append((beginning, mark))
    return [beginning for beginning, _ in kept], [mark for _, mark in kept]
