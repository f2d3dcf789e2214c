from __future__ import annotations

import io
import os
import subprocess
import zipfile
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.stores import START_US
from zsky_box import archive
from zsky_box.archive import PIECE_BYTES, Entry

UTC = ZoneInfo("UTC")


def an_entry(folder: Path, name: str, content: bytes, as_name: str = "") -> Entry:
    path = folder / name
    path.write_bytes(content)
    return Entry(name=as_name or name, path=path, bytes=len(content), created_at=START_US)


def made(*entries: Entry) -> bytes:
    return b"".join(archive.pieces(entries, UTC))


def test_it_works(tmp_path: Path) -> None:
    contents = {"lake.png": os.urandom(PIECE_BYTES * 2 + 7), "empty.png": b"", "film.mp4": b"moof" * 1000}
    whole = made(*(an_entry(tmp_path, name, content) for name, content in contents.items()))
    with zipfile.ZipFile(io.BytesIO(whole)) as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == contents
        for info in opened.infolist():
            assert (info.compress_type, info.date_time) == (zipfile.ZIP_STORED, (2026, 11, 22, 12, 0, 0))
            assert info.external_attr >> 16 == 0o100644


@pytest.mark.skipif(not Path("/usr/bin/unzip").exists(), reason="no unzip here")
def test_another_program_reads_it(tmp_path: Path) -> None:
    (tmp_path / "all.zip").write_bytes(made(an_entry(tmp_path, "lake.png", b"lake" * 99_999)))
    subprocess.run(["/usr/bin/unzip", "-t", str(tmp_path / "all.zip")], check=True, capture_output=True, timeout=60)


def test_an_archive_of_nothing_is_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(made())) as opened:
        assert opened.namelist() == []
    assert list(tmp_path.iterdir()) == []


def test_a_piece_is_small_however_large_the_files_are(tmp_path: Path) -> None:
    entries = [an_entry(tmp_path, f"{number}.png", bytes(PIECE_BYTES * 5)) for number in range(3)]
    sizes = [len(piece) for piece in archive.pieces(entries, UTC)]
    assert max(sizes) < PIECE_BYTES + 1_000
    assert len(sizes) == 16


def test_beyond_four_gigabytes_it_is_a_zip64(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    size = (1 << 32) + 5
    with path.open("wb") as file:
        file.truncate(size)  # sparse: nothing is on the disk
    header = next(archive.pieces([Entry(name="long.mp4", path=path, bytes=size, created_at=START_US)], UTC))
    assert header.startswith(b"PK\x03\x04\x2d\x00")  # version 4.5 is needed to extract it
    assert b"long.mp4\x01\x00" in header[:80]  # and the sizes are in its extra field


def test_what_is_not_as_it_was_made_is_left_out_and_named(tmp_path: Path) -> None:
    good, cut = an_entry(tmp_path, "good.png", b"good"), an_entry(tmp_path, "cut.png", b"cut short")
    (tmp_path / "cut.png").write_bytes(b"cut")
    gone = Entry(name="gone.png", path=tmp_path / "gone.png", bytes=4, created_at=START_US)
    (tmp_path / "link.png").symlink_to(tmp_path / "good.png")
    link = Entry(name="link.png", path=tmp_path / "link.png", bytes=4, created_at=START_US)
    with zipfile.ZipFile(io.BytesIO(made(cut, good, gone, link))) as opened:
        assert opened.namelist() == ["good.png", "MISSING.txt"]
        assert opened.read("MISSING.txt").decode().splitlines()[1:] == ["cut.png", "gone.png", "link.png"]


def test_a_file_that_shrinks_while_it_is_read_breaks_the_archive_off(tmp_path: Path) -> None:
    entry = an_entry(tmp_path, "lake.png", bytes(PIECE_BYTES * 3))
    pieces = archive.pieces([entry], UTC)
    sent = next(pieces)
    os.truncate(entry.path, 10)
    with pytest.raises(OSError, match="became shorter"):
        sent += b"".join(pieces)
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(sent))


def test_one_that_is_left_in_the_middle_holds_no_file(tmp_path: Path) -> None:
    pieces = archive.pieces([an_entry(tmp_path, "lake.png", bytes(PIECE_BYTES * 3))], UTC)
    next(pieces)
    assert _holds(tmp_path / "lake.png")
    del pieces
    assert not _holds(tmp_path / "lake.png")


def _holds(path: Path) -> bool:
    return any(link.is_symlink() and link.readlink() == path for link in Path("/proc/self/fd").iterdir())


def test_names_are_readable_and_each_is_there_once() -> None:
    names = ["lake.png", "Lake.png", "lake.png", "lake (2).png", "plain", "plain"]
    assert archive.unique(names) == [
        "lake.png",
        "Lake (2).png",
        "lake (3).png",
        "lake (2) (2).png",
        "plain",
        "plain (2)",
    ]
    assert archive.name_of("lake-7.png", START_US, UTC) == "2026-11-22 lake-7.png"
    assert archive.name_of("lake-7.png", START_US, ZoneInfo("Pacific/Kiritimati")) == "2026-11-23 lake-7.png"
    assert archive.name_of("../../etc/pässwd\n", START_US, UTC) == "2026-11-22 .._.._etc_p_sswd_"


def test_before_1980_a_file_is_of_1980(tmp_path: Path) -> None:
    entry = Entry(name="a.png", path=tmp_path / "a.png", bytes=1, created_at=0)
    entry.path.write_bytes(b"a")
    with zipfile.ZipFile(io.BytesIO(made(entry))) as opened:
        assert opened.infolist()[0].date_time[0] == 1980
