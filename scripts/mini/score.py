"""Score mini: `python -m scripts.mini.score --model FOLDER`, on captions of clips that the flow never saw.

Beside every figure stand chance and a control: the same clips scored against each other's captions, the same pictures
against each other's sounds. `--of truth` scores the world's own clips (what the scorer can tell at best), and `--of
codecs` those clips after the codecs have read and drawn them (what the denoiser can reach at best).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from scripts.mini import captions, draw, strike, world
from scripts.mini.measures import inside
from scripts.mini.scorer import Scorer, Verdict
from scripts.mini.world import Scenes
from zsky_box.pipelines.mini_latents import Latents
from zsky_box.pipelines.mini_model import GUIDANCE, STEPS, MiniModel
from zsky_box.pipelines.mini_words import SLOTS

Clip = tuple[Tensor, Tensor]
"""Frames [FRAMES, 3, HEIGHT, WIDTH] in 0 to 1, and samples [SAMPLES]."""

TOLERANCES_SECONDS: Final = (0.08, 0.04)
GATE: Final = {
    "background": 0.95,
    "floor": 0.95,
    "colour": 0.90,
    "kind": 0.80,
    "action": 0.80,
    "size": 0.75,
    "speed": 0.75,
    "material": 0.75,
    "sync": 0.70,
}
"""What mini must reach to become a box's default: sync is matched F1 at 80 ms, the others are parts that are right."""
SHUFFLED_LIMIT: Final = 0.3
_SHIFTS: Final = 5
"""How many times every clip is paired with another's sound or caption, for the controls."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Score mini.")
    parser.add_argument("--model", type=Path, help="a saved model; not needed for the truth")
    parser.add_argument("--of", choices=("model", "truth", "codecs"), default="model")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1_000)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--folder", type=Path, default=Path(), help="where the trained scorer is kept")
    parser.add_argument("--out", type=Path, help="keep the table here, as pack.py reads it")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    scorer = Scorer.kept(asked.folder)
    clips = world.scenes(np.random.default_rng(asked.seed), asked.clips, "held out")
    if asked.of == "truth":
        made = true(clips)
    else:
        model = MiniModel.from_folder(asked.model)
        made = read(model, clips) if asked.of == "codecs" else generated(model, clips, asked.steps, asked.guidance)
    rows = table([scorer.judge(frames, sound) for frames, sound in made], clips)
    if asked.out:
        asked.out.write_text(json.dumps(rows), "utf-8")
    print(text(rows))


def true(clips: Scenes) -> Iterator[Clip]:
    """The world's own clips."""
    motion = world.move(clips)
    for row in range(len(clips)):
        yield draw.frames(clips, motion, row), strike.sound(clips, motion, row)


@torch.no_grad()
def read(model: MiniModel, clips: Scenes) -> Iterator[Clip]:
    """The world's clips, read by the codecs' encoders and drawn and played by their decoders."""
    for frames, sound in true(clips):
        scene, thing, poses = model.picture.encode(frames)
        voice, chunks = model.sound(sound[None])
        yield _decoded(model, model.whitening.tokens(Latents(scene, thing, voice, poses[None], chunks)))


def generated(model: MiniModel, clips: Scenes, steps: int = STEPS, guidance: float = GUIDANCE) -> Iterator[Clip]:
    """What the model makes of each clip's full caption; clip k from seed k."""
    for row in range(len(clips)):
        slots = model.words.read(captions.full(clips, row)).slots
        yield _decoded(model, model.sample(slots, row, steps, guidance))


def table(verdicts: list[Verdict], clips: Scenes) -> dict[str, dict[str, float]]:
    """For each slot: the part that is right, chance, and the control. For the sync: F1, twice, and the control."""
    n = len(verdicts)
    rows: dict[str, dict[str, float]] = {}
    for slot, values in SLOTS.items():
        names = np.array(list(values))
        asked, shown = names[clips.value(slot)], np.array([verdict.values[slot] for verdict in verdicts])
        control = np.mean([(np.roll(asked, shift) == shown).mean() for shift in range(1, _SHIFTS + 1)])
        rows[slot] = {"score": float((asked == shown).mean()), "chance": 1 / len(values), "control": float(control)}
    wide, narrow = (_f1(verdicts, verdicts, tolerance) for tolerance in TOLERANCES_SECONDS)
    moved = [_f1(verdicts, verdicts[k:] + verdicts[:k], TOLERANCES_SECONDS[0]) for k in range(1, _SHIFTS + 1)]
    rows["sync"] = {"score": wide, "at 40 ms": narrow, "control": float(np.mean(moved)), "clips": n}
    return rows


def passed(rows: dict[str, dict[str, float]]) -> bool:
    """Whether a table passes the gate."""
    reached = all(rows[slot]["score"] >= least for slot, least in GATE.items())
    return reached and rows["sync"]["control"] < SHUFFLED_LIMIT


def text(rows: dict[str, dict[str, float]]) -> str:
    """The table as Markdown."""
    lines = ["| | score | gate | chance | control |", "|---|---|---|---|---|"]
    for slot, row in rows.items():
        chance = f"{row['chance']:.2f}" if "chance" in row else ""
        lines.append(f"| {slot} | {row['score']:.3f} | {GATE[slot]:.2f} | {chance} | {row['control']:.3f} |")
    lines.append(f"| sync at 40 ms | {rows['sync']['at 40 ms']:.3f} | | | |")
    verdict = "passed" if passed(rows) else "not passed"
    return "\n".join((*lines, "", f"{int(rows['sync']['clips'])} held-out clips; the gate is {verdict}."))


def matches(seen: list[float], heard: list[float], tolerance_seconds: float) -> int:
    """How many of the strikes seen have an onset of their own that near; both in rising order."""
    found = at = 0
    for time in seen:
        while at < len(heard) and heard[at] < time - tolerance_seconds:
            at += 1
        if at < len(heard) and heard[at] <= time + tolerance_seconds:
            found, at = found + 1, at + 1
    return found


def _f1(seen: list[Verdict], heard: list[Verdict], tolerance_seconds: float) -> float:
    pairs = list(zip(seen, heard, strict=True))
    both = sum(matches(inside(one.strikes), inside(other.onsets), tolerance_seconds) for one, other in pairs)
    count = sum(len(inside(one.strikes)) + len(inside(other.onsets)) for one, other in pairs)
    return 2 * both / count if count else 0.0


def _decoded(model: MiniModel, tokens: Tensor) -> Clip:
    frames = torch.from_numpy(np.stack(list(model.decode_frames(tokens)))).permute(0, 3, 1, 2).float() / 255
    return frames, torch.from_numpy(model.decode_sound(tokens)[:, 0])


if __name__ == "__main__":
    main()
