"""`/admin/health`: what is found, and the backups, for the owner alone."""

from __future__ import annotations

import html
import re
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.api.asking import until
from tests.boxes import running
from tests.pages.test_admin_cards import audited
from tests.people import PASSWORD, Browser, add_people, signed_in
from tests.running import RunningBox
from tests.test_backups import nobody
from zsky_box import backups


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
    assert "ledger.db" in backups.check(path, nobody).files
    account = owner.get("/v1/me").json()["account"]
    for room in ("backup.made", "backup.downloaded"):
        assert audited(box.folder, room) == [(f"browser:{account}", name)]


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
