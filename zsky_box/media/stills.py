"""Stills as PNG, and the small JPEG that stands for a result in lists."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from zsky_box.errors import JobFailure
from zsky_box.events import File
from zsky_box.media.files import settle, settle_folder, write_failure
from zsky_box.media.wordmark import bearing
from zsky_box.pipelines.base import Picture, Still

POSTER_LONG_SIDE: Final = 640
_POSTER_QUALITY: Final = 85
_PNG_COMPRESS_LEVEL: Final = 1  # 6 makes files about a tenth smaller and takes several times as long


def write_still(still: Still, folder: Path, stem: str, ordinal: int, *, wordmarked: bool = False) -> list[File]:
    """Write one image of a job and its poster into `folder`; both are on the disk and hashed when this returns.

    Ordinal 0 becomes `{stem}.png` and `{stem}-poster.jpg`, ordinal 1 `{stem}-2.png` and `{stem}-2-poster.jpg`, and so
    on; where `wordmarked`, both bear the wordmark. Raises JobFailure, and then leaves neither file: `storage_full`,
    `encode_failed`, or `internal_error` for a picture that is not uint8 [height, width, 3].
    """
    check_picture(still.picture)
    name = stem if ordinal == 0 else f"{stem}-{ordinal + 1}"
    path, poster_path = folder / f"{name}.png", folder / f"{name}-poster.jpg"
    try:
        with bearing(still.picture, wordmarked=wordmarked) as picture:
            result = _write_png(picture, path, still, ordinal)
            poster = write_poster(picture, poster_path, ordinal=ordinal, seed=still.seed)
        settle_folder(folder)
    except JobFailure:
        # On a full disk an image without its poster would take the room of the images that come next.
        path.unlink(missing_ok=True)
        poster_path.unlink(missing_ok=True)
        raise
    return [result, poster]


def _write_png(picture: Picture, path: Path, still: Still, ordinal: int) -> File:
    height, width, _ = picture.shape
    info = PngInfo()
    info.add(b"sRGB", b"\0")
    try:
        Image.fromarray(picture).save(path, "PNG", compress_level=_PNG_COMPRESS_LEVEL, pnginfo=info)
    except OSError as error:
        raise write_failure(error) from error
    length_bytes, sha256 = settle(path)
    return File(
        ordinal=ordinal,
        kind="result",
        name=path.name,
        mime="image/png",
        bytes=length_bytes,
        sha256=sha256,
        width=width,
        height=height,
        seed=still.seed,
        upscaled_from=still.upscaled_from,
    )


def write_poster(picture: Picture, path: Path, *, ordinal: int, seed: int) -> File:
    """Write a JPEG of at most 640 pixels on its long side, fsynced and hashed; the caller fsyncs the folder."""
    image = Image.fromarray(picture)
    image.thumbnail((POSTER_LONG_SIDE, POSTER_LONG_SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    try:
        image.save(path, "JPEG", quality=_POSTER_QUALITY)
    except OSError as error:
        raise write_failure(error) from error
    length_bytes, sha256 = settle(path)
    return File(
        ordinal=ordinal,
        kind="poster",
        name=path.name,
        mime="image/jpeg",
        bytes=length_bytes,
        sha256=sha256,
        width=image.width,
        height=image.height,
        seed=seed,
    )


def check_picture(picture: Picture, size: tuple[int, int] | None = None) -> None:
    """Raise JobFailure `internal_error` unless this is uint8 RGB, and of `size` (width, height) where one is given."""
    shape = picture.shape
    wrong_size = size is not None and shape[:2] != (size[1], size[0])
    if picture.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or wrong_size:
        wanted = f"{size[0]}x{size[1]}" if size is not None else "any size"
        found = f"{picture.dtype} {list(shape)}"
        raise JobFailure("internal_error", f"The model made a picture of the wrong kind: {found}, not RGB of {wanted}.")
