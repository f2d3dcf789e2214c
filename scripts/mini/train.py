"""Train mini: `python -m scripts.mini.train --recipe cpu --seed 1 --folder F`, as often as it takes.

One command, from nothing to F/model, in legs of --minutes; a leg goes on where the last one stopped, however it
stopped. F/log.jsonl has the losses, F/runs.jsonl what each leg ran on.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from scripts.mini import world
from scripts.mini.bank import Bank
from scripts.mini.legs import Draw, OutOfTime, averages, train
from scripts.mini.stages import Drawings, Flows, Sights, Sounds, Words
from zsky_box.pipelines.mini_model import MiniModel

WHITENED: Final = 8_192
"""Clips that the whitening is fitted to."""


@dataclass(frozen=True)
class Recipe:
    """How much of what."""

    device: str
    words: tuple[int, int]
    """Steps and batch, here and below."""
    sound: tuple[int, int]
    drawing: int
    """Steps; each draws all there is."""
    seeing: tuple[int, int]
    flow: tuple[int, int]
    bank: int
    """Clips that lend their voices to the flow's training."""
    width: int
    depth: int


CODECS: Final = ("words", "sound", "drawing", "seeing")

STAGES: Final[dict[str, tuple[str, ...]]] = {name: (name,) for name in CODECS} | {"flow": ("sound", "flow")}
"""What must be trained for a stage, in its order; what has been costs nothing."""

RECIPES: Final = {
    "cpu": Recipe("cpu", (800, 128), (500, 16), 1_500, (3_000, 16), (8_000, 64), 1_200, 128, 4),
    # The codecs are small and their clips are drawn by the processor: only the flow goes to the card.
    "gpu": Recipe("cuda", (800, 128), (500, 16), 1_500, (3_000, 16), (12_000, 512), 1_200, 256, 8),
    "test": Recipe("cpu", (2, 8), (2, 4), 2, (2, 4), (3, 8), 200, 32, 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train mini.")
    parser.add_argument("--recipe", choices=RECIPES, default="cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="how long this leg may take")
    parser.add_argument("--threads", type=int, default=2, help="another number sums in another order: other weights")
    parser.add_argument("--only", choices=STAGES, help="one stage and what it needs; codecs may be side by side")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    asked.folder.mkdir(parents=True, exist_ok=True)
    recipe = RECIPES[asked.recipe]
    _record(asked.folder, asked.recipe, recipe, asked.seed, asked.threads, asked.only)
    try:
        deadline = time.monotonic() + 60 * asked.minutes
        run(recipe, asked.seed, asked.folder, deadline, STAGES[asked.only] if asked.only else (*CODECS, "flow"))
    except OutOfTime as error:
        print(f"The leg is over: {error}. The same command goes on.")


def run(recipe: Recipe, seed: int, folder: Path, deadline: float, stages: tuple[str, ...]) -> None:
    """Some stages, one after the other, and the model if the flow is among them; raises OutOfTime."""
    model = fresh(recipe, seed)
    for name in stages:
        stage = flow(model, recipe, seed, folder) if name == "flow" else codec(name, model, recipe)
        train(stage, folder, seed, deadline)
    if stages == (*CODECS, "flow"):
        model.transformer.cpu()
        model.save(folder / "model")
        print(f"The model is in {folder / 'model'}.")


def flow(model: MiniModel, recipe: Recipe, seed: int, folder: Path) -> Flows:
    """The last stage, of a model whose sound codec is trained."""
    bank = Bank.heard(model.picture.drawing, model.sound, seed, recipe.bank)
    model.whitening.fit(bank.clips(Draw.of(seed, "whitening", 0).numpy, WHITENED)[1])
    torch.save(model.whitening.state_dict(), folder / "whitening.pt")
    model.transformer.to(recipe.device)
    return Flows(model.transformer, model.whitening, bank, *recipe.flow, recipe.device)


def codec(name: str, model: MiniModel, recipe: Recipe) -> Words | Sounds | Drawings | Sights:
    """One of the stages before the flow, none of which needs another."""
    if name == "words":
        return Words(model.words, *recipe.words)
    if name == "sound":
        return Sounds(model.sound, *recipe.sound)
    if name == "drawing":
        return Drawings(model.picture.drawing, recipe.drawing)
    return Sights(model.picture.seeing, *recipe.seeing)


def fresh(recipe: Recipe, seed: int) -> MiniModel:
    """Untrained networks."""
    torch.manual_seed(seed)
    return MiniModel.random(width=recipe.width, heads=recipe.width // 32, depth=recipe.depth)


def so_far(recipe: Recipe, folder: Path) -> MiniModel:
    """The model as the folder's checkpoints have it; the codecs must be finished."""
    model = fresh(recipe, seed=0)
    picture = model.picture
    parts = (model.words, model.sound, picture.drawing, picture.seeing, model.transformer)
    for name, part in zip((*CODECS, "flow"), parts, strict=True):
        part.load_state_dict(averages(folder / f"{name}.pt")[0])
        part.eval()
    model.whitening.load_state_dict(torch.load(folder / "whitening.pt", weights_only=True))
    return model


def _record(folder: Path, name: str, recipe: Recipe, seed: int, threads: int, only: str | None) -> None:
    """What this leg runs on: another version of torch is no error, but it is told."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    row = {
        "recipe": name,
        **asdict(recipe),
        "seed": seed,
        "threads": threads,
        "only": only,
        "commit": head.stdout.strip(),
        "world": world.digest(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    with (folder / "runs.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
