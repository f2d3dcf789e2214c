from __future__ import annotations

from pathlib import Path

import pytest

from zsky_box.catalog import Catalog, Installed, read_manifest
from zsky_box.errors import ManifestError
from zsky_box.manifest import JobType
from zsky_box.settings import CHECKOUT

MANIFEST = """
name = "{name}"
title = "Model {name}"
makes = ["video", "image"]
default_for = {default_for}
bundled = {bundled}

[licence]
name = "Apache-2.0"

[limits]
resolutions = ["480p", "1080p"]
aspect_ratios = ["16:9"]
fps = [24, 30]
min_duration_seconds = 1.0
max_duration_seconds = 10.0

[options]
family = "leader"
"""


class Shelf:
    """A folder of manifests and a folder of weights."""

    def __init__(self, folder: Path) -> None:
        self.manifests, self.weights = folder / "manifests", folder / "weights"
        self.manifests.mkdir()

    def write(self, name: str, text: str | None = None, *, bundled: bool = False, default_for: str = "[]") -> Path:
        path = self.manifests / f"{name}.toml"
        made = MANIFEST.format(name=name, bundled=str(bundled).lower(), default_for=default_for)
        path.write_text(made if text is None else text)
        return path

    def install(self, name: str, record: str = '{"revision": "r1", "weights_sha256": "abc"}') -> None:
        (self.weights / name).mkdir(parents=True)
        (self.weights / name / "installed.json").write_text(record)

    def open(self) -> Catalog:
        return Catalog([self.manifests], self.weights)

    def default(self, job_type: JobType = "video") -> str | None:
        spec = self.open().default(job_type)
        return None if spec is None else spec.name


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_every_manifest_of_the_repository_is_read() -> None:
    catalog = Catalog([CHECKOUT / "models"], CHECKOUT / "nowhere")
    assert catalog.refused == []
    assert "leader" in catalog.specs
    assert set(catalog.specs) == {path.stem for path in (CHECKOUT / "models").glob("*.toml")}


def test_every_box_has_a_model_for_both_types() -> None:
    catalog = Catalog([CHECKOUT / "models"], CHECKOUT / "nowhere")
    assert all(catalog.default(job_type) is not None for job_type in ("video", "image"))


def test_a_manifest_says_what_the_model_makes(shelf: Shelf) -> None:
    spec = read_manifest(shelf.write("alpha"))
    assert (spec.name, spec.makes, spec.family) == ("alpha", ("video", "image"), "leader")
    assert (spec.limits.fps, spec.limits.max_images) == ((24, 30), 10)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('name = "alpha"', 'name = "beta"', "name"),
        ('name = "alpha"', 'name = "../alpha"', "name"),
        ('makes = ["video", "image"]', "makes = []", "makes"),
        ('makes = ["video", "image"]', 'makes = ["song"]', "makes"),
        ('resolutions = ["480p", "1080p"]', "resolutions = []", "resolutions"),
        ('resolutions = ["480p", "1080p"]', 'resolutions = ["4k"]', "resolutions"),
        ('aspect_ratios = ["16:9"]', "aspect_ratios = []", "aspect_ratios"),
        ("fps = [24, 30]", "fps = []", "fps"),
        ("fps = [24, 30]", "fps = [0, 24]", "fps"),
        ("fps = [24, 30]", "fps = [30]", "default_fps"),
        ("max_duration_seconds = 10.0", "max_duration_seconds = 0.0", "max_duration_seconds"),
        ("max_duration_seconds = 10.0", "max_duration_seconds = 2.0", "default_duration_seconds"),
        ('family = "leader"', 'family = "magic"', "magic"),
        ('family = "leader"', "", "family"),
        ('title = "Model alpha"', 'titel = "Model alpha"', "tit"),
        ('[licence]\nname = "Apache-2.0"', "", "licence"),
        ("[limits]", "[limits", "line"),
        ('family = "leader"', 'family = "ltx2"\nstages = 2\ndistilled = false', "distilled checkpoint"),
        ('family = "leader"', 'family = "ltx2"\ndecode_chunk_frames = 16', "decode_overlap_frames"),
    ],
)
def test_a_bad_manifest_is_refused_with_its_file_and_reason(shelf: Shelf, old: str, new: str, reason: str) -> None:
    good = shelf.write("alpha").read_text()
    assert old in good
    path = shelf.write("alpha", good.replace(old, new))
    with pytest.raises(ManifestError, match=rf"^alpha\.toml: .*{reason}"):
        read_manifest(path)


def test_a_default_for_what_it_does_not_make_is_refused(shelf: Shelf) -> None:
    text = shelf.write("alpha", default_for='["image"]').read_text()
    path = shelf.write("alpha", text.replace('makes = ["video", "image"]', 'makes = ["video"]'))
    with pytest.raises(ManifestError, match="default_for"):
        read_manifest(path)


def test_one_bad_manifest_does_not_keep_the_others_out(shelf: Shelf) -> None:
    shelf.write("alpha")
    shelf.write("broken", "name = ")
    (shelf.manifests / "binary.toml").write_bytes(b"\xff\xfe")
    catalog = shelf.open()
    assert list(catalog.specs) == ["alpha"]
    assert [reason.partition(":")[0] for reason in catalog.refused] == ["binary.toml", "broken.toml"]


def test_an_owners_manifest_replaces_the_one_of_the_same_name(shelf: Shelf, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "alpha.toml").write_text(shelf.write("alpha").read_text().replace("Model alpha", "My alpha"))
    assert Catalog([shelf.manifests, own], shelf.weights).specs["alpha"].title == "My alpha"


def test_a_model_is_installed_once_its_record_is_there(shelf: Shelf) -> None:
    shelf.write("alpha")
    catalog = shelf.open()
    spec = catalog.specs["alpha"]
    assert catalog.installed(spec) is None
    shelf.install("alpha")
    assert catalog.installed(spec) == Installed(revision="r1", weights_sha256="abc")
    assert catalog.folder(spec) == shelf.weights / "alpha"


@pytest.mark.parametrize("record", ["", "{", "[]", '{"revision": 1}'])
def test_a_damaged_record_counts_as_not_installed(shelf: Shelf, record: str) -> None:
    shelf.write("alpha")
    shelf.install("alpha", record)
    catalog = shelf.open()
    assert catalog.installed(catalog.specs["alpha"]) is None


def test_a_bundled_model_is_always_installed(shelf: Shelf) -> None:
    shelf.write("leader", bundled=True)
    catalog = shelf.open()
    assert catalog.installed(catalog.specs["leader"]) is not None


def test_the_default_is_the_installed_one_for_the_type_then_any_installed_then_the_fallbacks(shelf: Shelf) -> None:
    assert shelf.default() is None
    shelf.write("leader", bundled=True)
    assert shelf.default() == "leader"
    shelf.write("mini", bundled=True)
    assert shelf.default() == "mini"
    shelf.write("alpha")
    shelf.write("zeta", default_for='["video"]')
    assert shelf.default() == "mini"
    shelf.install("alpha")
    assert shelf.default() == "alpha"
    shelf.install("zeta")
    assert (shelf.default("video"), shelf.default("image")) == ("zeta", "alpha")
