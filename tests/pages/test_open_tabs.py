"""A tab that is left open: it keeps nobody signed in, and hears nothing once its session has ended."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.api.asking import IMAGE, Told, problem, told
from tests.inside import inside
from tests.people import PASSWORD, Browser, add_people, signed_in
from tests.running import RunningBox
from tests.stores import SetClock
from tests.waiting import until
from zsky_box import sessions
from zsky_box.api import streams
from zsky_box.api.streams import PING_SECONDS
from zsky_box.app import Box
from zsky_box.clock import DAY_US, SECOND_US, system_clock

NEW_PASSWORD: Final = "nine herons on the weir"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("open-tabs") / "data"
    box = RunningBox(folder, devices="cpu")
    add_people(folder, "ada", "ben", *ENDS)
    box.start(ready=False)
    yield box
    box.stop()


@contextmanager
def listening(browser: httpx.Client) -> Generator[Iterator[Told]]:
    """The stream of an open tab, which has begun."""
    with browser.stream("GET", "/v1/events") as answer:
        messages = told(answer)
        assert next(messages).kind == "snapshot"
        yield messages


# When a session ends. Each is given the box, a person with two sessions, the one of the open tab, and the other.


def _signed_out(_: RunningBox, _name: str, tab: Browser, _other: Browser) -> None:
    assert tab.submit("/sign-out").headers["location"] == "/sign-in"


def _another_signs_in(_: RunningBox, _name: str, tab: Browser, _other: Browser) -> None:
    tab.sign_in("ben")


def _ended_from_elsewhere(_: RunningBox, _name: str, _tab: Browser, other: Browser) -> None:
    found = re.findall(r'name="session_id" value="(ses_\w+)"', other.get("/settings").text)
    assert len(found) == 1
    assert other.submit("/settings/sessions/end", "/settings", session_id=found[0]).status_code == 303


def _others_ended(_: RunningBox, _name: str, _tab: Browser, other: Browser) -> None:
    assert other.submit("/settings/sessions/end-others", "/settings").status_code == 303


def _password_changed(_: RunningBox, _name: str, _tab: Browser, other: Browser) -> None:
    fields = {"present": PASSWORD, "password": NEW_PASSWORD, "again": NEW_PASSWORD}
    assert other.submit("/settings/password", "/settings", **fields).status_code == 303
    assert "The password is changed" in other.get("/settings").text


def _password_set_at_the_terminal(box: RunningBox, name: str, _tab: Browser, _other: Browser) -> None:
    told = _at_the_terminal(box, {"command": "accounts.password", "account": name, "password": NEW_PASSWORD})
    assert told["sessions_ended"] == 2


def _password_set_by_a_link(box: RunningBox, name: str, _tab: Browser, _other: Browser) -> None:
    path = _at_the_terminal(box, {"command": "accounts.invite", "account": name})["path"]
    with Browser(box) as elsewhere:
        fields = {"token": path.partition("token=")[2], "password": NEW_PASSWORD, "again": NEW_PASSWORD}
        assert elsewhere.post("/setup", data=fields).status_code == 303


def _ended_by_the_owner(box: RunningBox, _name: str, tab: Browser, _other: Browser) -> None:
    account = tab.get("/v1/me").json()["account"]
    with signed_in(box) as owner:
        assert owner.submit(f"/admin/people/{account}", do="end-sessions").status_code == 303


def _all_ways_closed(box: RunningBox, _name: str, tab: Browser, _other: Browser) -> None:
    account = tab.get("/v1/me").json()["account"]
    with signed_in(box) as owner:
        assert owner.submit(f"/admin/people/{account}", do="close", sure="yes").status_code == 303


def _at_the_terminal(box: RunningBox, command: dict[str, str]) -> dict[str, Any]:
    token: str = json.loads((box.folder / "control.json").read_bytes())["token"]
    answer = httpx.post(f"{box.url}/control", json=command, headers={"X-ZSky-Control": token}, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()


End = Callable[[RunningBox, str, Browser, Browser], None]
ENDS: Final[dict[str, End]] = {
    end.__name__.strip("_"): end
    for end in (
        _signed_out,
        _another_signs_in,
        _ended_from_elsewhere,
        _others_ended,
        _password_changed,
        _password_set_at_the_terminal,
        _password_set_by_a_link,
        _ended_by_the_owner,
        _all_ways_closed,
    )
}


@pytest.mark.parametrize("name", ENDS)
def test_a_stream_ends_with_its_session_at_that_moment(studio: RunningBox, name: str) -> None:
    with signed_in(studio, name) as tab, signed_in(studio, name) as other, signed_in(studio, "ada") as stranger:
        cookies = {cookie.name: cookie.value or "" for cookie in tab.cookies.jar}
        with listening(tab) as messages, listening(stranger) as strangers:
            ENDS[name](studio, name, tab, other)
            began = time.monotonic()
            assert list(messages) == []
            # The stream itself looks only so often whether its session still stands.
            assert time.monotonic() - began < PING_SECONDS / 2
            # Whoever else listens still does.
            job = stranger.post("/v1/generate", json=IMAGE, headers={"X-CSRF-Token": stranger.csrf}).json()
            assert next(strangers).data["job_id"] == job["job_id"]
        old = httpx.get(f"{studio.url}/v1/events", cookies=cookies, trust_env=False)
        problem(old, 401, "session_ended")


def test_a_session_that_ends_by_itself_is_told_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PING_SECONDS", 0.02)
    monkeypatch.setattr(streams, "VERIFY_SECONDS", 0.02)
    clock = SetClock(system_clock())
    with inside(tmp_path / "data", clock) as (box, client):
        idle_days, whole_days = box.settings.session_idle_days, box.settings.session_days
        session_in_browser(box, client)
        with listening(client) as messages:
            clock.now_us += idle_days * DAY_US - SECOND_US
            assert client.get("/v1/me").status_code == 200
            clock.now_us += SECOND_US
            assert list(messages) == []
        problem(client.get("/v1/me"), 401, "session_ended")
        session_in_browser(box, client)
        with listening(client) as messages:
            for _ in range(whole_days):
                clock.now_us += DAY_US
                client.get("/settings")
            assert list(messages) == []
        problem(client.get("/v1/me"), 401, "session_ended")


def session_in_browser(box: Box, client: httpx.Client) -> None:
    """Sign the owner's client in with a cookie, instead of the key that it has."""
    account = box.services.store.one("SELECT id FROM account WHERE role = 'owner'")
    assert account is not None
    _, secret = box.services.store.write(
        lambda tx: sessions.begin(tx, account["id"], now=box.services.clock(), address="127.0.0.1", agent="tests")
    )
    client.headers.pop("X-API-Key", None)
    client.headers["Cookie"] = f"__Host-zsky={secret}"


def test_what_a_page_asks_by_itself_is_no_use_of_its_session(studio: RunningBox) -> None:
    """Nor is a stream, opened or come back to; what a person does is, and is stored where it has been a while."""
    with signed_in(studio) as browser, closing(sqlite3.connect(studio.folder / "ledger.db")) as ledger:
        token = {"X-CSRF-Token": browser.csrf}

        def used_at() -> int:
            return int(ledger.execute("SELECT max(used_at) FROM session").fetchone()[0])

        def make_idle() -> int:
            with ledger:
                ledger.execute("UPDATE session SET used_at = used_at - 3600000000")
            return used_at()

        def write() -> None:
            """Whatever was queued before is stored when this is."""
            key = studio.keys["live"]
            body = {"enabled": False}
            answer = httpx.post(
                f"{studio.url}/v1/me/overage/toggle", json=body, headers={"X-API-Key": key}, trust_env=False
            )
            assert answer.status_code == 200

        before = make_idle()
        for _ in range(2):
            with listening(browser):
                pass
        for path in ("/v1/me", "/v1/jobs?limit=5", "/v1/me/overage"):
            assert browser.get(path).status_code == 200
        for path in ("/admin/cards/now", "/admin/queue/now", "/admin/models/now", "/admin/audit/chain"):
            assert browser.get(path, headers={"HX-Request": "true"}).status_code == 200, path
        assert browser.post("/v1/quote", json=IMAGE, headers=token).status_code == 200
        assert browser.post("/v1/generate", json=IMAGE).status_code == 403, "without the token it is nobody's doing"
        write()
        assert used_at() == before
        for ask in (
            lambda: browser.get("/usage"),
            lambda: browser.post("/v1/generate", json=IMAGE, headers=token),
            lambda: browser.post("/settings/overage", data={"enabled": "off"}, headers=token),
        ):
            before = make_idle()
            assert ask().status_code < 400
            until(lambda before=before: used_at() > before, "the use is stored")
