"""The picture that a request begins with, brought to the size that a model renders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zsky_box.errors import JobFailure


def opened(path: str) -> Any:
    """The whole picture in the PNG file at `path` as a PIL image, RGB.

    Raises JobFailure where the file is gone or is no picture.
    """
    from PIL import Image

    try:
        with Image.open(Path(path), formats=("PNG",)) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as reason:
        raise JobFailure("internal_error", "The reference picture cannot be read. Upload it again.") from reason


def cover(path: str, width: int, height: int) -> Any:
    """The picture at `path`, scaled and cropped evenly to `width` x `height`; raises as `opened` does."""
    from PIL import Image, ImageOps

    return ImageOps.fit(opened(path), (width, height), Image.Resampling.LANCZOS)


def framed(picture: Any, width: int, height: int) -> Any:
    """`picture` in the middle of one of `width` x `height`, its edges drawn out to fill the rest.

    Models render a little more than they deliver, and what is surplus is cropped evenly: so what is delivered lies
    where the reference lay.
    """
    from PIL import Image

    left, top = (width - picture.width) // 2, (height - picture.height) // 2
    margins = (top, height - picture.height - top), (left, width - picture.width - left), (0, 0)
    return Image.fromarray(np.pad(np.asarray(picture), margins, mode="edge"))
