from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from scripts.tiny_models import cached
from tests.doubles.hub import HubDouble, a_hub, files_of
from tests.hub.checkpoint import TINY_REPOSITORY, write_manifest
from tests.stores import Rooms
from tests.waiting import until
from zsky_box.catalog import open_catalog
from zsky_box.errands import ENTRY, Errand, Errands, Order
from zsky_box.errors import Refusal
from zsky_box.settings import CHECKOUT

NAME = "tiny-klein"
SECONDS = 60.0


class Office:
    """A box's errands over a hub on loopback."""

    def __init__(self, folder: Path, hub: HubDouble) -> None:
        write_manifest(folder)
        self.hub = hub
        self.rooms = Rooms(folder, devices="cpu", hub_url=hub.url)
        self.catalog = open_catalog(folder)
        self.errands = self.anew()

    def anew(self) -> Errands:
        """As after a start of the service."""
        return Errands(self.rooms.store, self.catalog, self.rooms.settings, self.rooms.clock)

    def install(self, *, accepted: bool = True, **order: Any) -> None:
        self.errands.install(NAME, Order(**order), accepted=accepted, actor="acc_owner")

    def until(self, wanted: Callable[[Errand], bool]) -> Errand:
        """The errand once it looks as wanted."""

        def seen() -> Errand | None:
            errand = self.errands.last()
            return errand if errand is not None and wanted(errand) else None

        found = until(seen, "the errand looks as wanted", bound_seconds=SECONDS)
        assert found is not None
        return found

    def ended(self) -> Errand:
        return self.until(lambda errand: not errand.is_open)

    @property
    def is_installed(self) -> bool:
        return self.catalog.installed(self.catalog.specs[NAME]) is not None

    def recorded(self) -> list[tuple[str, str, str]]:
        rows = self.rooms.store.all(
            "SELECT * FROM audit WHERE action GLOB 'licence.*' OR action GLOB 'model.*' ORDER BY id LIMIT 100"
        )
        return [(row["action"], row["actor"], row["subject"]) for row in rows]


@pytest.fixture
def hub() -> Generator[HubDouble]:
    with a_hub(TINY_REPOSITORY, files_of(cached(NAME))) as double:
        yield double


@pytest.fixture
def office(tmp_path: Path, hub: HubDouble, monkeypatch: pytest.MonkeyPatch) -> Generator[Office]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    office = Office(tmp_path / "data", hub)
    yield office
    office.errands.close()
    office.rooms.close()


def test_a_model_is_installed_verified_and_removed(office: Office) -> None:
    office.install()
    errand = office.ended()
    assert (errand.kind, errand.model, errand.state, errand.told) == (
        "install",
        NAME,
        "done",
        "tiny-klein is installed.",
    )
    assert (errand.phase, errand.done) == ("fetching", errand.of)
    assert office.is_installed
    office.errands.verify(NAME)
    assert (office.ended().state, office.ended().told) == ("done", "All files are as installed.")
    office.errands.remove(NAME, actor="acc_owner")
    assert not office.is_installed
    assert office.recorded() == [("licence.accepted", "acc_owner", NAME), ("model.removed", "acc_owner", NAME)]


def test_nothing_is_fetched_before_the_licence_is_accepted(office: Office) -> None:
    with pytest.raises(Refusal, match="accept it"):
        office.install(accepted=False)
    assert office.hub.asked == []
    assert office.recorded() == []
    assert office.errands.last() is None


def test_the_record_names_the_licence(office: Office) -> None:
    office.install()
    row = office.rooms.store.one("SELECT after FROM audit WHERE action = 'licence.accepted'")
    licence = office.catalog.specs[NAME].licence
    assert row is not None
    assert json.loads(row["after"]) == {
        "name": licence.name, "url": licence.url, "commercial_use": licence.commercial_use
    }  # fmt: skip
    office.ended()


def test_one_at_a_time_and_cancelled_it_goes_on_where_it_was(office: Office) -> None:
    whole = sum(len(content) for content in office.hub.files.values())
    office.hub.faults.hold_after = whole // 2
    office.install()
    assert office.hub.holding.wait(SECONDS)
    assert office.until(lambda errand: errand.phase == "fetching").of > 0
    for begin in (office.install, lambda: office.errands.remove(NAME, actor="ann")):
        with pytest.raises(Refusal, match="model_busy"):
            begin()
    office.errands.cancel()
    assert (office.ended().state, office.is_installed) == ("cancelled", False)
    assert (office.errands.unfinished_bytes(NAME) or 0) > 0
    before, office.hub.faults.hold_after = office.hub.bytes, None
    office.hub.released.set()
    office.errands = office.anew()  # a restart between forgets the errand, and not what has arrived
    office.install()
    assert office.ended().state == "done"
    assert office.hub.bytes - before < whole
    assert any("interrupted" in note for note in office.ended().notes)
    assert office.errands.unfinished_bytes(NAME) is None


def test_the_child_ends_with_the_service(office: Office) -> None:
    office.hub.faults.hold_after = 1
    office.install()
    assert office.hub.holding.wait(SECONDS)
    child = office.errands._child  # pyright: ignore[reportPrivateUsage]
    assert child is not None
    office.errands.close()
    assert child.poll() is not None
    with pytest.raises(Refusal, match="draining"):
        office.install()
    office.hub.released.set()


def test_the_child_ends_when_the_service_is_killed(office: Office) -> None:
    """Nothing is left of a killed process but closed pipes: the end of one of them is what the child heeds."""
    office.hub.faults.hold_after = 1
    inside, lifeline = os.pipe()
    command = [sys.executable, "-P", "-m", ENTRY, str(inside), "models", "install", NAME, "--accept-licence"]
    environment = {**os.environ, "ZSKY_DATA": str(office.rooms.folder), "ZSKY_HUB_URL": office.hub.url}
    environment |= {"ZSKY_FREE_SPACE_FLOOR_BYTES": "0", "PYTHONPATH": str(CHECKOUT)}
    child = subprocess.Popen(command, env=environment, pass_fds=(inside,), start_new_session=True)
    os.close(inside)
    try:
        assert office.hub.holding.wait(SECONDS)
        assert child.poll() is None
    finally:
        os.close(lifeline)
    assert child.wait(SECONDS) == -signal.SIGKILL
    office.hub.faults.hold_after = None
    office.hub.released.set()
    office.install()  # its lock is gone with it
    assert office.ended().state == "done"


def test_what_goes_wrong_is_told_in_its_own_sentence(office: Office) -> None:
    office.hub.token = "secret"
    office.install()
    errand = office.ended()
    assert errand.state == "failed"
    assert "hub_token_file" in errand.told
    assert not errand.told.startswith("zsky-box")


def test_a_file_that_has_changed_is_found(office: Office) -> None:
    office.install()
    office.ended()
    spec = office.catalog.specs[NAME]
    path = next(office.catalog.folder(spec).rglob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    office.errands.verify(NAME)
    errand = office.ended()
    assert (errand.state, errand.told) == ("done", "1 files are not as installed.")
    assert [(Path(one.path).name, "has changed" in one.fault) for one in errand.findings] == [(path.name, True)]


@pytest.mark.parametrize(
    ("name", "recipe", "told"),
    [
        ("nothing", "", "There is no model 'nothing'"),
        ("leader", "", "no repository"),
        (NAME, "int4", "no recipe 'int4'"),
    ],
)
def test_what_cannot_be_installed_is_refused(office: Office, name: str, recipe: str, told: str) -> None:
    with pytest.raises(Refusal, match=told):
        office.errands.install(name, Order(recipe=recipe), accepted=True, actor="ann")
    assert office.recorded() == []


def test_what_is_not_here_is_neither_verified_nor_removed(office: Office) -> None:
    with pytest.raises(Refusal, match="is not installed"):
        office.errands.verify(NAME)
    with pytest.raises(Refusal, match="is not installed"):
        office.errands.remove(NAME, actor="ann")
    with pytest.raises(Refusal, match="stays"):
        office.errands.remove("leader", actor="ann")


def test_a_model_that_jobs_want_stays(office: Office) -> None:
    office.install()
    office.ended()
    job_id = office.rooms.new_job()
    office.rooms.store.write(lambda tx: tx.execute("UPDATE job SET model = ? WHERE id = ?", (NAME, job_id)))
    with pytest.raises(Refusal, match="1 open jobs want"):
        office.errands.remove(NAME, actor="ann")
    assert office.is_installed
