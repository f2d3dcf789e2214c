"""A hub, a folder of weights, and one call that installs from the one into the other."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.doubles.hub import HubDouble, a_hub
from tests.hub.checkpoint import REPOSITORY, SPEC, checkpoint
from zsky_box.catalog import Catalog
from zsky_box.install.disk import GIB, Disk
from zsky_box.install.fitting import Machine
from zsky_box.install.hub import Hub, Patience
from zsky_box.install.installing import Outcome, Tools, Wish, install
from zsky_box.install.source import FolderSource, HubSource, Source
from zsky_box.install.staging import locked
from zsky_box.install.stock import Finding, compare
from zsky_box.manifest import ModelSpec
from zsky_box.placement import Card

NOW = "2026-11-25T12:00:00Z"
QUICK = Patience(connect_seconds=5.0, silence_seconds=2.0, tries_max=4)
ON_CPU = Machine(cards=(Card(device="cpu", total_bytes=64 * GIB),), host_bytes=64 * GIB)


def a_card(gib: float, *, number: int = 0, capability: float = 8.9) -> Card:
    """A card of so many GiB, of which the box keeps one for the driver."""
    return Card(device=f"cuda:{number}", total_bytes=round((gib - 1) * GIB), capability=capability)


@dataclass
class Listener:
    """A report that remembers: `done` by phase."""

    phases: dict[str, int] = field(default_factory=dict[str, int])
    done: dict[str, int] = field(default_factory=dict[str, int])
    notes: list[str] = field(default_factory=list[str])
    now: str = ""

    def phase(self, name: str, of: int, done: int = 0) -> None:
        self.now = name
        self.phases[name] = of
        self.done[name] = done

    def advance(self, count: int) -> None:
        self.done[self.now] += count
        assert self.done[self.now] >= 0

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


class Studio:
    """A box's weights, and the way to them; `waits` are the seconds that were waited for the hub."""

    def __init__(self, weights: Path, hub: HubDouble) -> None:
        self.weights = weights
        self.hub = hub
        self.spec = SPEC
        self.machine = ON_CPU
        self.disk = Disk()
        self.floor_bytes = 0
        self.waits: list[float] = []
        self.report = Listener()
        self.on_wait: Callable[[], None] = lambda: None

    def install(self, wish: Wish | None = None, *, token: str = "", source: Source | None = None) -> Outcome:
        """One run of the installer."""
        self.report = Listener()
        wish = wish or Wish()
        source = source or self.from_hub(wish.requested, token)
        try:
            with locked(self.weights, self.spec.name) as staging:
                return install(self.spec, staging, source, wish, self._tools())
        finally:
            source.close()

    def from_hub(self, revision: str = "", token: str = "") -> Source:
        hub = Hub(self.hub.url, token, patience=QUICK, wait=self._wait)
        return HubSource(hub, self.hub.url, self.spec.repository, revision)

    def from_folder(self, folder: Path) -> Source:
        return FolderSource(folder)

    @property
    def folder(self) -> Path:
        return self.weights / self.spec.name

    @property
    def staging(self) -> Path:
        return self.weights / f".{self.spec.name}.installing"

    @property
    def catalog(self) -> Catalog:
        catalog = Catalog([], self.weights)
        catalog.specs[self.spec.name] = self.spec
        return catalog

    @property
    def full(self) -> dict[str, bytes]:
        """The full weights as the catalogue finds them."""
        record = self.catalog.installed(self.spec)
        assert record is not None
        return self.below(record.variants["full"].folder)

    def below(self, name: str) -> dict[str, bytes]:
        folder = self.folder / name
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def faults(self) -> list[Finding]:
        return compare(self.folder)

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.on_wait()

    def _tools(self) -> Tools:
        return Tools(
            machine=self.machine,
            report=self.report,
            now=lambda: NOW,
            floor_bytes=self.floor_bytes,
            disk=self.disk,
            prepare_entry="tests.doubles.preparing",
        )


def with_spec(studio: Studio, spec: ModelSpec) -> Studio:
    studio.spec = spec
    return studio


@pytest.fixture
def hub() -> Generator[HubDouble]:
    with a_hub(REPOSITORY, checkpoint()) as double:
        yield double


@pytest.fixture
def studio(tmp_path: Path, hub: HubDouble) -> Studio:
    return Studio(tmp_path / "weights", hub)
