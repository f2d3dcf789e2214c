"""Quantising once: which forms of the weights are made, kept and dropped, and what a child that fails leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from multiprocessing.connection import wait
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.doubles.hub import HubDouble
from tests.hub.checkpoint import NEEDED, spec_with
from tests.hub.conftest import Studio, a_card, with_spec
from tests.running import ROOT
from zsky_box.errors import InstallError
from zsky_box.install.disk import GIB
from zsky_box.install.fitting import Machine
from zsky_box.install.installing import Wish
from zsky_box.manifest import Recipe

FULL = Recipe(name="full", working_gib=20)
INT8 = Recipe(name="int8", quantise={"transformer": "int8"})
NF4 = Recipe(name="nf4", quantise={"text_encoder": "nf4"})
LARGE = a_card(24)
SMALL = a_card(12, number=1)


@pytest.fixture
def prepared(studio: Studio) -> Studio:
    return with_spec(studio, spec_with(FULL, INT8))


def variants(studio: Studio) -> set[str]:
    record = studio.catalog.installed(studio.spec)
    assert record is not None
    here = {path.name for path in studio.folder.iterdir() if path.is_dir()}
    assert here == {variant.folder for variant in record.variants.values()}
    assert studio.faults() == []
    return set(record.variants)


def test_a_quantised_copy_takes_the_place_of_the_full_weights(prepared: Studio) -> None:
    prepared.machine = Machine(cards=(SMALL,), host_bytes=64 * GIB)
    outcome = prepared.install()
    assert variants(prepared) == {"transformer.int8"}
    variant = outcome.record.variants["transformer.int8"]
    assert set(variant.components) == {"text_encoder", "transformer", "vae"}
    assert outcome.record.quantisation == "transformer.int8"
    order = json.loads(prepared.below(variant.folder)["order.json"])
    assert order == {"device": "cpu", "recipe": "int8"}
    assert prepared.catalog.weights_folder(prepared.spec, INT8) == prepared.folder / variant.folder
    assert prepared.catalog.weights_folder(prepared.spec, FULL) is None


def test_full_weights_stay_where_a_card_wants_them_or_the_owner_does(prepared: Studio) -> None:
    prepared.machine = Machine(cards=(LARGE,), host_bytes=64 * GIB)
    prepared.install()
    assert variants(prepared) == {"full"}
    prepared.machine = Machine(cards=(LARGE, SMALL), host_bytes=64 * GIB)
    prepared.install()
    assert variants(prepared) == {"full", "transformer.int8"}
    prepared.machine = Machine(cards=(SMALL,), host_bytes=64 * GIB)
    prepared.install(Wish(again=True))
    assert variants(prepared) == {"transformer.int8"}
    prepared.install(Wish(keep_full=True))
    assert variants(prepared) == {"full", "transformer.int8"}


def test_the_owner_chooses_the_recipe(prepared: Studio) -> None:
    prepared.machine = Machine(cards=(LARGE,), host_bytes=64 * GIB)
    prepared.install(Wish(recipe="int8"))
    assert variants(prepared) == {"transformer.int8"}


def test_what_fits_nowhere_is_told_before_anything_is_fetched(studio: Studio, hub: HubDouble) -> None:
    studio.spec = spec_with(FULL, Recipe(name="least", quantise={"transformer": "int8"}, working_gib=15))
    studio.machine = Machine(cards=(a_card(8),), host_bytes=64 * GIB)
    with pytest.raises(InstallError, match="does not fit here"):
        studio.install()
    assert set(hub.served) == {"model_index.json"}
    studio.install(Wish(anyway=True))
    assert "does not fit here" in studio.report.notes[-1]
    assert variants(studio) == {"transformer.int8"}


def test_preparing_is_told(prepared: Studio) -> None:
    prepared.machine = Machine(cards=(SMALL,), host_bytes=64 * GIB)
    prepared.install()
    told = {phase: done for phase, done in prepared.report.done.items() if phase.startswith("preparing")}
    assert told["preparing transformer"] == prepared.report.phases["preparing transformer"] == 2
    hashed = prepared.report.phases["hashing transformer.int8"]
    assert hashed == prepared.report.done["hashing transformer.int8"] > 100_000


def test_what_was_quantised_is_durable_before_it_has_its_name(
    prepared: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    checked: list[int] = []
    sync, rename = os.fsync, Path.rename

    def fsync(fd: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{fd}").readlink()))
        sync(fd)

    def renamed(self: Path, target: Path) -> Path:
        if self.name.startswith("preparing-"):
            files = {str(path) for path in self.rglob("*")}
            assert files <= synced
            checked.append(len(files))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    prepared.machine = Machine(cards=(SMALL,), host_bytes=64 * GIB)
    prepared.install()
    assert len(checked) == 1
    assert checked[0] > len(NEEDED)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("refuses", "The text encoder cannot be quantised"),
        ("dies", "ran out of memory"),
        ("makes-nothing", "nothing came of it"),
        ("makes-a-pickle", r"weights\.bin is neither weights as safetensors"),
    ],
)
def test_a_child_that_fails_leaves_what_was_fetched_and_no_model(
    studio: Studio, hub: HubDouble, name: str, told: str
) -> None:
    studio.spec = spec_with(Recipe(name=name, quantise={"transformer": "int8"}))
    with pytest.raises(InstallError, match=told):
        studio.install()
    assert studio.catalog.installed(studio.spec) is None
    before = hub.bytes
    assert before == sum(len(hub.files[path]) for path in NEEDED)
    studio.spec = spec_with(Recipe(name="well", quantise={"vae": "int8"}))
    studio.install()
    assert hub.bytes == before
    assert variants(studio) == {"vae.int8"}


PARENT = """
import sys
from pathlib import Path
from tests.hub.checkpoint import SPEC
from zsky_box.install.preparing import prepare
from zsky_box.manifest import Recipe
folder = Path(sys.argv[1])
(folder / "source").mkdir()
prepare(SPEC, Recipe(name="hangs"), folder / "source", folder / "target", device="cpu",
        tell=lambda name, done, of: print(name, flush=True), entry="tests.doubles.preparing")
"""


def test_the_child_does_not_outlive_a_command_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout
        child = os.pidfd_open(int(parent.stdout.readline().removeprefix("process ")))
        parent.kill()
    try:
        assert wait([child], 60), "it is still there"
    finally:
        os.close(child)


def test_a_recipe_that_no_card_here_can_make_is_refused_before_anything_is_fetched(
    studio: Studio, hub: HubDouble
) -> None:
    studio.spec = spec_with(NF4)
    for wish in (Wish(anyway=True), Wish(anyway=True, recipe="nf4")):
        with pytest.raises(InstallError, match=r"does not fit here.* But no device here can make"):
            studio.install(wish)
    assert set(hub.served) == {"model_index.json"}


def test_a_recipe_for_a_part_that_is_not_there_is_refused_before_weights_are_fetched(
    studio: Studio, hub: HubDouble
) -> None:
    studio.spec = spec_with(Recipe(name="int8", quantise={"transfomer": "int8"}))
    with pytest.raises(InstallError, match=r"quantises transfomer, and it has weights of text_encoder, transformer"):
        studio.install()
    assert set(hub.served) == {"model_index.json"}


def test_anyway_takes_the_smallest_that_can_be_made_here(studio: Studio) -> None:
    studio.spec = spec_with(
        replace(FULL, working_gib=900), Recipe(name="int8", quantise={"vae": "int8"}, working_gib=900), NF4
    )
    assert [choice.recipe for choice in studio.install(Wish(anyway=True)).choices] == [studio.spec.recipes[1]]
    assert variants(studio) == {"vae.int8"}
