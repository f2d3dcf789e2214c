"""Counting pictures in files that may be damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.media.clips import clip
from zsky_box.media.mp4 import video_frames
from zsky_box.media.video import feed_clip


@pytest.fixture
def encoded(tmp_path: Path) -> Path:
    feed_clip(clip(frames=7), tmp_path, "clip", seed=1).finish()
    return tmp_path / "clip.mp4"


def test_it_counts_pictures_and_not_sound(encoded: Path) -> None:
    assert video_frames(encoded) == 7


@pytest.mark.parametrize("kept_bytes", [0, 4, 30, 60, 300])
def test_a_truncated_file_has_no_pictures(encoded: Path, kept_bytes: int) -> None:
    encoded.write_bytes(encoded.read_bytes()[:kept_bytes])
    assert video_frames(encoded) == 0


@pytest.mark.parametrize("data", [b"\0" * 64, b"\xff" * 64, b"\0\0\0\1moov" + b"\0" * 7, b"\0\0\0\x08free" * 9])
def test_what_is_no_mp4_has_no_pictures(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    assert video_frames(tmp_path / "x") == 0


def test_a_long_box_before_the_index_is_skipped(encoded: Path) -> None:
    data = encoded.read_bytes()
    encoded.write_bytes(b"\0\0\0\1free" + (16 + 5).to_bytes(8) + b"hello" + data)
    assert video_frames(encoded) == 7
