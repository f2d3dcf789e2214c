"""`/admin/people`: who is on the box, what they may spend, and their way in; for the owner alone."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest

from tests.api.asking import command
from tests.boxes import running
from tests.pages.test_admin_cards import audited
from tests.people import PASSWORD, Browser, add_people, signed_in
from tests.running import RunningBox


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("people") / "data"
    RunningBox(folder)
    add_people(folder, "ada", "ben", "cid")
    with running(folder) as box:
        yield box
    assert command(folder, "ledger", "verify")["verifies"]


def id_of(owner: httpx.Client, name: str) -> str:
    found = re.search(rf'href="/admin/people/(acc_\w+)">{name}<', owner.get("/admin/people").text)
    assert found is not None
    return found[1]


def secret_of(page: str) -> str:
    found = re.search(r'<code id="secret-1">([^<]+)</code>', page)
    assert found is not None
    return found[1]


def change(owner: Browser, path: str, **fields: str) -> str:
    """Send the form of the page, and confirm it; what the page says then."""
    asked = owner.submit(path, **fields)
    assert asked.status_code == 200, asked.text
    assert "is this right?" in asked.text
    answer = owner.submit(path, sure="yes", once=once_of(asked.text), **fields)
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    return owner.get(path).text


def once_of(page: str) -> str:
    found = re.search(r'name="once" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def test_a_form_about_money_is_carried_out_once_however_often_it_is_sent(studio: RunningBox) -> None:
    with signed_in(studio) as owner, signed_in(studio, "cid") as cid, ThreadPoolExecutor(8) as threads:
        path = f"/admin/people/{id_of(owner, 'cid')}"
        fields = {"do": "topup", "amount_usd": "12.50", "csrf": owner.csrf, "sure": "yes"}
        fields["once"] = once_of(owner.submit(path, do="topup", amount_usd="12.50").text)
        sent = [threads.submit(owner.post, path, data=fields) for _ in range(8)]
        answers = [each.result() for each in sent]
        assert {answer.headers["location"] for answer in answers} == {path}
        assert cid.get("/v1/me/overage").json()["wallet_usd"] == "12.50"
        for other in ({**fields, "amount_usd": "99"}, {**fields, "once": ""}, {**fields, "once": "é"}):
            assert owner.post(path, data=other).status_code in (409, 422)
        assert cid.get("/v1/me/overage").json()["wallet_usd"] == "12.50"
        change(owner, path, do="topup", amount_usd="12.50")
        assert cid.get("/v1/me/overage").json()["wallet_usd"] == "25.00"


def test_it_works(studio: RunningBox) -> None:
    with signed_in(studio) as owner:
        page = owner.get("/admin/people").text
        for part in (">owner</a>", ">ada</a>", ">ben</a>", "0 of 300", "0 of 1,000", "never"):
            assert part in page
        assert ">ben</a>" not in owner.get("/admin/people?q=AD").text
        assert "Nobody of that name" in owner.get("/admin/people?q=zoe").text
        ada = owner.get(f"/admin/people/{id_of(owner, 'ada')}").text
        for link in re.findall(r'<a href="(/admin/(?:audit|queue)\?[^"]+)"', ada):
            assert owner.get(link).status_code == 200
        assert ada.count('href="/admin/audit?account=acc_') == 1
        assert "Cap a month, $5 to $1,000<" in ada
        assert owner.get("/admin/people/acc_no").status_code == 404


def test_it_is_there_for_the_owner_alone(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as ada, signed_in(studio) as owner:
        mine = id_of(owner, "ada")
        for path in ("/admin/people", f"/admin/people/{mine}"):
            assert ada.get(path).status_code == 404
            ada.submit(path, do="topup", amount_usd="1000", name="eve", sure="yes")
        assert ada.get("/v1/me/overage").json()["wallet_usd"] == "0.00"
        assert ">eve</a>" not in owner.get("/admin/people").text


def test_somebody_is_added_and_signs_in_with_the_link_that_is_shown_once(studio: RunningBox) -> None:
    with signed_in(studio) as owner, Browser(studio) as visitor:
        answer = owner.submit("/admin/people", name="Zoë", plan="free")
        path = answer.headers["location"]
        page = owner.get(path).text
        link = secret_of(page)
        assert link.startswith(f"{studio.url}/setup?token=")
        assert link not in owner.get(path).text
        token = link.partition("token=")[2]
        password = "seven lamps over the canal"
        set_up = visitor.post("/setup", data={"token": token, "name": "Zoë", "password": password, "again": password})
        assert set_up.status_code == 303
        assert visitor.get("/v1/me").json()["plan"] == "free"
        visitor.submit("/sign-out")
        visitor.sign_in("Zoe\u0308", password)  # as some keyboards write it
        again = secret_of(owner.get(owner.submit(path, do="invite").headers["location"]).text)
        assert again != link
        for _ in range(2):  # a second click, of which the browser shows the answer only
            owner.submit(path, do="invite")
        page = owner.get(path).text
        assert page.count("/setup?token=") == 1, "an older link has ended, and is not shown"
        assert visitor.get(secret_of(page).removeprefix(studio.url)).status_code == 200
        owner.submit("/admin/people", name="ada")
        assert "already" in owner.get("/admin/people").text


def test_a_session_alone_does_not_give_its_owner_another_password(studio: RunningBox) -> None:
    """A link would set one without the present one, by whichever of the account's names it is asked for."""
    with signed_in(studio) as owner:
        account = owner.get("/v1/me").json()["account"]
        for name in (account, "owner"):
            owner.submit(f"/admin/people/{name}", came_from="/admin/people", do="invite")
            assert "/setup?token=" not in owner.get("/admin/people").text
        with closing(sqlite3.connect(studio.folder / "ledger.db")) as ledger:
            links = ledger.execute("SELECT count(*) FROM invitation WHERE account_id = ?", (account,)).fetchone()
        assert links[0] == 0
        page = owner.get(f"/admin/people/{account}").text
        assert "Make a link" not in page
        assert 'href="/settings#password"' in page


def test_money_is_shown_as_it_would_come_and_moved_once_it_is_confirmed(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as ada, signed_in(studio) as owner:
        path = f"/admin/people/{id_of(owner, 'ada')}"
        asked = owner.submit(path, do="topup", amount_usd="25.50", note="cash").text
        assert "$0.00" in asked
        assert "$25.50" in asked
        assert ada.get("/v1/me/overage").json()["wallet_usd"] == "0.00", "nothing is moved by asking"
        page = change(owner, path, do="topup", amount_usd="25.50", note="cash")
        assert "The wallet is filled." in page
        change(owner, path, do="correct", amount_usd="0.5", direction="out", reason="typed wrongly")
        change(owner, path, do="overage", enabled="yes")
        change(owner, path, do="cap", cap_usd="40")
        change(owner, path, do="ceiling", ceiling_usd="30")
        change(owner, path, do="replenish", below_usd="5", add_usd="10", month_usd="20")
        now = ada.get("/v1/me/overage").json()
        assert (now["wallet_usd"], now["enabled"], now["cap_usd"]) == ("25.00", True, "30.00")
        assert "$10.00 whenever it is below $5.00" in owner.get(path).text
        change(owner, path, do="replenish-end")
        change(owner, path, do="ceiling", ceiling_usd="")
        assert ada.get("/v1/me/overage").json()["cap_usd"] == "40.00"
        me = owner.get("/v1/me").json()["account"]
        actors = {actor for actor, _ in audited(studio.folder, "overage.")}
        assert actors == {f"browser:{me}"}
        assert {actor for actor, _ in audited(studio.folder, "ledger.correct")} == {f"browser:{me}"}


@pytest.mark.parametrize(
    ("written", "told"), [("1,250.50", "$1,250.50"), ("$12,500", "$12,500.00"), (" $ 7 ", "$7.00")]
)
def test_an_amount_is_read_as_people_write_it(studio: RunningBox, written: str, told: str) -> None:
    with signed_in(studio) as owner:
        path = f"/admin/people/{id_of(owner, 'ben')}"
        assert f"<strong>{told}</strong>" in owner.submit(path, do="topup", amount_usd=written).text


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"do": "topup", "amount_usd": "1.005"}, "at most two decimals"),
        ({"do": "topup", "amount_usd": "-3"}, "at most two decimals"),
        ({"do": "topup", "amount_usd": "0"}, "top-up is $0.01"),
        ({"do": "topup", "amount_usd": "1e3"}, "at most two decimals"),
        ({"do": "topup", "amount_usd": "12,50"}, "after a point"),
        ({"do": "topup", "amount_usd": "0,5"}, "after a point"),
        ({"do": "topup", "amount_usd": "1,2345"}, "after a point"),
        ({"do": "correct", "amount_usd": "900", "direction": "out", "reason": "x"}, "to take from"),
        ({"do": "correct", "amount_usd": "1", "direction": "in", "reason": " "}, "says why"),
        ({"do": "cap", "cap_usd": "1000.01"}, "the cap is $5.00 to $1000.00"),
        ({"do": "ceiling", "ceiling_usd": "2000000"}, "out of bounds"),
        ({"do": "replenish", "below_usd": "5", "add_usd": "10", "month_usd": "5"}, "would never add"),
        ({"do": "plan", "plan": "gold"}, "A plan is max"),
        ({"do": "nothing"}, "nothing that can be done"),
    ],
)
def test_what_cannot_be_is_told_before_it_is_confirmed(studio: RunningBox, fields: dict[str, str], told: str) -> None:
    with signed_in(studio) as owner:
        path = f"/admin/people/{id_of(owner, 'ben')}"
        answer = owner.submit(path, **fields)
        assert (answer.status_code, answer.headers["location"]) == (303, path)
        assert told in owner.get(path).text


def test_a_plan_is_changed_and_its_fee_told_first(studio: RunningBox) -> None:
    with signed_in(studio) as owner:
        path = f"/admin/people/{id_of(owner, 'ben')}"
        asked = owner.submit(path, do="plan", plan="max-annual").text
        assert "Entered on this month" in asked
        assert "Plan max, a year: $948.00" in asked
        assert "annual" in change(owner, path, do="plan", plan="max-annual")
        asked = owner.submit(path, do="plan", plan="free").text
        assert re.search(r"goes on until [A-Z][a-z]+ 20\d\d begins", asked)
        change(owner, path, do="plan", plan="free")
        assert re.search(r"; ends when [A-Z][a-z]+ 20\d\d begins<", owner.get(path).text)


def test_the_box_has_a_ceiling_over_all(studio: RunningBox) -> None:
    with signed_in(studio) as owner:
        asked = owner.submit("/admin/people", do="box-ceiling", ceiling_usd="500").text
        assert "at most $500.00 a month over all accounts together" in asked
        assert "None: each account" in owner.get("/admin/people").text
        owner.submit("/admin/people", do="box-ceiling", ceiling_usd="500", sure="yes")
        assert "<strong>$500.00</strong>" in owner.get("/admin/people").text
        owner.submit("/admin/people", do="box-ceiling", ceiling_usd="", sure="yes")
        assert "None: each account" in owner.get("/admin/people").text


def test_sessions_are_ended_and_keys_revoked_but_the_owners_own_session_stays(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as ada, signed_in(studio) as owner, signed_in(studio) as other:
        path = f"/admin/people/{id_of(owner, 'ada')}"
        assert ada.get("/v1/me").status_code == 200
        owner.submit(path, do="end-sessions")
        assert ada.get("/v1/me").status_code == 401
        assert "Nobody is signed in." in owner.get(path).text
        mine = f"/admin/people/{id_of(owner, 'owner')}"
        key = re.findall(r'name="key" value="(key_\w+)"', owner.get(mine).text)
        assert len(key) == 2
        owner.submit(mine, do="revoke", key=key[0])
        assert len(re.findall(r'name="key" value="(key_\w+)"', owner.get(mine).text)) == 1
        owner.submit(mine, do="revoke", key="key_no")
        assert 'role="alert"' in owner.get(mine).text
        owner.submit(mine, do="end-sessions")
        assert owner.get("/v1/me").status_code == 200
        assert other.get("/v1/me").status_code == 401


def test_names_are_shown_as_they_are_written(studio: RunningBox) -> None:
    with signed_in(studio) as owner:
        path = owner.submit("/admin/people", name="<script>x</script>").headers["location"]
        assert "<script>x" not in owner.get(path).text + owner.get("/admin/people").text


def test_whoever_has_left_comes_in_by_no_way_until_there_is_a_link(studio: RunningBox) -> None:
    with signed_in(studio, "ben") as ben, signed_in(studio, "ben") as other, signed_in(studio) as owner:
        key = secret_of(ben.get(ben.submit("/docs/test-key", "/docs").headers["location"]).text)
        path = f"/admin/people/{id_of(owner, 'ben')}"
        link = secret_of(owner.get(owner.submit(path, do="invite").headers["location"]).text)
        asked = owner.submit(path, do="close").text
        assert "the password goes, 2 sessions end, 1 key is revoked" in asked
        assert ben.get("/v1/me").status_code == 200, "nothing is closed by asking"
        told = change(owner, path, do="close")
        assert "All ways in are closed." in told
        assert "There is no password" in told
        assert "Close all ways in" not in told
        for browser in (ben, other):
            assert browser.get("/v1/me").status_code == 401
            body = {"type": "image", "prompt": "once more"}
            assert browser.post("/v1/generate", json=body).status_code in (401, 403)
        with studio.client(key) as client:
            assert client.get("/v1/me").json()["code"] == "revoked_key"
        with Browser(studio) as visitor:
            wrong = visitor.post("/sign-in", data={"name": "ben", "password": PASSWORD})
            assert wrong.status_code == 422
            assert visitor.get(link.removeprefix(studio.url)).status_code == 403
        again = secret_of(owner.get(owner.submit(path, do="invite").headers["location"]).text)
        token, password = again.partition("token=")[2], "nine lamps over the canal"
        with Browser(studio) as visitor:
            fields = {"token": token, "name": "ben", "password": password, "again": password}
            assert visitor.post("/setup", data=fields).status_code == 303
            assert visitor.get("/v1/me").status_code == 200
        me = owner.get("/v1/me").json()["account"]
        assert [actor for actor, _ in audited(studio.folder, "password.removed")] == [f"browser:{me}"]


def test_the_owner_does_not_lock_the_box(studio: RunningBox) -> None:
    with signed_in(studio) as owner:
        path = f"/admin/people/{id_of(owner, 'owner')}"
        assert "Close all ways in" not in owner.get(path).text
        answer = owner.submit(path, do="close", sure="yes", once="x")
        assert answer.headers["location"] == path
        assert "nobody else could open them again" in owner.get(path).text
        with signed_in(studio) as again:
            assert again.get("/v1/me").status_code == 200
