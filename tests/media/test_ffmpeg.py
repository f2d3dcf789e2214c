"""Every way in which ffmpeg can let a clip down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from tests.media.clips import HEIGHT, WIDTH, child_pids, clip
from zsky_box.errors import JobFailure
from zsky_box.media import ffmpeg
from zsky_box.media.video import feed_clip
from zsky_box.pipelines.base import Clip

StandIn = Callable[[str], str]


@pytest.fixture
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """Makes an executable that behaves as its shell script says."""

    def make(script: str) -> str:
        path = tmp_path_factory.mktemp("bin") / "ffmpeg"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return make


def fail(source: Clip, folder: Path, binary: str | None) -> JobFailure:
    with pytest.raises(JobFailure) as failure:
        feed_clip(source, folder, "clip", seed=1, ffmpeg=binary).finish()
    assert list(folder.glob("clip*")) == []
    return failure.value


def test_a_missing_binary_is_told(tmp_path: Path) -> None:
    failure = fail(clip(), tmp_path, str(tmp_path / "nowhere"))
    assert failure.error_code == "encode_failed"
    assert "cannot be started" in failure.message


def test_no_ffmpeg_at_all_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", none_found)
    failure = fail(clip(), tmp_path, None)
    assert (failure.error_code, failure.message) == (
        "encode_failed",
        "The video could not be encoded: ffmpeg is not installed.",
    )


def none_found() -> str:
    raise RuntimeError("No ffmpeg exe could be found.")


def test_a_file_that_is_no_program_is_told(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    assert fail(clip(), tmp_path, str(tmp_path / "text")).error_code == "encode_failed"


@pytest.mark.parametrize("frames", [2, 400])
def test_a_crash_is_told_with_its_code_and_without_paths(tmp_path: Path, stand_in: StandIn, frames: int) -> None:
    failure = fail(clip(frames=frames), tmp_path, stand_in("echo /secret/path: broken >&2; exit 3"))
    assert failure.error_code == "encode_failed"
    assert failure.message == "The video could not be encoded: ffmpeg stopped with code 3."


def test_a_clean_exit_without_a_file_is_no_success(tmp_path: Path, stand_in: StandIn) -> None:
    failure = fail(clip(frames=400), tmp_path, stand_in("exit 0"))
    assert (failure.error_code, "before the last picture" in failure.message) == ("encode_failed", True)
    assert fail(clip(), tmp_path, stand_in("exec cat >/dev/null")).error_code == "encode_failed"


def test_a_file_that_lacks_frames_is_no_success(tmp_path: Path, stand_in: StandIn) -> None:
    feed_clip(clip(frames=5), tmp_path, "five", seed=1).finish()
    copying = f"""for last; do :; done; cat >/dev/null; exec cp {tmp_path}/five.mp4 "${{last#file:}}" """
    failure = fail(clip(frames=6), tmp_path, stand_in(copying))
    assert failure.message == "The video could not be encoded: the file holds 5 of 6 frames."


def test_a_killed_ffmpeg_is_told(tmp_path: Path) -> None:
    others = child_pids()

    def kill(frame: int, _frames: int) -> None:
        if frame == 10:
            for pid in child_pids() - others:
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(JobFailure, match="was killed \\(signal 9\\)") as failure:
        feed_clip(clip(frames=400), tmp_path, "clip", seed=1, on_frame=kill).finish()
    assert failure.value.error_code == "encode_failed"
    assert list(tmp_path.iterdir()) == []


def test_an_ffmpeg_that_takes_no_pictures_is_killed(
    tmp_path: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ffmpeg, "STALL_SECONDS", 0.3)
    failure = fail(clip(frames=400), tmp_path, stand_in("exec sleep 600"))
    assert (failure.error_code, "stopped answering" in failure.message) == ("encode_failed", True)


@pytest.mark.parametrize("script", ["cat >/dev/null; exec sleep 600", "cat >/dev/null; exec 2>&-; exec sleep 600"])
def test_an_ffmpeg_that_does_not_end_is_killed(
    tmp_path: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(ffmpeg, "FINISH_SECONDS", 0.3)
    monkeypatch.setattr(ffmpeg, "_REAP_SECONDS", 1.0)
    failure = fail(clip(), tmp_path, stand_in(script))
    assert (failure.error_code, "stopped answering" in failure.message) == ("encode_failed", True)


def test_a_chatty_ffmpeg_does_not_stall(tmp_path: Path, stand_in: StandIn) -> None:
    chatter = (
        "i=0; while [ $i -lt 3000 ]; do echo 'a line of fifty characters, again and again, so' >&2; i=$((i+1)); done"
    )
    failure = fail(clip(), tmp_path, stand_in(f"{chatter}; cat >/dev/null; exit 4"))
    assert failure.message == "The video could not be encoded: ffmpeg stopped with code 4."


def test_a_full_disk_as_ffmpeg_reports_it(tmp_path: Path, stand_in: StandIn) -> None:
    script = "cat >/dev/null; echo 'Error writing trailer: No space left on device' >&2; exit 228"
    failure = fail(clip(), tmp_path, stand_in(script))
    assert failure.error_code == "storage_full"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; skipped where one may not be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip("mounting needs privileges")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    random = np.random.default_rng(1)
    noise = (random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(300))
    failure = fail(clip(frames=300, pictures=noise), small_disk, None)
    assert failure.error_code == "storage_full"


def test_ffmpeg_may_read_its_pipes_and_nothing_else(tmp_path: Path, stand_in: StandIn) -> None:
    fail(clip(), tmp_path, stand_in(f'printf "%s\\n" "$@" >{tmp_path}/arguments; cat >/dev/null; exit 1'))
    arguments = (tmp_path / "arguments").read_text().splitlines()
    inputs = [place for place, argument in enumerate(arguments) if argument == "-i"]
    assert [arguments[place + 1].split(":")[0] for place in inputs] == ["pipe", "pipe"]
    allowed = [arguments[place + 1] for place, argument in enumerate(arguments) if argument == "-protocol_whitelist"]
    assert allowed == ["pipe", "pipe", "file"]
    assert f"{WIDTH}x{HEIGHT}" in arguments
    assert arguments[-1] == f"file:{tmp_path}/clip.mp4"


def test_this_process_can_be_left_while_a_tail_is_open(tmp_path: Path) -> None:
    """An interpreter that exits takes its ffmpeg along: the pipes end, and no thread holds the exit up."""
    script = (
        "import sys; from pathlib import Path; from tests.media.clips import clip\n"
        "from zsky_box.media.video import feed_clip\n"
        "feed_clip(clip(), Path(sys.argv[1]), 'clip', seed=1)\n"
    )
    command = [sys.executable, "-W", "ignore::ResourceWarning", "-c", script, str(tmp_path)]
    done = subprocess.run(command, timeout=120, check=False, capture_output=True)
    assert done.returncode == 0
