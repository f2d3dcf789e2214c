"""A text as the words that it may be read as, however it is spelt: in other letters, split up, or with invisible ones.

Pure; its time grows with the length of the text and with nothing else. It knows no rule and no language.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from msgspec import Struct

SPELLED_MIN: Final = 3
"""So many single letters in a row are read as one word as well: `c a t`."""
_MARKS_MAX: Final = 8
"""Longer runs of marks are dropped unread: normalising one takes the square of its length."""

# Format characters, fillers and variation selectors: nobody sees them, and they would split a word.
_INVISIBLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]+"
)
_MARK_RUN: Final = re.compile(rf"[^\w\s\x00-\x7f]{{{_MARKS_MAX + 1},}}")
# Accents, except the tilde of an n: niña is another word than the name Nina.
_ACCENT: Final = re.compile(
    "[\u0300-\u0302\u0304-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+|(?<!n)\u0303"
)
_WIDEST: Final = str.maketrans({"\ufdfa": " ", "\ufdfb": " "})  # whole phrases in one character

# Scripts that put no spaces between words, or particles at them: each of their letters is a word here.
_UNSPACED: Final = (
    "\u0e01-\u0e5b\u3005\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
    "\U00020000-\U0003ffff"
)
_PIECE: Final = re.compile(rf"[{_UNSPACED}]|\d+|[^\W\d_{_UNSPACED}]+")
_ANY_UNSPACED: Final = re.compile(f"[{_UNSPACED}]")
_BETWEEN: Final = re.compile(r"[\W_]+")
_AT_ENDS: Final = ".,;:!?\"'()[]{}"  # of a chunk they are punctuation, whatever letter they look like
_STRETCHED: Final = re.compile(r"([^\W\d_])\1\1+")

_LOOKS: Final = {
    **dict(zip("авеікмнопрстухјѕԁһԛԝгӏ", "abeikmhonpctyxjsdhqwrl", strict=True)),
    **dict(zip("αβεηικνορτυχωγ", "abenikvoptuxwy", strict=True)),
    **dict(zip("ıɑɡɩłøđħᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢօսոհ", "iagilodhabcdefghijklmnoprstuvwyzounh", strict=True)),
    "æ": "ae",
    "œ": "oe",
    "ñ": "n",
}
_LATIN: Final = str.maketrans(_LOOKS)
_STANDS_FOR: Final = dict(zip("0234567$89@€+", "ozeasgtsbgaet", strict=True))
_FIGURE: Final = re.compile(r"[0-9@$€+!|¡]")
# A one, a bar and an exclamation mark are an i to some and an l to others.
_LEET: Final = tuple(str.maketrans(_LOOKS | _STANDS_FOR | dict.fromkeys("1!|¡", letter)) for letter in ("i", "l"))


class Reading(Struct, frozen=True):
    """The words of a text in their order; `others` has what else may be read from a place on: a word, and how many of
    `words` it covers. `spelled` are the words of single letters, as one run."""

    words: list[str]
    others: dict[int, list[tuple[str, int]]]
    spelled: list[str]


def folded(text: str) -> str:
    """Without case, accents, invisible characters, and the letters that are only another shape of a letter."""
    if text.isascii():
        return text.lower()
    text = _MARK_RUN.sub(lambda run: "" if unicodedata.combining(run[0][0]) else " ", text.translate(_WIDEST))
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return unicodedata.normalize("NFC", _ACCENT.sub("", _INVISIBLE.sub("", text)))


def latin(word: str) -> str:
    """A folded word with what looks like a Latin letter as that letter."""
    return word if word.isascii() else word.translate(_LATIN)


def pieces(text: str) -> list[str]:
    """The words of a folded text as they stand there."""
    return _PIECE.findall(text)


def read(text: str) -> Reading:
    """A text with all its readings."""
    plain = folded(text)
    stretched = _STRETCHED.search(plain) is not None
    words: list[str] = []
    others: dict[int, list[tuple[str, int]]] = {}
    known: dict[str, tuple[list[str], list[tuple[int, str, int]]]] = {}
    for chunk in plain.split():
        bare = chunk.strip(_AT_ENDS)
        if bare.isascii() and bare.isalpha() and not stretched:
            words.append(bare)
            continue
        if bare not in known:
            known[bare] = _chunk(bare, stretched=stretched)
        own, more = known[bare]
        for place, word, count in more:
            others.setdefault(len(words) + place, []).append((word, count))
        words += own
    return Reading(words, others, _spelled(words))


def _chunk(chunk: str, *, stretched: bool) -> tuple[list[str], list[tuple[int, str, int]]]:
    """The words of what stands between two spaces, and its other readings as (place, word, words that it covers)."""
    own = pieces(chunk)
    more: list[tuple[int, str, int]] = []
    for place, word in enumerate(own):
        if len(word) > 1 and not word.isascii() and (alike := latin(word)) != word:
            more.append((place, alike, 1))
        if stretched and (short := _STRETCHED.sub(r"\1", word)) != word:
            more += [(place, short, 1), (place, _STRETCHED.sub(r"\1\1", word), 1)]
    if chunk.isalpha() or chunk.isdecimal() or not own or _ANY_UNSPACED.search(chunk):
        return own, more
    joined = {_BETWEEN.sub("", chunk)}
    if _FIGURE.search(chunk) or not chunk.isascii():
        joined.update(_BETWEEN.sub("", chunk.translate(table)) for table in _LEET)
    return own, more + [(0, word, len(own)) for word in sorted(joined) if word != own[0]]


def _spelled(words: list[str]) -> list[str]:
    """The runs of single letters, each as one string, with the letters that figures stand for."""
    runs: list[str] = []
    run: list[str] = []
    for word in (*words, ""):
        if len(word) == 1 and not _ANY_UNSPACED.match(word):
            run.append(word)
            continue
        if len(run) >= SPELLED_MIN:
            runs += sorted({"".join(run).translate(table) for table in _LEET})
        if run:
            run = []
    return runs
