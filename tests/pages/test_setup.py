"""The first run in a browser: the link of `init` works once."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.api.asking import command
from tests.boxes import running
from tests.people import Browser
from tests.running import RunningBox
from zsky_box import accounts, invitations
from zsky_box.clock import system_clock
from zsky_box.db import Store

PASSWORD = "seven lamps over the canal"


def link_of_owner(folder: Path) -> str:
    """What `init` puts into the address it prints."""
    RunningBox(folder)
    store = Store(folder)
    try:
        owner = accounts.owner(store)
        assert owner is not None
        account_id = owner.id
        return store.write(lambda tx: invitations.invite(tx, account_id, now=system_clock(), actor="test", hours=None))
    finally:
        store.close()


def set_up(browser: httpx.Client, token: str, **fields: str) -> httpx.Response:
    return browser.post("/setup", data={"token": token, "password": PASSWORD, "again": PASSWORD, **fields})


def test_it_works(tmp_path: Path) -> None:
    token = link_of_owner(tmp_path / "data")
    with running(tmp_path / "data") as box, Browser(box) as browser:
        assert "Welcome" in browser.get(f"/setup?token={token}").text
        answer = set_up(browser, token, name="Studio North")
        assert (answer.status_code, answer.headers["location"]) == (303, "/settings#api")
        assert browser.get("/v1/me").json()["name"] == "Studio North"
        with Browser(box) as later:
            assert later.get(f"/setup?token={token}").status_code == 403
            assert set_up(later, token).status_code == 403
            later.sign_in("Studio North", PASSWORD)
    assert command(tmp_path / "data", "ledger", "verify")["verifies"]


def test_a_password_that_will_not_do_leaves_the_link_as_it_was(tmp_path: Path) -> None:
    token = link_of_owner(tmp_path / "data")
    with running(tmp_path / "data") as box, Browser(box) as browser:
        for fields in ({"password": "short", "again": "short"}, {"again": "something else"}, {"name": "acc_x"}):
            refused = set_up(browser, token, **fields)
            assert refused.status_code == 422
            assert 'role="alert"' in refused.text
        assert set_up(browser, token).status_code == 303


def test_what_is_no_link_tells_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "data") as box, Browser(box) as browser:
        for token in ("", "x", "0" * 500, "<script>alert(1)</script>"):
            page = browser.get("/setup", params={"token": token})
            assert page.status_code == 403
            assert "<script>alert" not in page.text
            assert set_up(browser, token).status_code == 403
