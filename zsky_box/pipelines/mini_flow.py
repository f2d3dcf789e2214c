"""mini's denoiser: one transformer over a sentence, a scene, an object, a voice, and a clip's moments; and its sampler.

Rectified flow (Liu et al. 2022): a token at noise s is (1 - s) data + s noise, and the network predicts the velocity
noise - data. What is seen and what is heard in a quarter second enter the transformer as one moment, and leave it by
two doors. Each token has its own noise level, so that what is given (a first frame) is simply clean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from zsky_box.pipelines.mini_latents import CHUNKS, GIVEN_TOKENS, GROUPS, TOKEN_SIZE, TOKENS
from zsky_box.pipelines.mini_words import SLOTS

_STILL: Final = [name for name, count, _, _ in GROUPS if count == 1]
_LEVELS: Final = 64
"""Numbers that describe a noise level."""

OnStep = Callable[[int, int, Tensor], None]
"""Called after each step with how many are done, how many there are, and the clean tokens as now estimated."""


class Block(nn.Module):
    """Attention and a feed-forward layer, each bent by the token's noise level and by what was said."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self.bend = nn.Parameter(torch.zeros(6, width))

    def forward(self, tokens: Tensor, bends: Tensor) -> Tensor:
        """[n, tokens, width], and bends [n, tokens, 6, width] shared by all blocks."""
        gain, shift, gate, gain_up, shift_up, gate_up = (bends + self.bend).unbind(-2)
        inner = _normed(tokens) * (1 + gain) + shift
        n, count, width = inner.shape
        query, key, value = self.qkv(inner).view(n, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(_normed(query), _normed(key), value)
        tokens = tokens + gate * self.out(mixed.transpose(1, 2).reshape(n, count, width))
        inner = _normed(tokens) * (1 + gain_up) + shift_up
        return tokens + gate_up * self.down(functional.gelu(self.up(inner)))


class Flow(nn.Module):
    """The denoiser."""

    def __init__(self, width: int = 128, heads: int = 4, depth: int = 4) -> None:
        super().__init__()
        self.config = {"width": width, "heads": heads, "depth": depth}
        self.text = nn.ModuleList(nn.Embedding(1 + len(values), width // len(SLOTS)) for values in SLOTS.values())
        self.told = nn.Linear(width, width)
        self.enter = nn.ModuleList(nn.Linear(kept, width) for _, _, _, kept in GROUPS)
        self.group = nn.Parameter(torch.randn(len(GROUPS), width) * 0.5)
        self.time = nn.Parameter(torch.randn(CHUNKS, width) * 0.5)
        self.level = nn.Linear(_LEVELS, width)
        self.bends = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.leave = nn.ModuleList(nn.Linear(width, kept) for _, _, _, kept in GROUPS)
        for parameter in (*self.bends.parameters(), *self.leave.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, levels: Tensor, slots: Tensor) -> Tensor:
        """Velocities [n, TOKENS, TOKEN_SIZE] of tokens at noise levels [n, TOKENS], told slots [n, slots]."""
        n = len(tokens)
        words = torch.cat([table(slots[:, at]) for at, table in enumerate(self.text)], 1)[:, None]
        parts: list[Tensor] = []
        at = 0
        for index, (_, count, _, kept) in enumerate(GROUPS):
            parts.append(self.enter[index](tokens[:, at : at + count, :kept]) + self.group[index])
            at += count
        *still, motion, sound = parts
        stream = torch.cat((words, *still, motion + sound + self.time), 1)
        levels = torch.cat((levels.new_zeros(n, 1), levels[:, :-CHUNKS]), 1)
        about = self.level(_waves(levels)) + self.told(words)
        stream = stream + about
        bends = self.bends(functional.silu(about)).view(n, stream.shape[1], 6, -1)
        for block in self.blocks:
            stream = block(stream, bends)
        stream = _normed(stream[:, 1:])
        *still, moments = stream.split([1] * len(_STILL) + [CHUNKS], 1)
        left = [leave(part) for leave, part in zip(self.leave, (*still, moments, moments), strict=True)]
        return torch.cat([functional.pad(part, (0, TOKEN_SIZE - part.shape[-1])) for part in left], 1)


@torch.no_grad()
def sample(
    flow: Flow,
    slots: Tensor,
    noise: Tensor,
    steps: int,
    guidance: float,
    on_step: OnStep | None = None,
    given: Tensor | None = None,
) -> Tensor:
    """Denoise [n, TOKENS, TOKEN_SIZE], told slots [n, slots]; `given` [n, GIVEN_TOKENS, TOKEN_SIZE] stays as it is.

    Heun's method, on levels that lie closer together where there is most noise. Guidance 1 is none.
    """
    tokens = noise.clone()
    levels = sigmas(steps).to(noise)
    for step in range(steps):
        here, there = levels[step], levels[step + 1]
        velocity = _guided(flow, tokens, here, slots, guidance, given)
        guess = tokens + (there - here) * velocity
        if step + 1 < steps:
            velocity = (velocity + _guided(flow, guess, there, slots, guidance, given)) / 2
        tokens = tokens + (there - here) * velocity
        if on_step is not None:
            on_step(step + 1, steps, _held(tokens - there * velocity, given))
    return _held(tokens, given)


def sigmas(steps: int) -> Tensor:
    """Noise levels from 1 to 0: [steps + 1]."""
    even = torch.linspace(1, 0, steps + 1)
    return 2 * even / (1 + even)


def _guided(flow: Flow, tokens: Tensor, level: Tensor, slots: Tensor, guidance: float, given: Tensor | None) -> Tensor:
    """The velocity; guided, it is led away from what an empty prompt would make."""
    n = len(tokens)
    levels = level.expand(n, TOKENS)
    if given is not None:
        tokens = _held(tokens, given)
        levels = torch.cat((levels.new_zeros(n, GIVEN_TOKENS), levels[:, GIVEN_TOKENS:]), 1)
    if guidance == 1:
        return flow(tokens, levels, slots)
    both = flow(tokens.repeat(2, 1, 1), levels.repeat(2, 1), torch.cat((slots, torch.zeros_like(slots))))
    told, untold = both.chunk(2)
    return untold + guidance * (told - untold)


def _held(tokens: Tensor, given: Tensor | None) -> Tensor:
    return tokens if given is None else torch.cat((given, tokens[:, GIVEN_TOKENS:]), 1)


def _waves(levels: Tensor) -> Tensor:
    """Sines and cosines of the levels [...] at rising frequencies: [..., _LEVELS]."""
    rates = torch.exp(torch.linspace(0, 6, _LEVELS // 2, device=levels.device))
    angles = levels[..., None] * rates
    return torch.cat((angles.sin(), angles.cos()), -1)


def _normed(tokens: Tensor) -> Tensor:
    return functional.rms_norm(tokens, tokens.shape[-1:])
