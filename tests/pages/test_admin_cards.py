"""`/admin/cards`: whose the devices are, for the owner alone."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from tests.boxes import running
from tests.people import Browser, add_people, signed_in
from tests.running import RunningBox


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("cards") / "data"
    RunningBox(folder)
    add_people(folder, "ada")
    with running(folder, devices="cpu,cpu") as box:
        yield box


def device(page: str, label: str) -> str:
    """The part of the page about one device."""
    found = re.search(rf'<section class="card device" id="device-{label}".*?</section>', page, re.DOTALL)
    assert found is not None
    return found[0]


def ask(browser: Browser, prompt: str) -> str:
    body = {"type": "image", "prompt": prompt}
    answer = browser.post("/v1/generate", json=body, headers={"X-CSRF-Token": browser.csrf})
    return answer.json()["job_id"]


def audited(folder: Path, room: str) -> list[tuple[str, str]]:
    """Actor and subject of the audit's rows of a room, the oldest first."""
    with closing(sqlite3.connect(folder / "ledger.db")) as rows:
        return rows.execute(
            "SELECT actor, subject FROM audit WHERE action GLOB ? ORDER BY id", (f"{room}*",)
        ).fetchall()


def test_it_works(studio: RunningBox) -> None:
    with signed_in(studio) as owner:
        page = owner.get("/admin/cards")
        assert page.status_code == 200
        assert "no NVIDIA card" in page.text
        assert "cpu-2" in device(page.text, "cpu-2")
        assert "Ready" in device(page.text, "cpu-1") + device(page.text, "cpu-2")
        part = owner.get("/admin/cards/now", headers={"HX-Request": "true"}).text
        assert "<html" not in part
        assert "In memory" in device(part, "cpu-1")


def test_it_is_there_for_the_owner_alone(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as ada, Browser(studio) as nobody:
        for path in ("/admin", "/admin/cards", "/admin/cards/now"):
            assert ada.get(path).status_code == 404
            assert nobody.get(path).headers["location"].startswith("/sign-in?next=")
        assert ada.submit("/admin/cards", device="cpu", do="free").status_code in (303, 404)
    with signed_in(studio) as owner:
        assert "Freed" not in owner.get("/admin/cards").text
        assert owner.get("/admin").headers["location"] == "/admin/cards"


def test_a_device_is_paused_freed_and_resumed_and_the_owner_is_on_record(studio: RunningBox) -> None:
    with signed_in(studio) as owner:
        answer = owner.submit("/admin/cards", device="cpu", do="pause")
        assert (answer.status_code, answer.headers["location"]) == (303, "/admin/cards")
        page = owner.get("/admin/cards").text
        assert "cpu takes no more jobs" in page
        assert "Paused" in device(page, "cpu-1")
        owner.submit("/admin/cards", device="all", do="free")
        page = owner.get("/admin/cards").text
        assert "All cards are freed: what ran there goes back to the queue, uncharged." in page
        assert "resume all of them" in device(page, "cpu-2")
        refused = owner.submit("/admin/cards", device="cpu", do="resume")
        assert refused.status_code == 303
        assert "All devices are paused together" in owner.get("/admin/cards").text
        owner.submit("/admin/cards", device="all", do="resume")
        assert "resume all of them" not in owner.get("/admin/cards").text
        me = owner.get("/v1/me").json()["account"]
    recorded = audited(studio.folder, "device.")
    assert recorded[:2] == [(f"browser:{me}", "cpu"), (f"browser:{me}", "all")]
    assert sorted(recorded[2:]) == [(f"browser:{me}", "all"), (f"browser:{me}", "cpu")], "both are resumed"


def test_what_is_no_device_and_no_wish_is_refused(studio: RunningBox) -> None:
    with signed_in(studio) as owner:
        for fields in ({"device": "cuda:7", "do": "free"}, {"device": "cpu", "do": "sell"}, {}):
            assert owner.submit("/admin/cards", **fields).status_code == 303
            assert 'role="alert"' in owner.get("/admin/cards").text
        assert "Paused" not in owner.get("/admin/cards").text


def test_who_has_a_job_there_is_told_and_not_what_it_shows(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as ada, signed_in(studio) as owner:
        theirs = ask(ada, "double:hangs")
        studio.until(ada, theirs, lambda job: job["status"] == "running")
        page = owner.get("/admin/cards").text
        assert "Image of ada" in page
        assert "Working" in page
        assert "double:hangs" not in page
        assert theirs not in page
        ada.post(f"/v1/jobs/{theirs}/cancel", headers={"X-CSRF-Token": ada.csrf})
