"""What the installer asks of the disk: how much is free, and a file to add bytes to. Tests hand in fuller ones."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Final

from zsky_box.errors import InstallError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
GIB: Final = 1024**3


class Disk:
    """The disk that the weights lie on."""

    def free_bytes(self, folder: Path) -> int:
        """What may still be written there."""
        return shutil.disk_usage(folder).free

    def write(self, fd: int, data: memoryview) -> int:
        """Add bytes to a file; how many of them were taken."""
        return os.write(fd, data)


def in_gib(count: int) -> str:
    """A number of bytes as a person reads it."""
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 1024**2:.1f} MiB"


def require(disk: Disk, folder: Path, needed_bytes: int, floor_bytes: int) -> None:
    """Raises InstallError where `needed_bytes` would leave less than the floor."""
    free = disk.free_bytes(folder)
    if free < needed_bytes + floor_bytes:
        raise InstallError(
            f"The disk of {folder} has {in_gib(free)} free, and {in_gib(needed_bytes)} are needed beside the"
            f" {in_gib(floor_bytes)} that stay free (free_space_floor_bytes); make room and run the command again."
        )


def is_full(error: OSError) -> bool:
    """Whether the disk or the quota is full."""
    return error.errno in _FULL


def full(path: Path) -> InstallError:
    """The sentence for a disk that filled up meanwhile."""
    return InstallError(
        f"The disk of {path.parent} is full. What has arrived is kept: make room and run the same command again."
    )
