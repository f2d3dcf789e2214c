"""What mini can read: its eight slots, the words for each value, and a small network that fills the slots.

Words decide nothing alone: in "a blue ball under a white sky" one colour is not the ball's, so the network reads each
word among its neighbours. But it fills no slot with what no word said. It knows nothing of pictures, sounds and noise.
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

VOCABULARY: Final = (
    "",
    "?",
    *dict.fromkeys([*(w for values in SLOTS.values() for words in values.values() for w in words), *GLUE]),
)
"""Every known word by its index; 0 fills up, 1 stands for any unknown word."""

WORDS_READ: Final = 32
"""Later words are not read."""

_INDEX: Final = {word: index for index, word in enumerate(VOCABULARY)}

_MEANING: Final = {
    word: (slot, value) for slot, values in SLOTS.items() for value, words in values.items() for word in words
}
"""Each word that fills a slot: it fills that one alone, with one value."""

_ELSEWHERE: Final = ("colour",)
"""Slots whose words are also said of what is not the object, so that a word may be passed over."""


class Reading(NamedTuple):
    """What a prompt said, as far as mini understands it."""

    slots: Tensor
    """int64 [8]: the index of the value in each slot, 0 where nothing was said."""
    understood: dict[str, str]
    """Slot to value, of the slots that were filled."""
    left_out: tuple[str, ...]
    """Known words that another word of the prompt, or its sense, kept from a slot: each once, in their order."""


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
        """Fill the slots with values that some word of the prompt says; a prompt with nothing known fills none."""
        meant = {word: _MEANING[word] for word in split(prompt) if word in _MEANING}
        said = set(meant.values())
        indices: list[int] = []
        for (slot, values), logits in zip(SLOTS.items(), self(word_ids(prompt)[None]), strict=True):
            able = [index for index, value in enumerate(values, 1) if (slot, value) in said]
            able = [0, *able] if slot in _ELSEWHERE or not able else able
            indices.append(max(able, key=lambda index: float(logits[0, index])))
        understood = {slot: list(SLOTS[slot])[index - 1] for slot, index in zip(SLOTS, indices, strict=True) if index}
        left_out = tuple(word for word, (slot, value) in meant.items() if understood.get(slot) != value)
        return Reading(torch.tensor(indices), understood, left_out)
