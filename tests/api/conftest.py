"""Clients of the shared box."""

from __future__ import annotations

from collections.abc import Generator

import httpx
import pytest

from tests.running import RunningBox


@pytest.fixture(scope="session")
def live(shared_box: RunningBox) -> Generator[httpx.Client]:
    """A client with the owner's live key."""
    with shared_box.client() as client:
        yield client


@pytest.fixture(scope="session")
def tester(shared_box: RunningBox) -> Generator[httpx.Client]:
    """A client with the owner's test key."""
    with shared_box.client("test") as client:
        yield client
