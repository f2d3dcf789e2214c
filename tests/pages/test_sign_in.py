"""Signing in and out: sessions, the proof of where a request comes from, and what a stranger learns."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.asking import IMAGE, problem
from tests.boxes import running
from tests.people import PASSWORD, Browser, add_people, signed_in
from tests.running import RunningBox, make_owner
from zsky_box import passwords
from zsky_box.app import Box, create_app
from zsky_box.settings import Settings


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("sign-in") / "data"
    box = RunningBox(folder, devices="cpu")
    add_people(folder, "ada", "ben")
    box.start()
    yield box
    box.stop()


def session_cookie(browser: httpx.Client) -> str:
    return next(cookie.value or "" for cookie in browser.cookies.jar)


def test_it_works(studio: RunningBox) -> None:
    with Browser(studio) as browser:
        answer = browser.sign_in("ada")
        assert answer.headers["location"].startswith("/")
        set_cookie = answer.headers["set-cookie"]
        assert set_cookie.startswith("__Host-zsky=")
        for part in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
            assert part.lower() in set_cookie.lower()
        assert browser.get("/v1/me").json()["name"] == "ada"
        assert browser.get("/sign-in").status_code == 303


def test_a_wrong_password_and_an_unknown_name_are_told_alike(studio: RunningBox) -> None:
    texts: list[str] = []
    with Browser(studio) as browser:
        account_id = studio.keys["account"]  # no second name, whose guesses would be counted apart
        for name, password in (("ada", "not this one at all"), ("nobody", PASSWORD), (account_id, PASSWORD)):
            answer = browser.post("/sign-in", data={"name": name, "password": password})
            assert answer.status_code == 422
            texts.append(answer.text.replace(f'value="{name}"', ""))
            assert password not in answer.text
            assert not browser.cookies.jar._cookies  # type: ignore[attr-defined]
    assert len(set(texts)) == 1


def test_signing_in_takes_a_new_session_and_ends_the_one_before(studio: RunningBox) -> None:
    with Browser(studio) as browser:
        browser.sign_in("ada")
        first = session_cookie(browser)
        browser.sign_in("ben")
        assert session_cookie(browser) != first
        assert browser.get("/v1/me").json()["name"] == "ben"
        old = httpx.get(f"{studio.url}/v1/me", headers={"Cookie": f"__Host-zsky={first}"}, trust_env=False)
        problem(old, 401, "session_ended")


def test_signing_out_ends_the_session_itself(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as browser:
        secret = session_cookie(browser)
        assert browser.submit("/sign-out").headers["location"] == "/sign-in"
        old = httpx.get(f"{studio.url}/v1/me", headers={"Cookie": f"__Host-zsky={secret}"}, trust_env=False)
        problem(old, 401, "session_ended")


def test_after_sign_in_only_a_page_of_this_box_is_gone_to(studio: RunningBox) -> None:
    for onward, expected in (
        ("/settings?a=b", "/settings?a=b"),
        ("https://evil.test/", None),
        ("//evil.test/", None),
        ("/\\evil.test", None),
        ("javascript:alert(1)", None),
        ("/a\nb", None),
        ("//[", None),
        ("http://[::", None),
        ("/" + "a" * 10_000, None),
    ):
        with Browser(studio) as browser:
            answer = browser.post("/sign-in", data={"name": "ada", "password": PASSWORD, "next": onward})
            location = answer.headers["location"]
            assert location == expected if expected else location in ("/create", "/settings")


ORIGINS = [
    ({}, True),
    ({"Origin": "http://evil.test"}, False),
    ({"Origin": "null"}, False),
    ({"Origin": ""}, False),
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"X-CSRF-Token": "guessed"}, False),
    ({"X-CSRF-Token": ""}, False),
    ({"Host": "evil.test"}, False),
    ({"Host": "evil.test", "Origin": "http://evil.test"}, False),
]


@pytest.mark.parametrize(("headers", "works"), ORIGINS)
def test_what_changes_something_must_come_from_a_page_of_this_box(
    studio: RunningBox, headers: dict[str, str], works: bool
) -> None:
    with signed_in(studio, "ada") as browser:
        token = {"X-CSRF-Token": browser.csrf}
        api = browser.post("/v1/generate", json=IMAGE, headers={**token, **headers})
        form = browser.post("/sign-out", data={}, headers={**token, **headers})
        assert (api.status_code, form.status_code) == (202, 303) if works else True
        if not works:
            elsewhere = "Host" in headers  # the cookie of loopback means nothing under another name
            problem(api, *((401, "missing_key") if elsewhere else (403, "cross_site")))
            assert form.status_code == (421 if elsewhere else 403)
            assert browser.get("/v1/me").status_code == 200


def test_a_page_elsewhere_cannot_read_with_the_cookie(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as browser:
        elsewhere = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        problem(browser.get("/v1/me", headers=elsewhere), 403, "cross_site")
        plain = {"Host": "evil.test", "Cookie": f"zsky={session_cookie(browser)}"}
        problem(httpx.get(f"{studio.url}/v1/me", headers=plain, trust_env=False), 421, "wrong_host")


def test_a_key_needs_none_of_that(studio: RunningBox) -> None:
    with studio.client() as client:
        for headers in ({"Host": "api.studio.example"}, {"Origin": "http://app.example"}):
            assert client.get("/v1/me", headers=headers).status_code == 200


def test_guesses_are_bounded(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("guesses") / "data"
    box = RunningBox(folder, devices="cpu")
    add_people(folder)
    box.start()
    try:
        with Browser(box) as browser:
            answers = [
                browser.post("/sign-in", data={"name": "owner", "password": f"a wrong guess {number}"})
                for number in range(40)
            ]
            late = [answer for answer in answers if answer.status_code == 429]
            assert len(late) > 20
            assert int(late[0].headers["retry-after"]) > 0
            assert "text/html" in late[0].headers["content-type"]
    finally:
        box.kill()


def test_pages_want_somebody_signed_in_and_come_with_their_headers(studio: RunningBox) -> None:
    with Browser(studio) as browser:
        answer = browser.post("/sign-out")
        assert answer.status_code == 401
        assert '<a class="button primary" href="/sign-in">Sign in</a>' in answer.text
        page = browser.get("/sign-in")
        assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["cache-control"] == "no-store"
        missing = browser.get("/no/such/page")
        assert missing.status_code == 404
        assert "text/html" in missing.headers["content-type"]
        problem(browser.get("/v1/no-such"), 404, "not_found")


def test_a_cookie_is_secure_where_the_connection_is(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("proxied") / "data"
    with running(folder, public_url="https://box.studio.example", ready=False) as box:
        box.stop()
        add_people(folder)
        box.start(ready=False)
        for host, origin, is_secure in (
            ("box.studio.example", "https://box.studio.example", True),
            ("BOX.studio.example:443", "https://box.studio.example", True),
            (f"localhost:{box.port}", f"http://localhost:{box.port}", True),
            # Around the proxy, over the network's plain HTTP: a browser would drop a Secure cookie.
            (f"{socket.gethostname()}:{box.port}", f"http://{socket.gethostname()}:{box.port}", False),
        ):
            with Browser(box) as browser:
                headers = {"Host": host, "Origin": origin}
                answer = browser.post("/sign-in", data={"name": "owner", "password": PASSWORD}, headers=headers)
                assert answer.status_code == 303, answer.text
                cookie = answer.headers["set-cookie"]
                assert cookie.startswith("__Host-zsky=" if is_secure else "zsky=")
                assert ("secure" in cookie.lower()) is is_secure
                assert "httponly" in cookie.lower()


def test_a_password_that_is_changed_at_that_moment_lets_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at its hash and the new session: its change has ended all sessions, and must have ended this."""
    folder = tmp_path / "data"
    account_id = make_owner(folder)["account"]
    add_people(folder)
    box = Box(folder, Settings(devices="cpu"))
    aside = passwords.aside

    async def and_changed(work: Callable[[], bool]) -> bool:
        answer = await aside(work)
        await box.services.store.write_async(
            lambda tx: passwords.set_for(tx, account_id, "$other", now=box.services.clock(), actor="terminal")
        )
        return answer

    async def sign_in() -> httpx.Response:
        url = "http://127.0.0.1:8420"
        app: Any = create_app(box)  # the two libraries name the same protocol's types in their own way
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=url, headers={"Origin": url}) as client:
            return await client.post("/sign-in", data={"name": "owner", "password": PASSWORD})

    try:
        monkeypatch.setattr(passwords, "aside", and_changed)
        refused = asyncio.run(sign_in())
        assert refused.status_code == 422
        assert "changed at this moment" in refused.text
        assert "set-cookie" not in refused.headers
        assert box.services.store.all("SELECT * FROM session") == []
    finally:
        box.close()
