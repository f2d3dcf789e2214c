"""Whether a file is what its name says, and of a kind that a model needs: weights as safetensors, and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from zsky_box.errors import InstallError
from zsky_box.install import tensors

_TEXTS: Final = (".txt", ".model", ".jinja")


def look_into(path: Path, name: str) -> None:
    """Raises InstallError for a file that is not what its name says, or of a kind that a model does not need."""
    if path.suffix == ".safetensors":
        tensors.check(path, name)
    elif path.suffix == ".json":
        try:
            msgspec.json.decode(path.read_bytes(), type=msgspec.Raw)  # walked over: nothing is made of it
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InstallError(f"{name} is no JSON ({error}); nothing is installed.") from error
    elif path.suffix not in _TEXTS:
        raise InstallError(f"{name} is neither weights as safetensors nor a configuration; nothing is installed.")
