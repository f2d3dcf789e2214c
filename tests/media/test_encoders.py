"""Which encoder is chosen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.media.clips import clip
from zsky_box.errors import JobFailure
from zsky_box.media import encoders
from zsky_box.media.video import feed_clip


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    encoders.has_nvenc.cache_clear()
    yield
    encoders.has_nvenc.cache_clear()


@pytest.fixture
def probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an NVIDIA driver; an ffmpeg that notes each call and fails its probe until told otherwise."""
    monkeypatch.setattr(encoders, "_NVIDIA_DEVICES", (tmp_path,))
    binary = tmp_path / "ffmpeg"
    binary.write_text(f"#!/bin/sh\necho called >>{tmp_path}/calls\ntest -e {tmp_path}/works\n")
    binary.chmod(0o755)
    return binary


def calls(binary: Path) -> int:
    noted = binary.with_name("calls")
    return len(noted.read_text().splitlines()) if noted.exists() else 0


def test_without_a_driver_nothing_is_probed(probed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_NVIDIA_DEVICES", (probed.with_name("absent"),))
    assert "libx264" in encoders.h264(str(probed), 24)
    assert calls(probed) == 0


def test_a_card_without_an_encoder_falls_back_and_is_asked_once(probed: Path) -> None:
    assert "libx264" in encoders.h264(str(probed), 24)
    assert "libx264" in encoders.h264(str(probed), 24)
    assert calls(probed) == 1


def test_a_card_with_an_encoder_is_used(probed: Path) -> None:
    probed.with_name("works").touch()
    assert "h264_nvenc" in encoders.h264(str(probed), 24)


def test_an_ffmpeg_that_cannot_be_started_falls_back(probed: Path) -> None:
    assert "libx264" in encoders.h264(str(probed.with_name("absent")), 24)


def test_a_key_frame_comes_every_two_seconds(probed: Path) -> None:
    arguments = encoders.h264(str(probed), 25)
    assert arguments[arguments.index("-g") + 1] == "50"


def test_after_a_clip_that_failed_the_card_is_asked_anew(probed: Path, tmp_path: Path) -> None:
    """A card that was free at the first clip may be full at the tenth: then the eleventh is encoded without it."""
    probed.with_name("works").touch()
    assert "h264_nvenc" in encoders.h264(str(probed), 24)
    with pytest.raises(JobFailure) as failed:
        feed_clip(clip(), tmp_path, "clip", seed=1, ffmpeg=str(probed)).finish()
    assert failed.value.error_code == "encode_failed"
    probed.with_name("works").unlink()
    assert "libx264" in encoders.h264(str(probed), 24)
