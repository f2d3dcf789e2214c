"""All that does not move on a film leader: the ground, the cross, the slate with its texts, and a test's band.

Everything follows from the size, the seed and the texts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from zsky_box.pipelines.base import Picture
from zsky_box.pipelines.leader_text import Colour, drawable, fitted, font, glyph_tiles, one_line

CREAM: Final[Colour] = (226, 220, 204)
INK: Final[Colour] = (14, 14, 15)
_FADED: Final[Colour] = (142, 139, 131)
_SLATE: Final[Colour] = (22, 23, 25)
_RULE: Final[Colour] = (58, 59, 62)
_WARNING: Final[Colour] = (186, 112, 20)
_READOUT_CHARACTERS: Final = "0123456789:"
_FIELD_PITCH: Final = 9.6  # in hundredths of the slate's height


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Look:
    """What the seed decides."""

    tint: tuple[float, float, float]
    clockwise: bool
    ticks: int
    rings: int
    grain: int

    @classmethod
    def of(cls, seed: int) -> Look:
        """The look of a seed; any integer will do."""
        random = np.random.default_rng(seed % 2**64)
        hue, strength = random.uniform(0, math.tau), random.uniform(0.2, 0.4)
        red, green, blue = (1 + strength * math.cos(hue - third * math.tau / 3) for third in range(3))
        return cls(
            tint=(red, green, blue),
            clockwise=bool(random.integers(2)),
            ticks=int(random.choice([24, 36, 48, 60, 72])),
            rings=int(random.integers(1, 4)),
            grain=int(random.integers(2**32)),
        )


@dataclass(frozen=True)
class Texts:
    """What the slate says; `fields` are pairs of name and value; `running` is what the readout's line is called."""

    prompt: str
    fields: list[tuple[str, str]]
    running: str


class Plate:
    """The whole frame but for dial and readout: `picture` is [height, width, 3]; `dial` is the disc's place."""

    def __init__(self, width: int, height: int, look: Look, texts: Texts, *, test: bool) -> None:
        self.dial, slate, band = _layout(width, height, test=test)
        image = Image.fromarray(_ground(width, height, look))
        draw = ImageDraw.Draw(image)
        _draw_cross(draw, self.dial, image.size)
        card, mask = _blank_slate(slate)
        image.paste(card, (slate.left, slate.top), mask)
        self._readout_at, readout_size = _draw_texts(draw, slate, texts)
        if test:
            _draw_band(draw, band)
        self.picture: Picture = np.array(image)
        self._tiles = glyph_tiles(_READOUT_CHARACTERS, readout_size, CREAM, _SLATE)

    def write(self, frame: Picture, readout: str) -> None:
        """Write digits and colons, such as a timecode, on the slate of a frame; each has the same width."""
        left, top = self._readout_at
        for character in readout:
            tile = self._tiles[character]
            place = frame[top : top + tile.shape[0], left : left + tile.shape[1]]
            place[...] = tile[: place.shape[0], : place.shape[1]]
            left += tile.shape[1]


def _layout(width: int, height: int, *, test: bool) -> tuple[Box, Box, Box]:
    """Dial, slate, band: the dial beside the slate in landscape, above it otherwise; a test's band at the bottom."""
    short = min(width, height)
    margin = max(2, round(short * 0.06))
    room = height - (round(short * 0.12) if test else 0)
    band = Box(0, room, width, height - room)
    if width > height:
        side = min(room - 2 * margin, round(width * 0.48))
        tall = min(room - 2 * margin, max(side, round(height * 0.7)))
        left = 2 * margin + side
        dial = Box(margin, (room - side) // 2, side, side)
        return dial, Box(left, (room - tall) // 2, width - left - margin, tall), band
    gap = margin if width < height else margin // 2
    side = min(width - 2 * margin, round(room * 0.5))
    below = 2 * gap + side
    return Box((width - side) // 2, gap, side, side), Box(margin, below, width - 2 * margin, room - below - gap), band


def _ground(width: int, height: int, look: Look) -> Picture:
    """Tinted grey, darker towards the corners, with grain."""
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :] ** 2
    grain = np.random.default_rng(look.grain).integers(-6, 7, (height, width), dtype=np.int8)
    level = np.float32(112) - 30 * (down + across) + grain
    return np.clip(level[..., None] * np.array(look.tint, np.float32), 0, 255).astype(np.uint8)


def _draw_cross(draw: ImageDraw.ImageDraw, dial: Box, size: tuple[int, int]) -> None:
    """Two lines through the dial's centre, right across the frame."""
    thick = max(1, dial.width // 260)
    x, y = dial.left + dial.width // 2, dial.top + dial.height // 2
    draw.rectangle((0, y - thick, size[0], y + thick - 1), fill=INK)
    draw.rectangle((x - thick, 0, x + thick - 1, size[1]), fill=INK)


def _blank_slate(box: Box) -> tuple[Image.Image, Image.Image]:
    """The dark card with a clapperboard's slanted stripes along its top, and its mask: rounded, with smooth edges."""
    across = np.arange(box.width, dtype=np.float32)
    down = np.arange(box.height, dtype=np.float32)[:, None]
    clapper = _clapper_height(box)
    stripe = 2 * clapper
    from_middle = np.abs((across + down[:clapper] * np.float32(0.9)) % stripe - stripe / 2)
    light = np.clip(stripe / 4 - from_middle + 0.5, 0, 1)[..., None]
    card = np.full((box.height, box.width, 3), _SLATE, np.uint8)
    card[:clapper] = (np.array(_RULE) + light * (np.array(_FADED) - np.array(_RULE))).astype(np.uint8)
    radius = _pad(box) / 2
    outside = [
        np.maximum(np.abs(place - (size - 1) / 2) - (size / 2 - radius), 0)
        for place, size in ((across, box.width), (down, box.height))
    ]
    mask = np.clip(radius + 0.5 - np.hypot(*outside), 0, 1) * 255
    return Image.fromarray(card), Image.fromarray(mask.astype(np.uint8))


def _pad(box: Box) -> int:
    return max(3, round(min(box.width, box.height) * 0.06))


def _clapper_height(box: Box) -> int:
    return max(2, round(box.height * 0.075))


def _draw_texts(draw: ImageDraw.ImageDraw, box: Box, texts: Texts) -> tuple[tuple[int, int], int]:
    """All that the slate says; returns where the readout goes, and its size in pixels."""
    pad, unit = _pad(box), box.height / 100
    left, width = box.left + pad, box.width - 2 * pad
    top = box.top + _clapper_height(box)
    one_line(draw, (left, top + 7 * unit), "FILM LEADER", round(8 * unit), width, CREAM)
    one_line(
        draw, (left, top + 14 * unit), "A test pattern: drawn, not made by a model.", round(4 * unit), width, _FADED
    )
    draw.rectangle((left, top + 18.5 * unit, left + width, top + 18.5 * unit + max(0, unit / 4)), fill=_RULE)

    readout_size = max(6, round(min(11 * unit, width / 6.2)))
    readout_top = box.top + box.height - pad - round(readout_size * 1.1)
    running_top = readout_top - 2 * unit
    fields_top = running_top - 2 * unit - _FIELD_PITCH * unit * math.ceil(len(texts.fields) / 2)
    _draw_fields(draw, texts.fields, (left, fields_top), width, unit)
    one_line(draw, (left, running_top), texts.running, round(3 * unit), width, _FADED)

    prompt_top = top + 21.5 * unit
    prompt_height = max(1, round(fields_top - 3 * unit - prompt_top))
    sizes = [max(6, round(size * unit)) for size in (7.5, 6.5, 5.5, 4.8, 4.2, 3.6, 3.0)]
    face, lines, step = fitted(drawable(texts.prompt), sizes, width, prompt_height)
    for row, text in enumerate(lines):
        draw.text((left, prompt_top + row * step), text, fill=CREAM, font=face)
    return (left, readout_top), readout_size


def _draw_fields(
    draw: ImageDraw.ImageDraw, fields: list[tuple[str, str]], at: tuple[float, float], width: int, unit: float
) -> None:
    """Names and values in two columns."""
    column = width / 2
    for place, (name, value) in enumerate(fields):
        x, y = at[0] + column * (place % 2), at[1] + _FIELD_PITCH * unit * (place // 2)
        one_line(draw, (x, y), name, round(3 * unit), round(column * 0.95), _FADED)
        one_line(draw, (x, y + 4.2 * unit), value, round(4.4 * unit), round(column * 0.95), CREAM)


def _draw_band(draw: ImageDraw.ImageDraw, box: Box) -> None:
    """A test key's results say so, large."""
    draw.rectangle((box.left, box.top, box.left + box.width, box.top + box.height), fill=_WARNING)
    middle = (box.left + box.width / 2, box.top + box.height / 2)
    draw.text(middle, "TEST OUTPUT", fill=INK, font=font(round(box.height * 0.74)), anchor="mm")
