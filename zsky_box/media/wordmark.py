"""The word that results of the free plan bear: "zsky", small, at the bottom right, white with a soft dark edge.

It is drawn once for each size of picture. Blending is whole-number arithmetic on the word's own rectangle: the same
picture always becomes the same, and nothing outside the rectangle changes. Who bears it is decided elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from zsky_box.pipelines.base import Picture
from zsky_box.pipelines.leader_text import font

WORD: Final = "zsky"
_SIZE: Final = 0.045  # of the short side, as is the margin: as large on a portrait as on a landscape
_MARGIN: Final = 0.03
_SIZE_MIN_PIXELS: Final = 12  # below it the strokes of the letters run together
_WHITE: Final = 0.9  # how much of the picture a letter's inside covers, and the darkness around it
_DARK: Final = 0.7
_WHOLE: Final = 256  # weights are so many parts of this: the blend fits into 16 bits


@dataclass(frozen=True)
class Wordmark:
    """The word for one size of picture; weights are uint16 [rows, columns, 3].

    A value v of the picture becomes (v * kept + added) / 256, rounded.
    """

    rows: slice
    columns: slice
    kept: NDArray[np.uint16]
    added: NDArray[np.uint16]

    def blend(self, picture: Picture) -> None:
        """Write the word into the picture."""
        region = picture[self.rows, self.columns]
        region[...] = (region * self.kept + self.added) >> 8


@functools.lru_cache(maxsize=16)
def wordmark(width: int, height: int) -> Wordmark:
    """The word as it lies on a picture of this size; a tiny picture shows what of it has room."""
    short = min(width, height)
    size, margin = max(_SIZE_MIN_PIXELS, round(_SIZE * short)), round(_MARGIN * short)
    letters, dark = _drawn(size)
    bottom, right = height - margin, width - margin
    top, left = max(0, bottom - letters.shape[0]), max(0, right - letters.shape[1])
    white, dark = (layer[: bottom - top, : right - left] for layer in (_WHITE * letters, _DARK * dark))
    added = np.rint(_WHOLE * white)
    kept = np.rint((_WHOLE - added) * (1 - dark))
    return Wordmark(slice(top, bottom), slice(left, right), _for_colours(kept), _for_colours(255 * added + _WHOLE // 2))


@contextmanager
def bearing(picture: Picture, *, wordmarked: bool) -> Generator[Picture]:
    """The picture with the word on it, or as it is; after the block the array that was given is what it was before.

    A model may draw its next picture over the last one, or make two of one array.
    """
    if not wordmarked:
        yield picture
        return
    height, width, _ = picture.shape
    word = wordmark(width, height)
    shown = picture if picture.flags.writeable else picture.copy()
    before = shown[word.rows, word.columns].copy()
    word.blend(shown)
    try:
        yield shown
    finally:
        shown[word.rows, word.columns] = before


def _drawn(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The letters and the darkness around them, each [rows, columns] from 0 to 1, in as many pixels as they need."""
    face, edge, blur = font(size), 1 + size / 16, size / 14
    around = round(edge + 2 * blur) + 1
    left, top, right, bottom = face.getbbox(WORD, anchor="ls")
    canvas = Image.new("L", (round(right - left) + 2 * around, round(bottom - top) + 2 * around))
    outline, at = canvas.copy(), (around - left, around - top)
    ImageDraw.Draw(canvas).text(at, WORD, fill=255, font=face, anchor="ls")
    ImageDraw.Draw(outline).text(at, WORD, fill=255, font=face, anchor="ls", stroke_width=edge)
    return np.asarray(canvas) / 255, np.asarray(outline.filter(ImageFilter.GaussianBlur(blur))) / 255


def _for_colours(weights: NDArray[np.float64]) -> NDArray[np.uint16]:
    repeated = np.repeat(weights[:, :, None], 3, axis=2).astype(np.uint16)
    repeated.setflags(write=False)
    return repeated
