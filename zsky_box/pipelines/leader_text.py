"""Text on a film leader. Pillow's built-in font needs no file, and draws little more than ASCII."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from itertools import groupby
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zsky_box.pipelines.base import Picture

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont

_MAX_CHARACTERS: Final = 600
_MIN_SIZE: Final = 6
_SPELLINGS: Final = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D", "ł": "l", "Ł": "L", "\u0131": "i"}
    | {"œ": "oe", "Œ": "OE", "þ": "th", "Þ": "Th", "\u2013": "-", "\u2014": "-", "\u00d7": "x"}
)


@functools.lru_cache(maxsize=64)
def font(size: int) -> Font:
    """The built-in font at a size in pixels."""
    found = ImageFont.load_default(max(_MIN_SIZE, size))
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType, and cannot draw the film leader's text")
    return found


def drawable(text: str) -> str:
    """The text as the font can draw it: accents fall away, and what remains is told by script and count.

    "Café 夜市 🔥" becomes "Cafe [2 cjk] [1 fire]". White space is folded; at most 600 characters are looked at.
    """
    folded = unicodedata.normalize("NFKD", text[:_MAX_CHARACTERS].translate(_SPELLINGS))
    seen = [c for c in folded if c.isspace() or not unicodedata.category(c).startswith(("M", "C"))]
    parts: list[str] = []
    for kind, run in groupby(seen, _kind):
        characters = list(run)
        parts.append(f" [{len(characters)} {kind}] " if kind else "".join(characters))
    return " ".join("".join(parts).split())


def _kind(character: str) -> str:
    """Nothing for what can be drawn, else the first word of its Unicode name: cjk, hiragana, arabic, cyrillic."""
    if character.isspace() or _has_glyph(character):
        return ""
    return unicodedata.name(character, "unknown").split()[0].split("-")[0].lower()


@functools.lru_cache(maxsize=2_048)
def _has_glyph(character: str) -> bool:
    """The font has no list of what it holds: what is missing looks like a character that never exists."""
    return _shape(character) != _shape("\uffff")


def _shape(character: str) -> bytes:
    image = Image.new("L", (32, 32))
    ImageDraw.Draw(image).text((2, 2), character, fill=255, font=font(20))
    return image.tobytes()


def wrapped(text: str, face: Font, width: int) -> list[str]:
    """The text's lines, none wider than `width` pixels; a word that is too long is broken."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if face.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and face.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines


def fitted(text: str, sizes: Sequence[int], width: int, height: int) -> tuple[Font, list[str], int]:
    """The largest of the (falling) sizes at which the text fits into the box, its lines, and the line height.

    A text that fits at none is cut after the last whole line, and ends in an ellipsis.
    """
    face, lines, step = font(_MIN_SIZE), [""], _MIN_SIZE
    for size in sizes:
        face, step = font(size), round(size * 1.28)
        lines = wrapped(text, face, width)
        if len(lines) * step <= height:
            return face, lines, step
    kept = lines[: max(1, height // step)]
    while kept[-1] and face.getlength(kept[-1] + "…") > width:
        kept[-1] = kept[-1][:-1]
    kept[-1] += "…"
    return face, kept, step


def one_line(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, room: int, fill: Colour) -> None:
    """Draw one line from its left end and vertical middle, smaller where it would be wider than `room` pixels."""
    while size > _MIN_SIZE and font(size).getlength(text) > room:
        size -= 1
    draw.text(at, text, fill=fill, font=font(size), anchor="lm")


def glyph_tiles(characters: str, size: int, ink: Colour, ground: Colour) -> dict[str, Picture]:
    """Each character as a picture, from which text that changes in every frame is put together.

    All are equally high; digits are equally wide, so that the text does not dance.
    """
    face = font(size)
    digit = max(round(face.getlength(character)) for character in "0123456789") + max(1, size // 24)
    tiles: dict[str, Picture] = {}
    for character in characters:
        width = digit if character.isdigit() else digit // 2
        tile = Image.new("RGB", (width, round(size * 1.2)), ground)
        ImageDraw.Draw(tile).text((width / 2, size * 0.6), character, fill=ink, font=face, anchor="mm")
        tiles[character] = np.array(tile)
    return tiles
