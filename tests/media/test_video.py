"""What a player finds in a finished clip, and what happens to a clip that does not keep its promises."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.media.clips import HEIGHT, WIDTH, clip, moving, read, tone
from zsky_box.errors import JobFailure
from zsky_box.media.video import feed_clip
from zsky_box.pipelines.base import SAMPLE_RATE_HZ, Cancelled, Clip, Picture

AAC_FRAME_SAMPLES = 1024


def encode(source: Clip, folder: Path) -> Path:
    files = feed_clip(source, folder, "clip", seed=1).finish()
    return folder / files[0].name


def test_it_works(tmp_path: Path) -> None:
    path = encode(clip(frames=25), tmp_path)
    facts = read(path)
    assert facts.codecs == ("h264", "aac")
    assert facts.profile == "High"
    assert facts.pixel_format == "yuv420p"
    assert facts.colour == (1, 1, 1, 1)  # BT.709 three times, studio range
    assert (facts.sample_rate, facts.layout) == (48_000, "stereo")
    assert len(facts.times) == 25


def test_files_are_described_as_they_are(tmp_path: Path) -> None:
    source = clip(frames=30)
    source.upscaled_from = "64x48"
    result, poster = feed_clip(source, tmp_path, "a job", seed=77).finish()
    for file in (result, poster):
        data = (tmp_path / file.name).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert (file.seed, file.ordinal) == (77, 0)
    assert (result.name, result.kind, result.mime) == ("a job.mp4", "result", "video/mp4")
    assert (result.width, result.height, result.frames, result.fps) == (WIDTH, HEIGHT, 30, 24)
    assert (result.duration_seconds, result.sample_rate, result.channels) == (1.25, 48_000, 2)
    assert result.upscaled_from == "64x48"
    assert (poster.name, poster.kind, poster.mime) == ("a job-poster.jpg", "poster", "image/jpeg")


@pytest.mark.parametrize(("frames", "fps"), [(1, 24), (25, 24), (121, 24), (50, 25), (97, 30), (100, 60)])
def test_every_frame_is_there_at_its_time(tmp_path: Path, frames: int, fps: int) -> None:
    facts = read(encode(clip(frames=frames, fps=fps), tmp_path))
    assert facts.rate == fps
    assert facts.times == pytest.approx([frame / fps for frame in range(frames)], abs=1e-4)
    assert facts.starts == (0.0, 0.0)
    assert facts.durations == pytest.approx((frames / fps, frames / fps), abs=1 / SAMPLE_RATE_HZ)


def test_short_sound_is_padded_with_silence(tmp_path: Path) -> None:
    facts = read(encode(clip(frames=24, sound=tone(12_000)), tmp_path))
    assert facts.durations == (1.0, 1.0)
    assert 0 <= facts.sound.size - SAMPLE_RATE_HZ < AAC_FRAME_SAMPLES
    assert np.abs(facts.sound[6_000:11_000]).max() > 0.4
    assert np.abs(facts.sound[12_000 + AAC_FRAME_SAMPLES :]).max() < 0.001


def test_no_sound_at_all_becomes_silence(tmp_path: Path) -> None:
    facts = read(encode(clip(frames=24, sound=np.zeros((0, 2), np.float32)), tmp_path))
    assert facts.durations == (1.0, 1.0)
    assert np.abs(facts.sound).max() == 0


def test_long_sound_is_cut_at_the_last_frame(tmp_path: Path) -> None:
    facts = read(encode(clip(frames=24, sound=tone(3 * SAMPLE_RATE_HZ)), tmp_path))
    assert facts.durations == (1.0, 1.0)
    assert len(facts.times) == 24
    assert 0 <= facts.sound.size - SAMPLE_RATE_HZ < AAC_FRAME_SAMPLES
    assert np.abs(facts.sound[SAMPLE_RATE_HZ - 1_000 : SAMPLE_RATE_HZ]).max() > 0.4


def test_the_index_comes_before_the_data(tmp_path: Path) -> None:
    data = encode(clip(), tmp_path).read_bytes()
    kinds: list[bytes] = []
    while data:
        kinds.append(data[4:8])
        data = data[int.from_bytes(data[:4]) :]
    assert kinds.index(b"moov") < kinds.index(b"mdat")


@pytest.mark.parametrize("colour", [(0, 255, 0), (255, 0, 0), (0, 0, 255), (128, 128, 128), (200, 60, 120)])
def test_colours_are_converted_with_the_matrix_that_the_tags_name(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    pictures = iter([np.full((HEIGHT, WIDTH, 3), colour, np.uint8)] * 4)
    path = encode(clip(frames=4, pictures=pictures), tmp_path)
    red, green, blue = (value / 255 for value in colour)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue  # ITU-R BT.709, 3.2
    wanted = 16 + 219 * luma, 128 + 224 * (blue - luma) / 1.8556, 128 + 224 * (red - luma) / 1.5748
    with av.open(str(path)) as container:
        planes = next(container.decode(video=0)).to_ndarray(format="yuv420p").ravel()
    found = [float(plane.mean()) for plane in np.split(planes, [WIDTH * HEIGHT, WIDTH * HEIGHT * 5 // 4])]
    assert found == pytest.approx(wanted, abs=1.5)


def test_same_clip_same_bytes(tmp_path: Path) -> None:
    first = encode(clip(), tmp_path).read_bytes()
    assert encode(clip(), tmp_path).read_bytes() == first


def test_the_file_names_no_version_of_ffmpeg(tmp_path: Path) -> None:
    assert re.search(rb"Lav[cf]\d", encode(clip(), tmp_path).read_bytes()) is None


def test_other_pictures_other_bytes(tmp_path: Path) -> None:
    first = encode(clip(), tmp_path).read_bytes()
    assert encode(clip(pictures=iter(list(moving(12))[::-1])), tmp_path).read_bytes() != first


def test_a_picture_may_be_overwritten_once_the_next_is_asked_for(tmp_path: Path) -> None:
    def recycled() -> Iterator[Picture]:
        canvas = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for picture in moving(12):
            canvas[:] = picture
            yield canvas

    assert encode(clip(pictures=recycled()), tmp_path).read_bytes() == encode(clip(), tmp_path).read_bytes()


def test_pictures_cut_out_of_larger_ones_are_taken(tmp_path: Path) -> None:
    larger = (np.pad(picture, ((4, 4), (2, 2), (0, 0))) for picture in moving(12))
    cut = (picture[4:-4, 2:-2] for picture in larger)
    assert encode(clip(pictures=cut), tmp_path).read_bytes() == encode(clip(), tmp_path).read_bytes()


def test_progress_is_told_after_each_frame(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    feed_clip(clip(frames=3), tmp_path, "clip", seed=1, on_frame=lambda done, of: told.append((done, of))).finish()
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("width", "height", "size"), [(1280, 720, (640, 360)), (480, 854, (360, 640)), (96, 64, (96, 64))]
)
def test_the_poster_is_at_most_640_pixels_long(tmp_path: Path, width: int, height: int, size: tuple[int, int]) -> None:
    source = Clip(width, height, 24, 3, moving(3, width, height), tone(6_000))
    poster = feed_clip(source, tmp_path, "clip", seed=1).finish()[1]
    with Image.open(tmp_path / poster.name) as image:
        image.load()
        assert image.format == "JPEG"
        assert image.size == (poster.width, poster.height) == size


def test_the_poster_shows_the_middle_of_the_clip(tmp_path: Path) -> None:
    pictures = list(moving(13))
    poster = feed_clip(clip(frames=13, pictures=iter(pictures)), tmp_path, "clip", seed=1).finish()[1]
    with Image.open(tmp_path / poster.name) as image:
        shown = np.asarray(image).astype(int)
    nearest = min(range(13), key=lambda frame: float(np.abs(shown - pictures[frame]).mean()))
    assert nearest == 6


def test_the_poster_is_not_a_blank_frame(tmp_path: Path) -> None:
    pictures = list(moving(24))
    pictures[12] = np.full_like(pictures[12], 255)
    poster = feed_clip(clip(frames=24, pictures=iter(pictures)), tmp_path, "clip", seed=1).finish()[1]
    with Image.open(tmp_path / poster.name) as image:
        assert np.asarray(image).std() > 20


@pytest.mark.parametrize(
    ("promised", "made", "sentence"), [(6, 4, "made 4 of the 6 frames"), (4, 6, "more than the 4")]
)
def test_a_wrong_number_of_frames_is_told(tmp_path: Path, promised: int, made: int, sentence: str) -> None:
    with pytest.raises(JobFailure, match=sentence) as failure:
        feed_clip(clip(frames=promised, pictures=moving(made)), tmp_path, "clip", seed=1)
    assert failure.value.error_code == "internal_error"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((HEIGHT, WIDTH + 2, 3), np.uint8),
        np.zeros((HEIGHT, WIDTH, 4), np.uint8),
        np.zeros((HEIGHT, WIDTH), np.uint8),
        np.zeros((HEIGHT, WIDTH, 3), np.float32),
    ],
    ids=["width", "alpha", "grey", "float"],
)
def test_a_picture_of_the_wrong_kind_is_told(tmp_path: Path, wrong: Picture) -> None:
    with pytest.raises(JobFailure, match="picture of the wrong kind") as failure:
        feed_clip(clip(frames=3, pictures=iter([*moving(2), wrong])), tmp_path, "clip", seed=1)
    assert failure.value.error_code == "internal_error"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "sound", [np.zeros((10, 1), np.float32), np.zeros(10, np.float32), np.full((10, 2), np.nan, np.float32)]
)
def test_sound_of_the_wrong_kind_is_told(
    tmp_path: Path, sound: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> None:
    with pytest.raises(JobFailure, match="sound of the wrong kind"):
        feed_clip(clip(sound=sound), tmp_path, "clip", seed=1)


def test_an_odd_size_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(JobFailure, match="cannot be encoded"):
        feed_clip(Clip(WIDTH, 95, 24, 3, moving(3), tone(1)), tmp_path, "clip", seed=1)


def test_what_the_pictures_raise_is_passed_on_and_nothing_is_left(tmp_path: Path) -> None:
    closed: list[bool] = []

    def cancelled_half_way() -> Iterator[Picture]:
        try:
            yield from moving(20)
            raise Cancelled
        finally:
            closed.append(True)

    with pytest.raises(Cancelled):
        feed_clip(clip(frames=40, pictures=cancelled_half_way()), tmp_path, "clip", seed=1)
    assert closed == [True]
    assert list(tmp_path.iterdir()) == []


def test_cancelling_from_progress_closes_the_pictures_at_once(tmp_path: Path) -> None:
    closed: list[bool] = []

    def pictures() -> Iterator[Picture]:
        try:
            yield from moving(40)
        finally:
            closed.append(True)

    def cancel(frame: int, _frames: int) -> None:
        if frame == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        feed_clip(clip(frames=40, pictures=pictures()), tmp_path, "clip", seed=1, on_frame=cancel)
    assert closed == [True]
    assert list(tmp_path.iterdir()) == []


def test_an_aborted_tail_leaves_nothing(tmp_path: Path) -> None:
    tail = feed_clip(clip(), tmp_path, "clip", seed=1)
    tail.abort()
    tail.abort()
    assert list(tmp_path.iterdir()) == []


def test_the_next_clip_may_be_fed_before_the_last_is_finished(tmp_path: Path) -> None:
    alone = encode(clip(), tmp_path).read_bytes()
    tails = [feed_clip(clip(), tmp_path, stem, seed=1) for stem in ("first", "second")]
    for tail in tails:
        assert (tmp_path / tail.finish()[0].name).read_bytes() == alone


MEMORY = """
import os, sys
from pathlib import Path
from tests.media.clips import child_pids, moving, tone
from zsky_box.media.video import feed_clip
from zsky_box.pipelines.base import Clip

def tell(frame, frames):
    if frame == frames:
        for pid in [os.getpid(), *child_pids()]:
            print(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0])

folder, frames = Path(sys.argv[1]), int(sys.argv[2])
clip = Clip(854, 480, 24, frames, moving(frames, 854, 480), tone(0))
feed_clip(clip, folder, "clip", seed=1, on_frame=tell).finish()
"""


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    def peaks_mib(frames: int) -> list[float]:
        command = [sys.executable, "-c", MEMORY, str(tmp_path), str(frames)]
        output = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        return [int(kib) / 1024 for kib in output.split()]

    short, long = peaks_mib(96), peaks_mib(480)
    assert len(short) == 2  # this process, then ffmpeg
    for few, many in zip(short, long, strict=True):  # 384 more frames are 450 MiB
        assert many < few + 20
