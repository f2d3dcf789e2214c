"""The appearance of a model: all at once, also where a kill falls between two renames."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.hub.checkpoint import SPEC, safetensors
from tests.hub.conftest import Studio
from zsky_box.errors import InstallError
from zsky_box.install.staging import locked, repair_all


class Killed(BaseException):
    """The process is gone: nothing behind this line happens."""


def killed_at_rename(studio: Studio, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Replace the installation and die right before rename `number` of the publication."""
    studio.hub.files["vae/diffusion_pytorch_model.safetensors"] = safetensors(5_000, fill=number + 100)
    real, seen = Path.rename, 0

    def rename(self: Path, target: Path) -> Path:
        nonlocal seen
        if studio.folder in (self, target):
            if seen == number:
                raise Killed
            seen += 1
        return real(self, target)

    with monkeypatch.context() as changed:
        changed.setattr(Path, "rename", rename)
        with pytest.raises(Killed):
            studio.install()


@pytest.mark.parametrize("number", [0, 1])
def test_a_kill_between_the_renames_is_repaired_at_the_next_start(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    studio.install()
    before = studio.full
    killed_at_rename(studio, monkeypatch, number)
    assert repair_all(studio.weights) == (["small"] if number == 1 else [])
    assert studio.faults() == []
    assert (studio.full == before) == (number == 0)
    studio.install()
    assert studio.full["vae/diffusion_pytorch_model.safetensors"] == safetensors(5_000, fill=number + 100)
    assert studio.faults() == []
    assert [path.name for path in studio.weights.iterdir() if path.is_dir()] == ["small"]


def test_a_replacement_that_cannot_be_finished_goes_back(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    studio.install()
    before = studio.full
    killed_at_rename(studio, monkeypatch, 1)
    shutil.rmtree(studio.staging)
    assert repair_all(studio.weights) == ["small"]
    assert studio.full == before


def test_repair_leaves_alone_what_somebody_works_on(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    studio.install()
    killed_at_rename(studio, monkeypatch, 1)
    with locked(studio.weights, "small") as staging:
        staging.target.rename(studio.weights / ".small.old")
        assert repair_all(studio.weights) == []
        assert not studio.folder.exists()
    assert repair_all(studio.weights) == ["small"]


def test_a_model_is_removed_with_what_is_unfinished(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    studio.install()
    killed_at_rename(studio, monkeypatch, 0)
    with locked(studio.weights, "small") as staging:
        assert staging.remove()
        assert not staging.remove()
    assert studio.catalog.installed(SPEC) is None
    assert [path.name for path in studio.weights.iterdir()] == [".small.lock"]


def test_a_removal_that_was_killed_is_finished(studio: Studio) -> None:
    studio.install()
    studio.folder.rename(studio.weights / ".small.removing")
    assert repair_all(studio.weights) == []
    assert [path.name for path in studio.weights.iterdir()] == [".small.lock"]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_to_another_disk_is_removed_without_what_it_leads_to(studio: Studio, *, is_there: bool) -> None:
    elsewhere = studio.weights.parent / "large-disk"
    studio.install()
    studio.folder.rename(elsewhere)
    studio.folder.symlink_to(elsewhere if is_there else studio.weights / "nowhere")
    with locked(studio.weights, "small") as staging:
        assert staging.remove()
    assert (elsewhere / "installed.json").is_file()
    assert [path.name for path in studio.weights.iterdir()] == [".small.lock"]


@pytest.mark.parametrize("is_there", [True, False])
def test_an_installation_takes_the_place_of_a_link(studio: Studio, *, is_there: bool) -> None:
    studio.weights.mkdir()
    (studio.weights.parent / "large-disk").mkdir()
    studio.folder.symlink_to(studio.weights.parent / ("large-disk" if is_there else "nowhere"))
    studio.install()
    assert not studio.folder.is_symlink()
    assert studio.faults() == []
    assert (studio.weights.parent / "large-disk").is_dir()


def test_the_folder_of_all_weights_may_be_a_link(studio: Studio) -> None:
    (studio.weights.parent / "large-disk").mkdir()
    studio.weights.symlink_to(studio.weights.parent / "large-disk")
    studio.install()
    assert (studio.weights.parent / "large-disk" / "small" / "installed.json").is_file()
    assert studio.faults() == []


def test_what_cannot_be_cleared_is_logged_and_the_rest_is_mended(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    studio.install()
    killed_at_rename(studio, monkeypatch, 1)
    stuck = studio.weights / ".other.removing"
    stuck.mkdir()
    real = shutil.rmtree

    def rmtree(path: Path) -> None:
        if path == stuck:
            raise PermissionError(13, "Permission denied", str(path))
        real(path)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    assert repair_all(studio.weights) == ["small"]
    assert f"{stuck} was left by an interrupted command and cannot be cleared" in caplog.text


def test_a_lock_is_held_by_one(studio: Studio) -> None:
    with locked(studio.weights, "small"), pytest.raises(InstallError, match=r"by process \d+; wait for it"):
        studio.install()
    studio.install()


def test_a_torn_journal_costs_the_file_of_its_last_line(studio: Studio) -> None:
    studio.hub.faults.truncate["vae/diffusion_pytorch_model.safetensors"] = -1
    with pytest.raises(InstallError):
        studio.install()
    journal = studio.staging / "done.jsonl"
    journal.write_bytes(journal.read_bytes()[:-10])
    studio.hub.faults.truncate.clear()
    studio.hub.served.clear()
    studio.install()
    assert studio.faults() == []
    assert set(studio.hub.served) == {
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }


@pytest.mark.parametrize("content", [b"", b"{", b'{"source": 1}', b"\xff"])
def test_a_damaged_pin_begins_anew(studio: Studio, content: bytes) -> None:
    studio.hub.faults.truncate["vae/diffusion_pytorch_model.safetensors"] = -1
    with pytest.raises(InstallError):
        studio.install()
    (studio.staging / "pin.json").write_bytes(content)
    studio.hub.faults.truncate.clear()
    studio.install()
    assert studio.faults() == []
