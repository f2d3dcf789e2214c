"""One process per data folder."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from zsky_box.errors import StoreError

_POLL_SECONDS: Final = 0.05


class InstanceLock:
    """An advisory lock, which the kernel releases when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "instance.lock"
        self._fd: int | None = None

    def acquire(self, wait_seconds: float = 0.0) -> None:
        """Take the lock, or raise StoreError naming the process that still holds it after the wait."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + wait_seconds
        while not self._locked(fd):
            if time.monotonic() >= until:
                holder = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
                os.close(fd)
                raise StoreError(f"{self._path.parent} is in use by process {holder}; stop it first")
            time.sleep(_POLL_SECONDS)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    @staticmethod
    def _locked(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(self) -> None:
        """Give it back; harmless when not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
