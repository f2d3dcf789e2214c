"""The picture that a request begins with, brought to the size that a model renders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zsky_box.errors import JobFailure


def cover(path: str, width: int, height: int) -> Any:
    """The picture in the PNG file at `path` as a PIL image, RGB, scaled and cropped evenly to `width` x `height`.

    Raises JobFailure where the file is gone or is no picture.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(Path(path), formats=("PNG",)) as picture:
            return ImageOps.fit(picture.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as reason:
        raise JobFailure("internal_error", "The reference picture cannot be read. Upload it again.") from reason
