"""What people might write for a clip of mini's world: sentences in many orders, with words left out."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from scripts.mini.world import Scenes
from zsky_box.pipelines.mini_words import GLUE, SLOTS, word_ids

_PLACES: Final = {
    "studio": ("in a {}", "in a white {}", "in the {}"),
    "sky": ("under a blue {}", "under the {}", "against the {}"),
    "sunset": ("at {}", "in the {}", "under an orange {}"),
    "night": ("at {}", "by {}", "under a black {}", "in the {}"),
    "forest": ("in a {}", "in the green {}", "in front of {}", "in the {}"),
}
"""Colours are also said of places: the reader must not take them for the object's."""
_FLOORS: Final = (
    "on {}",
    "on the {}",
    "over {}",
    "across {}",
    "on a {} floor",
    "on {} ground",
    "on white {}",
    "on green {}",
)
_ORDERS: Final = ("tmvfp", "mvtfp", "tmvpf", "ptmvf", "vmtpf", "tmpfv", "ftmvp")
_DROP: Final = 0.12
_STRANGE: Final = 0.15


def full(clips: Scenes, row: int) -> str:
    """A plain sentence that says everything, with the first word for each value."""
    word = {slot: SLOTS[slot][value][0] for slot, value in _values(clips, row).items()}
    place = _PLACES[_values(clips, row)["background"]][0].format(word["background"])
    return (
        f"a {word['size']} {word['colour']} {word['material']} {word['kind']} {word['action']} {word['speed']}"
        f" on {word['floor']} {place}"
    )


def loose(rng: np.random.Generator, clips: Scenes, row: int) -> tuple[str, Tensor]:
    """A sentence in some order, with other words for the same, some things left unsaid; and the slots it fills [8]."""
    said = clips.slots[row].copy()
    said[rng.random(len(said)) < _DROP] = 0
    if rng.random() < _DROP:  # prompts of a few words are common
        said[rng.random(len(said)) < 0.6] = 0
    value = {slot: list(SLOTS[slot])[index - 1] if index else "" for slot, index in zip(SLOTS, said, strict=True)}
    word = {slot: str(rng.choice(SLOTS[slot][name])) if name else "" for slot, name in value.items()}
    about = [word["size"], word["colour"], word["material"]]
    rng.shuffle(about)
    parts = {
        "t": " ".join((str(rng.choice(("a", "the", "one", ""))), *about, word["kind"] or "object")),
        "m": f"{word['speed']} {word['action']}" if rng.random() < 0.4 else f"{word['action']} {word['speed']}",
        "f": str(rng.choice(_FLOORS)).format(word["floor"]) if word["floor"] else "",
        "p": str(rng.choice(_PLACES[value["background"]])).format(word["background"]) if value["background"] else "",
        "v": str(rng.choice(("", "", "a video of", "it", "and"))),
    }
    words = " ".join(parts[part] for part in str(rng.choice(_ORDERS))).split()
    if rng.random() < _STRANGE:
        words.insert(int(rng.integers(len(words) + 1)), str(rng.choice((*GLUE, "\u00fb"))))
    return " ".join(words), torch.from_numpy(said)


def batch(rng: np.random.Generator, clips: Scenes) -> tuple[Tensor, Tensor]:
    """Word indices [n, WORDS_READ] and slots [n, 8] of one loose sentence for each clip."""
    pairs = [loose(rng, clips, row) for row in range(len(clips))]
    return torch.stack([word_ids(text) for text, _ in pairs]), torch.stack([slots for _, slots in pairs])


def _values(clips: Scenes, row: int) -> dict[str, str]:
    return {slot: list(SLOTS[slot])[index - 1] for slot, index in zip(SLOTS, clips.slots[row], strict=True)}
