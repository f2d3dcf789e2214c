from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from zsky_box import secretfile
from zsky_box.errors import StoreError


def test_secrets_are_made_once_and_stay_the_same(tmp_path: Path) -> None:
    first = secretfile.load(tmp_path)
    assert secretfile.load(tmp_path) == first
    assert len(first.pepper) == len(first.signing) == 32
    assert first.pepper != first.signing


def test_two_boxes_have_different_secrets(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    assert secretfile.load(one) != secretfile.load(other)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_only_the_owner_may_read_them_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        secretfile.load(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secrets.json"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"\x00\xff", b'{"pepper": 1, "signing": 2}', b'{"pepper": "", "signing": ""}', b'{"pepper": "QQ=='],
)
def test_a_damaged_file_stops_the_start_and_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secrets.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"secrets\.json is damaged"):
        secretfile.load(tmp_path)
    assert (tmp_path / "secrets.json").read_bytes() == content


def test_the_old_content_stays_when_the_new_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    secretfile.write_private(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            secretfile.write_private(path, b"new")
    assert path.read_bytes() == b"old"
    secretfile.write_private(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    (tmp_path / f"token.{os.getpid()}.tmp").symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"):
        secretfile.write_private(tmp_path / "token", b"secret")
    assert elsewhere.read_bytes() == b"mine"
