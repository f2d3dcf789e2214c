"""`/settings`: keys, overage, password and sessions by plain forms, each on record as the person's own doing."""

from __future__ import annotations

import html
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.asking import IMAGE, SLOW, command, problem
from tests.boxes import running
from tests.people import PASSWORD, Browser, add_people, signed_in
from tests.running import RunningBox
from zsky_box.ids import new

NEW_PASSWORD = "nine herons on the weir"
FORMS = (
    "/settings/keys",
    "/settings/keys/rotate",
    "/settings/keys/revoke",
    "/settings/keys/cap",
    "/settings/overage",
    "/settings/overage/cap",
    "/settings/password",
    "/settings/sessions/end",
    "/settings/sessions/end-others",
)
SCRIPT = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("settings") / "data"
    box = RunningBox(folder, devices="cpu")
    add_people(folder, "ada", "ben", "cleo", "dora", "emil", "gina", SCRIPT)
    add_people(folder, "flo", plan="free")
    box.start()
    yield box
    box.stop()


def issued(browser: Browser, **fields: Any) -> str:
    """Issue a key by the form; what the next page shows, once."""
    answer = browser.submit("/settings/keys", "/settings", **{"scopes": ["generate", "read", "billing"], **fields})
    assert answer.status_code == 303, answer.text
    return secret_of(browser.get("/settings").text)


def secret_of(page: str) -> str:
    found = re.search(r'<code id="secret-1">(zs_\w+)</code>', page)
    assert found is not None, page
    return found[1]


def key_ids(page: str) -> list[str]:
    """The usable keys that the page lists, newest first."""
    return re.findall(r'id="change-(key_\w+)"', page)


def entries(browser: Browser, action: str) -> list[dict[str, Any]]:
    return browser.get("/v1/me/ledger", params={"action": action}).json()["data"]


def whoami(box: RunningBox, key: str) -> httpx.Response:
    return httpx.get(f"{box.url}/v1/me", headers={"X-API-Key": key}, trust_env=False)


def test_it_works(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as browser:
        page = browser.get("/settings")
        assert page.status_code == 200
        assert "No key yet" in page.text
        assert "the box's owner fills it." in page.text
        answer = browser.submit("/settings/keys/rotate", "/settings", overlap="0")
        assert (answer.status_code, answer.headers["location"]) == (303, "/settings")
        shown = browser.get("/settings").text
        key = secret_of(shown)
        assert whoami(studio, key).json()["name"] == "ada"
        assert key in html.unescape(re.findall(r"<code id=\"example-1\">(.*?)</code>", shown, re.DOTALL)[0])
        again = browser.get("/settings").text
        assert key not in again
        assert f"…{key[-4:]}" in again
        account = browser.get("/v1/me").json()["account"]
        assert entries(browser, "key.issued")[0]["actor"] == f"browser:{account}"


def test_the_owner_is_led_to_the_place_where_plans_and_wallets_are(studio: RunningBox) -> None:
    with signed_in(studio) as owner:
        shown = owner.get("/settings").text
        me = owner.get("/v1/me").json()["account"]
        assert f'<a href="/admin/people/{me}">you fill it in Admin</a>' in shown
        assert f'<a href="/admin/people/{me}">Plans are chosen in Admin</a>' in shown
        owner.post("/v1/generate", json={"type": "image", "prompt": "a lake"}, headers={"X-CSRF-Token": owner.csrf})
        assert re.search(r"; renews in [A-Z][a-z]+ 20\d\d\.", owner.get("/settings").text)


def test_rotating_lets_the_old_key_live_for_the_overlap_that_was_chosen(studio: RunningBox) -> None:
    with signed_in(studio, "ben") as browser:
        first = issued(browser, name="render farm", scopes=["generate", "read"], cap_usd="12.50")
        (first_id,) = key_ids(browser.get("/settings").text)
        browser.submit("/settings/keys/rotate", "/settings", key_id=first_id, overlap="86400")
        second = secret_of(browser.get("/settings").text)
        assert whoami(studio, first).status_code == whoami(studio, second).status_code == 200
        assert whoami(studio, second).json()["key"]["name"] == "render farm"
        assert "of $12.50" in browser.get("/settings").text
        second_id = next(each for each in key_ids(browser.get("/settings").text) if each != first_id)
        browser.submit("/settings/keys/rotate", "/settings", key_id=second_id, overlap="0")
        problem(whoami(studio, second), 401, "revoked_key")
        for wrong in ("", "-1", "604801", "soon", "9" * 40):
            browser.submit("/settings/keys/rotate", "/settings", key_id=first_id, overlap=wrong)
            assert 'class="said bad"' in browser.get("/settings").text


def test_a_key_is_issued_capped_and_revoked(studio: RunningBox) -> None:
    with signed_in(studio, "cleo") as browser:
        key = issued(browser, name="one script", scopes=["read"], mode="live")
        problem(
            httpx.post(f"{studio.url}/v1/generate", json=IMAGE, headers={"X-API-Key": key}, trust_env=False),
            403,
            "insufficient_scope",
        )
        assert issued(browser, mode="test").startswith("zs_test_")
        key_id = key_ids(browser.get("/settings").text)[-1]
        browser.submit("/settings/keys/cap", "/settings", key_id=key_id, cap_usd="7")
        assert "of $7.00" in browser.get("/settings").text
        browser.submit("/settings/keys/cap", "/settings", key_id=key_id, cap_usd="")
        assert "of $7.00" not in browser.get("/settings").text
        for wrong in ("-1", "1.234", "1e3", "a lot", "1000001"):
            browser.submit("/settings/keys/cap", "/settings", key_id=key_id, cap_usd=wrong)
            assert "dollars from 0 to" in browser.get("/settings").text
        browser.submit("/settings/keys/revoke", "/settings", key_id=key_id)
        problem(whoami(studio, key), 401, "revoked_key")
        page = browser.get("/settings").text
        assert key_id not in page
        assert "Keys that have ended" in page
        assert len(entries(browser, "key.cap")) == 2


def test_a_form_that_will_not_do_keeps_what_was_written(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as browser:
        before = len(key_ids(browser.get("/settings").text))
        refused = browser.submit("/settings/keys", "/settings", name="kept name", cap_usd="lots", scopes=["read"])
        assert refused.status_code == 422
        assert 'value="kept name"' in refused.text
        assert 'value="lots"' in refused.text
        assert 'value="billing">' in refused.text
        assert 'value="read" checked>' in refused.text
        assert browser.submit("/settings/keys", "/settings", name="no scopes").status_code == 422
        assert browser.submit("/settings/keys", "/settings", name="x" * 101, scopes=["read"]).status_code == 422
        assert len(key_ids(browser.get("/settings").text)) == before


def test_a_page_that_shows_a_refused_form_leads_on_as_any_other(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as browser:
        for path in ("/settings/keys", "/settings/overage/cap", "/settings/password"):
            assert browser.submit(path, "/settings", cap_usd="x").status_code == 422
            assert browser.get(path).headers["location"] == "/settings"
            back = browser.submit("/settings/keys/rotate", path, key_id=new("key"), overlap="0")
            assert (back.status_code, back.headers["location"]) == (303, path)
            browser.follow_redirects = True
            assert "There is no such key." in browser.get(path).text
            browser.follow_redirects = False


def test_there_are_at_most_twenty_keys_and_the_page_says_so(studio: RunningBox) -> None:
    with signed_in(studio, "emil") as browser:
        csrf = browser.csrf
        for number in range(20):
            fields = {"csrf": csrf, "name": f"script {number}", "scopes": "read"}
            assert browser.post("/settings/keys", data=fields).status_code == 303
        page = browser.get("/settings").text
        assert len(key_ids(page)) == 20
        assert "the most there can be" in page
        assert browser.submit("/settings/keys", "/settings", scopes=["read"]).status_code == 409
        # Only the ten newest messages are kept for a page that is never looked at.
        assert page.count('id="secret-') == 10


def test_overage_is_turned_on_and_off_and_capped(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as browser:
        for word in ("on", "on", "off", "on"):
            assert browser.submit("/settings/overage", "/settings", enabled=word).status_code == 303
            assert browser.get("/v1/me/overage").json()["enabled"] is (word == "on")
        assert len(entries(browser, "overage.toggled")) == 3
        browser.submit("/settings/overage", "/settings", enabled="perhaps")
        assert "on or off" in browser.get("/settings").text
        assert browser.submit("/settings/overage/cap", "/settings", cap_usd="25.50").status_code == 303
        assert browser.get("/v1/me/overage").json()["cap_usd"] == "25.50"
        for wrong in ("4.99", "1000.01", "", "ten", "5.001", "NaN", "1e2"):
            refused = browser.submit("/settings/overage/cap", "/settings", cap_usd=wrong)
            assert refused.status_code == 422, wrong
            assert 'aria-invalid="true"' in refused.text
        assert browser.get("/v1/me/overage").json()["cap_usd"] == "25.50"
        account = browser.get("/v1/me").json()["account"]
        assert {each["actor"] for each in entries(browser, "overage.cap")} == {f"browser:{account}"}


def test_the_owners_ceiling_and_the_alerts_of_the_month_are_told(studio: RunningBox) -> None:
    with signed_in(studio, "dora") as browser:
        command(studio.folder, "accounts", "ceiling", "dora", "6")
        assert "ceiling for you is $6.00" in browser.get("/settings").text
        refused = browser.submit("/settings/overage/cap", "/settings", cap_usd="7")
        assert "ceiling of $6.00" in refused.text
        command(studio.folder, "accounts", "topup", "dora", "40")
        browser.submit("/settings/overage", "/settings", enabled="on")
        assert "$40.00" in browser.get("/settings").text
        assert "None. They come at" in browser.get("/settings").text


def test_who_has_no_api_is_told_why(studio: RunningBox) -> None:
    with signed_in(studio, "flo") as browser:
        page = browser.get("/settings").text
        assert "Your plan is free" in page
        assert "Rotate Key" not in page
        assert 'id="overage"' not in page
        assert browser.submit("/settings/keys", "/settings", scopes=["read"]).status_code == 403
        browser.submit("/settings/keys/rotate", "/settings", overlap="0")
        assert "has no API" in browser.get("/settings").text
        command(studio.folder, "accounts", "topup", "flo", "3")
        assert "Rotate Key" in browser.get("/settings").text


def test_the_password_is_changed_by_who_knows_it_and_other_sessions_end(studio: RunningBox) -> None:
    with signed_in(studio, "gina") as browser, signed_in(studio, "gina") as other:

        def change(present: str, password: str, again: str) -> httpx.Response:
            fields = {"present": present, "password": password, "again": again}
            return browser.submit("/settings/password", "/settings", **fields)

        for wrong in (
            ("not this", NEW_PASSWORD, NEW_PASSWORD),
            (PASSWORD, NEW_PASSWORD, "another one altogether"),
            (PASSWORD, "short", "short"),
            (PASSWORD, "password1234", "password1234"),
            ("", "", ""),
        ):
            refused = change(*wrong)
            assert refused.status_code == 422
            assert all(word not in refused.text for word in wrong if word)
        assert other.get("/settings").status_code == 200
        assert change(PASSWORD, NEW_PASSWORD, NEW_PASSWORD).status_code == 303
        assert "Your other session has ended" in browser.get("/settings").text
        assert other.get("/settings").status_code == 303
        with Browser(studio) as later:
            assert later.post("/sign-in", data={"name": "gina", "password": PASSWORD}).status_code == 422
            later.sign_in("gina", NEW_PASSWORD)


def test_guesses_at_the_present_password_are_bounded(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("guesses") / "data"
    RunningBox(folder)
    add_people(folder, "ada")
    with running(folder) as box, signed_in(box, "ada") as browser:
        answers = [
            browser.submit("/settings/password", present=f"guess {n}", password=NEW_PASSWORD, again=NEW_PASSWORD)
            for n in range(14)
        ]
        assert {answer.status_code for answer in answers[:8]} == {422}
        assert answers[-1].status_code == 429
        assert int(answers[-1].headers["retry-after"]) > 0
        # Not even the right one is heard out meanwhile.
        late = browser.submit("/settings/password", present=PASSWORD, password=NEW_PASSWORD, again=NEW_PASSWORD)
        assert late.status_code == 429


def test_sessions_are_listed_and_ended(studio: RunningBox) -> None:
    with signed_in(studio, "cleo") as browser, Browser(studio) as other, Browser(studio) as third:
        other.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
        third.headers["User-Agent"] = SCRIPT
        other.sign_in("cleo")
        third.sign_in("cleo")
        page = browser.get("/settings").text
        assert "Firefox on Linux" in page
        assert "127.0.0.1" in page
        assert SCRIPT not in page
        assert page.count("this one") == 1
        (theirs,) = re.findall(r'value="(ses_\w+)">\s*<button[^>]*Firefox', page)
        browser.submit("/settings/sessions/end", "/settings", session_id=theirs)
        assert other.get("/settings").status_code == 303
        assert third.get("/settings").status_code == 200
        browser.submit("/settings/sessions/end-others", "/settings")
        assert third.get("/settings").status_code == 303
        assert browser.get("/settings").status_code == 200


def test_ones_own_session_ends_by_signing_out_only(studio: RunningBox) -> None:
    with signed_in(studio, "cleo") as browser:
        own = browser.get("/v1/me/ledger", params={"action": "session.begun"}).json()["data"][0]["subject"]
        browser.submit("/settings/sessions/end", "/settings", session_id=own)
        assert "sign out to end it" in browser.get("/settings").text


def test_nothing_of_another_account_is_seen_or_changed(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as ada, signed_in(studio, "ben") as ben:
        key = issued(ada, name="ada's own secret project")
        key_id = key_ids(ada.get("/settings").text)[0]
        (session_id,) = re.findall(r"ses_\w+", entries(ada, "session.begun")[0]["subject"])
        page = ben.get("/settings").text
        for theirs in ("ada&#39;s own secret project", "ada's own", key_id, session_id, key[-4:]):
            assert theirs not in page
        for path in ("rotate", "revoke", "cap"):
            ben.submit(f"/settings/keys/{path}", "/settings", key_id=key_id, overlap="0", cap_usd="1")
            assert "There is no such key." in ben.get("/settings").text
        ben.submit("/settings/sessions/end", "/settings", session_id=session_id)
        assert whoami(studio, key).status_code == 200
        assert ada.get("/settings").status_code == 200
        ben.submit("/settings/keys/revoke", "/settings", key_id=new("key"))
        assert "There is no such key." in ben.get("/settings").text


def test_names_are_shown_as_text(studio: RunningBox) -> None:
    with signed_in(studio, SCRIPT) as browser:
        issued(browser, name=SCRIPT)
        page = browser.get("/settings").text
        assert SCRIPT not in page
        assert page.count("&lt;img src=x onerror=&#34;alert(1)&#34;&gt;") >= 3
        refused = browser.submit("/settings/overage/cap", "/settings", cap_usd=SCRIPT)
        assert refused.status_code == 422
        assert SCRIPT not in refused.text


@pytest.mark.parametrize("path", FORMS)
def test_each_form_wants_a_session_and_its_token(studio: RunningBox, path: str) -> None:
    with Browser(studio) as stranger:
        assert stranger.post(path, data={"csrf": "x"}).status_code == 401
    with signed_in(studio, "ada") as browser:
        before = browser.get("/v1/me/overage").json()
        keys_before = key_ids(browser.get("/settings").text)
        for fields in ({}, {"csrf": "guessed"}, {"csrf": ""}):
            sent = {"enabled": "off", "cap_usd": "9", "overlap": "0", "scopes": "read", **fields}
            answer = browser.post(path, data=sent)
            assert answer.status_code == 403
        elsewhere = browser.post(path, data={"csrf": browser.csrf}, headers={"Origin": "http://evil.test"})
        assert elsewhere.status_code == 403
        assert browser.get("/v1/me/overage").json() == before
        assert key_ids(browser.get("/settings").text) == keys_before


def test_all_of_it_is_on_record_in_an_audit_that_verifies(studio: RunningBox) -> None:
    assert command(studio.folder, "ledger", "verify")["verifies"]


def test_signed_out_the_page_leads_to_the_sign_in(studio: RunningBox) -> None:
    with Browser(studio) as browser:
        answer = browser.get("/settings")
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/settings")


def test_what_is_spent_and_the_alerts_it_raised_are_shown(tmp_path: Path) -> None:
    RunningBox(tmp_path / "data")
    add_people(tmp_path / "data", "ada")
    with running(tmp_path / "data", included_videos=0) as box, signed_in(box, "ada") as browser:
        command(box.folder, "accounts", "topup", "ada", "40")
        browser.submit("/settings/overage", "/settings", enabled="on")
        for _ in range(8):
            answer = browser.post("/v1/generate", json=SLOW, headers={"X-CSRF-Token": browser.csrf})
            assert answer.status_code == 202
        page = browser.get("/settings").text
        assert "50 %</span> of the cap of $5.00" in page
        assert "80 %</span> of the cap of $5.00" in page
        assert "100 %</span>" not in page
        assert 'max="5.00" value="4.00"' in page
        assert "$36.00" in page
