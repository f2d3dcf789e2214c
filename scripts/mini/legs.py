"""Training in legs: any step can be the last of a leg, and the next leg goes on exactly as if there had been no break.

All that a step draws at random comes from generators seeded by (seed, stage, step), so a checkpoint is the weights, the
optimisers and a number. It is replaced atomically: a kill loses at most what was done since.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

SAVE_SECONDS: Final = 60.0
LOG_STEPS: Final = 50
_WARM_UP_STEPS: Final = 100


@dataclass(frozen=True)
class Draw:
    """The randomness of one step."""

    numpy: np.random.Generator
    torch: torch.Generator

    @classmethod
    def of(cls, seed: int, stage: str, step: int) -> Draw:
        rng = np.random.default_rng([seed, *stage.encode(), step])
        return cls(rng, torch.Generator().manual_seed(int(rng.integers(2**62))))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.torch)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.torch)


class Stage(Protocol):
    """What is trained: a network, and its loss on a batch that it draws for itself."""

    name: str
    steps: int
    decay: int
    """So many of the last steps bring the learning rate down to nothing."""
    learning_rate: float
    average: float
    """How much of the running average of the weights is kept at each step."""

    @property
    def net(self) -> nn.Module: ...

    def loss(self, draw: Draw) -> dict[str, Tensor]:
        """Named parts of the loss, each to be summed."""
        ...


class OutOfTime(Exception):
    """The leg is over; the checkpoint is saved."""


def train(stage: Stage, folder: Path, seed: int, deadline: float, report: Callable[[str], None] = print) -> None:
    """Train to the stage's last step, from the checkpoint where there is one; the network then holds the averages.

    `deadline` is on time.monotonic()'s clock. Raises OutOfTime when it is reached first.
    """
    optimisers = _optimisers(stage)
    average = {key: value.clone() for key, value in stage.net.state_dict().items()}
    path = folder / f"{stage.name}.pt"
    step, spent = _resume(path, stage.net, optimisers, average)
    began = saved = time.monotonic()
    stage.net.train()
    while step < stage.steps:
        parts = stage.loss(Draw.of(seed, stage.name, step))
        sum(parts.values(), torch.zeros(())).backward()
        nn.utils.clip_grad_norm_(stage.net.parameters(), 1.0)
        rate = min(1.0, (step + 1) / _WARM_UP_STEPS) * min(1.0, (stage.steps - step) / stage.decay)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * rate
            optimiser.step()
            optimiser.zero_grad()
        step += 1
        keep = min(stage.average, step / (step + 10))
        for key, value in stage.net.state_dict().items():
            average[key].lerp_(value, 1 - keep)
        now = time.monotonic()
        if step % LOG_STEPS == 0 or step == stage.steps:
            _log(folder, stage.name, step, spent + now - began, parts, report)
        late = now >= deadline
        if late or now - saved >= SAVE_SECONDS or step == stage.steps:
            _save(path, stage.net, optimisers, average, step, spent + now - began)
            saved = now
        if late and step < stage.steps:
            raise OutOfTime(f"{stage.name}: {step} of {stage.steps} steps")
    stage.net.load_state_dict(average)
    stage.net.eval()


def averages(path: Path) -> tuple[dict[str, Tensor], int, float]:
    """A checkpoint's averaged weights, how many steps they had, and the seconds these took."""
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return cast("dict[str, Tensor]", state["average"]), int(state["step"]), float(state["seconds"])


def _optimisers(stage: Stage) -> Sequence[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices inside a transformer's blocks, AdamW for everything else."""
    named = dict(stage.net.named_parameters())
    inner = [value for key, value in named.items() if key.startswith("blocks.") and key.endswith(".weight")]
    ids = {id(value) for value in inner}
    outer = [value for value in named.values() if id(value) not in ids]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(outer, stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    ]
    if inner:
        found.append(torch.optim.Muon(inner, 10 * stage.learning_rate, weight_decay=0.01))
    for optimiser in found:
        for group in optimiser.param_groups:
            group["initial_lr"] = group["lr"]
    return found


def _resume(
    path: Path, net: nn.Module, optimisers: Sequence[torch.optim.Optimizer], average: dict[str, Tensor]
) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    state: dict[str, Any] = torch.load(path, weights_only=True)
    net.load_state_dict(state["net"])
    average.update(state["average"])
    for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    return int(state["step"]), float(state["seconds"])


def _save(
    path: Path,
    net: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    average: dict[str, Tensor],
    step: int,
    seconds: float,
) -> None:
    state = {"net": net.state_dict(), "average": average, "step": step, "seconds": seconds}
    state |= {"optimisers": [optimiser.state_dict() for optimiser in optimisers]}
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _log(
    folder: Path, stage: str, step: int, seconds: float, parts: dict[str, Tensor], report: Callable[[str], None]
) -> None:
    row = {"stage": stage, "step": step, "seconds": round(seconds, 1)}
    row |= {name: round(value.item(), 5) for name, value in parts.items()}
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    report("  ".join(f"{key} {value}" for key, value in row.items()))
