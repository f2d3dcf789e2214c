"""What all tests share."""

from __future__ import annotations

import inspect
import os
import secrets
import signal
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, settings

from tests.running import ROOT, RunningBox

SEED_VARIABLE = "ZSKY_SIMULATION_SEED"
ANSWER_SECONDS = 60.0
LONGEST = (
    "tests/test_kill.py",
    "tests/browser/test_create.py",
    "tests/pipelines/test_prepare.py",
    "tests/test_parent.py",
    "tests/browser/test_library.py",
    "tests/browser/test_usage.py",
    "tests/api/test_uploads.py",
    "tests/pages/test_library.py",
    "tests/test_money_machine.py",
    "tests/api/test_overage.py",
    "tests/browser/test_admin_record.py",
    "tests/pages/test_settings.py",
    "tests/test_faults.py",
    "tests/pages/test_sign_in.py",
    "tests/pipelines/test_ltx2.py",
    "tests/pipelines/test_stills.py",
    "tests/mini/test_training.py",
    "tests/media/test_reference.py",
    "tests/browser/test_frame.py",
    "tests/api/test_openapi.py",
    "tests/hub/test_end_to_end.py",
    "tests/hub/test_kill.py",
    "tests/pipelines/test_decode.py",
    "tests/test_spenders.py",
    "tests/cli/test_serve.py",
    "tests/test_output_check.py",
    "tests/browser/test_admin.py",
    "tests/pipelines/test_quantisation.py",
    "tests/pipelines/test_offloading.py",
    "tests/install/test_install.py",
    "tests/api/test_events.py",
)
"""The files that take longest, about in order. They come first, so that processes that share the files end together."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--campaign", action="store_true", help="run the long campaigns too")
    parser.addoption(
        "--seed",
        type=int,
        default=os.environ.get(SEED_VARIABLE),
        help=f"live this seed of the simulation again, or begin a campaign with it; also {SEED_VARIABLE}",
    )


def pytest_report_header(config: pytest.Config) -> str:
    """What a run that fails is to be repeated with."""
    return f"seed of the simulation: {config.getoption('--seed')}"


def pytest_configure(config: pytest.Config) -> None:
    """A run in a shell's background ignores SIGINT, and so would every process that a test starts and interrupts."""
    if config.option.seed is None:
        config.option.seed = secrets.randbits(32)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # What the tests start computes with one thread, as they do: two processes of tests take both of two cores already,
    # and threads that find no core wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # httpx gives an answer five seconds where nothing else is said.
    patience = inspect.signature(httpx.get).parameters["timeout"].default
    patience.connect = patience.read = patience.write = patience.pool = ANSWER_SECONDS
    # How long an example takes says on a busy machine nothing about what is tested.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")
    if gone := [name for name in LONGEST if not (ROOT / name).exists()]:
        raise pytest.UsageError(f"tests/conftest.py names files that are not there: {', '.join(gone)}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--campaign"):
        long_runs = [item for item in items if item.get_closest_marker("campaign")]
        config.hook.pytest_deselected(items=long_runs)
        items[:] = [item for item in items if item not in long_runs]
    place = {ROOT / name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture
def fresh_seed(request: pytest.FixtureRequest) -> int:
    """The simulation's seed that this run was asked for, or one that nobody has seen; the run's first lines tell it."""
    return int(request.config.option.seed)


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
