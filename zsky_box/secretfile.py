"""The box's own secrets: the keys' pepper and the results' signing key, in one file with mode 0600."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from zsky_box.errors import StoreError

FILE_NAME: Final = "secrets.json"
_SECRET_BYTES: Final = 32

Secret = Annotated[bytes, Meta(min_length=_SECRET_BYTES)]


class Secrets(Struct, frozen=True):
    """`pepper` keys the hashes of API keys; `signing` signs result URLs. Losing them ends all keys and URLs."""

    pepper: Secret
    signing: Secret


def load(folder: Path) -> Secrets:
    """Read the secrets, or make them on the first start; raises StoreError when the file is damaged."""
    path = folder / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Secrets)
    except FileNotFoundError:
        fresh = Secrets(secrets.token_bytes(_SECRET_BYTES), secrets.token_bytes(_SECRET_BYTES))
        write_private(path, msgspec.json.encode(fresh))
        return fresh
    except msgspec.DecodeError as error:
        raise StoreError(f"{path} is damaged ({error}); restore it from a backup") from error


def write_private(path: Path, content: bytes) -> None:
    """Replace a file atomically; only the owner may read it, from its first byte on."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
