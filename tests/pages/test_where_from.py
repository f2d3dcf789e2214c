"""Where a request comes from, in all combinations: Host, Origin, Sec-Fetch-Site, method, type of body and token."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Generator
from typing import Final

import httpx
import pytest
from msgspec import Struct

from tests.api.asking import PROBLEM
from tests.people import Browser, add_people, signed_in
from tests.running import RunningBox

FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"
TYPES: Final = ("", FORM, JSON, "text/plain", "multipart/form-data; boundary=x", "application/json; charset=utf-8")
SITES: Final = (None, "none", "same-origin", "same-site", "cross-site")
READ: Final = ("/settings", "/v1/me")
CHANGE: Final = ("/settings/overage", "/v1/me/overage/toggle")


class Ask(Struct, frozen=True):
    """One request: what its headers say of where it comes from. `is_ours` is what its host should be taken for."""

    host: str
    is_ours: bool
    origin: str | None
    site: str | None
    method: str
    path: str
    type: str = ""
    has_token: bool = False

    @property
    def is_let_in(self) -> bool:
        """What has to come of it, Host and Origin always, Sec-Fetch-Site where it is sent."""
        is_same = self.origin == f"http://{self.host}"
        if self.method == "GET":
            return self.is_ours and (self.origin is None or is_same) and self.site in (None, "none", "same-origin")
        return self.is_ours and is_same and self.site in (None, "none", "same-origin") and self.has_token


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("where-from") / "data"
    box = RunningBox(folder, devices="cpu", requests_burst=1_000_000, allowed_hosts="render.lan")
    add_people(folder)
    box.start(ready=False)
    yield box
    box.stop()


@pytest.fixture(scope="module")
def plain() -> Generator[httpx.Client]:
    """A client that adds nothing to what it is told to send."""
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def browser(studio: RunningBox) -> Generator[Browser]:
    with signed_in(studio) as browser:
        yield browser


def hosts(box: RunningBox) -> list[tuple[str, bool]]:
    """Names and addresses with what they are."""
    ours = [f"127.0.0.1:{box.port}", "localhost", f"{socket.gethostname()}:{box.port}", "RENDER.lan"]
    others = [
        "evil.test",
        f"evil.test:{box.port}",
        "127.0.0.1.evil.test",
        "render.lan.evil.test",
        "8.8.8.8",
        "2130706433",
    ]
    return [(host, True) for host in ours] + [(host, False) for host in others]


def origins(host: str) -> list[str | None]:
    """What a page may say it is from: this host in plain HTTP, and everything that must not pass for it."""
    return [
        None,
        f"http://{host}",
        f"https://{host}",
        "http://evil.test",
        "null",
        "",
        "http://127.0.0.1:1",
        f"http://{host}.evil.test",
        f"http://evil.test/http://{host}",
        host,
        f"http://{host}, http://evil.test",
    ]


def asked(
    plain: httpx.Client, browser: Browser, ask: Ask, token: str = "", content: bytes | None = None
) -> httpx.Response:
    """Both cookies are sent: which is looked at depends on the host."""
    secret = next(cookie.value for cookie in browser.cookies.jar)
    headers = {"Host": ask.host, "Cookie": f"zsky={secret}; __Host-zsky={secret}", "Accept": "text/html"}
    named = (("Origin", ask.origin), ("Sec-Fetch-Site", ask.site), ("Content-Type", ask.type or None))
    headers |= {name: value for name, value in named if value is not None}
    if ask.has_token:
        headers["X-CSRF-Token"] = token
    sent = None if ask.method == "GET" else content or _body(ask)
    return plain.request(ask.method, f"{browser.base_url}".rstrip("/") + ask.path, headers=headers, content=sent)


def _body(ask: Ask) -> bytes:
    """What would change something where it is let in."""
    return b'{"enabled": true}' if ask.path.startswith("/v1/") or ask.type.startswith(JSON) else b"enabled=on"


def is_enabled(studio: RunningBox) -> bool:
    with studio.client() as client:
        return bool(client.get("/v1/me/overage").json()["enabled"])


def is_refused(answer: httpx.Response, ask: Ask) -> None:
    assert answer.status_code == (403 if ask.is_ours else 421), ask
    assert "set-cookie" not in answer.headers
    if ask.path.startswith("/v1/"):
        assert answer.headers["content-type"] == PROBLEM
        assert answer.json()["code"] == ("cross_site" if ask.is_ours else "wrong_host")


def test_what_looks_may_not_be_read_from_elsewhere(studio: RunningBox, browser: Browser, plain: httpx.Client) -> None:
    counted = 0
    for (host, is_ours), site, path in itertools.product(hosts(studio), SITES, READ):
        for origin in origins(host):
            ask = Ask(host, is_ours, origin, site, "GET", path)
            answer = asked(plain, browser, ask)
            if ask.is_let_in:
                assert answer.status_code == 200, ask
                counted += 1
            else:
                is_refused(answer, ask)
    assert counted == 4 * 2 * 3 * len(READ)


def test_what_changes_something_comes_from_a_page_of_this_box_with_its_token(
    studio: RunningBox, browser: Browser, plain: httpx.Client
) -> None:
    """No combination but the right one gets through, and nothing is changed by any other."""
    token, counted = browser.csrf, 0
    assert not is_enabled(studio)
    for (host, is_ours), site, path in itertools.product(hosts(studio), SITES, CHANGE):
        for number, (origin, has_token) in enumerate(itertools.product(origins(host), (True, False))):
            kind = TYPES[number % len(TYPES)]
            ask = Ask(host, is_ours, origin, site, "POST", path, kind, has_token)
            if not ask.is_let_in:
                is_refused(asked(plain, browser, ask, token), ask)
    assert not is_enabled(studio)
    for (host, is_ours), site, path, kind in itertools.product(hosts(studio), SITES, CHANGE, TYPES):
        ask = Ask(host, is_ours, f"http://{host}", site, "POST", path, kind, has_token=True)
        if ask.is_let_in:
            assert asked(plain, browser, ask, token).status_code in (200, 303, 415, 422), ask
            counted += 1
    assert counted == 4 * 3 * len(CHANGE) * len(TYPES)
    assert is_enabled(studio)


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind not in ("", FORM)])
def test_a_body_that_a_form_elsewhere_can_send_carries_no_token(
    studio: RunningBox, browser: Browser, plain: httpx.Client, kind: str
) -> None:
    """A form may send `text/plain` or `multipart/form-data` to any host; none of them is read as this box's form."""
    token = browser.csrf
    parts = f'--x\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n{token}\r\n--x--\r\n'
    for content in (f"csrf={token}&enabled=on", parts, f'{{"csrf": "{token}", "enabled": "on"}}'):
        host = f"127.0.0.1:{studio.port}"
        for path in CHANGE:
            ask = Ask(host, is_ours=True, origin=f"http://{host}", site=None, method="POST", path=path, type=kind)
            assert asked(plain, browser, ask, content=content.encode()).status_code == 403, (ask, content)


def test_a_link_elsewhere_may_lead_to_a_page(browser: Browser) -> None:
    for site in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
        assert browser.get("/settings", headers=headers).status_code == 200


def test_what_the_api_tells_a_page_is_kept_by_no_cache_and_shown_by_no_other_site(
    studio: RunningBox, browser: Browser
) -> None:
    with studio.client(None) as nobody:
        for client in (browser, nobody):
            for path in ("/v1/me", "/v1/jobs", "/v1/openapi.json", "/v1/no-such", "/v1/me/usage.csv"):
                answer = client.get(path)
                assert answer.headers.get_list("cache-control") == ["no-store"], path
                assert answer.headers.get_list("x-content-type-options") == ["nosniff"], path
                assert answer.headers.get_list("cross-origin-resource-policy") == ["same-origin"], path
                assert "access-control-allow-origin" not in answer.headers
