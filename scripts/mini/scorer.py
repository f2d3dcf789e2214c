"""Reads clips as a stranger would: from frames and sound alone, it says what they show and when something is struck.

Its networks are its own, trained on the world's exact drawings and sounds, and it sees nothing of a caption and nothing
of the model's latents. What can be measured is measured (measures.py); size is a threshold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from scripts.mini import draw, measures, strike, world
from scripts.mini.measures import onsets, profile, strikes
from scripts.mini.stages import cells
from zsky_box.pipelines.mini_latents import FPS, FRAMES
from zsky_box.pipelines.mini_picture import ASPECT, HORIZON
from zsky_box.pipelines.mini_words import SLOTS

PICTURES: Final = 8_000
SOUNDS: Final = 1_200
WAYS: Final = 12_000
_EPOCHS: Final = 6
_BATCH: Final = 32
_CUT: Final = 56
"""Pixels along the side of what is cut out around the object: it holds the biggest."""


@dataclass(frozen=True)
class Verdict:
    """What one clip shows."""

    values: dict[str, str]
    """Slot to value, of all eight."""
    strikes: list[float]
    """When it is seen to strike something, in seconds."""
    onsets: list[float]
    """When it is heard to, in seconds."""


class Eye(nn.Module):
    """Finds the object in a frame and says what it is; and which background and floor there are."""

    def __init__(self) -> None:
        super().__init__()
        self.find = nn.Sequential(
            nn.Conv2d(3, 16, 5, 2, 2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 24, 5, 2, 2),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=2, dilation=2),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 1, 5, padding=2),
        )
        self.look = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, 2, 1),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.Conv2d(48, 64, 3, 2, 1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * (_CUT // 8) ** 2, 128),
            nn.ReLU(),
        )
        self.kind, self.colour, self.shape = nn.Linear(128, 5), nn.Linear(128, 8), nn.Linear(128, 3)
        self.background = nn.Sequential(nn.Linear(3 * 6 * 16, 64), nn.ReLU(), nn.Linear(64, 5))
        self.floor = nn.Sequential(nn.Linear(3 * 4 * 16, 64), nn.ReLU(), nn.Linear(64, 5))

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Frames [n, 3, HEIGHT, WIDTH]: logits of four slots and of the place; place and way in numbers."""
        heat = self.find(functional.avg_pool2d(frames, 2) - 0.5)
        weights = heat.flatten(1).softmax(1).view(len(frames), *heat.shape[-2:])
        down, across = (torch.arange(size) + 0.5 for size in heat.shape[-2:])
        x = (weights.sum(1) * across).sum(1) / heat.shape[-1] * ASPECT
        y = (weights.sum(2) * down).sum(1) / heat.shape[-2]
        place = torch.stack((x, y), 1)
        seen = self.look(_cut(frames, place.detach()) - 0.5)
        shift = self.shape(seen) * 0.1
        edge = round(HORIZON * frames.shape[-2])
        above = functional.adaptive_avg_pool2d(frames[:, :, : edge - 2], (6, 16)).flatten(1) - 0.5
        below = functional.adaptive_avg_pool2d(frames[:, :, edge + 2 :], (4, 16)).flatten(1) - 0.5
        return {
            "kind": self.kind(seen),
            "colour": self.colour(seen),
            "background": self.background(above),
            "floor": self.floor(below),
            "place": place,
            "heat": heat[:, 0],
            "way": torch.cat((place.detach() + shift[:, :2], 0.1 + shift[:, 2:]), 1),
        }


class Way(nn.Module):
    """Says from an object's way through a clip how it acts, and how fast."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(4, 32, 7, 2, 3), nn.ReLU(), nn.Conv1d(32, 32, 7, 2, 3), nn.ReLU(), nn.Flatten()
        )
        self.action, self.speed = nn.Linear(32 * FRAMES // 4, 4), nn.Linear(32 * FRAMES // 4, 2)

    def forward(self, way: Tensor) -> tuple[Tensor, Tensor]:
        """Places [n, FRAMES, 2] to the logits of action and speed."""
        speed = functional.pad(way.diff(dim=1), (0, 0, 1, 0)) * FPS / 2
        seen = self.layers(torch.cat((way - 0.5, speed), 2).mT)
        return self.action(seen), self.speed(seen)


class Ear(nn.Module):
    """Says from the colour of a sound what is struck."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(129, 64), nn.ReLU(), nn.Linear(64, 4))

    def forward(self, profiles: Tensor) -> Tensor:
        """Profiles [n, 129] to the logits of the material."""
        return self.layers(profiles)


@dataclass(frozen=True)
class Scorer:
    """Eye, way and ear, trained."""

    eye: Eye
    way: Way
    ear: Ear

    @classmethod
    def trained(cls, seed: int = 77) -> Scorer:
        """Train on the world; about two minutes on a free core. The same seed trains the same scorer."""
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        return cls(_trained_eye(rng), _trained_way(rng), _trained_ear(rng))

    @classmethod
    def kept(cls, folder: Path) -> Scorer:
        """The scorer kept in a folder, trained first where there is none of this world and this code."""
        sources = b"".join(Path(file).read_bytes() for file in (__file__, measures.__file__))
        code = hashlib.sha256(sources + world.digest().encode()).hexdigest()[:12]
        path = folder / f"scorer-{code}.pt"
        if not path.exists():
            scorer = cls.trained()
            torch.save([part.state_dict() for part in (scorer.eye, scorer.way, scorer.ear)], path)
            return scorer
        parts = Eye(), Way(), Ear()
        for part, weights in zip(parts, torch.load(path, weights_only=True), strict=True):
            part.load_state_dict(weights)
            part.eval()
        return cls(*parts)

    @torch.no_grad()
    def judge(self, frames: Tensor, sound: Tensor) -> Verdict:
        """A clip's frames [FRAMES, 3, HEIGHT, WIDTH] in 0 to 1, and its sound [SAMPLES]."""
        seen = self.eye(frames)
        found = {
            slot: seen[slot].softmax(1).mean(0).argmax().item() for slot in ("kind", "colour", "background", "floor")
        }
        way = seen["way"]
        action, speed = self.way(way[None, :, :2])
        found |= {"action": action.argmax().item(), "speed": speed.argmax().item()}
        found |= {"material": self.ear(profile(sound)[None]).argmax().item()}
        found |= {"size": int(float(way[:, 2].median()) > sum(world.RADII) / 2)}
        values = {slot: list(SLOTS[slot])[int(found[slot])] for slot in SLOTS}
        return Verdict(values, strikes(way.numpy().astype(np.float64)), onsets(sound))


def _cut(frames: Tensor, place: Tensor) -> Tensor:
    """Squares of _CUT pixels around places [n, 2]."""
    height, width = frames.shape[-2:]
    steps = torch.arange(_CUT) - (_CUT - 1) / 2
    y = place[:, 1, None] * 2 - 1 + steps * 2 / height
    x = place[:, 0, None] / ASPECT * 2 - 1 + steps * 2 / width
    grid = torch.stack((x[:, None].expand(-1, _CUT, -1), y[:, :, None].expand(-1, -1, _CUT)), -1)
    return functional.grid_sample(frames, grid, padding_mode="border", align_corners=False)


def _trained_eye(rng: np.random.Generator) -> Eye:
    clips = world.scenes(rng, PICTURES)
    at = rng.integers(0, FRAMES, PICTURES)
    pose = torch.from_numpy(world.move(clips).pose[np.arange(PICTURES), at])
    frames = torch.cat(
        [
            (draw.objects(clips[rows], pose[rows], draw.scenery(clips[rows])) * 255).to(torch.uint8)
            for rows in (slice(first, first + 50) for first in range(0, PICTURES, 50))
        ]
    )
    true = torch.cat((pose[:, :2], torch.from_numpy(clips.radius)[:, None]), 1)
    eye = Eye()

    def loss(rows: NDArray[np.int64]) -> Tensor:
        picture = frames[rows].float() / 255
        picture = picture + 0.02 * torch.randn_like(picture)
        seen = eye(picture)
        named = [functional.cross_entropy(seen[slot], torch.from_numpy(clips.value(slot)[rows])) for slot in _SEEN]
        place = (seen["place"] - true[rows, :2]).abs().mean() + (seen["way"] - true[rows]).abs().mean()
        heat = functional.cross_entropy(seen["heat"].flatten(1), cells(true[rows], seen["heat"]))
        return sum(named, 20 * place) + heat

    _fit(eye, loss, rng, PICTURES, _EPOCHS)
    return eye


_Loss = Callable[[NDArray[np.int64]], Tensor]
_SEEN: Final = ("kind", "colour", "background", "floor")


def _trained_way(rng: np.random.Generator) -> Way:
    clips = world.scenes(rng, WAYS)
    ways = torch.from_numpy(world.move(clips).pose[:, :, :2])
    action, speed = (torch.from_numpy(clips.value(slot)) for slot in ("action", "speed"))
    way = Way()

    def loss(rows: NDArray[np.int64]) -> Tensor:
        acts, speeds = way(ways[rows] + 0.006 * torch.randn(len(rows), FRAMES, 2))
        return functional.cross_entropy(acts, action[rows]) + functional.cross_entropy(speeds, speed[rows])

    _fit(way, loss, rng, WAYS, _EPOCHS)
    return way


def _trained_ear(rng: np.random.Generator) -> Ear:
    clips = world.scenes(rng, SOUNDS)
    motion = world.move(clips)
    profiles = torch.stack([profile(strike.sound(clips, motion, row)) for row in range(SOUNDS)])
    material = torch.from_numpy(clips.value("material"))
    ear = Ear()

    def loss(rows: NDArray[np.int64]) -> Tensor:
        heard = ear(profiles[rows] + 0.1 * torch.randn(len(rows), profiles.shape[1]))
        return functional.cross_entropy(heard, material[rows])

    _fit(ear, loss, rng, SOUNDS, 8 * _EPOCHS)
    return ear


def _fit(net: nn.Module, loss: _Loss, rng: np.random.Generator, n: int, epochs: int) -> None:
    """Train a network on n rows, so often each, with a rate that falls to nothing."""
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3)
    steps = epochs * (n // _BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, steps)
    rows = np.concatenate([rng.permutation(n)[: n // _BATCH * _BATCH] for _ in range(epochs)]).reshape(steps, _BATCH)
    for batch in rows:
        optimiser.zero_grad()
        loss(batch).backward()
        optimiser.step()
        schedule.step()
    net.eval()
