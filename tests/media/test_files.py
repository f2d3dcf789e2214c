"""Settled files: on the disk, measured and hashed."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from zsky_box.errors import JobFailure
from zsky_box.media.files import settle, settle_folder


def test_length_and_hash_are_those_of_the_file(tmp_path: Path) -> None:
    data = os.urandom(2_500_000)
    (tmp_path / "x").write_bytes(data)
    assert settle(tmp_path / "x") == (len(data), hashlib.sha256(data).hexdigest())


def test_file_and_folder_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def note(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", note)
    (tmp_path / "x").write_bytes(b"x")
    settle(tmp_path / "x")
    settle_folder(tmp_path)
    assert synced == [str(tmp_path / "x"), str(tmp_path)]


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "storage_full"), (errno.EDQUOT, "storage_full"), (errno.EIO, "encode_failed")],
)
def test_a_failed_sync_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    (tmp_path / "x").write_bytes(b"x")
    for settling in (lambda: settle(tmp_path / "x"), lambda: settle_folder(tmp_path)):
        with pytest.raises(JobFailure) as failure:
            settling()
        assert failure.value.error_code == code


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(JobFailure, match="could not be written"):
        settle(tmp_path / "x")
