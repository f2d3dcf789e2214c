from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsky_box.formats import (
    ASPECT_RATIOS,
    RESOLUTIONS,
    AspectRatio,
    Resolution,
    frame_count,
    limited,
    output_size,
    render_size,
    size_names,
)


@pytest.mark.parametrize(
    ("resolution", "aspect_ratio", "size"),
    [
        ("1080p", "16:9", (1920, 1080)),
        ("1080p", "9:16", (1080, 1920)),
        ("1080p", "1:1", (1080, 1080)),
        ("1080p", "4:3", (1440, 1080)),
        ("1080p", "3:4", (1080, 1440)),
        ("1080p", "21:9", (2520, 1080)),
        ("720p", "16:9", (1280, 720)),
        ("480p", "16:9", (854, 480)),
        ("480p", "9:16", (480, 854)),
    ],
)
def test_sizes_are_the_promised_ones(resolution: Resolution, aspect_ratio: AspectRatio, size: tuple[int, int]) -> None:
    assert output_size(resolution, aspect_ratio) == size


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("aspect_ratio", ASPECT_RATIOS)
def test_every_size_is_even_and_of_its_ratio(resolution: Resolution, aspect_ratio: AspectRatio) -> None:
    width, height = output_size(resolution, aspect_ratio)
    across, down = map(int, aspect_ratio.split(":"))
    assert (width % 2, height % 2) == (0, 0)
    assert min(width, height) == int(resolution.removesuffix("p"))
    assert abs(width - height * across / down) < 2 or abs(height - width * down / across) < 2


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("aspect_ratio", ASPECT_RATIOS)
def test_every_size_has_its_names_back(resolution: Resolution, aspect_ratio: AspectRatio) -> None:
    assert size_names(*output_size(resolution, aspect_ratio)) == (resolution, aspect_ratio)


def test_a_size_that_nothing_is_called_by_has_no_names() -> None:
    assert size_names(853, 480) is None


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("aspect_ratio", ASPECT_RATIOS)
def test_a_limited_size_is_that_of_the_smaller_resolution(resolution: Resolution, aspect_ratio: AspectRatio) -> None:
    for limit in RESOLUTIONS:
        smaller = limit if RESOLUTIONS.index(limit) < RESOLUTIONS.index(resolution) else resolution
        assert limited(*output_size(resolution, aspect_ratio), limit) == output_size(smaller, aspect_ratio)


@pytest.mark.parametrize("multiple", [1, 8, 16, 32, 64])
def test_what_is_rendered_covers_the_output_by_less_than_one_cell(multiple: int) -> None:
    for width, height in ((1920, 1080), (854, 480), (64, 64)):
        rendered = render_size(width, height, multiple)
        for wanted, made in zip((width, height), rendered, strict=True):
            assert made % multiple == 0
            assert 0 <= made - wanted < multiple


@pytest.mark.parametrize(
    ("duration_seconds", "fps", "frame_step", "frames"),
    [(5, 24, 1, 120), (5, 24, 8, 121), (1, 24, 8, 25), (20, 30, 1, 600), (0.01, 24, 1, 1), (0.01, 24, 8, 9)],
)
def test_frames_are_the_models_nearest_count(duration_seconds: float, fps: int, frame_step: int, frames: int) -> None:
    assert frame_count(duration_seconds, fps, frame_step) == frames


@settings(deadline=None)
@given(
    st.floats(min_value=0.01, max_value=3600),
    st.integers(min_value=1, max_value=240),
    st.integers(min_value=1, max_value=64),
)
def test_the_length_is_off_by_no_more_than_the_grid_asks_for(seconds: float, fps: int, step: int) -> None:
    frames = frame_count(seconds, fps, step)
    assert frames >= 1
    assert step == 1 or (frames > step and frames % step == 1)
    assert abs(frames - max(seconds * fps, step + 1)) <= step / 2 + 1
