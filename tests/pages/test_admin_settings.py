"""`/admin/settings`: every setting with its words, changed for the next start, for the owner alone."""

from __future__ import annotations

import html
import re
import tomllib
from collections.abc import Generator

import msgspec
import pytest

from tests.boxes import running
from tests.people import Browser, add_people, signed_in
from tests.running import RunningBox
from zsky_box.pages.admin import settings_words
from zsky_box.settings import Settings

SECRET = "0123456789abcdef-secret"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("settings") / "data"
    RunningBox(folder)
    add_people(folder, "ada")
    (folder / "zsky.toml").write_text(f'# ours\nmetrics_token = "{SECRET}"\nlow_wallet_usd = "7.00"\n')
    with running(folder) as started:
        yield started


@pytest.fixture
def owner(box: RunningBox) -> Generator[Browser]:
    with signed_in(box) as browser:
        yield browser


def names(text: str) -> list[str]:
    return re.findall(r'<li id="(\w+)">', text)


def save(owner: Browser, name: str, **fields: str) -> str:
    """Send the form; what the page says then."""
    answer = owner.submit("/admin/settings", name=name, **fields)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/admin/settings")
    found = re.search(r'<div class="said \w+".*?</div>', owner.get("/admin/settings").text, re.DOTALL)
    assert found is not None
    return found[0]


def test_it_works(owner: Browser, box: RunningBox) -> None:
    text = owner.get("/admin/settings").text
    assert sorted(names(text)) == sorted(field.name for field in msgspec.structs.fields(Settings))
    assert "1 line of comments will not be" in text
    assert SECRET not in text
    said = save(owner, "image_usd", value="0.10")
    assert "takes effect at the next start" in said
    assert tomllib.loads((box.folder / "zsky.toml").read_text())["image_usd"] == "0.10"
    text = owner.get("/admin/settings").text
    assert "then 0.10" in text
    assert "settings.changed" in owner.get("/admin/audit", params={"action": "settings."}).text
    save(owner, "image_usd", do="default", value="9")
    assert "image_usd" not in (box.folder / "zsky.toml").read_text()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("timezone", "<b>Mars</b>", "IANA time zone"),
        ("attempts_max", "99", "a whole number from 1 to 10"),
        ("attempts_max", "many", "a whole number from 1 to 10"),
        ("pins", "cuda:7=leader", "is not allowed"),
        ("output_check", "nothing", "output checks that this box knows"),
        ("host", "192.0.2.7", "this machine cannot listen on 192.0.2.7"),
        ("outputs", "/etc/passwd/results", "no folder that the box may write in"),
        ("outputs", "/dev/null", "no folder that the box may write in"),
    ],
)
def test_what_is_wrong_is_told_where_it_was_written(
    owner: Browser, box: RunningBox, name: str, value: str, told: str
) -> None:
    before = (box.folder / "zsky.toml").read_text()
    answer = owner.submit("/admin/settings", name=name, value=value)
    assert answer.status_code == 422
    [row] = re.findall(rf'<li id="{name}">.*?</li>', answer.text, re.DOTALL)
    [said] = re.findall(r'role="alert".*?</p>', row)
    assert told in said
    assert "zsky.toml" not in said
    assert "<details open>" in row
    assert f'value="{html.escape(value)}"' in row
    assert "autofocus" in row
    assert "<b>" not in answer.text
    assert answer.text.count("<details open>") == 1
    assert (box.folder / "zsky.toml").read_text() == before


def test_what_can_lock_an_owner_out_is_asked_for_first(owner: Browser) -> None:
    text = owner.get("/admin/settings").text
    for name in ("host", "tls_cert", "tls_key", "allowed_hosts", "public_url"):
        [row] = re.findall(rf'<li id="{name}">.*?</li>', text, re.DOTALL)
        assert "data-confirm=" in row
        assert "The terminal of this machine is the way back" in row


def test_a_secret_that_is_refused_is_not_shown_either(owner: Browser) -> None:
    answer = owner.submit("/admin/settings", name="metrics_token", value="too short")
    assert "16 to 200 letters" in answer.text
    assert "too short" not in answer.text


def test_what_is_not_changed_here_is_not_changed_by_a_form_either(owner: Browser, box: RunningBox) -> None:
    before = (box.folder / "zsky.toml").read_text()
    for name, told in (("port", "command line"), ("ffmpeg", "by hand"), ("none", "no setting")):
        said = save(owner, name, value="9000")
        assert "said bad" in said
        assert told in said, said
    assert (box.folder / "zsky.toml").read_text() == before


def test_settings_are_found(owner: Browser) -> None:
    assert names(owner.get("/admin/settings", params={"find": "hours SITS"}).text) == ["quiet_hours"]
    assert names(owner.get("/admin/settings", params={"find": "price video"}).text) == ["video_usd"]
    changed = names(owner.get("/admin/settings", params={"only": "changed"}).text)
    assert {"metrics_token", "low_wallet_usd", "port", "devices"} <= set(changed)
    assert "host" not in changed
    assert "No setting fits" in owner.get("/admin/settings", params={"find": "zebra"}).text
    assert owner.get("/admin/settings", params={"only": "x"}).status_code == 422


def test_a_secret_is_never_shown(owner: Browser) -> None:
    fresh = "another-secret-0123456789"
    save(owner, "metrics_token", value=fresh)
    for path in ("/admin/settings", "/admin/audit", "/admin/audit.csv", "/admin/health"):
        text = owner.get(path).text
        assert fresh not in text
        assert SECRET not in text


def test_it_is_the_owners_alone(box: RunningBox) -> None:
    before = (box.folder / "zsky.toml").read_text()
    with signed_in(box, "ada") as ada:
        assert ada.get("/admin/settings").status_code == 404
        ada.submit("/admin/settings", name="image_usd", value="0.01")
    with Browser(box) as nobody:
        assert nobody.get("/admin/settings").status_code == 303
        assert nobody.post("/admin/settings", data={"name": "image_usd", "value": "0.01"}).status_code == 401
    assert (box.folder / "zsky.toml").read_text() == before


def test_every_setting_has_words_that_are_safe() -> None:
    found = [words for section in settings_words.read() for words in section.words.values()]
    assert len(found) == len(msgspec.structs.fields(Settings))
    assert all(re.sub(r"</?code>", "", words).count("<") == 0 for words in found)
    assert not any("](" in words for words in found)
