"""`/admin/health`: what is found, and the backups, for the owner alone."""

from __future__ import annotations

import html
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.boxes import running
from tests.pages.test_admin_cards import audited
from tests.pages.test_admin_devices import slot as device
from tests.people import PASSWORD, Browser, add_people, signed_in
from tests.running import RunningBox
from tests.test_backups import nobody
from tests.waiting import until
from zsky_box import backup_file
from zsky_box.checkup import Disk, of_space
from zsky_box.clock import SECOND_US
from zsky_box.jobs.waiting import Line
from zsky_box.pages.admin import health


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("health") / "data"
    RunningBox(folder)
    add_people(folder, "ada")
    with running(folder, backups_kept=3) as started:
        yield started


@pytest.fixture
def owner(box: RunningBox) -> Generator[Browser]:
    with signed_in(box) as browser:
        yield browser


def findings(text: str) -> dict[str, str]:
    """Each finding's state by its name."""
    items = re.findall(r'<li><span class="badge [^"]*">(\w+)</span>\s*<span><strong>(.*?)</strong>', text, re.DOTALL)
    return {re.sub(r"<[^>]*>", "", name): state for state, name in items}


def backed_up(owner: Browser) -> list[str]:
    return re.findall(r'href="/admin/health/backups/([^"]+)"', owner.get("/admin/health/backups").text)


def test_it_works(owner: Browser) -> None:
    until(lambda: findings(owner.get("/admin/health").text)["ledger"] == "well", "verified")
    text = owner.get("/admin/health").text
    found = findings(text)
    assert found["devices"] == found["clock"] == found["settings"] == found["data folder"] == "well"
    assert {"python", "torch", "sqlite", "driver", "ffmpeg", "free space", "models"} <= set(found)
    for told in ("All is well", "free of", "There was nothing to repair", "less than a minute", "The newest 3 stay"):
        assert told in text
    assert "0.1.0" in text


def test_a_backup_is_made_and_downloaded(owner: Browser, box: RunningBox, tmp_path: Path) -> None:
    before = set(backed_up(owner))
    answer = owner.submit("/admin/health/backups", "/admin/health")
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/health#backups")
    until(lambda: bool(set(backed_up(owner)) - before), "made")
    [name] = set(backed_up(owner)) - before
    until(lambda: "verified and read back" in owner.get("/admin/health").text, "told")
    here = f"/admin/health/backups/{name}"
    assert 'type="password"' in owner.get(here).text
    for password in ("", "not the owner's own"):  # whoever has the browser has not the box
        refused = owner.submit(here, password=password)
        assert (refused.status_code, refused.headers["location"]) == (303, here)
        assert "The present password is another one" in owner.get(here).text
    file = owner.submit(here, password=PASSWORD)
    assert file.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert file.headers["cache-control"] == "no-store"
    path = tmp_path / name
    path.write_bytes(file.content)
    assert "ledger.db" in backup_file.check(path, nobody).files
    account = owner.get("/v1/me").json()["account"]
    for room in ("backup.made", "backup.downloaded"):
        assert audited(box.folder, room) == [(f"browser:{account}", name)]


def last_told(owner: Browser) -> str:
    """How the last backup, or the last look at one, ended; "" while it goes on."""
    found = re.search(r'<p class="notice (?:good|bad)">(.*?)</p>', owner.get("/admin/health/backups").text)
    return "" if found is None else html.unescape(found[1])


def a_backup(owner: Browser) -> str:
    before = set(backed_up(owner))
    owner.submit("/admin/health/backups", "/admin/health")
    until(lambda: bool(set(backed_up(owner)) - before) and "read back" in last_told(owner), "made")
    [name] = set(backed_up(owner)) - before
    return name


def test_a_backup_is_read_anew_and_a_changed_one_is_found(owner: Browser, box: RunningBox) -> None:
    name = a_backup(owner)
    here = f"/admin/health/backups/{name}"
    answer = owner.submit(here, do="check")
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/health#backups")
    until(lambda: "is whole: the ledger up to row" in last_told(owner), "read")
    path = box.folder / "backups" / name
    other = next(each for each in backed_up(owner) if each != name)
    path.write_bytes((path.parent / other).read_bytes())  # whole in itself, and not what was made
    owner.submit(here, do="check")
    until(lambda: "is not the one that was made" in last_told(owner), "found")
    assert findings(owner.get("/admin/health").text)["backups"] == "look"
    path.write_bytes(b"nothing")
    owner.submit(here, do="check")
    until(lambda: "does not read back" in last_told(owner), "found")


def test_a_backup_is_deleted_by_the_owner_in_person(owner: Browser, box: RunningBox) -> None:
    name = a_backup(owner)
    here = f"/admin/health/backups/{name}"
    for fields in ({"do": "delete"}, {"do": "delete", "password": "not the owner's own"}, {"do": "burn"}):
        refused = owner.submit(here, **fields)
        assert (refused.status_code, refused.headers["location"]) == (303, here)
        assert name in backed_up(owner)
    answer = owner.submit(here, do="delete", password=PASSWORD)
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/health#backups")
    assert name not in backed_up(owner)
    assert owner.get(here).status_code == 404
    account = owner.get("/v1/me").json()["account"]
    assert audited(box.folder, "backup.deleted") == [(f"browser:{account}", name)]


def test_a_queue_that_stands_still_by_the_owners_wish_is_a_note(owner: Browser) -> None:
    owner.submit("/admin/cards", device="all", do="pause")
    body = {"type": "image", "prompt": "a fox"}
    job_id = owner.post("/v1/generate", json=body, headers={"X-CSRF-Token": owner.csrf}).json()["job_id"]
    text = owner.get("/admin/health").text
    assert findings(text)["queue"] == "note"
    assert "1 job waits: all devices are paused" in text
    owner.submit("/admin/cards", device="all", do="resume")
    until(lambda: owner.get(f"/v1/job_status/{job_id}").json()["status"] == "completed", "made")
    assert findings(owner.get("/admin/health").text)["queue"] == "well"


@pytest.mark.parametrize(
    ("slot", "running", "minutes", "state", "told"),
    [
        ("ready", 0, 9, "good", "2 jobs wait"),
        ("ready", 0, 11, "bad", "2 jobs wait, the oldest for 11 minutes, and none runs"),
        ("ready", 1, 11, "good", "2 jobs wait, 1 run"),
        ("quarantined", 0, 0, "bad", "no device takes jobs now"),
        ("starting", 0, 0, "bad", "cuda:0 is starting"),
    ],
)
def test_a_queue_that_is_stuck_is_found(slot: str, running: int, minutes: int, state: str, told: str) -> None:
    of = Line(waiting=2, running=running, waited_us=minutes * 60 * SECOND_US)
    found = health.of_queue(of, [device(state=slot, reason="was lost")], quiet=False)
    assert (found["state"], told in found["told"]) == (state, True), found


@pytest.mark.parametrize("name", ["..%2fsecrets.json", "secrets.json", "zsky-20200101T000000Z.tar.gz", "%2e%2e"])
def test_nothing_else_is_downloaded(owner: Browser, box: RunningBox, name: str) -> None:
    answer = owner.get(f"/admin/health/backups/{name}")
    assert answer.status_code in (404, 405)
    assert (box.folder / "secrets.json").read_text() not in html.unescape(answer.text)


def test_it_is_the_owners_alone(box: RunningBox, owner: Browser) -> None:
    paths = ["/admin/health", "/admin/health/backups", *(f"/admin/health/backups/{name}" for name in backed_up(owner))]
    with signed_in(box, "ada") as ada:
        assert {ada.get(path).status_code for path in paths} == {404}
        made = backed_up(owner)
        ada.submit("/admin/health/backups", "/admin/health")
        assert backed_up(owner) == made
    with Browser(box) as nobody:
        assert {nobody.get(path).status_code for path in paths} == {303}


def test_what_is_wrong_comes_first(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    RunningBox(folder)
    add_people(folder)
    with running(folder) as box, signed_in(box) as owner:
        (folder / "zsky.toml").write_text("portt = 1\n")
        (folder / "secrets.json").chmod(0o644)
        text = owner.get("/admin/health").text
        assert "things to look at" in text
        assert "there is no setting &#39;portt&#39;" in text
        assert findings(text)["data folder"] == "look"


@pytest.mark.parametrize(
    ("free", "state", "told"),
    [
        ({"data and results": 50}, "good", "50.0 GB"),
        ({"data and results": 1}, "bad", "1.0 GB, below the floor of 2.0 GB: no job is taken"),
        ({"data": 50, "results": 40}, "good", "50.0 GB for data, 40.0 GB for results"),
        ({"data": 50, "results": 1}, "bad", "below the floor of 2.0 GB: no job is taken"),
        ({"data": 1, "results": 40}, "bad", "below the floor of 2.0 GB: soon nothing can be written"),
    ],
)
def test_both_disks_are_looked_at(free: dict[str, int], state: str, told: str) -> None:
    disks = [Disk(holds, "/", 100 * 10**9, count * 10**9) for holds, count in free.items()]
    found = of_space(disks, 2 * 10**9)
    assert (found["state"], told in found["told"]) == (state, True), found


@pytest.mark.parametrize(
    ("slot", "state", "told"),
    [
        ({"state": "ready", "restarts": 4}, "good", "none is quarantined"),
        ({"state": "starting", "restarts": 1}, "good", "none is quarantined"),
        ({"state": "starting", "restarts": 2}, "bad", "cuda:0 does not come up: restarted 2 times"),
        ({"state": "starting", "restarts": 2, "paused": True}, "good", "none is quarantined"),
        ({"state": "quarantined", "reason": "was lost"}, "bad", "cuda:0 is quarantined: It was lost."),
    ],
)
def test_a_card_that_is_down_is_found(slot: dict[str, Any], state: str, told: str) -> None:
    found = health.of_slots([device(**slot)], "ready")
    assert (found["state"], told in found["told"]) == (state, True), found
