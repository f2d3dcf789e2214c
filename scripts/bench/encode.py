"""How much our encoder costs beside ffmpeg alone, and whether its memory grows with the clip.

    python -m scripts.bench.encode [--pairs 5] [--frames 121]

Both sides get the same realistic 1920x1080 pictures (moving gradients with noise) from one raw file in the page cache,
and the same codec settings. Ours also counts, syncs and hashes the result and makes the poster.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from zsky_box.media.ffmpeg import find_ffmpeg
from zsky_box.media.video import feed_clip, output_arguments
from zsky_box.pipelines.base import SAMPLE_RATE_HZ, Clip, Picture, Sound

WIDTH: Final = 1920
HEIGHT: Final = 1080
FPS: Final = 24
AIM_RATIO: Final = 1.05


def pictures(frames: int) -> Iterator[Picture]:
    """Three gradients that move against each other, under noise that changes: uint8 [1080, 1920, 3]."""
    random = np.random.default_rng(1)
    noise = [random.integers(-6, 7, (HEIGHT, WIDTH, 3), np.int16) for _ in range(4)]
    across = np.arange(WIDTH, dtype=np.float32)[None, :]
    down = np.arange(HEIGHT, dtype=np.float32)[:, None]
    for frame in range(frames):
        waves = across / 170 + frame / 9, down / 140 - frame / 11, (across + down) / 230 + frame / 15
        picture = np.stack(np.broadcast_arrays(*(128 + 90 * np.sin(wave) for wave in waves)), 2)
        yield np.clip(picture.astype(np.int16) + noise[frame % 4], 0, 255).astype(np.uint8)


def tone(frames: int) -> Sound:
    """A quiet sine of the clip's length, float32 [samples, 2]."""
    wave = 0.2 * np.sin(np.arange(frames * SAMPLE_RATE_HZ // FPS) * 2 * np.pi * 440 / SAMPLE_RATE_HZ)
    return np.repeat(wave[:, None], 2, axis=1).astype(np.float32)


def prepare(folder: Path, frames: int) -> None:
    """Write `picture.raw` and `sound.raw`, and read them once: from here on they come from the page cache."""
    with (folder / "picture.raw").open("wb") as file:
        for picture in pictures(frames):
            file.write(picture.data)
    (folder / "sound.raw").write_bytes(tone(frames).tobytes())
    with (folder / "picture.raw").open("rb") as file:
        while file.read(1 << 24):
            pass


class Cost(NamedTuple):
    """Seconds on the clock, and seconds of processor in this process and ffmpeg: the latter hardly feels other load."""

    wall: float
    cpu: float


@contextmanager
def measured(costs: list[Cost]) -> Generator[None]:
    """Append what the block costs."""
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    yield
    costs.append(Cost(time.perf_counter() - wall, sum(os.times()[:4]) - cpu))


def ours(folder: Path, frames: int, costs: list[Cost]) -> None:
    """Until the result is settled, from pictures in a mapped file."""
    stored = np.memmap(folder / "picture.raw", np.uint8, "r", shape=(frames, HEIGHT, WIDTH, 3))
    sound = np.fromfile(folder / "sound.raw", np.float32).reshape(-1, 2)
    with measured(costs):
        feed_clip(Clip(WIDTH, HEIGHT, FPS, frames, iter(stored), sound), folder, "ours", seed=1).finish()


def theirs(folder: Path, costs: list[Cost]) -> None:
    """Ffmpeg alone, with the same files and settings."""
    binary = find_ffmpeg(None)
    picture = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{WIDTH}x{HEIGHT}", "-framerate", str(FPS)]
    sound = ["-f", "f32le", "-sample_rate", str(SAMPLE_RATE_HZ), "-ch_layout", "stereo"]
    inputs = [*picture, "-i", str(folder / "picture.raw"), *sound, "-i", str(folder / "sound.raw")]
    command = [binary, "-nostdin", "-loglevel", "error", "-y", *inputs, *output_arguments(binary, FPS)]
    with measured(costs):
        subprocess.run([*command, str(folder / "theirs.mp4")], check=True)


def measure_memory(folder: Path, frames: int) -> None:
    """Encode a few pictures over and over; prints this process's and ffmpeg's peak in MiB."""
    few = list(pictures(8))
    clip = Clip(WIDTH, HEIGHT, FPS, frames, islice(cycle(few), frames), tone(frames))
    feed_clip(clip, folder, "memory", seed=1).finish()
    # Not `ru_maxrss` of this process: it starts with the peak of the process that started it.
    status = Path("/proc/self/status").read_text()
    own_kib = int(status.partition("VmHWM:")[2].split()[0])
    print(own_kib / 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


def peak_mib(folder: Path, frames: int) -> tuple[float, float]:
    """Peaks of a fresh process and its ffmpeg."""
    command = [sys.executable, "-m", "scripts.bench.encode", "--memory-in", str(folder), "--frames", str(frames)]
    own, encoder = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(own), float(encoder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--frames", type=int, default=121)
    parser.add_argument("--memory-in", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.memory_in is not None:
        measure_memory(asked.memory_in, asked.frames)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, asked.frames)
        mine, bare = list[Cost](), list[Cost]()
        for _ in range(asked.pairs):
            ours(folder, asked.frames, mine)
            theirs(folder, bare)
        same = (folder / "ours.mp4").read_bytes() == (folder / "theirs.mp4").read_bytes()
        short, long = (peak_mib(folder, frames) for frames in (asked.frames, 4 * asked.frames))
    report(asked.frames, mine, bare, same=same)
    print(f"{'peak memory, MiB':<44}{asked.frames:>10}{4 * asked.frames:>10}{'ratio':>8}")
    for place, what in enumerate(("this process", "ffmpeg")):
        print(f"{what:<44}{short[place]:>10.0f}{long[place]:>10.0f}{long[place] / short[place]:>8.3f}")


def report(frames: int, mine: list[Cost], bare: list[Cost], *, same: bool) -> None:
    """Print medians over the pairs; the ratio is the median of the pairs' ratios."""
    print(f"{f'encode {WIDTH}x{HEIGHT}, {frames} frames, {len(mine)} pairs':<44}{'ours':>10}{'ffmpeg':>10}{'ratio':>8}")
    for what, place in ((f"seconds, aim within {AIM_RATIO}", 0), ("seconds of processor", 1)):
        one, other = (statistics.median(cost[place] for cost in costs) for costs in (mine, bare))
        ratio = statistics.median(ours_[place] / theirs_[place] for ours_, theirs_ in zip(mine, bare, strict=True))
        print(f"{what:<44}{one:>10.2f}{other:>10.2f}{ratio:>8.3f}")
    print(f"{'same bytes':<44}{'yes' if same else 'no':>10}")


if __name__ == "__main__":
    main()
