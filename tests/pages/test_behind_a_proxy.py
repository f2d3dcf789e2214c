"""Who is believed where a request comes from: the owner's own proxies, and nobody else."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.api.asking import problem
from tests.people import PASSWORD, Browser, add_people
from tests.running import RunningBox
from zsky_box.guesses import FREE_PER_ADDRESS

PROXY, STRANGER = "127.0.0.1", "127.0.0.2"
CLIENT = "203.0.113.9"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """A box that trusts the proxy on this machine and those of a network."""
    yield from _running(tmp_path_factory, trusted_proxies=f"{PROXY}, 10.9.0.0/24")


@pytest.fixture(scope="module")
def trusting_nobody(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """A box as it is by default, whatever the environment tells the server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORWARDED_ALLOW_IPS", "*")
        yield from _running(tmp_path_factory)


def _running(tmp_path_factory: pytest.TempPathFactory, **options: str) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("proxied") / "data"
    chosen: dict[str, Any] = {"devices": "cpu", **options}
    box = RunningBox(folder, **chosen)
    add_people(folder)
    box.start(ready=False)
    yield box
    box.kill()


def through(box: RunningBox, peer: str = PROXY, **headers: str) -> Browser:
    """A browser whose requests this peer hands on with these headers."""
    browser = Browser(box, transport=httpx.HTTPTransport(local_address=peer))
    browser.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return browser


def signs_in(browser: Browser, password: str = PASSWORD, name: str = "owner", **headers: str) -> httpx.Response:
    return browser.post("/sign-in", data={"name": name, "password": password}, headers=headers)


def newest_address(box: RunningBox) -> str:
    """From where the newest session was begun, as its person is shown."""
    with closing(sqlite3.connect(box.folder / "ledger.db")) as ledger:
        return str(ledger.execute("SELECT address FROM session ORDER BY rowid DESC LIMIT 1").fetchone()[0])


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (CLIENT, CLIENT),
        (f"{CLIENT}:4711", CLIENT),
        (f"198.51.100.1, {CLIENT}", CLIENT),
        (f"127.0.0.1, {CLIENT}", CLIENT),
        (f"{CLIENT}, 10.9.0.4", CLIENT),
        (f"198.51.100.1,{CLIENT} , 10.9.0.4,::ffff:10.9.0.5", CLIENT),
        (f"10.9.0.4, {CLIENT}, 10.9.0.4", CLIENT),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("198.51.100.1, 2001:db8::7, 10.9.0.4", "2001:db8::7"),
        ("10.8.0.4", "10.8.0.4"),
        ("", PROXY),
    ],
)
def test_the_client_is_the_last_address_that_is_no_proxys(studio: RunningBox, forwarded: str, client: str) -> None:
    with through(studio, X_Forwarded_For=forwarded) as browser:
        assert signs_in(browser).status_code == 303
        assert newest_address(studio) == client


def test_headers_that_come_more_than_once_are_one_list(studio: RunningBox) -> None:
    with through(studio) as browser:
        lines = [("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", f"{CLIENT}, 10.9.0.4")]
        headers = httpx.Headers([*browser.headers.multi_items(), *lines])
        assert browser.post("/sign-in", data={"name": "owner", "password": PASSWORD}, headers=headers).is_redirect
        assert newest_address(studio) == CLIENT


def test_another_peer_is_not_believed(studio: RunningBox) -> None:
    with through(studio, STRANGER, X_Forwarded_For=CLIENT, X_Forwarded_Proto="https") as browser:
        secure = studio.url.replace("http:", "https:")
        assert signs_in(browser, Origin=secure).status_code == 403
        answer = signs_in(browser)
        assert answer.status_code == 303
        assert newest_address(studio) == STRANGER
        assert answer.headers["set-cookie"].startswith("zsky=")


def test_by_default_nobody_is_believed(trusting_nobody: RunningBox) -> None:
    with through(trusting_nobody, X_Forwarded_For=CLIENT, X_Forwarded_Proto="https") as browser:
        assert signs_in(browser, Origin=trusting_nobody.url.replace("http:", "https:")).status_code == 403
        assert signs_in(browser).status_code == 303
        assert newest_address(trusting_nobody) == PROXY


def test_https_that_ends_at_the_proxy_is_https(studio: RunningBox) -> None:
    """The cookie is Secure, addresses begin with https, and a page of plain HTTP is another origin."""
    with through(studio, X_Forwarded_For=CLIENT, X_Forwarded_Proto="https") as browser:
        secure = studio.url.replace("http:", "https:")
        assert signs_in(browser, Origin=studio.url).status_code == 403
        browser.headers["Origin"] = secure
        answer = signs_in(browser)
        assert answer.status_code == 303
        assert answer.headers["set-cookie"].startswith("__Host-zsky=")
        assert "secure" in answer.headers["set-cookie"].lower()
        assert f"{secure}/v1" in browser.get("/docs").text
        assert browser.submit("/sign-out").headers["location"] == "/sign-in"
    with through(studio, X_Forwarded_For=CLIENT, X_Forwarded_Proto="http") as browser:
        assert signs_in(browser).headers["set-cookie"].startswith("zsky=")


@pytest.mark.parametrize("forwarded", ["127.0.0.1", "::1", "10.9.0.4", ""])
def test_whoever_comes_through_a_proxy_is_not_on_this_machine(studio: RunningBox, forwarded: str) -> None:
    """The proxy's own loopback is not the box's, and what is open to this machine is not open to its clients."""
    with through(studio, X_Forwarded_For=forwarded) as browser:
        problem(browser.get("/metrics"), 401, "missing_key")
        assert signs_in(browser).headers["set-cookie"].startswith("zsky=")


def test_people_behind_a_proxy_do_not_wait_for_each_others_guesses(studio: RunningBox) -> None:
    with through(studio, X_Forwarded_For="198.51.100.7") as guesser:
        # Each at another name, so that it is the address that has to wait.
        answers = [signs_in(guesser, "no such password", f"nobody-{turn}") for turn in range(FREE_PER_ADDRESS + 1)]
        assert {answer.status_code for answer in answers[:-1]} == {422}
        assert answers[-1].status_code == 429
        forged = {"X-Forwarded-For": "192.0.2.1, 198.51.100.7"}
        assert signs_in(guesser, "no such password", "nobody-x", **forged).status_code == 429
    with through(studio, X_Forwarded_For="198.51.100.8") as other:
        assert signs_in(other).status_code == 303


def test_a_proxy_is_known_on_a_socket_for_ipv6(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Such a socket shows an IPv4 peer as `::ffff:…`."""
    for box in _running(tmp_path_factory, host=f"::ffff:{PROXY}", trusted_proxies=PROXY):
        with through(box, X_Forwarded_For=CLIENT) as browser:
            assert signs_in(browser).status_code == 303
            assert newest_address(box) == CLIENT
