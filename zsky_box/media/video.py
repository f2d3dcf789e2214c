"""A clip becomes one MP4: H.264 and AAC, in sync to the sample, as long as its pictures, and a poster beside it.

Pictures stream: a few are in memory at a time, however long the clip is. The work comes in two parts, so that a card is
free for the next job as soon as its pictures are made: `feed_clip` takes the pictures, `ClipTail.finish` waits for the
encoder and settles the files.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np

from zsky_box.errors import JobFailure
from zsky_box.events import File
from zsky_box.media.encoders import distrust, h264
from zsky_box.media.ffmpeg import Ffmpeg, find_ffmpeg
from zsky_box.media.files import settle, settle_folder, write_failure
from zsky_box.media.mp4 import video_frames
from zsky_box.media.stills import check_picture, write_poster
from zsky_box.media.wordmark import bearing
from zsky_box.pipelines.base import SAMPLE_RATE_HZ, Clip, Picture, Sound

CHANNELS: Final = 2
_FLAT_CONTRAST: Final = 6.0  # standard deviation in 8-bit levels: a black or white frame tells nothing
_SOUND_BITS_PER_SECOND: Final = 256_000

# The BT.709 matrix into studio range, chroma sited left as H.264 assumes. Area averaging neither rings nor shifts, and
# costs what the default costs; the default leaves chroma a quarter of a pixel to the right.
_EXACT_CHROMA: Final = "out_chroma_loc=left:flags=area+accurate_rnd+full_chroma_inp"
_TO_BT709: Final = (
    f"scale=in_range=pc:out_color_matrix=bt709:out_range=tv:{_EXACT_CHROMA},format=yuv420p,"
    "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
)


def feed_clip(
    clip: Clip,
    folder: Path,
    stem: str,
    *,
    seed: int,
    ffmpeg: str | None = None,
    on_frame: Callable[[int, int], None] | None = None,
    wordmarked: bool = False,
) -> ClipTail:
    """Stream all pictures of a clip into `{stem}.mp4`; returns as soon as the last one is handed over.

    `on_frame(i, frames)` is called after picture i (from 1), and may raise to stop. Whatever the pictures or `on_frame`
    raise is passed on after ffmpeg is gone and the half file removed. Where `wordmarked`, every frame and the poster
    bear the wordmark. Raises JobFailure: `encode_failed`, `storage_full`, or `internal_error` when the clip does not
    keep its promises.
    """
    _check(clip)
    binary = find_ffmpeg(ffmpeg)
    path = folder / f"{stem}.mp4"
    encoder = Ffmpeg(
        binary,
        width=clip.width,
        height=clip.height,
        fps=clip.fps,
        sound=_fitted(clip.sound, round(clip.frames * SAMPLE_RATE_HZ / clip.fps)),
        output=output_arguments(binary, clip.fps),
        path=path,
    )
    poster = _PosterChoice(clip.frames)
    tail = ClipTail(clip, encoder, path, poster, seed=seed, wordmarked=wordmarked)
    try:
        with closing(_promised(clip)) as pictures:
            for done, picture in enumerate(pictures, start=1):
                poster.offer(done - 1, picture)
                with bearing(picture, wordmarked=wordmarked) as shown:
                    encoder.take(shown)
                if on_frame is not None:
                    on_frame(done, clip.frames)
    except BaseException as error:
        distrust(error)
        tail.abort()
        raise
    return tail


class ClipTail:
    """A clip whose pictures are all handed over; call `finish`, or `abort` if the file is no longer wanted."""

    def __init__(
        self, clip: Clip, encoder: Ffmpeg, path: Path, poster: _PosterChoice, *, seed: int, wordmarked: bool
    ) -> None:
        # Not the clip itself: its pictures may hold the model's memory.
        self._size = clip.width, clip.height
        self._frames, self._fps, self._upscaled_from = clip.frames, clip.fps, clip.upscaled_from
        self._encoder = encoder
        self._path = path
        self._poster_path = path.with_name(f"{path.stem}-poster.jpg")
        self._poster = poster
        self._seed = seed
        self._wordmarked = wordmarked

    def finish(self) -> list[File]:
        """Wait for ffmpeg; returns the result and its poster, both on the disk and hashed.

        Raises JobFailure `encode_failed` or `storage_full`; then neither file is left.
        """
        try:
            self._encoder.finish()
            return self._settle()
        except BaseException as error:
            distrust(error)
            self.abort()
            raise

    def abort(self) -> None:
        """Stop ffmpeg and remove what it has written."""
        self._encoder.abort()
        self._path.unlink(missing_ok=True)
        self._poster_path.unlink(missing_ok=True)

    def _settle(self) -> list[File]:
        try:
            frames = video_frames(self._path)
        except OSError as error:
            raise write_failure(error) from error
        if frames != self._frames:
            sentence = f"The video could not be encoded: the file holds {frames} of {self._frames} frames."
            raise JobFailure("encode_failed", sentence)
        length_bytes, sha256 = settle(self._path)
        result = File(
            ordinal=0,
            kind="result",
            name=self._path.name,
            mime="video/mp4",
            bytes=length_bytes,
            sha256=sha256,
            width=self._size[0],
            height=self._size[1],
            seed=self._seed,
            frames=self._frames,
            fps=self._fps,
            duration_seconds=self._frames / self._fps,
            sample_rate=SAMPLE_RATE_HZ,
            channels=CHANNELS,
            upscaled_from=self._upscaled_from,
        )
        with bearing(self._poster.picture, wordmarked=self._wordmarked) as picture:
            poster = write_poster(picture, self._poster_path, ordinal=0, seed=self._seed)
        settle_folder(self._path.parent)
        return [result, poster]


class _PosterChoice:
    """Keeps one picture: of those at the half, the quarter and the three quarters the nearest to the middle that
    shows something."""

    def __init__(self, frames: int) -> None:
        self._middle = frames // 2
        self._candidates = {self._middle, frames // 4, 3 * frames // 4}
        self._rank = (-1, 0)
        self.picture: Picture = np.zeros((1, 1, 3), np.uint8)

    def offer(self, index: int, picture: Picture) -> None:
        if index not in self._candidates:
            return
        tells = float(picture[::8, ::8].std()) > _FLAT_CONTRAST
        rank = (int(tells), -abs(index - self._middle))
        if self._rank[0] < 0 or rank > self._rank:
            self._rank, self.picture = rank, picture.copy()


def _check(clip: Clip) -> None:
    """Raise JobFailure `internal_error` for a clip that no encoder could take."""
    if clip.frames < 1 or clip.fps < 1 or min(clip.width, clip.height) < 2 or clip.width % 2 or clip.height % 2:
        wrong = f"{clip.frames} frames of {clip.width}x{clip.height} at {clip.fps} a second"
        raise JobFailure("internal_error", f"The model made a clip that cannot be encoded: {wrong}.")
    if clip.sound.ndim != 2 or clip.sound.shape[1] != CHANNELS or not np.isfinite(clip.sound).all():
        wrong = f"{clip.sound.dtype} {list(clip.sound.shape)}"
        raise JobFailure("internal_error", f"The model made sound of the wrong kind: {wrong}, or not finite.")


def _promised(clip: Clip) -> Generator[Picture]:
    """The clip's pictures, each of the right kind, and exactly as many as it promised."""
    made = 0
    try:
        for picture in clip.pictures:
            if made == clip.frames:
                raise JobFailure("internal_error", f"The model made more than the {clip.frames} frames of its clip.")
            check_picture(picture, (clip.width, clip.height))
            made += 1
            yield picture
    finally:
        if isinstance(clip.pictures, Generator):
            clip.pictures.close()
    if made != clip.frames:
        raise JobFailure("internal_error", f"The model made {made} of the {clip.frames} frames of its clip.")


def _fitted(sound: Sound, samples: int) -> Iterator[bytes]:
    """Exactly `samples` samples as bytes, a second at a time: the sound cut, or followed by silence."""
    for start in range(0, samples, SAMPLE_RATE_HZ):
        stop = min(start + SAMPLE_RATE_HZ, samples)
        chunk = np.zeros((stop - start, CHANNELS), "<f4")
        heard = sound[start:stop]
        chunk[: len(heard)] = heard
        yield chunk.tobytes()


def output_arguments(binary: str, fps: int) -> list[str]:
    """Frames pass through as they come; nothing in the file depends on when or where it was made.

    The movie's timescale is the sound's, so that the edit lists are exact to the sample.
    """
    exact = ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact", "-map_metadata", "-1"]
    return [
        *["-vf", _TO_BT709, "-fps_mode", "passthrough", *h264(binary, fps)],
        *["-c:a", "aac", "-b:a", str(_SOUND_BITS_PER_SECOND)],
        *exact,
        *["-movie_timescale", str(SAMPLE_RATE_HZ), "-movflags", "+faststart", "-f", "mp4"],
    ]
