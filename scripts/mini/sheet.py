"""A contact sheet of what mini makes: `python -m scripts.mini.sheet --model FOLDER --out FILE`. Nothing is picked.

Row k shows five frames of the clip that seed k makes of the k-th caption, and its sound as a curve. The captions are
the first of those that the scorer uses: what denoises never saw their combinations in training.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from scripts.mini import captions, world
from zsky_box.pipelines.mini_latents import FRAMES, HEIGHT, WIDTH
from zsky_box.pipelines.mini_model import MiniModel

SHOWN: Final = 5
_TEXT: Final = 16
_CURVE: Final = 28
_QUALITY: Final = 82


def main() -> None:
    parser = argparse.ArgumentParser(description="A contact sheet of mini's output.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model = MiniModel.from_folder(asked.model)
    clips = world.scenes(np.random.default_rng(asked.seed), asked.clips, "held out")
    strips = [strip(model, captions.full(clips, row), row) for row in range(len(clips))]
    sheet = Image.new("RGB", (strips[0].width, sum(each.height for each in strips)))
    for row, each in enumerate(strips):
        sheet.paste(each, (0, row * each.height))
    sheet.save(asked.out, quality=_QUALITY)


def strip(model: MiniModel, caption: str, seed: int) -> Image.Image:
    """One clip: its caption, frames at even distances, and its sound below them."""
    tokens = model.sample(model.words.read(caption).slots, seed)
    frames = list(model.decode_frames(tokens))
    width, height = WIDTH * 5 // 8, HEIGHT * 5 // 8
    picture = Image.new("RGB", (SHOWN * width, _TEXT + height + _CURVE), "white")
    pen = ImageDraw.Draw(picture)
    pen.text((4, 1), f"seed {seed}: {caption}", "black", ImageFont.load_default(12))
    for place in range(SHOWN):
        frame = Image.fromarray(frames[place * (FRAMES - 1) // (SHOWN - 1)])
        picture.paste(frame.resize((width, height)), (place * width, _TEXT))
    for x, level in enumerate(_levels(model.decode_sound(tokens)[:, 0], picture.width)):
        reach = min(1.0, 2 * float(level)) * (_CURVE - 4) / 2
        middle = _TEXT + height + _CURVE / 2
        pen.line((x, middle - reach, x, middle + reach), "black")
    return picture


def _levels(sound: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    """The loudest sample in each column."""
    return np.array([np.abs(part).max() for part in np.array_split(sound, columns)], np.float32)


if __name__ == "__main__":
    main()
