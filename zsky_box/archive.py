"""Many files as one ZIP archive, made while it is sent: no file of its own, and of each result one piece in memory.

Nothing is deflated: pictures and clips are as small as they get. Sizes above 4 GiB are written as ZIP64.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import BinaryIO, Final

from msgspec import Struct

from zsky_box.clock import SECOND_US

PIECE_BYTES: Final = 256 * 1024
MISSING_NAME: Final = "MISSING.txt"
_FILE_MODE: Final = 0o100644 << 16
_FIRST_YEAR: Final = 1980  # no date of a ZIP archive lies before it


class Entry(Struct, frozen=True, kw_only=True):
    """One file as it goes into the archive; `bytes` is how large it must be to be what was made."""

    name: str
    path: Path
    bytes: int
    created_at: int


def unique(names: Iterable[str]) -> list[str]:
    """The names in their order; one that came before (whatever its case) gets a number: `lake.png`, `lake (2).png`."""
    taken: set[str] = set()
    chosen: list[str] = []
    for name in names:
        stem, dot, suffix = name.rpartition(".")
        candidate, number = name, 1
        while candidate.lower() in taken:
            number += 1
            candidate = f"{stem} ({number}){dot}{suffix}" if dot else f"{name} ({number})"
        taken.add(candidate.lower())
        chosen.append(candidate)
    return chosen


def name_of(file_name: str, created_at: int, zone: tzinfo) -> str:
    """A file's name behind the day it was made on, so that a folder of them is in order: `2026-11-28 lake-7.png`."""
    day = datetime.fromtimestamp(created_at // SECOND_US, UTC).astimezone(zone).strftime("%Y-%m-%d")
    return f"{day} {re.sub(r'[^A-Za-z0-9._ -]', '_', file_name)}"


def pieces(entries: Iterable[Entry], zone: tzinfo) -> Iterator[bytes]:
    """The archive, piece by piece; what is not on the disk as it was made is named in `MISSING.txt`.

    Raises OSError where a file becomes shorter while it is read: the archive then ends in the middle, and every reader
    sees that it is broken.
    """
    sink, missing = _Sink(), list[str]()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for entry in entries:
            file = _opened(entry)
            if file is None:
                missing.append(entry.name)
                continue
            with file, archive.open(_info(entry, zone), "w") as member:
                left = entry.bytes
                while left > 0:
                    piece = file.read(min(PIECE_BYTES, left))
                    if not piece:
                        raise OSError(f"{entry.path} became shorter while it was read")
                    left -= len(piece)
                    member.write(piece)
                    yield sink.take()
        if missing:
            told = "These were not on the box's disk any more:\n" + "\n".join(missing) + "\n"
            archive.writestr(MISSING_NAME, told)
    yield sink.take()


def _info(entry: Entry, zone: tzinfo) -> zipfile.ZipInfo:
    local = datetime.fromtimestamp(entry.created_at // SECOND_US, UTC).astimezone(zone)
    date = (max(local.year, _FIRST_YEAR), local.month, local.day, local.hour, local.minute, local.second)
    info = zipfile.ZipInfo(entry.name, date)
    info.external_attr = _FILE_MODE
    info.file_size = entry.bytes  # says beforehand whether it is ZIP64
    return info


def _opened(entry: Entry) -> BinaryIO | None:
    try:
        file = os.fdopen(os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
    except OSError:
        return None
    if os.fstat(file.fileno()).st_size != entry.bytes:
        file.close()
        return None
    return file


class _Sink(io.RawIOBase):
    """What the archive is written to: kept until it is taken, and never sought in."""

    def __init__(self) -> None:
        super().__init__()
        self._kept = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Keep it."""
        self._kept += data
        return len(data)

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = bytes(self._kept)
        self._kept.clear()
        return taken
