"""A stranger's picture becomes a clean one, in a process of its own: `python -m zsky_box.media.reference TASK`.

The picture comes on standard input, the answer goes to standard output, both as `zsky_box.picture` says. The process
bounds itself in memory, time and file size before it looks at a byte: a decoder that is led astray takes nobody along.
What comes out is pixels alone, newly encoded: upright, opaque, in sRGB, with nothing of the file that came in.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Final

import msgspec
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from zsky_box.picture import LONG_SIDE_MAX, SIDE_MIN, Answer, Clean, Kind, Reason, Refused, Task

MEMORY_BYTES: Final = 1 << 30
HEADER_SECONDS: Final = 1
CPU_SECONDS: Final = 20
WALL_SECONDS: Final = 60
FILE_BYTES: Final = 64 << 20
"""An RGB PNG of the largest size that does not compress at all has 48 MiB."""
SCANS_MAX: Final = 32
"""A progressive JPEG has about ten scans; each one is a walk over the whole picture."""
CHUNKS_MAX: Final = 20_000
"""A PNG of 32 MiB in the smallest chunks that are usual, 4 KiB each, has 8,192."""
PROFILE_BYTES_MAX: Final = 4 << 20
_PNG_COMPRESS_LEVEL: Final = 1
_DEEP_MODES: Final = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_PLUGINS: Final = (PngImagePlugin, JpegImagePlugin, WebPImagePlugin)  # imported, they know their formats
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unacceptable(Exception):
    """The picture is refused for a reason that its sender can act on."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


def main(arguments: list[str]) -> None:
    """Read, decode, write, answer; raises SystemExit where it is not told what to do."""
    if len(arguments) != 1:
        raise SystemExit("this process is started by the service, with one argument")
    task = msgspec.json.decode(arguments[0], type=Task)
    confine()
    answer = answer_to(task, sys.stdin.buffer.read())
    sys.stdout.buffer.write(msgspec.json.encode(answer))


def confine() -> None:
    """Bound this process: whatever the decoder is led to do, the system ends it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Until the header is read: a file may consist of nothing else. The kernel counts whole seconds.
    resource.setrlimit(resource.RLIMIT_CPU, (round(time.process_time()) + HEADER_SECONDS, CPU_SECONDS))
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)  # should the service be gone, or the disk hang


def answer_to(task: Task, content: bytes) -> Answer:
    """The clean picture's facts, or why there is none; what went wrong in the decoder goes to standard error."""
    path = Path(task.path)
    try:
        picture = opened(content, task.kind, task.pixels_max)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        return _written(clean(picture), path)
    except Unacceptable as refusal:
        reason: Reason = refusal.reason
    except MemoryError:
        reason = "too_costly"
    except OSError as error:  # Pillow's own have no number
        traceback.print_exc()
        reason = "damaged" if error.errno is None else "not_stored"
    except Exception:  # noqa: BLE001 - a decoder raises whatever a hostile file leads it to
        traceback.print_exc()
        reason = "damaged"
    path.unlink(missing_ok=True)
    return Refused(reason=reason)


def opened(content: bytes, kind: Kind, pixels_max: int) -> Image.Image:
    """The picture with its header read and no pixel decoded.

    Raises Unacceptable, or whatever Pillow raises for a file that it cannot read.
    """
    _check_structure(content, kind)
    # Pillow refuses twice its bound, and only warns between; where it can, before it allocates anything.
    Image.MAX_IMAGE_PIXELS = max(1, pixels_max // 2)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        picture = Image.open(io.BytesIO(content), formats=(kind,))
    except Image.DecompressionBombError:
        raise Unacceptable("too_many_pixels") from None
    _check_header(picture, kind, pixels_max)
    return picture


def clean(picture: Image.Image) -> Image.Image:
    """The picture as RGB: upright, opaque on white, in sRGB, at most `LONG_SIDE_MAX` pixels long."""
    orientation, profile = _orientation(picture), picture.info.get("icc_profile")
    picture.draft(None, (LONG_SIDE_MAX, LONG_SIDE_MAX))  # of a JPEG, libjpeg itself makes half, a quarter, an eighth
    picture.load()
    flat = _in_srgb(_opaque(_shrunk(_in_eight_bits(picture))), profile)
    upright = flat.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else flat
    upright.info = {}  # or the encoder writes what it finds there
    return upright


def _check_structure(content: bytes, kind: Kind) -> None:
    """Refuse what takes long only to walk over, without decoding anything."""
    if kind == "JPEG" and content.count(b"\xff\xda") > SCANS_MAX:
        raise Unacceptable("too_costly")
    if kind == "PNG":
        position = 8
        for _ in range(CHUNKS_MAX):
            if position >= len(content):
                return
            position += 12 + int.from_bytes(content[position : position + 4], "big")
        raise Unacceptable("too_costly")


def _check_header(picture: Image.Image, kind: Kind, pixels_max: int) -> None:
    width, height = picture.size
    if width * height > pixels_max:
        raise Unacceptable("too_many_pixels")
    # A phone's JPEG may carry a second picture (MPO), such as a preview or a depth map: the first is the picture.
    if kind != "JPEG" and getattr(picture, "n_frames", 1) > 1:
        raise Unacceptable("animated")
    if min(_size_within(width, height)) < SIDE_MIN:
        raise Unacceptable("too_small")


def _orientation(picture: Image.Image) -> int:
    """EXIF's, 1 to 8; damaged EXIF turns nothing."""
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, ValueError, TypeError, LookupError, OSError, ArithmeticError, EOFError):
        return 1


def _in_eight_bits(picture: Image.Image) -> Image.Image:
    """In a mode that the other steps know: L, LA, RGB, RGBA or CMYK."""
    if picture.mode in _DEEP_MODES:
        return picture.convert("I").point([value >> 8 for value in range(1 << 16)], "L")
    if picture.mode == "P":
        return picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    if "transparency" in picture.info and picture.mode in ("L", "RGB"):
        return picture.convert("LA" if picture.mode == "L" else "RGBA")
    return picture if picture.mode in ("L", "LA", "RGB", "RGBA", "CMYK") else picture.convert("RGB")


def _shrunk(picture: Image.Image) -> Image.Image:
    size = _size_within(*picture.size)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _size_within(width: int, height: int) -> tuple[int, int]:
    """The size with a long side of at most `LONG_SIDE_MAX`."""
    scale = min(1.0, LONG_SIDE_MAX / max(width, height))
    return math.floor(width * scale + 0.5), math.floor(height * scale + 0.5)


def _opaque(picture: Image.Image) -> Image.Image:
    """On white: a model takes no transparency, and black would swallow dark drawings."""
    if picture.mode not in ("LA", "RGBA"):
        return picture
    opaque = picture.mode[:-1]
    white = Image.new(opaque, picture.size, "white")
    white.paste(picture.convert(opaque), mask=picture.getchannel("A"))
    return white


def _in_srgb(picture: Image.Image, profile: object) -> Image.Image:
    """The colours that the profile means, as sRGB; without one, or with one that is not of this mode, as they are."""
    if isinstance(profile, bytes) and len(profile) <= PROFILE_BYTES_MAX:
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _written(picture: Image.Image, path: Path) -> Clean:
    """Raises OSError where the disk is full."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=_PNG_COMPRESS_LEVEL)
    content = file.getbuffer()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as target:
        target.write(content)
        target.flush()
        os.fsync(target.fileno())
    return Clean(
        width=picture.width,
        height=picture.height,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
