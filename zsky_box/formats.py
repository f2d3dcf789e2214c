"""Output sizes by name, and how a model's own grid covers them. Pure arithmetic."""

from __future__ import annotations

from typing import Final, Literal, get_args

AspectRatio = Literal["16:9", "9:16", "1:1", "4:3", "3:4", "21:9"]
Resolution = Literal["144p", "480p", "720p", "1080p"]

ASPECT_RATIOS: Final[tuple[AspectRatio, ...]] = get_args(AspectRatio)
RESOLUTIONS: Final[tuple[Resolution, ...]] = get_args(Resolution)

_SHORT_SIDE: Final[dict[Resolution, int]] = {"144p": 144, "480p": 480, "720p": 720, "1080p": 1080}


def output_size(resolution: Resolution, aspect_ratio: AspectRatio) -> tuple[int, int]:
    """Width and height in pixels; the name of the resolution is its shorter side, and every side is even (4:2:0)."""
    across, down = (int(part) for part in aspect_ratio.split(":"))
    short = _SHORT_SIDE[resolution]
    long = -(-short * max(across, down) // min(across, down))
    long += long % 2
    return (long, short) if across >= down else (short, long)


def size_names(width: int, height: int) -> tuple[Resolution, AspectRatio] | None:
    """The names that `output_size` makes this size of; None for a size that has none."""
    for resolution in RESOLUTIONS:
        for ratio in ASPECT_RATIOS:
            if output_size(resolution, ratio) == (width, height):
                return resolution, ratio
    return None


def render_size(width: int, height: int, multiple: int) -> tuple[int, int]:
    """The smallest size on the model's grid that covers the output; the surplus is cropped evenly after decoding."""
    return -(-width // multiple) * multiple, -(-height // multiple) * multiple


def limited(width: int, height: int, resolution: Resolution) -> tuple[int, int]:
    """The same shape, no larger than `resolution`: as `output_size` has it where that knows the shape."""
    short, limit = min(width, height), _SHORT_SIDE[resolution]
    if short <= limit:
        return width, height
    named = size_names(width, height)
    if named is not None:
        return output_size(resolution, named[1])
    long = -(-max(width, height) * limit // short)
    long += long % 2
    return (long, limit) if width >= height else (limit, long)


def frame_count(duration_seconds: float, fps: int, frame_step: int) -> int:
    """Frames nearest to the wished duration; a `frame_step` k > 1 means that only counts of the form k·m + 1 exist."""
    wished = max(1, round(duration_seconds * fps))
    if frame_step == 1:
        return wished
    return max(1, round((wished - 1) / frame_step)) * frame_step + 1
