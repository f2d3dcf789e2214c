"""Stills and posters as a viewer finds them."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.media.clips import moving
from zsky_box.errors import JobFailure
from zsky_box.media.stills import write_still
from zsky_box.pipelines.base import Still


def still(width: int = 128, height: int = 96) -> Still:
    return Still(next(moving(1, width, height)), seed=5)


def test_it_works(tmp_path: Path) -> None:
    shown = still()
    result, poster = write_still(shown, tmp_path, "job", 0)
    with Image.open(tmp_path / result.name) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), shown.picture)
    for file in (result, poster):
        data = (tmp_path / file.name).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert file.seed == 5
    assert (result.kind, result.mime, result.width, result.height) == ("result", "image/png", 128, 96)
    assert (poster.kind, poster.mime) == ("poster", "image/jpeg")


def test_names_count_from_the_second_image(tmp_path: Path) -> None:
    names = [file.name for ordinal in range(3) for file in write_still(still(), tmp_path, "job", ordinal)]
    assert names == ["job.png", "job-poster.jpg", "job-2.png", "job-2-poster.jpg", "job-3.png", "job-3-poster.jpg"]
    assert {path.name for path in tmp_path.iterdir()} == set(names)


@pytest.mark.parametrize(
    ("size", "poster_size"), [((1000, 500), (640, 320)), ((300, 1200), (160, 640)), ((64, 64), (64, 64))]
)
def test_the_poster_is_at_most_640_pixels_long(
    tmp_path: Path, size: tuple[int, int], poster_size: tuple[int, int]
) -> None:
    poster = write_still(still(*size), tmp_path, "job", 0)[1]
    with Image.open(tmp_path / poster.name) as image:
        image.load()
        assert image.size == (poster.width, poster.height) == poster_size


def test_same_picture_same_bytes(tmp_path: Path) -> None:
    first = [file.sha256 for file in write_still(still(), tmp_path, "a", 0)]
    assert [file.sha256 for file in write_still(still(), tmp_path, "b", 0)] == first


def test_a_picture_of_the_wrong_kind_is_told(tmp_path: Path) -> None:
    wrong = Still(np.zeros((4, 4, 4), np.uint8), 1)
    with pytest.raises(JobFailure, match="wrong kind") as failure:
        write_still(wrong, tmp_path, "job", 0)
    assert failure.value.error_code == "internal_error"


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(JobFailure) as failure:
        write_still(still(), tmp_path, "job", 0)
    assert failure.value.error_code == "storage_full"


def test_an_image_whose_poster_finds_no_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Image.Image.save

    def full_for_jpeg(image: Image.Image, path: Path, kind: str, **options: Any) -> None:
        save(image, path, kind, **options)
        if kind == "JPEG":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_for_jpeg)
    with pytest.raises(JobFailure) as failure:
        write_still(still(), tmp_path, "job", 0)
    assert failure.value.error_code == "storage_full"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(JobFailure, match="could not be written") as failure:
        write_still(still(), tmp_path / "gone", "job", 0)
    assert failure.value.error_code == "encode_failed"
