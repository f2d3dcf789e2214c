"""Counts the pictures that a finished MP4 really holds: the encoder's word is not taken for it.

Boxes as in ISO/IEC 14496-12: a 32-bit length that includes its own header, a four-letter kind, then the content.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

_INDEX_MAX_BYTES: Final = 64 << 20
_HEADER: Final = struct.Struct(">I4s")


def video_frames(path: Path) -> int:
    """How many pictures the first video track's index lists; 0 for what is no complete MP4. Raises OSError."""
    with path.open("rb") as file:
        index = _read_index(file)
    for track in _children(index, b"trak"):
        for media in _children(track, b"mdia"):
            if any(bytes(handler[8:12]) == b"vide" for handler in _children(media, b"hdlr")):
                return sum(_samples(table) for table in _tables(media))
    return 0


def _read_index(file: BinaryIO) -> memoryview:
    """The content of the `moov` box, or nothing where the file is cut short or none."""
    rest_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    while rest_bytes >= _HEADER.size:
        length_bytes, kind = _HEADER.unpack(file.read(_HEADER.size))
        content_bytes = length_bytes - _HEADER.size
        if length_bytes == 1:  # the real length follows in 64 bits
            content_bytes = int.from_bytes(file.read(8)) - _HEADER.size - 8
            rest_bytes -= 8
        rest_bytes -= _HEADER.size + content_bytes
        if content_bytes < 0 or rest_bytes < 0:
            break
        if kind == b"moov" and content_bytes <= _INDEX_MAX_BYTES:
            return memoryview(file.read(content_bytes))
        file.seek(content_bytes, os.SEEK_CUR)
    return memoryview(b"")


def _tables(media: memoryview) -> Iterator[memoryview]:
    for information in _children(media, b"minf"):
        for table in _children(information, b"stbl"):
            yield from _children(table, b"stsz")


def _samples(sizes: memoryview) -> int:
    return int.from_bytes(sizes[8:12])


def _children(content: memoryview, wanted: bytes) -> Iterator[memoryview]:
    while len(content) >= _HEADER.size:
        length_bytes, kind = _HEADER.unpack_from(content)
        if length_bytes < _HEADER.size:
            return
        if kind == wanted:
            yield content[_HEADER.size : length_bytes]
        content = content[length_bytes:]
