"""Pack a training's folder into a model to ship: `python -m scripts.mini.pack --folder F --out models/mini`.

Weights in float16, in the folder layout of diffusers, and a model card with what made them: command, seed, commit,
world, duration, losses, the table of `scripts.mini.score` where it was kept as F/score.json, and what F/notes.md adds.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any, Final

from scripts.mini.legs import averages
from scripts.mini.score import passed, text
from scripts.mini.seal import seal
from scripts.mini.train import CODECS, RECIPES, so_far
from zsky_box.pipelines.mini_latents import FPS, HEIGHT, SAMPLE_RATE_HZ, SECONDS, WIDTH
from zsky_box.pipelines.mini_words import SLOTS

SHARD_BYTES: Final = 15 * 2**20
TOTAL_BYTES: Final = 40 * 10**6
_CURVE_ROWS: Final = 12


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack mini.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    runs = _lines(asked.folder / "runs.jsonl")
    model = so_far(RECIPES[runs[-1]["recipe"]], asked.folder)
    shutil.rmtree(asked.out, ignore_errors=True)
    model.save(asked.out)
    weights = [path.stat().st_size for path in asked.out.rglob("*.safetensors")]
    assert max(weights) <= SHARD_BYTES, "a component outgrew its one shard"
    assert sum(weights) <= TOTAL_BYTES
    (asked.out / "README.md").write_text(card(asked.folder, runs, sum(weights)), "utf-8")
    seal(asked.out)
    print(f"{sum(weights) / 1e6:.1f} MB in {asked.out}")


def card(folder: Path, runs: list[dict[str, Any]], size_bytes: int) -> str:
    """The model card."""
    values = "\n".join(f"| {slot} | {', '.join(values)} |" for slot, values in SLOTS.items())
    return f"""# mini

A small diffusion model (rectified flow) that makes a clip with its sound, an image, or a clip from its first frame,
out of a sentence about a small world. {WIDTH}x{HEIGHT} at {FPS} frames a second, {SECONDS:.0f} seconds, sound of
{SAMPLE_RATE_HZ} Hz; {size_bytes / 1e6:.1f} MB of weights in float16. It was trained from nothing, on clips that
`scripts/mini/world.py` makes; nobody else's pictures, sounds or weights are in it. Licence: Apache-2.0, like the
rest of zsky-box.

## What it knows

| | |
|---|---|
{values}

One object at a time, in one scene. Of anything else it knows nothing: unknown words are told, and so are known ones
that contradict others. What is left unsaid it chooses itself. A first frame is redrawn as the nearest thing in its
world.

## How good it is

{_score(folder)}

Each clip is made of a caption that says all eight things. Held out are a fifth of the pairs of colour and kind, and an
eighth of the ways to act (material, size, action and speed together): what denoises was trained on none of them. The
reader of words, and the encoder that looks at a first frame, were trained on all.

Chance is what blind guessing would reach; control is the same clips scored against each other's captions, and the same
pictures against each other's sounds. The scorer is told neither captions nor latents; its networks were trained on the
world's own clips, and checked on others of them.

Read the figures for what they are. The decoders know this world's make: they place a sprite in a frame, and play a
strike at a time, with the very code that the world is made with. What was learnt is how things look and sound, and what
happens where and when.

## Where it comes from

{_provenance(folder, runs)}

{_curve(folder)}
"""


def _score(folder: Path) -> str:
    path = folder / "score.json"
    if not path.exists():
        return "Not scored."
    rows = json.loads(path.read_text("utf-8"))
    note = "" if passed(rows) else "\n\n**Experimental**: it does not pass the gate that a box's default must pass."
    return text(rows) + note


def _provenance(folder: Path, runs: list[dict[str, Any]]) -> str:
    last = runs[-1]
    parts: list[str] = []
    for name in (*CODECS, "flow"):
        _, steps, seconds = averages(folder / f"{name}.pt")
        parts.append(f"{name} {steps:,} steps in {seconds / 60:.0f} minutes")
    versions = sorted({run["torch"] for run in runs})
    options = f"--recipe {last['recipe']} --seed {last['seed']} --threads {last['threads']}"
    rows = {
        "command": f"`python -m scripts.mini.train {options} --folder F`",
        "commits of the legs": ", ".join(dict.fromkeys(f"`{run['commit'][:12]}`" for run in runs)),
        "world (SHA-256 of its code)": f"`{last['world']}`",
        "torch": ", ".join(versions),
        "legs": f"{len(runs)}, from {runs[0]['began']} on",
        "time": "; ".join(parts),
    }
    table = "\n".join(("| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())))
    notes = folder / "notes.md"
    return f"{table}\n\n{notes.read_text('utf-8').strip()}" if notes.exists() else table


def _curve(folder: Path) -> str:
    """The flow's losses at even distances: the mean over the lines of the log since the row before."""
    lines = [line for line in _lines(folder / "log.jsonl") if line["stage"] == "flow"]
    names = [name for name in lines[0] if name not in ("stage", "step", "seconds")]
    every = max(1, len(lines) // _CURVE_ROWS)
    rows = [f"| step | {' | '.join(names)} |", f"|{'---|' * (1 + len(names))}"]
    for end in range(every, len(lines) + 1, every):
        part = lines[end - every : end]
        means = [sum(line[name] for line in part) / len(part) for name in names]
        rows.append(f"| {part[-1]['step']} | {' | '.join(f'{mean:.4f}' for mean in means)} |")
    return "The flow's losses:\n\n" + "\n".join(rows)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


if __name__ == "__main__":
    main()
