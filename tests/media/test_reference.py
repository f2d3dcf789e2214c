"""A stranger's picture: bombs are refused at once and within bounds, and what is taken becomes pixels alone."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.media import pictures
from tests.media.pictures import MARK, corners, encoded
from zsky_box.decoder import ENTRY
from zsky_box.media import reference
from zsky_box.picture import LONG_SIDE_MAX, Answer, Clean, Refused, Task, kind_of
from zsky_box.settings import CHECKOUT

PIXELS_MAX = 40_000_000
REFUSED_SECONDS = 2.0
MEMORY_BYTES = 1 << 30

# The words of the refusal that the service makes of each reason; see `zsky_box.decoder`.
REASONS = {
    "million pixels": "too_many_pixels",
    "damaged": "damaged",
    "too much time": "too_costly",
    "animated": "animated",
    "too small": "too_small",
}

DAMAGING = pictures.damaging()
STRANGE = pictures.strange()


def _peak_bytes(told: int) -> int:
    """A child's peak; the system counts from what its parent held, so one below that is not told."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return 0 if told <= own else told


class Outcome(msgspec.Struct):
    """What the child said, or the signal that ended it, and what it took."""

    answer: Answer | None
    status: int
    cpu_seconds: float
    peak_bytes: int


def run(content: bytes, path: Path, kind: Any = None, pixels_max: int = PIXELS_MAX) -> Outcome:
    """The child as the service starts it, and what the system says that it took."""
    task = Task(kind=kind or kind_of(content) or "PNG", pixels_max=pixels_max, path=str(path))
    source, told = path.with_suffix(".in"), path.with_suffix(".told")
    source.write_bytes(content)
    with source.open("rb") as given, told.open("wb") as said:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", ENTRY, msgspec.json.encode(task).decode()],
            stdin=given,
            stdout=said,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        )
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    answer = msgspec.json.decode(told.read_bytes(), type=Answer) if child.returncode == 0 else None
    return Outcome(answer, child.returncode, used.ru_utime + used.ru_stime, _peak_bytes(used.ru_maxrss * 1024))


def cleaned(content: bytes, path: Path) -> Image.Image:
    """The picture that comes out; what lies on the disk is what was told of it, and is nothing but pixels."""
    outcome = run(content, path)
    assert isinstance(outcome.answer, Clean), outcome
    written = path.read_bytes()
    assert set(pictures.chunk_names(written)) == {b"IHDR", b"IDAT", b"IEND"}
    picture = Image.open(BytesIO(written), formats=("PNG",))
    picture.load()
    assert (picture.mode, picture.size) == ("RGB", (outcome.answer.width, outcome.answer.height))
    assert picture.info == {}
    assert len(written) == outcome.answer.bytes
    return picture


def colours(picture: Image.Image) -> list[tuple[int, ...]]:
    """The middles of the four quarters, as they are read."""
    width, height = picture.size
    middles = [(x * width // 4, y * height // 4) for y in (1, 3) for x in (1, 3)]
    return [tuple(np.asarray(picture.convert("RGB"))[y, x].tolist()) for x, y in middles]


def near(found: list[tuple[int, ...]], wanted: list[tuple[int, ...]], tolerance: int = 3) -> bool:
    """Whether colours are the same but for rounding."""
    return bool(np.all(np.abs(np.array(found) - np.array(wanted)) <= tolerance))


def test_it_works(tmp_path: Path) -> None:
    assert np.array_equal(np.asarray(cleaned(encoded(corners()), tmp_path / "a.png")), np.asarray(corners()))


# What is refused


@pytest.mark.parametrize("name", DAMAGING)
def test_a_harmful_file_is_refused_at_once_and_within_bounds(name: str, tmp_path: Path) -> None:
    content, word = DAMAGING[name]
    outcome = run(content(), tmp_path / "a.png")
    if outcome.status < 0:  # the system ended it, which the service tells as too costly
        assert word == "too much time"
    else:
        assert outcome.answer == Refused(reason=msgspec.convert(REASONS[word], Any))
    assert outcome.cpu_seconds < REFUSED_SECONDS
    assert outcome.peak_bytes < MEMORY_BYTES
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_no_other_decoder_is_ever_asked(name: str, kind: str, tmp_path: Path) -> None:
    """The service does not even start the child for these; were it to, with whatever kind, there is no picture."""
    assert kind_of(STRANGE[name]) is None
    outcome = run(STRANGE[name], tmp_path / "a.png", kind)
    assert outcome.answer == Refused(reason="damaged")
    assert not (tmp_path / "a.png").exists()


def test_a_picture_of_another_kind_than_told_is_not_decoded(tmp_path: Path) -> None:
    assert run(encoded(corners(), "JPEG"), tmp_path / "a.png", "PNG").answer == Refused(reason="damaged")


def test_memory_is_bounded_whatever_is_asked_for(tmp_path: Path) -> None:
    """Were the bound of pixels not there, the system's would be: a picture of 900 million needs more than it gives."""
    bomb = pictures.png(30_000, 30_000, pictures.chunk(b"IDAT", pictures.deflated_zeros(8 << 20)))
    outcome = run(bomb, tmp_path / "a.png", pixels_max=10**10)
    assert outcome.answer == Refused(reason="too_costly")
    assert outcome.peak_bytes < MEMORY_BYTES


def test_a_path_that_is_taken_or_cannot_be_written_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "elsewhere")
    assert run(encoded(corners()), tmp_path / "a.png").answer == Refused(reason="not_stored")
    assert not (tmp_path / "elsewhere").exists()
    outcome = run(encoded(corners()), tmp_path / "b.png")
    assert isinstance(outcome.answer, Clean)
    assert (tmp_path / "b.png").stat().st_mode & 0o777 == 0o600


# What comes out


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_nothing_of_the_file_but_its_pixels_comes_out(kind: str, tmp_path: Path) -> None:
    content = pictures.with_everything(kind)
    assert content.count(MARK) >= 3
    picture = cleaned(content, tmp_path / "a.png")
    assert near(colours(picture), colours(corners()), 12)
    assert MARK not in (tmp_path / "a.png").read_bytes()
    assert b"script" not in (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_stands_upright(kind: str, orientation: int, tmp_path: Path) -> None:
    red, green, blue, dark = colours(corners())
    wanted = {
        1: [red, green, blue, dark],
        2: [green, red, dark, blue],
        3: [dark, blue, green, red],
        4: [blue, dark, red, green],
        5: [red, blue, green, dark],
        6: [blue, red, dark, green],
        7: [dark, green, blue, red],
        8: [green, dark, red, blue],
    }[orientation]
    picture = cleaned(pictures.turned(kind, orientation), tmp_path / "a.png")
    assert picture.size == ((64, 48) if orientation < 5 else (48, 64))
    assert near(colours(picture), wanted, 12)


def test_damaged_exif_turns_nothing(tmp_path: Path) -> None:
    turned = pictures.turned("JPEG", 6)
    at = turned.index(b"Exif\0\0") + 6
    for damage in (
        turned[:at] + b"MM\0*\xff\xff\xff\xff" + turned[at + 8 :],
        turned[:at] + bytes(8) + turned[at + 8 :],
    ):
        assert cleaned(damage, tmp_path / f"{hash(damage)}.png").size == (64, 48)


MODES: dict[str, Callable[[], bytes]] = {
    "grey PNG": lambda: encoded(corners().convert("L")),
    "black and white PNG": lambda: encoded(corners().convert("1")),
    "palette PNG": lambda: encoded(corners().quantize(8)),
    "RGBA PNG": lambda: encoded(corners().convert("RGBA")),
    "grey PNG with alpha": lambda: encoded(corners().convert("LA")),
    "grey JPEG": lambda: encoded(corners().convert("L"), "JPEG", quality=95),
    "CMYK JPEG": lambda: encoded(corners().convert("CMYK"), "JPEG", quality=95),
    "progressive JPEG": lambda: encoded(corners(), "JPEG", quality=95, progressive=True, subsampling=0),
    "lossy WebP": lambda: encoded(corners(), "WEBP", quality=95),
    "WebP with alpha": lambda: encoded(corners().convert("RGBA"), "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_eight_bit_rgb_of_the_same_colours(name: str, tmp_path: Path) -> None:
    content = MODES[name]()
    shown = Image.open(BytesIO(content)).convert("RGB")
    assert near(colours(cleaned(content, tmp_path / "a.png")), colours(shown))


def test_sixteen_bits_become_eight_by_their_upper_half(tmp_path: Path) -> None:
    levels = np.linspace(0, 65_535, 64 * 48).astype(np.uint16).reshape(48, 64)
    picture = cleaned(encoded(Image.fromarray(levels)), tmp_path / "a.png")
    assert np.array_equal(np.asarray(picture)[..., 1], levels >> 8)
    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in levels)
    deep = pictures.png(64, 48, pictures.chunk(b"IDAT", zlib.compress(rows)), depth=16)
    assert np.array_equal(np.asarray(cleaned(deep, tmp_path / "b.png"))[..., 1], levels >> 8)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_is_transparent_becomes_white(kind: str, tmp_path: Path) -> None:
    picture = corners().convert("RGBA")
    picture.putalpha(Image.new("L", picture.size, 0))
    assert colours(cleaned(encoded(picture, kind, lossless=True), tmp_path / "a.png")) == [(255, 255, 255)] * 4
    half = Image.new("RGBA", (64, 48), (0, 0, 0, 128))
    assert near(colours(cleaned(encoded(half, kind, lossless=True), tmp_path / "b.png")), [(127, 127, 127)] * 4)


def test_a_transparent_colour_of_a_palette_or_of_the_whole_becomes_white(tmp_path: Path) -> None:
    palette = corners().quantize(8)
    red = palette.getpixel((1, 1))
    for name, content in {
        "palette": encoded(palette, transparency=red),
        "colour": encoded(corners(), transparency=(255, 0, 0)),
    }.items():
        picture = cleaned(content, tmp_path / f"{name}.png")
        assert near(colours(picture), [(255, 255, 255), *colours(corners())[1:]])


def test_colours_are_those_that_the_profile_means(tmp_path: Path) -> None:
    """The same numbers in a space whose red and green are swapped are other colours."""
    profile = ImageCms.ImageCmsProfile(BytesIO(pictures.srgb_profile()))
    swapped = profile.tobytes().replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")
    plain = cleaned(encoded(corners(), icc_profile=pictures.srgb_profile()), tmp_path / "a.png")
    assert near(colours(plain), colours(corners()))
    red, green, blue, dark = colours(cleaned(encoded(corners(), icc_profile=swapped), tmp_path / "b.png"))
    assert near([red, green, blue, dark], [(0, 255, 0), (255, 0, 0), (0, 0, 255), (40, 40, 40)], 8)


@pytest.mark.parametrize("profile", [b"no profile", bytes(1 << 20), b"\xff" * (5 << 20)])
def test_a_profile_that_is_none_is_left_out(profile: bytes, tmp_path: Path) -> None:
    content = encoded(corners(), "JPEG", quality=95, subsampling=0, icc_profile=profile)
    assert near(colours(cleaned(content, tmp_path / "a.png")), colours(corners()), 8)


@pytest.mark.parametrize(
    ("kind", "size", "wanted"),
    [
        ("PNG", (5_000, 2_500), (4_096, 2_048)),
        ("JPEG", (2_048, 8_192), (1_024, 4_096)),
        ("PNG", (4_096, 16), (4_096, 16)),
        ("WEBP", (16, 16), (16, 16)),
    ],
)
def test_the_long_side_is_bounded(kind: str, size: tuple[int, int], wanted: tuple[int, int], tmp_path: Path) -> None:
    picture = cleaned(encoded(corners(*size), kind), tmp_path / "a.png")
    assert picture.size == wanted
    assert max(picture.size) <= LONG_SIDE_MAX
    assert near(colours(picture), colours(corners(*size)), 12)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_largest_pictures_are_taken_within_the_bounds(kind: str, tmp_path: Path) -> None:
    picture = corners(8_000, 5_000).convert("RGBA" if kind != "JPEG" else "RGB")
    if kind != "JPEG":
        picture.putalpha(200)
    options: dict[str, Any] = {
        "PNG": {"compress_level": 1},
        "JPEG": {},
        "WEBP": {"lossless": True, "method": 0, "quality": 0},
    }[kind]
    outcome = run(encoded(picture, kind, **options), tmp_path / "a.png")
    assert isinstance(outcome.answer, Clean), outcome
    assert (outcome.answer.width, outcome.answer.height) == (4_096, 2_560)
    assert outcome.cpu_seconds < reference.CPU_SECONDS


def test_a_phones_second_picture_does_not_make_it_move(tmp_path: Path) -> None:
    two = encoded(corners(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))], quality=95)
    assert kind_of(two) == "JPEG"
    assert near(colours(cleaned(two, tmp_path / "a.png")), colours(corners()), 60)


def test_started_wrongly_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", ENTRY], capture_output=True, text=True, cwd=CHECKOUT, check=False, timeout=120
    )
    assert done.returncode == 1
    assert "started by the service" in done.stderr
