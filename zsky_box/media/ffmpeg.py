"""One ffmpeg process: raw pictures go in on one pipe, sound on another, and one finished file comes out.

Owns the process, its pipes and threads, and turns every way in which it can end into a JobFailure. It knows nothing of
codecs: the caller gives the output's arguments. Pictures go in as rgb24, because ffmpeg converts one of 1920x1080 in
3 ms on its own threads, where numpy or Pillow need 10 ms or more of this process.
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Final, cast

import imageio_ffmpeg
import numpy as np

from zsky_box.errors import JobFailure
from zsky_box.media.files import storage_full
from zsky_box.pipelines.base import SAMPLE_RATE_HZ, Picture

STALL_SECONDS = 60.0  # without room for one more picture, ffmpeg counts as hung
FINISH_SECONDS = 180.0  # from the last picture to the end, which includes moving the index to the front
_REAP_SECONDS = 10.0
_SLOTS: Final = 4  # pictures between the decoder and the pipe
_PIPE_BYTES: Final = 1 << 20
_LAST_WORDS_BYTES: Final = 4096
_NO_SPACE_MESSAGES: Final = (b"No space left on device", b"Disk quota exceeded")

_log = logging.getLogger(__name__)


def find_ffmpeg(path: str | None) -> str:
    """The ffmpeg to use: the one given, else the one that imageio-ffmpeg ships. Raises JobFailure `encode_failed`."""
    if path is not None:
        return path
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise JobFailure("encode_failed", "The video could not be encoded: ffmpeg is not installed.") from error


class Ffmpeg:
    """A running ffmpeg. End it with `finish` or `abort`; after either no process, thread or pipe is left.

    `sound` yields interleaved stereo float32, little-endian, at 48 kHz; it is read on a thread of its own. Raises
    JobFailure `encode_failed` when ffmpeg cannot be started.
    """

    def __init__(
        self,
        binary: str,
        *,
        width: int,
        height: int,
        fps: int,
        sound: Iterable[bytes],
        output: Sequence[str],
        path: Path,
    ) -> None:
        self._free: queue.SimpleQueue[Picture | None] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[Picture | None] = queue.SimpleQueue()
        for _ in range(_SLOTS):
            self._free.put(np.empty((height, width, 3), np.uint8))
        self._last_words = b""
        sound_reader, sound_writer = os.pipe()
        self._sound_pipe = os.fdopen(sound_writer, "wb", buffering=0)
        try:
            self._process = subprocess.Popen(
                [binary, *_inputs(width, height, fps, sound_reader), *output, f"file:{path.absolute()}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(sound_reader,),
                bufsize=0,
            )
        except OSError as error:
            self._sound_pipe.close()
            _log.error("ffmpeg %s cannot be started: %s", binary, error)
            sentence = f"The video could not be encoded: ffmpeg cannot be started ({error.strerror})."
            raise JobFailure("encode_failed", sentence) from error
        finally:
            os.close(sound_reader)
        self._picture_pipe = cast(IO[bytes], self._process.stdin)
        self._error_pipe = cast(IO[bytes], self._process.stderr)
        _widen(self._picture_pipe.fileno())
        self._errors = _thread(self._drain_errors)
        self._threads = [_thread(self._write_pictures), _thread(lambda: self._write_sound(sound)), self._errors]

    def take(self, picture: Picture) -> None:
        """Hand over one picture; it is copied, so the caller may write into its array again at once.

        Waits while ffmpeg is busy with those before. Raises JobFailure when ffmpeg has ended, or takes none for
        `STALL_SECONDS`; then nothing of it is left.
        """
        try:
            slot = self._free.get(timeout=STALL_SECONDS)
        except queue.Empty:
            self.abort()
            raise _hung() from None
        if slot is None:
            self.finish()
            raise JobFailure("encode_failed", "The video could not be encoded: ffmpeg stopped before the last picture.")
        np.copyto(slot, picture)
        self._full.put(slot)

    def finish(self) -> None:
        """Close the pipes and wait until the file is complete; raises JobFailure when ffmpeg did not end well."""
        self._full.put(None)
        try:
            # Its error pipe closes as it ends: joining that thread wakes at once, where waiting for the process polls.
            self._errors.join(FINISH_SECONDS)
            status = self._process.wait(0 if self._errors.is_alive() else _REAP_SECONDS)
        except subprocess.TimeoutExpired:
            self.abort()
            raise _hung() from None
        except BaseException:
            self.abort()
            raise
        self._reap()
        if status != 0:
            raise self._failure(status)

    def abort(self) -> None:
        """Kill ffmpeg and wait for everything that belongs to it; harmless after it has ended."""
        self._process.kill()
        self._full.put(None)
        try:
            self._process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            _log.error("ffmpeg (pid %d) does not die: its file system may hang", self._process.pid)
        self._reap()

    def _reap(self) -> None:
        for thread in self._threads:
            thread.join(_REAP_SECONDS)
            if thread.is_alive():
                _log.error("ffmpeg's pipe is still held by another process: a thread is left waiting for it")

    def _failure(self, status: int) -> JobFailure:
        _log.error("ffmpeg ended with %d: %s", status, self._last_words.decode("utf-8", "replace").strip())
        if any(message in self._last_words for message in _NO_SPACE_MESSAGES):
            return storage_full()
        how = f"was killed (signal {-status})" if status < 0 else f"stopped with code {status}"
        return JobFailure("encode_failed", f"The video could not be encoded: ffmpeg {how}.")

    def _write_pictures(self) -> None:
        try:
            while (slot := self._full.get()) is not None:
                _write_all(self._picture_pipe, slot.data.cast("B"))
                self._free.put(slot)
        except BrokenPipeError:
            pass  # ffmpeg has ended: `take` learns it from the None below, `finish` from the exit code
        finally:
            self._picture_pipe.close()
            self._free.put(None)

    def _write_sound(self, sound: Iterable[bytes]) -> None:
        try:
            for chunk in sound:
                _write_all(self._sound_pipe, memoryview(chunk))
        except BrokenPipeError:
            pass  # ffmpeg has ended, and its exit code says how
        finally:
            self._sound_pipe.close()

    def _drain_errors(self) -> None:
        with self._error_pipe as pipe:
            while chunk := pipe.read(_LAST_WORDS_BYTES):
                self._last_words = (self._last_words + chunk)[-_LAST_WORDS_BYTES:]


def _inputs(width: int, height: int, fps: int, sound_descriptor: int) -> list[str]:
    """Everything of the command up to the output; each input may be a pipe and nothing else."""
    picture = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{width}x{height}", "-framerate", str(fps)]
    sound = ["-f", "f32le", "-sample_rate", str(SAMPLE_RATE_HZ), "-ch_layout", "stereo"]
    only_pipes = ["-protocol_whitelist", "pipe"]
    return [
        *["-nostdin", "-hide_banner", "-loglevel", "error", "-y"],
        *[*only_pipes, *picture, "-i", "pipe:0"],
        *[*only_pipes, *sound, "-i", f"pipe:{sound_descriptor}"],
        *["-map", "0:v:0", "-map", "1:a:0", "-protocol_whitelist", "file"],
    ]


def _thread(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def _widen(descriptor: int) -> None:
    """Let a pipe hold more than 64 KiB where the system allows it: fewer switches for each 6 MB picture."""
    if sys.platform == "linux":
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError as error:
            _log.debug("the pipe stays at its default size: %s", error)


def _write_all(pipe: IO[bytes], data: memoryview) -> None:
    while data:
        data = data[pipe.write(data) :]


def _hung() -> JobFailure:
    return JobFailure("encode_failed", "The video could not be encoded: ffmpeg stopped answering.")
