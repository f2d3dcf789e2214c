"""`/admin/models`: the catalogue, and a model installed, verified and removed; for the owner alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator

import pytest

from scripts.tiny_models import cached
from tests.boxes import running
from tests.doubles.hub import HubDouble, a_hub, files_of
from tests.hub.checkpoint import TINY_REPOSITORY, write_manifest
from tests.pages.test_admin_cards import audited
from tests.people import Browser, add_people, signed_in
from tests.running import RunningBox
from tests.waiting import until

NAME = "tiny-klein"
SECONDS = 60.0


@pytest.fixture(scope="module")
def hub() -> Generator[HubDouble]:
    with a_hub(TINY_REPOSITORY, files_of(cached(NAME))) as double:
        yield double


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, hub: HubDouble) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("models") / "data"
    RunningBox(folder)
    write_manifest(folder)
    add_people(folder, "ada")
    with running(folder, hub_url=hub.url) as box:
        yield box


def model(page: str, name: str = NAME) -> str:
    """The part of the page about one model."""
    found = re.search(rf'<section class="card model" id="model-{name}".*?</section>', page, re.DOTALL)
    assert found is not None
    return found[0]


def order(page: str) -> list[str]:
    """The models' names from above."""
    return re.findall(r'<section class="card model" id="model-([^"]+)"', page)


def refreshed(owner: Browser, wanted: Callable[[str], bool]) -> str:
    """The part that refreshes itself, once it looks as wanted."""

    def seen() -> str:
        part = owner.get("/admin/models/now", headers={"HX-Request": "true"}).text
        return part if wanted(part) else ""

    return until(seen, "the errand looks as wanted", bound_seconds=SECONDS)


def has_ended(part: str) -> bool:
    return "data-ended" in part


def install(owner: Browser, **fields: str) -> str:
    answer = owner.submit("/admin/models", do="install", model=NAME, accept_licence="yes", **fields)
    assert answer.headers["location"] == "/admin/models"
    return owner.get("/admin/models").text


def test_the_catalogue_tells_licence_size_recipes_and_what_fits(studio: RunningBox) -> None:
    with signed_in(studio) as owner:
        page = owner.get("/admin/models").text
        ltx = model(page, "ltx-2.5")
        for part in ("LTX-2 Community License", "on conditions", "to fetch", "int8-blocks", "hub_token_file"):
            assert part in ltx
        assert re.search(r"[\d.,]+ GiB are free where models are kept", page)
        leader = model(page, "leader")
        assert "part of the box" in leader
        assert "accept_licence" not in leader
        assert "not installed" in model(page)


def test_it_is_there_for_the_owner_alone(studio: RunningBox, hub: HubDouble) -> None:
    with signed_in(studio, "ada") as ada:
        for path in ("/admin/models", "/admin/models/now", f"/admin/models/{NAME}/remove"):
            assert ada.get(path).status_code == 404
        ada.submit("/admin/models", do="install", model=NAME, accept_licence="yes")
        assert hub.asked == []
        assert audited(studio.folder, "licence.") == []


def test_a_model_is_installed_verified_and_removed_and_the_owner_is_on_record(
    studio: RunningBox, hub: HubDouble
) -> None:
    with signed_in(studio) as owner:
        owner.submit("/admin/models", do="install", model=NAME)
        assert "accept it first" in owner.get("/admin/models").text
        assert hub.asked == []
        hub.faults.hold_after = hub.bytes + 1
        assert f"Installing {NAME}" in install(owner)
        assert hub.holding.wait(SECONDS)
        hub.faults.hold_after = None
        hub.released.set()
        assert "is installed." in refreshed(owner, has_ended)
        page = owner.get("/admin/models").text
        assert hub.commit[:12] in model(page)
        assert "MiB on the disk" in model(page)
        assert order(page)[:2] == [NAME, "leader"]
        owner.submit("/admin/models", do="verify", model=NAME)
        assert "All files are as installed." in refreshed(owner, has_ended)
        asked = owner.get(f"/admin/models/{NAME}/remove").text
        assert "Remove Tiny" in asked
        owner.submit(f"/admin/models/{NAME}/remove")
        page = owner.get("/admin/models").text
        assert f"{NAME} is removed." in page
        assert order(page)[0] == "leader"
        assert NAME in order(page)
        assert "not installed" in model(page)
        me = owner.get("/v1/me").json()["account"]
    assert audited(studio.folder, "licence.accepted") == [(f"browser:{me}", NAME)]
    assert audited(studio.folder, "model.removed") == [(f"browser:{me}", NAME)]


def test_an_installation_survives_a_refresh_is_cancelled_and_goes_on(studio: RunningBox, hub: HubDouble) -> None:
    hub.holding.clear()
    hub.released.clear()
    hub.faults.hold_after = hub.bytes + 300_000
    with signed_in(studio) as owner, signed_in(studio) as elsewhere:
        install(owner)
        assert hub.holding.wait(SECONDS)
        part = refreshed(elsewhere, lambda part: "Fetching" in part)
        assert "<progress max=" in part
        page = owner.get("/admin/models").text
        assert 'hx-get="/admin/models/now"' in page
        assert "One at a time" in page
        owner.submit("/admin/models", do="verify", model="leader")
        assert "let it end, or cancel it" in install(elsewhere)
        owner.submit("/admin/models", do="cancel")
        assert "What has arrived is kept" in refreshed(owner, has_ended)
        page = owner.get("/admin/models").text
        assert "Go on" in model(page)
        assert order(page)[0] == NAME
        hub.faults.hold_after = None
        hub.released.set()
        install(owner)
        assert "is installed." in refreshed(owner, has_ended)
        owner.submit(f"/admin/models/{NAME}/remove")


def test_what_is_needed_stays(studio: RunningBox, hub: HubDouble) -> None:
    with signed_in(studio) as owner:
        hub.faults.hold_after = None
        install(owner)
        refreshed(owner, has_ended)
        owner.submit("/admin/cards", device="all", do="pause")
        headers = {"X-CSRF-Token": owner.csrf}
        body = {"type": "image", "prompt": "a fox", "model": NAME}
        job_id = owner.post("/v1/generate", json=body, headers=headers).json()["job_id"]
        assert "1 open jobs want it" in owner.get(f"/admin/models/{NAME}/remove").text
        owner.submit(f"/admin/models/{NAME}/remove")
        page = owner.get("/admin/models").text
        assert "1 open jobs want tiny-klein" in page
        assert "not installed" not in model(page)
        owner.post(f"/v1/jobs/{job_id}/cancel", headers=headers)
        owner.submit("/admin/cards", device="all", do="resume")
        owner.submit(f"/admin/models/{NAME}/remove")


def test_what_is_no_model_is_refused(studio: RunningBox) -> None:
    with signed_in(studio) as owner:
        for fields in ({"do": "install", "model": "../x"}, {"do": "verify", "model": NAME}, {"do": "sell"}, {}):
            owner.submit("/admin/models", **fields)
            assert 'role="alert"' in owner.get("/admin/models").text
        assert owner.get("/admin/models/nothing/remove").status_code == 404
        owner.submit("/admin/models/leader/remove")
        assert "stays" in owner.get("/admin/models").text
