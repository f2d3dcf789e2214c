"""The countdown's disc: rings, ticks, a label, and the sweep, of which each step paints only the new sector."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from zsky_box.pipelines.base import Picture
from zsky_box.pipelines.leader_plate import CREAM, INK, Look, Plate
from zsky_box.pipelines.leader_text import Colour, font

Floats = NDArray[np.floating]

_ANGLE_STEPS: Final = (1 << 16) - 1
_HAND_TURNS: Final = 0.008  # the hand and its soft edge lie within this of the sweep
_REACH: Final = 0.488  # the disc's radius in sides of its square
_FRESH: Final = 1.18
_SWEPT: Final = 0.52


class Dial:
    """`face` is the disc's square [side, side, 3] as it stands now; put it at `plate.dial`."""

    def __init__(self, plate: Plate, look: Look) -> None:
        left, top, side, _ = plate.dial
        across = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
        radius = np.hypot(across, across[:, None])
        turns = np.arctan2(across if look.clockwise else -across, -across[:, None]) / np.float32(math.tau) % 1
        ground = plate.picture[top : top + side, left : left + side].astype(np.float32)
        self._fresh, self._swept = _faces(ground, radius, turns, look)
        self._side = side

        disc = np.flatnonzero(radius <= side * _REACH + 1)
        angle = (turns.ravel()[disc] * _ANGLE_STEPS).astype(np.uint16)
        self._order = disc[np.argsort(angle, kind="stable")]  # of 16 bits: a radix sort
        self._turns = turns.ravel()[self._order]
        self._radius = radius.ravel()[self._order]
        self.label("")

    def label(self, text: str) -> None:
        """Begin a new turn under this label, with nothing swept."""
        self.face: Picture = self._fresh.copy()
        covered = self._swept.copy()
        bare = np.ones(covered.shape[:2], np.float32)
        if text:
            edge, ink, place = _label_masks(text, self._side)
            for face in (self.face, covered):
                face[place] = _over(_over(face[place], edge, CREAM), ink, INK)
            bare[place] -= edge
        self._clear = self.face.reshape(-1, 3).copy()
        self._covered = covered.reshape(-1, 3)
        self._bare = bare.reshape(-1, 1)
        self._painted = 0

    def sweep(self, turns: float) -> None:
        """Move the hand to `turns` (0 to 1) of a turn; under one label it only moves on."""
        face = self.face.reshape(-1, 3)
        behind, ahead = np.searchsorted(self._turns, [turns - _HAND_TURNS, turns + _HAND_TURNS]).tolist()
        behind = max(behind, self._painted)
        done = self._order[self._painted : behind]
        face[done] = self._covered[done]
        self._painted = behind

        edge = self._order[behind:ahead]
        pixels_passed = (
            (np.float32(turns) - self._turns[behind:ahead]) * np.float32(math.tau) * self._radius[behind:ahead]
        )
        passed = np.clip(pixels_passed + 0.5, 0, 1)[:, None]
        hand = np.clip(max(1.0, self._side / 440) + 0.5 - np.abs(pixels_passed), 0, 1)[:, None]
        clear = self._clear[edge].astype(np.float32)
        mixed = clear + (self._covered[edge] - clear) * passed
        face[edge] = mixed + (np.array(INK, np.float32) - mixed) * hand * self._bare[edge]


def _faces(ground: Floats, radius: Floats, turns: Floats, look: Look) -> tuple[Picture, Picture]:
    """The disc before and after the sweep has passed, without a label."""
    side = ground.shape[0]
    outer, thick = side * _REACH, max(1.0, side / 180)
    inside = np.clip(outer + 0.5 - radius, 0, 1)
    fresh, swept = (ground * (1 + (tone - 1) * inside[..., None]) for tone in (_FRESH, _SWEPT))
    rings = np.zeros_like(radius)
    for ring in range(look.rings + 1):
        reach = outer - thick - ring * side * 0.036
        np.maximum(rings, np.clip(thick / 2 + 0.5 - np.abs(radius - reach), 0, 1), out=rings)
    from_tick = np.abs((turns * look.ticks + 0.5) % 1 - 0.5) * np.float32(math.tau / look.ticks) * radius
    low, high = outer - side * 0.036 * (look.rings + 1), outer - side * 0.036 * look.rings
    ticks = np.clip(thick / 2 + 0.5 - from_tick, 0, 1) * ((radius > low) & (radius < high))
    marks = np.maximum(rings, ticks) * np.float32(0.8)
    bright, dark = (np.minimum(_over(face, marks, CREAM), 255).astype(np.uint8) for face in (fresh, swept))
    return bright, dark


def _label_masks(text: str, side: int) -> tuple[Floats, Floats, tuple[slice, slice]]:
    """Coverage of the label with its outline, and of the label alone, in the rectangle that holds them."""
    size = round(side * (0.62 if len(text) == 1 else 0.95 / (len(text) + 1)))
    face = font(size)
    ink_left, ink_top, ink_right, ink_bottom = face.getbbox(text)
    at = ((side - ink_left - ink_right) / 2, (side - ink_top - ink_bottom) / 2)
    images: list[Image.Image] = []
    for stroke in (max(2, side // 45), max(1, side // 90)):
        image = Image.new("L", (side, side))
        ImageDraw.Draw(image).text(at, text, fill=255, font=face, stroke_width=stroke)
        images.append(image)
    left, top, right, bottom = images[0].getbbox() or (0, 0, 0, 0)
    place = slice(top, bottom), slice(left, right)
    edge, ink = (np.array(image, np.float32)[place] / np.float32(255) for image in images)
    return edge, ink, place


def _over(ground: Floats | Picture, coverage: Floats, colour: Colour) -> Floats:
    return ground + (np.array(colour, np.float32) - ground) * coverage[..., None]
