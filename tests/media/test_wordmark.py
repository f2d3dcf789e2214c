"""The wordmark as it is seen: legible on anything, in its own corner only, on every frame, and nowhere unasked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tests.media.clips import moving, read, tone
from zsky_box.formats import ASPECT_RATIOS, RESOLUTIONS, output_size
from zsky_box.media.stills import write_still
from zsky_box.media.video import feed_clip
from zsky_box.media.wordmark import bearing, wordmark
from zsky_box.pipelines.base import SAMPLE_RATE_HZ, Cancelled, Clip, Picture, Still

SIZES = sorted({output_size(resolution, ratio) for resolution in RESOLUTIONS for ratio in ASPECT_RATIOS})
SMALL = (320, 180)
CONTRAST_MIN = 3.0  # WCAG 2.2, 1.4.11: what graphics need to be told from what is beside them


def plain(width: int, height: int, *colour: int) -> Picture:
    """A picture of one colour; one level for grey."""
    return np.full((height, width, 3), colour, np.uint8)


def marked(picture: Picture) -> Picture:
    """A copy of the picture with the word on it."""
    with bearing(picture, wordmarked=True) as shown:
        return shown.copy()


def luminance(picture: Picture) -> NDArray[np.float64]:
    """Relative luminance as WCAG 2.2 defines it, from 0 to 1."""
    value = picture / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def contrast(picture: Picture) -> float:
    """How the marked picture's letters stand out from what is right beside them, as WCAG 2.2 counts it."""
    height, width, _ = picture.shape
    letters, edge = letters_and_edge(corner(marked(plain(width, height, 0)))[..., 0])
    assert letters.sum() > 50
    light = luminance(corner(marked(picture)))
    return float((light[letters].mean() + 0.05) / (light[edge].mean() + 0.05))


def corner(picture: Picture) -> Picture:
    """What surely holds the whole word."""
    return picture[-160:, -320:]


def letters_and_edge(on_black: Picture) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where the strokes of the letters are as good as full, and the pixels right beside all strokes."""
    strokes = Image.fromarray(on_black)
    near = np.asarray(strokes.filter(ImageFilter.MaxFilter(5))) > 100
    return on_black > 0.9 * on_black.max(), near & (on_black < 10)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_it_lies_small_at_the_bottom_right_of_every_size(width: int, height: int) -> None:
    rows, columns = np.nonzero(marked(plain(width, height, 128))[..., 0] != 128)
    short = min(width, height)
    word_height, word_width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    assert 0.02 * height <= word_height <= max(0.075 * short, 20), "small, but not too small to be read"
    assert word_width <= max(0.13 * short, 40)
    for gap in (height - 1 - int(rows.max()), width - 1 - int(columns.max())):
        assert 0.02 * short <= gap <= 0.05 * short


@pytest.mark.parametrize(("width", "height"), [(854, 480), (480, 854), (1920, 1080), (1080, 1920), (2520, 1080)])
@pytest.mark.parametrize(
    "colour",
    [(0, 0, 0), (60, 60, 60), (128, 128, 128), (255, 255, 255), (230, 180, 60), (250, 20, 20), (190, 255, 190)],
)
def test_it_can_be_read_on_light_and_dark(width: int, height: int, colour: tuple[int, int, int]) -> None:
    assert contrast(plain(width, height, *colour)) >= CONTRAST_MIN


def test_it_can_be_read_on_a_restless_picture() -> None:
    assert contrast(np.random.default_rng(5).integers(0, 256, (1080, 1920, 3), np.uint8)) >= CONTRAST_MIN


def test_nothing_changes_outside_its_rectangle() -> None:
    picture = next(moving(1, 854, 480))
    shown, word = marked(picture), wordmark(854, 480)
    inside = np.zeros((480, 854), np.bool_)
    inside[word.rows, word.columns] = True
    assert np.array_equal(shown[~inside], picture[~inside])
    assert not np.array_equal(shown[inside], picture[inside])
    assert inside.sum() < 0.01 * inside.size


def test_the_blend_is_exact_for_every_level() -> None:
    """No level wraps round: on a lighter picture no pixel is darker."""
    before = marked(plain(*SMALL, 0)).astype(int)
    for level in range(1, 256):
        after = marked(plain(*SMALL, level)).astype(int)
        assert (after >= before).all()
        assert (after - before <= 1).all(), "and none jumps"
        before = after


def test_the_models_own_array_is_left_as_it_was() -> None:
    picture = next(moving(1, *SMALL))
    before = picture.copy()
    with bearing(picture, wordmarked=True) as shown:
        assert shown is picture
        assert not np.array_equal(shown, before)
    assert np.array_equal(picture, before)


def test_a_clip_that_is_cancelled_leaves_the_models_array_as_it_was(tmp_path: Path) -> None:
    picture = next(moving(1, *SMALL))
    before = picture.copy()

    def cancel(_frame: int, _frames: int) -> None:
        raise Cancelled

    source = Clip(*SMALL, 24, 3, iter([picture] * 3), tone(0))
    with pytest.raises(Cancelled):
        feed_clip(source, tmp_path, "clip", seed=1, on_frame=cancel, wordmarked=True)
    assert np.array_equal(picture, before)


def test_a_picture_that_may_not_be_written_is_copied() -> None:
    grey = np.broadcast_to(np.uint8(128), (180, 320, 3))
    assert np.array_equal(marked(grey), marked(plain(*SMALL, 128)))


def test_without_it_the_picture_is_the_same_array() -> None:
    picture = plain(*SMALL, 128)
    with bearing(picture, wordmarked=False) as shown:
        assert shown is picture
        assert (shown == 128).all()


@pytest.mark.parametrize("size", [(64, 36), (36, 64), (8, 8)])
def test_a_picture_without_room_for_it_shows_a_part(size: tuple[int, int]) -> None:
    assert (marked(plain(*size, 128)) != 128).any()


def still_files(folder: Path, picture: Picture, *, wordmarked: bool) -> tuple[Picture, Picture]:
    """The image and the poster as a viewer decodes them."""
    files = write_still(Still(picture, 5), folder, f"marked-{wordmarked}", 0, wordmarked=wordmarked)
    opened: list[Picture] = []
    for file in files:
        with Image.open(folder / file.name) as image:
            opened.append(np.asarray(image))
    return opened[0], opened[1]


@pytest.mark.parametrize("writable", [True, False])
def test_a_still_and_its_poster_bear_it_where_asked(tmp_path: Path, *, writable: bool) -> None:
    picture = next(moving(1, 1920, 1080))
    picture.setflags(write=writable)
    bare, bare_poster = still_files(tmp_path, picture, wordmarked=False)
    worn, worn_poster = still_files(tmp_path, picture, wordmarked=True)
    assert np.array_equal(bare, picture)
    assert np.array_equal(worn, marked(picture))
    assert np.array_equal(picture, next(moving(1, 1920, 1080))), "the model's array is not the file's"
    change = np.abs(worn_poster.astype(int) - bare_poster).max(axis=2)
    assert change[-40:, -70:].max() > 80
    assert change[:-60].max() == 0
    assert change[:, :-100].max() == 0


def video_files(folder: Path, *, wordmarked: bool, how: str = "new arrays") -> tuple[list[Picture], Path, Picture]:
    """The frames as a player decodes them, the file, and the poster."""

    def redrawn() -> Iterator[Picture]:
        """One array for all pictures, of which only the upper half is drawn anew."""
        held = next(moving(1, *SMALL))
        for picture in moving(9, *SMALL):
            held[: SMALL[1] // 2] = picture[: SMALL[1] // 2]
            yield held

    def locked() -> Iterator[Picture]:
        for picture in moving(9, *SMALL):
            picture.setflags(write=False)
            yield picture

    pictures = {"new arrays": moving(9, *SMALL), "one array": redrawn(), "read-only": locked()}[how]
    source = Clip(*SMALL, 24, 9, pictures, tone(9 * SAMPLE_RATE_HZ // 24))
    result, poster = feed_clip(source, folder, f"{wordmarked}-{how}", seed=1, wordmarked=wordmarked).finish()
    with av.open(str(folder / result.name)) as container:
        frames = [cast(Any, frame).to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with Image.open(folder / poster.name) as image:
        return frames, folder / result.name, np.asarray(image)


@pytest.mark.parametrize("how", ["new arrays", "one array", "read-only"])
def test_every_frame_of_a_video_bears_it_and_its_poster_too(tmp_path: Path, how: str) -> None:
    bare, _, bare_poster = video_files(tmp_path, wordmarked=False, how=how)
    worn, _, worn_poster = video_files(tmp_path, wordmarked=True, how=how)
    assert len(bare) == len(worn) == 9
    word = wordmark(*SMALL)
    at = word.rows, word.columns
    for before, after in zip([*bare, bare_poster], [*worn, worn_poster], strict=True):
        wanted = marked(before).astype(int)
        assert np.abs(after[at] - wanted[at]).mean() < 10, "it shows the word, once"
        assert np.abs(after[at].astype(int) - before[at]).mean() > 30
        assert np.abs(after[:100].astype(int) - before[:100]).mean() < 4, "but for the codec the rest is the same"


def test_the_sound_of_a_video_is_untouched(tmp_path: Path) -> None:
    _, bare, _ = video_files(tmp_path, wordmarked=False)
    _, worn, _ = video_files(tmp_path, wordmarked=True)
    without, with_it = read(bare), read(worn)
    assert np.array_equal(without.sound, with_it.sound)
    assert np.abs(with_it.sound).max() > 0.4
    assert without.times == with_it.times


def test_it_makes_no_blank_frame_worth_a_poster(tmp_path: Path) -> None:
    """What tells nothing is told by the picture, not by the word on it."""
    size = (270, 270)
    blank, shown = plain(*size, 255), next(moving(1, *size))
    source = Clip(*size, 24, 8, iter([blank, blank, shown, *[blank] * 5]), tone(0))
    poster = feed_clip(source, tmp_path, "clip", seed=1, wordmarked=True).finish()[1]
    with Image.open(tmp_path / poster.name) as image:
        assert np.asarray(image)[:200].std() > 20


def test_the_same_picture_bears_the_same_bytes(tmp_path: Path) -> None:
    picture = next(moving(1, *SMALL))
    digests = [
        [file.sha256 for file in write_still(Still(picture, 5), tmp_path, stem, 0, wordmarked=True)] for stem in "ab"
    ]
    wordmark.cache_clear()
    digests.append([file.sha256 for file in write_still(Still(picture, 5), tmp_path, "c", 0, wordmarked=True)])
    assert digests[0] == digests[1] == digests[2]
