"""The closed vocabulary between the service and its worker children. Frames never cross the pipe, only these."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from zsky_box.errors import ErrorCode
from zsky_box.manifest import WHOLE, JobType, ModelSpec, Recipe

Phase = Literal["waiting", "loading", "denoising", "decoding", "encoding"]


class Message(Struct, frozen=True, kw_only=True, tag_field="is", tag=str.lower):
    """What crosses the pipe, as MessagePack."""


class Check(Struct, frozen=True, kw_only=True):
    """A classifier that looks at what was made before anybody else does."""

    model: ModelSpec
    weights_dir: str


class Run(Message, frozen=True):
    """Make this job's files inside `out_dir`, which exists and is the attempt's own.

    The service has counted what fits: the child lets go of the models named in `evict`, then loads this one by its
    recipe where it is not in memory. `reference` is the path of a picture to begin with, or empty. A preview is sent
    every `preview_steps` denoising steps; 0 means never.
    """

    job_id: str
    token: int
    type: JobType
    model: ModelSpec
    weights_dir: str
    out_dir: str
    stem: str
    prompt: str
    negative_prompt: str
    seed: int
    n: int
    width: int
    height: int
    frames: int
    fps: int
    test: bool
    wordmarked: int = 0
    """So many of the first results bear the wordmark; ordinals are counted whether or not an image fails."""
    recipe: Recipe = WHOLE
    evict: tuple[str, ...] = ()
    reference: str = ""
    strength: float | None = None
    preview_steps: int = 0
    check: Check | None = None


class Cancel(Message, frozen=True):
    """Stop this attempt within two denoising steps; ignored when it is not the one that runs."""

    job_id: str
    token: int


class Stop(Message, frozen=True):
    """Leave when idle."""


class Ready(Message, frozen=True):
    """The child can take a Run."""

    pid: int
    device: str
    device_name: str
    versions: dict[str, str]


class Heartbeat(Message, frozen=True):
    """Sent every two seconds from a thread of its own: the child's interpreter is alive.

    `bytes_held` is what the child has allocated on its card. `flops` is what the card does in the manifest's dtype,
    measured once in the child's life; 0 until then, and where no model wants it.
    """

    resident: tuple[str, ...]
    bytes_held: int = 0
    flops: float = 0.0


class Progress(Message, frozen=True):
    """`step` of `steps` within the phase; denoising step 1 is sent once that step is complete.

    `preview` is a small JPEG of how the result looks by now, or empty.
    """

    job_id: str
    token: int
    phase: Phase
    step: int
    steps: int
    preview: bytes = b""


class File(Struct, frozen=True, kw_only=True):
    """One finished and fsynced file in `out_dir`; `ordinal` counts the images of a job from 0."""

    ordinal: int
    kind: Literal["result", "poster"]
    name: str
    mime: str
    bytes: int
    sha256: str
    width: int
    height: int
    seed: int
    frames: int = 0
    fps: int = 0
    duration_seconds: float = 0.0
    sample_rate: int = 0
    channels: int = 0
    upscaled_from: str = ""


class Done(Message, frozen=True):
    """Everything asked for, or for several images at least one: `missing` are the ordinals that failed.

    `seconds` are those of each phase, and of `weights`: the part of `loading` that read the model into memory, absent
    where it was there. `checked` names the checks that ran over every result. `peak_bytes` is the most that was
    allocated on the card meanwhile.
    """

    job_id: str
    token: int
    files: tuple[File, ...]
    missing: tuple[int, ...]
    notes: tuple[str, ...]
    versions: dict[str, str]
    seconds: dict[str, float]
    checked: tuple[str, ...] = ()
    peak_bytes: int = 0


class Failed(Message, frozen=True):
    """The attempt ended without a result; `fatal` asks the parent to replace this child."""

    job_id: str
    token: int
    error_code: ErrorCode
    message: str
    fatal: bool = False


ToChild = Run | Cancel | Stop
ToParent = Ready | Heartbeat | Progress | Done | Failed

encode = msgspec.msgpack.Encoder().encode
decode_to_child = msgspec.msgpack.Decoder(ToChild).decode
decode_to_parent = msgspec.msgpack.Decoder(ToParent).decode
