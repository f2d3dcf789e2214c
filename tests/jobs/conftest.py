"""The rooms that every test of the job book uses; whatever a test did, the ledger's rules hold after it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.always_true import check_always_true
from tests.stores import Rooms


@pytest.fixture
def rooms(tmp_path: Path) -> Generator[Rooms]:
    """A box with 40 images and 10 videos a month."""
    rooms = Rooms(tmp_path, included_images=40, included_videos=10)
    yield rooms
    check_always_true(rooms)
    rooms.close()
