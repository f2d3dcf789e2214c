"""What mini can read: its eight slots, the words for each value, and a small network that fills the slots.

Words decide nothing alone: "a blue ball under a white sky" has its colours in two slots, so the network reads each word
among its neighbours. It knows nothing of pictures, sounds and noise.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from zsky_box.vocabulary import words_of

SLOTS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "kind": {
        "ball": ("ball", "sphere", "orb"),
        "cube": ("cube", "box", "block"),
        "star": ("star",),
        "ring": ("ring", "hoop", "donut"),
        "heart": ("heart",),
    },
    "colour": {
        "red": ("red", "crimson", "scarlet"),
        "green": ("green", "emerald"),
        "blue": ("blue", "azure"),
        "yellow": ("yellow", "golden"),
        "orange": ("orange",),
        "purple": ("purple", "violet"),
        "white": ("white",),
        "black": ("black",),
    },
    "material": {
        "rubber": ("rubber", "rubbery"),
        "metal": ("metal", "steel", "iron", "metallic"),
        "wood": ("wooden", "wood"),
        "glass": ("glass", "crystal"),
    },
    "size": {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge")},
    "action": {
        "bounce": ("bounces", "bouncing", "bounce", "hops", "hopping", "jumps", "jumping"),
        "fall": ("falls", "falling", "fall", "drops", "dropping"),
        "roll": ("rolls", "rolling", "roll"),
        "float": ("floats", "floating", "float", "hovers", "hovering"),
    },
    "speed": {"slow": ("slowly", "slow", "gently"), "quick": ("quickly", "quick", "fast", "rapidly")},
    "background": {
        "studio": ("studio", "room"),
        "sky": ("sky", "clouds", "daylight"),
        "sunset": ("sunset", "dusk", "evening"),
        "night": ("night", "moonlight", "moon"),
        "forest": ("forest", "woods", "trees"),
    },
    "floor": {
        "grass": ("grass", "lawn", "meadow"),
        "sand": ("sand", "beach", "desert"),
        "stone": ("stone", "tiles", "concrete"),
        "snow": ("snow", "snowy"),
        "brick": ("brick", "bricks"),
    },
}
"""Slot, its values in the order of their indices (counted from 1; 0 is "not said"), and the words for each."""

# fmt: off
GLUE: Final = (
    "a", "an", "the", "on", "in", "at", "of", "made", "with", "floor", "ground", "background",
    "under", "over", "across", "by", "and", "is", "are", "it", "that", "this", "up", "down",
    "through", "against", "behind", "before", "into", "to", "from", "scene", "video", "clip", "picture", "image",
    "photo", "showing", "shows", "sound", "light", "lit", "one", "object", "surface",
)
# fmt: on
"""Known words that fill no slot by themselves."""

EXAMPLES: Final = (
    "a small red rubber ball bounces quickly on grass under a sky",
    "a big blue glass star floats slowly over snow at night",
    "a wooden cube falls on stone in a studio",
)

VOCABULARY: Final = (
    "",
    "?",
    *dict.fromkeys([*(w for values in SLOTS.values() for words in values.values() for w in words), *GLUE]),
)
"""Every known word by its index; 0 fills up, 1 stands for any unknown word."""

WORDS_READ: Final = 32
"""Later words are not read."""

_INDEX: Final = {word: index for index, word in enumerate(VOCABULARY)}


class Reading(NamedTuple):
    """What a prompt said, as far as mini understands it."""

    slots: Tensor
    """int64 [8]: the index of the value in each slot, 0 where nothing was said."""
    understood: dict[str, str]
    """Slot to value, of the slots that were filled."""
    unknown: tuple[str, ...]
    """Words outside the vocabulary, each once, in their order, as lower case."""


def split(prompt: str) -> list[str]:
    """The words that are read, as lower case."""
    return words_of(prompt)[:WORDS_READ]


def word_ids(prompt: str) -> Tensor:
    """int64 [WORDS_READ]: indices into the vocabulary, filled up with 0."""
    ids = [_INDEX.get(word, 1) for word in split(prompt)]
    return torch.tensor(ids + [0] * (WORDS_READ - len(ids)))


class WordReader(nn.Module):
    """Two convolutions over the words, then one attention pool and one classifier for each slot."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.config = {"width": width}
        self.embedding = nn.Embedding(len(VOCABULARY), width, padding_idx=0)
        self.near = nn.Conv1d(width, width, 5, padding=2)
        self.wide = nn.Conv1d(width, width, 5, padding=2)
        self.attention = nn.Linear(width, len(SLOTS))
        self.heads = nn.ModuleList(nn.Linear(width, 1 + len(values)) for values in SLOTS.values())

    def forward(self, ids: Tensor) -> list[Tensor]:
        """Word indices [n, words] to the logits [n, 1 + values] of each slot."""
        real = (ids != 0).unsqueeze(-1)
        words = self.embedding(ids)
        for layer in (self.near, self.wide):
            words = (words + functional.gelu(layer(words.mT).mT)) * real
        weights = self.attention(words).masked_fill(~real, -1e4).softmax(1)
        pooled = torch.einsum("nws,nwd->snd", weights, words)
        return [head(pooled[slot]) for slot, head in enumerate(self.heads)]

    @torch.no_grad()
    def read(self, prompt: str) -> Reading:
        """Fill the slots; a prompt with nothing known fills none."""
        slots = torch.stack([logits[0].argmax() for logits in self(word_ids(prompt)[None])])
        filled = zip(SLOTS, slots.tolist(), strict=True)
        understood = {slot: list(SLOTS[slot])[index - 1] for slot, index in filled if index}
        unknown = tuple(dict.fromkeys(word for word in split(prompt) if word not in _INDEX))
        return Reading(slots, understood, unknown)
