from __future__ import annotations

from pathlib import Path

import pytest

from zsky_box.catalog import Catalog, Installed, read_manifest
from zsky_box.errors import ManifestError
from zsky_box.manifest import JobType, ModelSpec
from zsky_box.settings import CHECKOUT

MANIFEST = """
name = "{name}"
title = "Model {name}"
makes = ["video", "image"]
default_for = {default_for}
bundled = {bundled}
experimental = false

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

LIMITS = MANIFEST[MANIFEST.index("[limits]") : MANIFEST.index("[options]")]
COST = "[cost]\nparameters_billion = 13.0\nlayers = 48\nwidth = 4096\npixels_per_token = 32\n"
RECIPE = """family = "leader"
[[recipes]]
name = "low"
quantise = { transformer = "int8" }
offload = "blocks"
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


SHIPPED = Catalog([CHECKOUT / "models"], CHECKOUT / "nowhere").specs
REAL = ("flux2-klein-4b", "flux2-klein-9b", "ltx-2.3-distilled", "ltx-2.5", "z-image-turbo")


@pytest.mark.parametrize("name", REAL)
def test_a_shipped_model_says_all_that_a_studio_must_know(name: str) -> None:
    spec = SHIPPED[name]
    assert spec.repository
    assert spec.licence.terms
    assert spec.licence.url == f"https://huggingface.co/{spec.repository}"
    assert spec.revision == "", "the hub tells it when the model is installed; nobody invents one"
    assert spec.limits.reference_image
    assert spec.parameters_billion["transformer"] > 0
    assert spec.cost is not None
    assert spec.price_class == "standard"
    least = spec.recipes[-1]
    assert least.offload != "none"
    assert [recipe.offload for recipe in spec.recipes] == sorted(
        (recipe.offload for recipe in spec.recipes), key=["none", "model", "blocks"].index
    ), "from the best to the one that needs least"
    components = {"transformer", "text_encoder", "connectors"}
    assert all(set(recipe.quantise) <= components for recipe in spec.recipes)


def test_the_defaults_and_who_may_use_them() -> None:
    defaults = {kind: name for name in REAL for kind in SHIPPED[name].default_for}
    assert defaults == {"image": "flux2-klein-4b", "video": "ltx-2.5"}
    assert {name: SHIPPED[name].licence.commercial_use for name in REAL} == {
        "flux2-klein-4b": "yes",
        "flux2-klein-9b": "no",
        "ltx-2.3-distilled": "conditional",
        "ltx-2.5": "conditional",
        "z-image-turbo": "yes",
    }
    assert [name for name in REAL if SHIPPED[name].limits.strength] == ["z-image-turbo"]


def petaflop_of(spec: ModelSpec, width: int, height: int, frames: int) -> float:
    """One pass of the transformer: the tokens through its parameters, and the tokens with each other."""
    cost = spec.cost
    assert cost is not None
    tokens = (width // cost.pixels_per_token) * (height // cost.pixels_per_token) * ((frames - 1) // 8 + 1)
    each = 2 * cost.parameters_billion * 1e9 * tokens
    return (each + 4 * cost.layers * cost.width * tokens**2) / 1e15


def test_the_counted_cost_is_the_published_one() -> None:
    video = SHIPPED["ltx-2.5"]
    two_stages = 8 * petaflop_of(video, 960, 544, 121) + 3 * petaflop_of(video, 1920, 1088, 121)
    assert two_stages == pytest.approx(7.2, abs=0.05)
    counted = {name: passes * petaflop_of(SHIPPED[name], 1920, 1088, 1) for name, passes in IMAGE_PASSES.items()}
    assert counted == pytest.approx({"flux2-klein-4b": 0.34, "flux2-klein-9b": 0.73, "z-image-turbo": 1.09}, abs=0.01)


IMAGE_PASSES = {"flux2-klein-4b": 4, "flux2-klein-9b": 4, "z-image-turbo": 8}


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
        ("max_duration_seconds = 10.0", "max_duration_seconds = inf", r"\$\.limits\.max_duration_seconds"),
        ("max_duration_seconds = 10.0", "max_duration_seconds = 2.0", "default_duration_seconds"),
        ('family = "leader"', 'family = "magic"', "magic"),
        ('family = "leader"', "", "family"),
        ('family = "leader"', 'family = "mini"\nsteps = 0', r"\$\.options\.steps"),
        (
            "fps = [24, 30]",
            "fps = [24]\n[limits.vocabulary]\nwords_read = 9\nexamples = []\nknows = {}",
            "examples",
        ),
        ('title = "Model alpha"', 'titel = "Model alpha"', "tit"),
        ('[licence]\nname = "Apache-2.0"', "", "licence"),
        ("[limits]", "[limits", "line"),
        ('family = "leader"', 'family = "ltx2"\nstages = 2\ndistilled = false', "distilled checkpoint"),
        ('family = "leader"', 'family = "ltx2"\ndecode_chunk_frames = 16', "decode_overlap_frames"),
        ('family = "leader"', 'family = "image_classifier"\nblocked_labels = ["a"]', "makes: a model of the family"),
        ('makes = ["video", "image"]', "makes = []\n", "makes: a model of the family leader makes video or image"),
        (LIMITS, "", "limits: are missing"),
        ("fps = [24, 30]", "fps = [24, 30]\nstrength = true", "limits.strength: needs limits.reference_image"),
        ('title = "Model alpha"', "title = 7", r"Expected `str`, got `int` - at `\$\.title`"),
        ('name = "Apache-2.0"', 'name = "Apache-2.0"\ncommercial_use = "maybe"', r"\$\.licence\.commercial_use"),
        ("bundled = false", "bundled = false\nsize_multiple = 0", r"\$\.size_multiple"),
        ("bundled = false", "bundled = false\nframe_step = 65", r"\$\.frame_step"),
        ("bundled = false", 'bundled = false\ndtype = "int4"', r"\$\.dtype"),
        ("bundled = false", "bundled = false\ntimeout_seconds = 0", r"\$\.timeout_seconds"),
        ("bundled = false", 'bundled = false\nprice_class = "gold"', r"\$\.price_class"),
        ("fps = [24, 30]", "fps = [24, 30]\nmax_images = 11", r"\$\.limits\.max_images"),
        ('family = "leader"', 'family = "z_image"\nsteps = 0', r"\$\.options\.steps"),
        ('family = "leader"', 'family = "z_image"\nstepps = 4', r"stepps.* - at `\$\.options`"),
        ('family = "leader"', 'family = "leader"\n[parameters_billion]\nvae = -1', r"\$\.parameters_billion"),
        ('family = "leader"', f'family = "leader"\n{COST.replace("48", "0")}', r"\$\.cost\.layers"),
        ('family = "leader"', f'family = "leader"\n{COST.replace("width", "breadth")}', r"\$\.cost"),
        ('family = "leader"', f"{RECIPE}{RECIPE.partition(chr(10))[2]}", "recipes: two of them have the same name"),
        ('family = "leader"', RECIPE.replace("int8", "int3"), r"\$\.recipes\[0\]\.quantise"),
        ('family = "leader"', RECIPE.replace("blocks", "disk"), r"\$\.recipes\[0\]\.offload"),
        ('family = "leader"', f'{RECIPE}render = "4k"', r"\$\.recipes\[0\]\.render"),
        ('family = "leader"', f"{RECIPE}decode_chunk_frames = 20", r"\$\.recipes\[0\]\.decode_chunk_frames"),
        ('family = "leader"', f"{RECIPE}decode_tile_pixels = 8", r"\$\.recipes\[0\]\.decode_tile_pixels"),
        ('family = "leader"', f"{RECIPE}images_at_once = 11", r"\$\.recipes\[0\]\.images_at_once"),
        ('family = "leader"', f"{RECIPE}working_gib = -1", r"\$\.recipes\[0\]\.working_gib"),
        ('family = "leader"', f"{RECIPE}capability = 100", r"\$\.recipes\[0\]\.capability"),
        ('family = "leader"', RECIPE.replace('"low"', '"a b"'), r"\$\.recipes\[0\]\.name"),
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
    shelf.write("deep", "name = " + "[" * 5_000)
    (shelf.manifests / "binary.toml").write_bytes(b"\xff\xfe")
    catalog = shelf.open()
    assert list(catalog.specs) == ["alpha"]
    assert [reason.partition(":")[0] for reason in catalog.refused] == ["binary.toml", "broken.toml", "deep.toml"]


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


def test_a_bundled_model_without_weights_is_always_installed(shelf: Shelf) -> None:
    shelf.write("leader", bundled=True)
    catalog = shelf.open()
    assert catalog.installed(catalog.specs["leader"]) is not None
    assert catalog.bytes_on_disk(catalog.specs["leader"]) == {}


def test_the_weights_of_a_bundled_model_lie_beside_its_manifest(shelf: Shelf) -> None:
    text = shelf.write("small", bundled=True).read_text()
    shelf.write("small", text.replace('family = "leader"', 'family = "mini"'))
    catalog = shelf.open()
    spec = catalog.specs["small"]
    assert (catalog.installed(spec), catalog.weights_folder(spec, spec.ways[0])) == (None, None)
    beside = shelf.manifests / "small"
    (beside / "part").mkdir(parents=True)
    (beside / "part" / "model.safetensors").write_bytes(bytes(7))
    (beside / "installed.json").write_text('{"weights_sha256": "abc"}')
    assert catalog.installed(spec) == Installed(weights_sha256="abc")
    assert catalog.weights_folder(spec, spec.ways[0]) == beside
    assert catalog.bytes_on_disk(spec) == {"part": 7}


def test_an_experimental_model_is_nobodys_default(shelf: Shelf) -> None:
    shelf.write("leader", bundled=True)
    for name in ("mini", "alpha"):
        text = shelf.write(name, bundled=name == "mini", default_for='["video"]').read_text()
        shelf.write(name, text.replace("experimental = false", "experimental = true"))
    shelf.install("alpha")
    assert shelf.default() == "leader"
    shelf.write("alpha")
    assert shelf.default() == "alpha"


def test_what_is_recommended_is_the_default_that_an_owner_can_fetch(shelf: Shelf) -> None:
    shelf.write("leader", bundled=True, default_for='["video", "image"]')
    assert shelf.open().recommended("video") is None
    shelf.write("alpha", default_for='["video"]')
    shelf.write("beta")
    catalog = shelf.open()
    assert catalog.recommended("video") is catalog.specs["alpha"]
    assert catalog.recommended("image") is None


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
