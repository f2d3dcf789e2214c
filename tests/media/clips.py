"""Small clips to encode, what an independent parser finds in the result, and what a test may not leave behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from numpy.typing import NDArray

from zsky_box.pipelines.base import SAMPLE_RATE_HZ, Clip, Picture, Sound

WIDTH, HEIGHT = 128, 96


def moving(frames: int, width: int = WIDTH, height: int = HEIGHT) -> Iterator[Picture]:
    """Gradients that move, one picture at a time."""
    across = np.arange(width, dtype=np.int64)[None, :]
    down = np.arange(height, dtype=np.int64)[:, None]
    for frame in range(frames):
        planes = across * 2 + frame, down * 2 + 3 * frame, across + down
        yield np.stack(np.broadcast_arrays(*planes), 2).astype(np.uint8)


def tone(samples: int, hertz: float = 440.0) -> Sound:
    """A sine at half level: float32 [samples, 2]."""
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / SAMPLE_RATE_HZ)
    return np.repeat(wave[:, None], 2, axis=1).astype(np.float32)


def clip(
    frames: int = 12, fps: int = 24, sound: Sound | None = None, pictures: Iterator[Picture] | None = None
) -> Clip:
    """A clip of 128x96."""
    heard = tone(round(frames * SAMPLE_RATE_HZ / fps)) if sound is None else sound
    return Clip(WIDTH, HEIGHT, fps, frames, moving(frames) if pictures is None else pictures, heard)


@dataclass
class Facts:
    """What a player would find: times in seconds; `sound` is [samples] of the left channel after the edit list."""

    codecs: tuple[str, str]
    profile: str
    pixel_format: str
    colour: tuple[int, int, int, int]  # primaries, transfer, matrix, range, as numbered in ITU-T H.273
    rate: float
    layout: str
    sample_rate: int
    starts: tuple[float, float]
    durations: tuple[float, float]
    times: list[float]
    luma: list[float]
    sound: NDArray[np.float32]


def read(path: Path) -> Facts:
    """Decode everything with PyAV."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        context = cast(Any, video.codec_context)
        seconds = [
            tuple(
                float(cast(int, value) * cast(Any, stream.time_base)) for value in (stream.start_time, stream.duration)
            )
            for stream in (video, audio)
        ]
        facts = Facts(
            codecs=(video.codec_context.name, audio.codec_context.name),
            profile=str(context.profile),
            pixel_format=str(context.pix_fmt),
            colour=(
                int(context.color_primaries),
                int(context.color_trc),
                int(context.colorspace),
                int(context.color_range),
            ),
            rate=float(cast(Any, video.average_rate)),
            layout=audio.layout.name,
            sample_rate=audio.rate,
            starts=(seconds[0][0], seconds[1][0]),
            durations=(seconds[0][1], seconds[1][1]),
            times=[],
            luma=[],
            sound=np.zeros(0, np.float32),
        )
        for frame in container.decode(video):
            facts.times.append(float(cast(Any, frame.time)))
            facts.luma.append(float(frame.to_ndarray(format="gray").mean()))
    with av.open(str(path)) as container:
        blocks = [frame.to_ndarray()[0] for frame in container.decode(container.streams.audio[0])]
        facts.sound = np.concatenate(blocks).astype(np.float32)
    return facts


def child_pids() -> set[int]:
    """Processes whose parent is this one."""
    found: set[int] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if int(fields[1]) == os.getpid():
            found.add(int(stat.parent.name))
    return found


def belongings() -> tuple[set[int], int, int]:
    """Child processes, threads and open descriptors of this process, now."""
    return child_pids(), threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
