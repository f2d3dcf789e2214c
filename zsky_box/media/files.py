"""What makes a written file final: its bytes are on the disk, its length and SHA-256 are known."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Final

from zsky_box.errors import JobFailure

_CHUNK_BYTES: Final = 1 << 20
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


def settle(path: Path) -> tuple[int, str]:
    """Fsync a file, then read it back in chunks; returns its length in bytes and its SHA-256 in hex.

    Raises JobFailure `storage_full` when the file system only now finds no room, else `encode_failed`.
    """
    try:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.sha256()
            length_bytes = 0
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                length_bytes += len(chunk)
    except OSError as error:
        raise write_failure(error) from error
    return length_bytes, digest.hexdigest()


def settle_folder(folder: Path) -> None:
    """Fsync a folder, so that the names of its new files survive a power cut; raises JobFailure like `settle`."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise write_failure(error) from error


def write_failure(error: OSError) -> JobFailure:
    """The typed failure for an operating system's refusal to write a result."""
    if error.errno in _NO_SPACE:
        return storage_full()
    return JobFailure("encode_failed", f"The result could not be written: {error.strerror or type(error).__name__}.")


def storage_full() -> JobFailure:
    """The disk has no room for the result."""
    return JobFailure(
        "storage_full", "The disk is full: the result could not be written. Free some space and try again."
    )
