"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.running import RunningBox


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--campaign", action="store_true", help="run the long campaigns too")


def pytest_configure() -> None:
    """A run in a shell's background ignores SIGINT, and so would every process that a test starts and interrupts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--campaign"):
        long_runs = [item for item in items if item.get_closest_marker("campaign")]
        config.hook.pytest_deselected(items=long_runs)
        items[:] = [item for item in items if item not in long_runs]


@pytest.fixture
def box(tmp_path: Path) -> Generator[RunningBox]:
    """A running box of one's own, with the acting worker."""
    running = RunningBox(tmp_path / "data", devices="cpu").start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def shared_box(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """One running box for all tests that only use it as a client would; they must not count on being alone."""
    running = RunningBox(tmp_path_factory.mktemp("shared") / "data", devices="cpu", included_images=10**6).start()
    yield running
    running.stop()
