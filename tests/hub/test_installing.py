from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.hub import HubDouble
from tests.hub.checkpoint import NEEDED, REPOSITORY, SPEC, checkpoint, safetensors, spec_with
from tests.hub.conftest import NOW, Studio
from zsky_box.catalog import Installed, Variant
from zsky_box.errors import InstallError
from zsky_box.install.disk import Disk
from zsky_box.install.installing import Wish
from zsky_box.install.staging import Staging
from zsky_box.manifest import WHOLE, Recipe


def test_it_works(studio: Studio, hub: HubDouble) -> None:
    outcome = studio.install()
    assert outcome.fresh
    assert studio.full == {path: hub.files[path] for path in NEEDED}
    assert studio.faults() == []
    record = studio.catalog.installed(SPEC)
    assert record is not None
    folder = record.variants["full"].folder
    assert record == Installed(
        revision=hub.commit,
        weights_sha256=record.weights_sha256,
        variants={
            "full": Variant(
                folder=folder,
                components={
                    "text_encoder": len(safetensors(10_000)) + len(safetensors(9_000)),
                    "transformer": len(safetensors(30_000)),
                    "vae": len(safetensors(5_000)),
                },
                weights_sha256=record.weights_sha256,
            )
        },
        licence="Apache-2.0",
        installed_at=NOW,
        source=f"{hub.url}/{REPOSITORY}",
    )
    assert studio.catalog.weights_folder(SPEC, WHOLE) == studio.folder / folder
    assert [path.name for path in studio.weights.iterdir() if path.is_dir()] == ["small"]


def test_only_what_the_pipeline_loads_is_asked_for(studio: Studio, hub: HubDouble) -> None:
    studio.install()
    prefix = f"/{REPOSITORY}/resolve/{hub.commit}/"
    assert {path.removeprefix(prefix) for path in hub.paths("/resolve/")} == set(NEEDED)
    assert hub.bytes == sum(len(hub.files[path]) for path in NEEDED)


def test_progress_ends_where_it_should(studio: Studio, hub: HubDouble) -> None:
    hub.faults.truncate["vae/diffusion_pytorch_model.safetensors"] = 1
    hub.faults.corrupt["transformer/diffusion_pytorch_model.safetensors"] = 1
    studio.install()
    assert studio.report.phases["fetching"] == sum(len(hub.files[path]) for path in NEEDED)
    assert studio.report.done["fetching"] == studio.report.phases["fetching"]


def test_what_is_here_is_not_fetched_again(studio: Studio, hub: HubDouble) -> None:
    studio.install()
    before = hub.bytes
    assert not studio.install().fresh
    assert hub.bytes == before + len(hub.files["model_index.json"])
    assert not studio.staging.exists()


def test_an_upgrade_fetches_what_changed_and_replaces_all_at_once(studio: Studio, hub: HubDouble) -> None:
    studio.install()
    old = studio.catalog.weights_folder(SPEC, WHOLE)
    hub.served.clear()
    hub.files["vae/diffusion_pytorch_model.safetensors"] = safetensors(5_000, fill=9)
    assert studio.install().fresh
    assert set(hub.served) == {"model_index.json", "vae/diffusion_pytorch_model.safetensors"}
    assert studio.full == {path: hub.files[path] for path in NEEDED}
    assert studio.faults() == []
    assert old is not None
    assert not old.exists()
    assert studio.catalog.weights_folder(SPEC, WHOLE) != old, "a worker that holds the old one must see another folder"


def test_installing_again_heals_a_damaged_file_and_fetches_no_other(studio: Studio, hub: HubDouble) -> None:
    studio.install()
    record = studio.catalog.installed(SPEC)
    assert record is not None
    damaged = studio.folder / record.variants["full"].folder / "transformer" / "diffusion_pytorch_model.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert [finding.path.partition("/")[2] for finding in studio.faults()] == [
        "transformer/diffusion_pytorch_model.safetensors"
    ]
    hub.served.clear()
    studio.install(Wish(again=True))
    assert set(hub.served) == {"model_index.json", "transformer/diffusion_pytorch_model.safetensors"}
    assert studio.faults() == []
    compared = "comparing with what is here"
    assert studio.report.done[compared] == studio.report.phases[compared] > 100_000


def test_a_failed_upgrade_leaves_the_installation_as_it_was(studio: Studio, hub: HubDouble) -> None:
    studio.install()
    before = studio.full
    hub.files["vae/config.json"] = b"{ no json"
    with pytest.raises(InstallError, match=r"vae/config\.json is no JSON"):
        studio.install()
    assert studio.full == before
    assert studio.faults() == []


def test_the_revision_of_the_manifest_or_the_command_is_pinned(studio: Studio, hub: HubDouble) -> None:
    outcome = studio.install(Wish(requested=hub.commit))
    assert outcome.record.revision == hub.commit
    assert f"/revision/{hub.commit}" in hub.paths("/revision/")[0]


def test_what_was_interrupted_goes_on_with_the_revision_that_it_began_with(studio: Studio, hub: HubDouble) -> None:
    hub.faults.truncate["vae/diffusion_pytorch_model.safetensors"] = -1
    with pytest.raises(InstallError):
        studio.install()
    began = hub.commit
    hub.faults.truncate.clear()
    asked = len(hub.paths("/revision/"))
    studio.install()
    assert len(hub.paths("/revision/")) == asked
    record = studio.catalog.installed(SPEC)
    assert record is not None
    assert record.revision == began


def test_a_commit_that_was_taken_back_meanwhile_is_left_for_the_new_one(studio: Studio, hub: HubDouble) -> None:
    hub.faults.truncate["vae/diffusion_pytorch_model.safetensors"] = -1
    with pytest.raises(InstallError):
        studio.install()
    hub.faults.truncate.clear()
    hub.files["vae/config.json"] = b'{"new": 1}'
    assert studio.install().record.revision == hub.commit
    assert studio.full == {path: hub.files[path] for path in NEEDED}
    assert "begins anew" in studio.report.notes[-1]


@pytest.mark.parametrize("content", [b"\x80\x04\x95 a pickle", b"[" * 200_000, b'{"a": }', b"{} {}", b""])
@pytest.mark.parametrize("path", ["tokenizer/tokenizer.json", "vae/config.json"])
def test_a_text_that_is_no_json_is_refused(studio: Studio, hub: HubDouble, path: str, content: bytes) -> None:
    hub.files[path] = content
    with pytest.raises(InstallError, match=f"{path} is no JSON"):
        studio.install()
    assert studio.catalog.installed(SPEC) is None
    assert not list(studio.staging.rglob(path))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x95" + bytes(5_000),
        b"PK\x03\x04" + bytes(5_000),
        safetensors(3_000)[:-1],
        safetensors(3_000) + b"x",
        (10**9).to_bytes(8, "little") + bytes(5_000),
    ],
)
def test_weights_that_are_not_safetensors_by_content_are_refused(
    studio: Studio, hub: HubDouble, content: bytes
) -> None:
    hub.files["vae/diffusion_pytorch_model.safetensors"] = content
    with pytest.raises(InstallError, match=r"vae/diffusion_pytorch_model\.safetensors is not a safetensors file"):
        studio.install()
    assert studio.catalog.installed(SPEC) is None


class SmallDisk(Disk):
    """So many bytes are free, and so many can be written before it is full."""

    def __init__(self, free: int, holds: int) -> None:
        self._free, self._holds = free, holds

    def free_bytes(self, folder: Path) -> int:
        assert folder.exists()
        return self._free

    def write(self, fd: int, data: memoryview) -> int:
        if self._holds == 0:
            raise OSError(28, "No space left on device")
        written = super().write(fd, data[: self._holds])
        self._holds -= written
        return written


def test_a_disk_without_room_is_told_before_weights_are_fetched(studio: Studio, hub: HubDouble) -> None:
    fetched = sum(len(hub.files[path]) for path in NEEDED)
    studio.floor_bytes = 1_000
    studio.disk = SmallDisk(fetched - len(hub.files["model_index.json"]) + 999, 10**9)
    with pytest.raises(InstallError, match=r"make room"):
        studio.install()
    assert set(hub.served) == {"model_index.json"}
    studio.disk = SmallDisk(fetched - len(hub.files["model_index.json"]) + 1_000, 10**9)
    studio.install()


def test_room_for_the_quantised_copy_is_counted_too(studio: Studio, hub: HubDouble) -> None:
    studio.spec = spec_with(Recipe(name="int8", quantise={"transformer": "int8"}))
    fetched = sum(len(hub.files[path]) for path in NEEDED) - len(hub.files["model_index.json"])
    weights = sum(len(hub.files[path]) for path in NEEDED if path.endswith(".safetensors"))
    saved = round(len(safetensors(30_000)) * (1 - 1.03 / 2))
    studio.disk = SmallDisk(fetched + weights - saved - 10, 10**9)
    with pytest.raises(InstallError, match=r"make room"):
        studio.install()
    studio.disk = SmallDisk(fetched + weights - saved + 10, 10**9)
    studio.install()


def test_a_disk_that_fills_up_keeps_what_arrived(studio: Studio, hub: HubDouble) -> None:
    studio.disk = SmallDisk(10**9, 50_000)
    with pytest.raises(InstallError, match=r"is full\. What has arrived is kept"):
        studio.install()
    assert sum(path.stat().st_size for path in (studio.staging / "tree").rglob("*") if path.suffix != ".part-tag") == (
        50_000 + folders(studio.staging / "tree")
    )
    hub.served.clear()
    studio.disk = Disk()
    studio.install()
    assert hub.bytes == sum(len(hub.files[path]) for path in NEEDED) - 50_000
    assert studio.faults() == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), r"is full\. What has arrived is kept"),
        (OSError(5, "Input/output error"), r"\.installing: Input/output error\. What has arrived is kept"),
    ],
)
def test_a_disk_that_fails_anywhere_is_told_in_a_sentence(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, error: OSError, told: str
) -> None:
    def note(*_: object) -> None:
        raise error

    with monkeypatch.context() as changed:
        changed.setattr(Staging, "note", note)
        with pytest.raises(InstallError, match=told):
            studio.install()
    studio.install()
    assert studio.faults() == []


def folders(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_dir())


def test_a_folder_is_copied_without_any_network(studio: Studio, hub: HubDouble, tmp_path: Path) -> None:
    usb = written(tmp_path / "usb", checkpoint())
    outcome = studio.install(source=studio.from_folder(usb))
    assert studio.full == {path: content for path, content in checkpoint().items() if path in NEEDED}
    assert (outcome.record.revision, outcome.record.source) == ("", str(usb))
    assert hub.asked == []
    assert studio.faults() == []


def test_a_folder_that_has_lost_files_meanwhile_leaves_none_of_them(studio: Studio, tmp_path: Path) -> None:
    usb = written(tmp_path / "usb", checkpoint(**{"vae/old.json": b"{}"}))
    studio.disk = SmallDisk(10**9, 50_000)
    with pytest.raises(InstallError, match="is full"):
        studio.install(source=studio.from_folder(usb))
    (usb / "vae" / "old.json").unlink()
    studio.disk = Disk()
    studio.install(source=studio.from_folder(usb))
    assert "vae/old.json" not in studio.full
    assert studio.faults() == []


def test_a_disk_that_is_pulled_out_is_named(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usb = written(tmp_path / "usb", checkpoint())
    real = Path.open

    def opened(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == usb / "vae" / "config.json":
            return Broken()
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(InstallError, match=r"vae/config\.json cannot be read \(Input/output error\)"):
        studio.install(source=studio.from_folder(usb))


class Broken(io.BytesIO):
    """A file whose disk is gone."""

    def read(self, size: int | None = -1) -> bytes:  # noqa: ARG002 - the base's name
        raise OSError(5, "Input/output error")


def test_a_models_folder_of_another_box_keeps_its_revision_and_is_checked(
    studio: Studio, hub: HubDouble, tmp_path: Path
) -> None:
    studio.install()
    usb = tmp_path / "usb"
    studio.folder.rename(usb)
    outcome = studio.install(source=studio.from_folder(usb))
    assert outcome.record.revision == hub.commit
    assert studio.faults() == []
    shutil.rmtree(studio.folder)
    copied = next(usb.glob("full-*/vae/*.safetensors"))
    content = bytearray(copied.read_bytes())
    content[-1] ^= 1
    copied.write_bytes(content)
    with pytest.raises(InstallError, match=r"SHA-256 differs"):
        studio.install(source=studio.from_folder(usb))
    assert studio.catalog.installed(SPEC) is None


@pytest.mark.parametrize("folder", ["../elsewhere", "/etc", "", "a/b", ".."])
def test_a_disks_own_record_leads_nowhere_else(studio: Studio, tmp_path: Path, folder: str) -> None:
    usb = written(tmp_path / "usb", checkpoint())
    (usb / "installed.json").write_text(json.dumps({"variants": {"full": {"folder": folder}}}))
    (usb / "files.json").write_text("[]")
    with pytest.raises(InstallError, match="has a record that names a folder"):
        studio.from_folder(usb)


def test_a_disks_own_record_names_a_commit_or_none(studio: Studio, tmp_path: Path) -> None:
    studio.install()
    usb = tmp_path / "usb"
    studio.folder.rename(usb)
    record = json.loads((usb / "installed.json").read_bytes())
    (usb / "installed.json").write_text(json.dumps({**record, "revision": "\x1b[2J"}))
    assert studio.install(source=studio.from_folder(usb)).record.revision == ""


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_index.json": None}, "no model_index.json"),
        ({"model_index.json": b"{"}, "model_index.json"),
        ({"model_index.json": b'{"../up": ["a", "b"]}'}, "no plain name"),
        ({"model_index.json": b'{"_class_name": "A"}'}, "no component"),
        ({"model_index.json": b'{"unet": ["a", "b"]}'}, "no folder unet"),
        ({"model_index.json": b'{"scheduler": ["a", "b"]}'}, "no weights as safetensors"),
        ({"vae/diffusion_pytorch_model.safetensors": b"\x80\x02."}, "not a safetensors file"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(
    studio: Studio, tmp_path: Path, changes: dict[str, bytes | None], told: str
) -> None:
    usb = written(tmp_path / "usb", checkpoint(**changes))
    with pytest.raises(InstallError, match=told):
        studio.install(source=studio.from_folder(usb))
    assert studio.catalog.installed(SPEC) is None


def test_a_folder_that_is_not_there_is_refused(studio: Studio, tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="is no folder"):
        studio.from_folder(tmp_path / "nowhere")


def test_the_files_are_listed_with_their_hashes(studio: Studio) -> None:
    studio.install()
    files = json.loads((studio.folder / "files.json").read_bytes())
    assert [file["path"].partition("/")[2] for file in files] == sorted(
        NEEDED, key=lambda path: (path.endswith(".safetensors"), path)
    )


def written(folder: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder
