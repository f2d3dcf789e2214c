"""Every test of the media room ends with no more processes, threads and pipes than it began with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.media.clips import belongings


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    children, threads, descriptors = belongings()
    yield
    children_after, threads_after, descriptors_after = belongings()
    assert children_after <= children
    assert threads_after <= threads
    assert descriptors_after <= descriptors
