"""A worker child whose model does what the prompt says: `double:NAME` acts out a fault, anything else is quickly made.

It is the real loop with another engine: no torch, no ffmpeg, stubs for files, as many and as large as asked.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zsky_box.errors import JobFailure
from zsky_box.events import Check, File, Run
from zsky_box.pipelines.base import SAMPLE_RATE_HZ, Clip, OutOfMemory, Picture, Reporter, Still
from zsky_box.worker_attempt import PREVIEW_BYTES_MAX
from zsky_box.worker_engine import Engine, OnFrame
from zsky_box.worker_main import main

STEPS = 4
SLOW_STEPS = 200
SLOW_STEP_SECONDS = 0.05
SLOWER_AFTER_STEPS = 20  # so that it is soon seen to be at work
SLOWER_STEP_SECONDS = 0.4  # and is still at work, 70 s in all, when a busy machine gets to what it is watched for
WARM_SECONDS = 0.4
FLOPS = 3e12
BLOCKED_SEED = 666  # a picture of this seed is white where all others are grey, and the double's check blocks white
BLOCKED_LABEL = "white"
GATE = "gate"  # a named pipe of this name in an attempt's folder holds its tail up until somebody writes to it

warmed: list[str] = []


def act(run: Run) -> str:
    """The NAME of `double:NAME`, else nothing."""
    return run.prompt.removeprefix("double:") if run.prompt.startswith("double:") else ""


def load(run: Run, device: str) -> ActingPipeline:
    """A model that is loaded at once, or not at all."""
    match act(run):
        case "raises_in_load":
            raise ZeroDivisionError("the double divides by zero while it loads")
        case "out_of_memory_in_load":
            raise OutOfMemory("the double's weights want 900 GiB")
        case "device_lost_in_load":
            raise device_lost()
        case "hangs_in_load":
            hang()
        case _:
            pass
    return ActingPipeline(run, device)


def warm(family: str) -> None:
    """Imports that take a while."""
    time.sleep(WARM_SECONDS)
    warmed.append(family)


def measure(device: str) -> float:
    """A device that is as fast as a test expects it."""
    del device
    return FLOPS


def device_lost() -> RuntimeError:
    """As torch's libraries tell it."""
    return RuntimeError("CUDA error: an illegal memory access was encountered")


class ActingPipeline:
    """What it was loaded for, how and where shows in a clip's notes, so that a test sees it."""

    def __init__(self, run: Run, device: str) -> None:
        self.told = [f"loaded for {run.job_id}", f"recipe {run.recipe.name}", f"device {device}"]

    def video(self, run: Run, report: Reporter) -> Clip:
        denoise(run, report)
        return Clip(
            width=run.width,
            height=run.height,
            fps=run.fps,
            frames=run.frames,
            pictures=grey(run, run.frames),
            sound=np.zeros((run.frames * SAMPLE_RATE_HZ // run.fps, 2), np.float32),
            notes=[
                *(*self.told, f"warmed {','.join(warmed)}"),
                *([begun_with(run)] if run.reference else []),
            ],
        )

    def images(self, run: Run, report: Reporter) -> Iterator[Still]:
        return ActingImages(run, report)

    def close(self) -> None:
        """It holds nothing."""


class ActingImages:
    """As the real families' images: after one that raised, the next can be asked for."""

    def __init__(self, run: Run, report: Reporter) -> None:
        self.run, self.report = run, report
        self.pictures = enumerate(grey(run, run.n))

    def __iter__(self) -> Iterator[Still]:
        return self

    def __next__(self) -> Still:
        ordinal, picture = next(self.pictures)
        if ordinal == 0:
            denoise(self.run, self.report)
        if ordinal == 1:
            fail_second_image(self.run)
        return Still(picture, self.run.seed + ordinal)


def fail_second_image(run: Run) -> None:
    """One image's own failure, the model's, the memory's and the card's."""
    match act(run):
        case "invalid_second_image":
            raise JobFailure("internal_error", "The double's second image is not one.")
        case "fails_second_image":
            raise ZeroDivisionError("the double makes only one image")
        case "out_of_memory_at_second_image":
            raise OutOfMemory("the double wants 900 GiB")
        case "device_lost_at_second_image":
            raise device_lost()
        case _:
            pass


def begun_with(run: Run) -> str:
    """What the child finds at the path of the picture that it is given, and the strength."""
    with Image.open(run.reference, formats=("PNG",)) as picture:
        picture.load()
        return f"begins with {picture.mode} {picture.width}x{picture.height} at {run.strength}"


def denoise(run: Run, report: Reporter) -> None:
    """Steps, quick or slow; a fault comes after the first."""
    report.phase("denoising")
    is_slow = act(run) == "slow_steps"
    steps = SLOW_STEPS if is_slow else STEPS
    for step in range(1, steps + 1):
        if is_slow:
            time.sleep(SLOW_STEP_SECONDS if step <= SLOWER_AFTER_STEPS else SLOWER_STEP_SECONDS)
        report.step(step, steps, lambda step=step: preview(run, step))
        if step == 1:
            act_out(run)


def preview(run: Run, step: int) -> bytes:
    """A small picture that is another one at every step."""
    match act(run):
        case "fails_preview":
            raise ZeroDivisionError("the double has no preview")
        case "large_preview":
            return bytes(PREVIEW_BYTES_MAX + 1)
        case _:
            return image(64, 36, "JPEG", step)


def act_out(run: Run) -> None:
    """The faults; a prompt that names none of them goes on."""
    match act(run):
        case "raises_in_run" | "raises_in_load":  # what is acted out in the load, where the model was already there
            raise ZeroDivisionError("the double divides by zero")
        case "safety_blocked":
            raise JobFailure("safety_blocked", "The double will not make this.")
        case "out_of_memory" | "out_of_memory_in_load":
            raise OutOfMemory("the double wants 900 GiB")
        case "device_lost" | "device_lost_in_load":
            raise device_lost()
        case "disk_full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "killed":  # as the kernel does where the machine's memory is used up
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfaults":
            ctypes.string_at(0)
        case "exits_silently":
            os._exit(3)
        case "blocks":  # as a call into the driver that never returns: the heart beats on, and nobody hears a cancel
            threading.Event().wait()
        case "hangs" | "hangs_in_load":
            hang()
        case "hangs_with_grandchild":
            start_grandchild(run)
            hang()
        case "exits_with_grandchild":
            start_grandchild(run)
            os._exit(3)
        case "stops_heartbeat":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "garbage_on_pipe":
            os.write(int(sys.argv[1]), b"\x00\x00\x00\x08 garbage")
            threading.Event().wait()  # a Done that is on the pipe before the garbage is read would count
        case "endless_message":
            os.write(int(sys.argv[1]), b"\x7f\xff\xff\xff and on it goes")
        case "half_message":
            os.write(int(sys.argv[1]), b"\x00\x00\x10\x00 and no more")
            hang()
        case _:
            pass


def start_grandchild(run: Run) -> None:
    """Start a process as ffmpeg is started, and write its number where the test looks (into its named pipe, if any)."""
    grandchild = subprocess.Popen(["sleep", "600"])
    Path(run.out_dir, "grandchild.pid").write_text(str(grandchild.pid), "ascii")


def hang() -> None:
    """Hold the interpreter's lock in C and ignore SIGTERM: no heartbeat, no reader, no Python code runs any more."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.PyDLL(None).sleep(600)


def grey(run: Run, count: int) -> Iterator[Picture]:
    """Grey pictures that take no memory; see BLOCKED_SEED."""
    for index in range(count):
        is_still = run.type == "image"
        is_white = run.seed + index == BLOCKED_SEED if is_still else run.seed == BLOCKED_SEED and index >= 0.75 * count
        yield np.broadcast_to(np.uint8(255 if is_white else 128), (run.height, run.width, 3))


def load_check(check: Check, device: str) -> ActingClassifier:
    """An output check that is loaded at once, or, by its name, not at all."""
    del device
    if check.model.name == "breaks-in-load":
        raise JobFailure("internal_error", "The model breaks-in-load cannot be loaded: the double says so.")
    return ActingClassifier(check.model.name)


class ActingClassifier:
    """Finds white pictures, or stops as its name says."""

    def __init__(self, name: str) -> None:
        self.name = name

    def scores(self, pictures: Sequence[Picture]) -> list[dict[str, float]]:
        match self.name:
            case "breaks":
                raise ZeroDivisionError("the double's check divides by zero")
            case "out-of-memory":
                raise OutOfMemory("the double's check wants 900 GiB")
            case _:
                return [{BLOCKED_LABEL: float(picture.mean()) / 255, "grey": 0.5} for picture in pictures]

    def close(self) -> None:
        """It holds nothing."""


class ActingTail:
    """Writes a stub with an MP4's first bytes, and a poster."""

    def __init__(self, clip: Clip, folder: Path, stem: str, seed: int) -> None:
        self.clip, self.folder, self.stem, self.seed = clip, folder, stem, seed

    def abort(self) -> None:
        """The stub is written by `finish` only."""
        (self.folder / "aborted").touch()

    def finish(self) -> list[File]:
        if (self.folder / GATE).is_fifo():
            (self.folder / GATE).read_bytes()
        clip = self.clip
        stub = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + self.seed.to_bytes(8, "big")
        facts: dict[str, Any] = {"seed": self.seed, "width": clip.width, "height": clip.height}
        sound = {"sample_rate": SAMPLE_RATE_HZ, "channels": 2}
        time_facts = {"frames": clip.frames, "fps": clip.fps, "duration_seconds": clip.frames / clip.fps}
        return [
            written(self.folder / f"{self.stem}.mp4", stub, "video/mp4", kind="result", **facts, **time_facts, **sound),
            written(
                self.folder / f"{self.stem}-poster.jpg", image(64, 36, "JPEG"), "image/jpeg", kind="poster", **facts
            ),
        ]


def feed_clip(
    clip: Clip, folder: Path, stem: str, *, seed: int, ffmpeg: str | None, on_frame: OnFrame | None, wordmarked: bool
) -> ActingTail:
    """Takes the pictures and forgets them; the stub shows no wordmark."""
    del wordmarked
    assert ffmpeg is None, "no test of the double names an ffmpeg"
    for frame, _ in enumerate(clip.pictures, 1):
        if on_frame:
            on_frame(frame, clip.frames)
    return ActingTail(clip, folder, stem, seed)


def write_still(still: Still, folder: Path, stem: str, ordinal: int, *, wordmarked: bool) -> list[File]:
    """A grey PNG of the right size, all white where it is to bear the wordmark, and a poster."""
    height, width = still.picture.shape[:2]
    facts: dict[str, Any] = {"ordinal": ordinal, "seed": still.seed, "width": width, "height": height}
    name = f"{stem}-{ordinal + 1}"
    return [
        written(
            folder / f"{name}.png",
            image(width, height, "PNG", 255 if wordmarked else 128),
            "image/png",
            kind="result",
            **facts,
        ),
        written(folder / f"{name}-poster.jpg", image(64, 36, "JPEG"), "image/jpeg", kind="poster", **facts),
    ]


def image(width: int, height: int, kind: str, level: int = 128) -> bytes:
    """A grey image file."""
    file = BytesIO()
    Image.new("L", (width, height), level).save(file, kind)
    return file.getvalue()


def written(path: Path, content: bytes, mime: str, *, ordinal: int = 0, **facts: Any) -> File:
    """Write a file and tell the truth about it."""
    path.write_bytes(content)
    digest = sha256(content).hexdigest()
    return File(ordinal=ordinal, name=path.name, mime=mime, bytes=len(content), sha256=digest, **facts)


def versions(family: str) -> dict[str, str]:
    """One line, so that a test sees that the engine was asked for the right family."""
    return {"double": family}


if __name__ == "__main__":
    main(
        sys.argv[1:],
        Engine(
            load=load,
            load_check=load_check,
            warm=warm,
            measure=measure,
            versions=versions,
            feed_clip=feed_clip,
            write_still=write_still,
        ),
    )
