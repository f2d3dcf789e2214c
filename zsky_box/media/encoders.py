"""Which H.264 encoder this machine has, and how it is told to work."""

from __future__ import annotations

import functools
import logging
import subprocess
from pathlib import Path
from typing import Final

from zsky_box.errors import JobFailure

_PROBE_SECONDS: Final = 20.0
_NVIDIA_DEVICES: Final = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # Linux, WSL2

_log = logging.getLogger(__name__)


def h264(ffmpeg: str, fps: int) -> list[str]:
    """Arguments for H.264 High with a key frame every two seconds: NVENC where it works, else libx264."""
    every = ["-profile:v", "high", "-g", str(2 * fps)]
    if has_nvenc(ffmpeg):
        return ["-c:v", "h264_nvenc", "-preset", "p5", "-tune", "hq", "-rc", "vbr", "-cq", "19", "-b:v", "0", *every]
    return ["-c:v", "libx264", "-preset", "veryfast", "-crf", "18", *every]


def distrust(error: BaseException) -> None:
    """After a clip that could not be encoded, ask anew for the next one: the card may be full, or its encoder gone."""
    if isinstance(error, JobFailure) and error.error_code == "encode_failed":
        has_nvenc.cache_clear()


@functools.cache
def has_nvenc(ffmpeg: str) -> bool:
    """True when one frame was encoded on a card: asked once, until a clip fails, and only where there may be a driver.

    A driver does not suffice: data-centre cards have no encoder.
    """
    if not any(device.exists() for device in _NVIDIA_DEVICES):
        return False
    frame = ["-f", "lavfi", "-i", "color=black:size=256x256", "-frames:v", "1"]
    command = [ffmpeg, "-nostdin", "-loglevel", "error", *frame, "-c:v", "h264_nvenc", "-f", "null", "-"]
    try:
        probe = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_SECONDS)  # noqa: PLW1510
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("NVENC could not be probed, libx264 is used: %s", error)
        return False
    if probe.returncode != 0:
        _log.info("NVENC does not work here, libx264 is used: %s", probe.stderr[-300:].decode("utf-8", "replace"))
    return probe.returncode == 0
