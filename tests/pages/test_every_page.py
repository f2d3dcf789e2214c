"""What holds of all pages alike, read from the application's own routes: a page that is added is held to it as well."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.api.asking import IMAGE, problem
from tests.boxes import running
from tests.people import Browser, add_people, signed_in
from tests.routes import Way, all_ways
from tests.running import RunningBox
from tests.waiting import until
from zsky_box.api.document import CLOSED

SAFE: Final = ("GET", "HEAD")
OPEN_PAGES: Final = {"/", "/sign-in", "/setup"}


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> list[Way]:
    """Every way into the application but those that stand open for a reason."""
    return all_ways(tmp_path_factory.mktemp("routes") / "data")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("every-page") / "data"
    box = RunningBox(folder, devices="cpu", requests_burst=100_000)
    add_people(folder, "ada")
    box.start()
    yield box
    box.stop()


def pages(ways: list[Way], *audiences: str, unsafe: bool | None = None) -> list[Way]:
    """The ways to pages of these audiences."""
    return [way for way in ways if way.audience in audiences and (unsafe is None or unsafe is (way.method not in SAFE))]


def has_headers(answer: httpx.Response) -> None:
    """What each page tells a browser of itself."""
    for name in ("x-content-type-options", "content-security-policy"):
        assert name in answer.headers, answer.request.url
    assert "unsafe-inline" not in answer.headers["content-security-policy"]


def test_each_says_whom_it_is_for(ways: list[Way]) -> None:
    assert {way.audience for way in ways} == {"open", "member", "owner", "api", "nobody's"}
    assert {way.path for way in pages(ways, "open")} == OPEN_PAGES
    assert all(way.audience == "owner" for way in ways if way.path.startswith("/admin"))
    assert len(pages(ways, "member", "owner")) > 20
    seen = pages(ways, "open", "member", "owner", unsafe=False)
    assert {way.path for way in seen if way.method == "GET"} == {way.path for way in seen if way.method == "HEAD"}


def test_the_frameworks_own_pages_are_closed_to_everybody(studio: RunningBox, ways: list[Way]) -> None:
    """They would run scripts of another host."""
    closed = pages(ways, "nobody's")
    assert all(way.path.startswith(CLOSED) for way in closed)
    with signed_in(studio) as browser, studio.client() as client:
        for way in closed:
            assert browser.request(way.method, way.address).status_code == 404, way
            problem(client.request(way.method, way.address), 404, "not_found")
        problem(client.get("/schema/openapi.json"), 404, "not_found")


def test_who_is_not_signed_in_is_led_to_the_sign_in_and_changes_nothing(studio: RunningBox, ways: list[Way]) -> None:
    with Browser(studio) as browser:
        for way in pages(ways, "member", "owner"):
            answer = browser.request(way.method, way.address)
            if way.method not in SAFE or answer.headers.get("content-type") == "application/problem+json":
                assert answer.status_code == 401, way
            else:
                assert answer.status_code == 303, way
                assert answer.headers["location"].startswith("/sign-in?next=/"), way
                assert answer.headers["cache-control"] == "no-store", way


def test_another_host_or_origin_is_refused_everywhere(studio: RunningBox, ways: list[Way]) -> None:
    with signed_in(studio) as browser:
        token = {"X-CSRF-Token": browser.csrf}
        for way in pages(ways, "open", "member", "owner"):
            elsewhere = browser.request(way.method, way.address, headers={**token, "Host": "evil.test"})
            assert elsewhere.status_code == 421, way
            if way.method in SAFE:
                embedded = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}
                assert browser.request(way.method, way.address, headers=embedded).status_code == 403, way
                continue
            for headers in ({"Origin": "http://evil.test"}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"}):
                assert browser.request(way.method, way.address, headers={**token, **headers}).status_code == 403, way
        assert browser.get("/v1/me").status_code == 200


def test_what_changes_something_wants_the_sessions_token(studio: RunningBox, ways: list[Way]) -> None:
    with signed_in(studio) as browser, signed_in(studio, "ada") as other:
        foreign = other.csrf
        for way in pages(ways, "member", "owner", "api", unsafe=True):
            for headers in ({}, {"X-CSRF-Token": foreign}):
                answer = browser.request(way.method, way.address, headers=headers)
                assert answer.status_code == 403, (way, answer.text)
            form = browser.request(way.method, way.address, data={"csrf": foreign})
            assert form.status_code == 403, way
            if way.audience == "api":
                problem(form, 403, "cross_site")
        assert browser.get("/v1/me").status_code == 200


def test_there_are_no_owners_pages_for_a_member(studio: RunningBox, ways: list[Way]) -> None:
    with signed_in(studio, "ada") as browser:
        token = {"X-CSRF-Token": browser.csrf}
        for way in pages(ways, "owner"):
            answer = browser.request(way.method, way.address, headers=token)
            missing = browser.request(way.method, "/no/such/page", headers=token)
            assert answer.status_code == missing.status_code == 404, way


def test_nothing_that_is_sent_is_a_fault_of_ours(studio: RunningBox, ways: list[Way]) -> None:
    """Empty forms, forms of nonsense and bad queries, by the owner, who may do everything."""
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    with signed_in(studio) as browser:
        token = {"X-CSRF-Token": browser.csrf}
        for way in pages(ways, "open", "member", "owner"):
            if way.path == "/sign-out":
                continue
            if way.method in SAFE:
                for query in ("", "?cursor=%00&month=0&start=-1&result=%C2%B2&next=//%5B&job=x&q=%22*", "?=&&%ff"):
                    answer = browser.request(way.method, way.address + query)
                    assert answer.status_code < 500, (way, query)
                    has_headers(answer) if answer.status_code == 200 else None
                continue
            for body in (b"", b"a=%ff", b"job=x&job=y&back=//[&key_id=%00&cap_usd=nan&n=1e9", b"\x00" * 100):
                answer = browser.request(way.method, way.address, content=body, headers={**token, **kind})
                assert answer.status_code < 500, (way, body)
        huge = browser.post("/create", content=b"a=" + b"x" * 300_000, headers={**token, **kind})
        assert huge.status_code == 413
    assert "Traceback" not in studio.log()


def test_a_host_that_is_none_gets_an_answer(studio: RunningBox) -> None:
    for host in ("[::::]", "[1.2.3]:80", "127.0.0.1:99999", "127.0.0.1:abc", "a b", "evil.test/x", "[::1"):
        for path in ("/v1/me", "/sign-in", "/no-such", "/healthz"):
            answer = httpx.get(f"{studio.url}{path}", headers={"Host": host, "Accept": "text/html"}, trust_env=False)
            problem(answer, 400, "malformed_json")


def test_a_path_cannot_write_lines_into_the_log(studio: RunningBox) -> None:
    httpx.get(f"{studio.url}/x%0AINFO%20forged", trust_env=False)
    # The line is written after the answer is sent.
    until(lambda: "/x%0AINFO%20forged 404" in studio.log(), "the request is logged")
    assert "\nINFO forged" not in studio.log()


def test_pages_can_be_asked_for_their_headers_alone(studio: RunningBox, ways: list[Way]) -> None:
    with signed_in(studio) as browser:
        for way in pages(ways, "member", "owner"):
            if way.method == "HEAD" and "{" not in way.path:
                answer, whole = browser.head(way.path), browser.get(way.path)
                assert answer.status_code == whole.status_code, way
                assert answer.content == b"", way
        assert browser.options("/create").headers["allow"] == "GET, HEAD, OPTIONS, POST"
        static = re.search(r'href="(/static/[^"]+box\.css)"', browser.get("/sign-in", follow_redirects=True).text)
        assert static is not None
        assert browser.head(static[1]).headers["content-type"] == "text/css; charset=utf-8"


def test_what_is_said_waits_for_a_page_that_is_looked_at(studio: RunningBox) -> None:
    with signed_in(studio) as browser:
        browser.submit("/settings/overage", came_from="/settings", enabled="on")
        browser.head("/usage")
        browser.get("/usage", headers={"HX-Request": "true"})
        assert "Overage is on" in browser.get("/usage").text
        assert "Overage is on" not in browser.get("/usage").text


def test_whoever_is_led_here_by_another_site_is_recognised_all_the_same(studio: RunningBox) -> None:
    """A browser sends no cookie with a link of another site, nor along its redirects: a page of ours must lead on."""
    navigation = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    ways = [({"Sec-Fetch-Site": "cross-site"}, 200), ({"Referer": "http://chat.example/"}, 200)]
    ways += [({"Sec-Fetch-Site": site}, 303) for site in ("none", "same-origin")]
    ways += [({"Referer": f"{studio.url}/create"}, 303), ({}, 303)]
    with Browser(studio) as browser:
        for headers, status in ways:
            answer = browser.get("/library?q=lake", headers={**navigation, **headers})
            assert answer.status_code == status, headers
            to = "/sign-in?next=/library%3Fq%3Dlake"
            if status == 200:
                assert f'<meta http-equiv="refresh" content="0; url={to}">' in answer.text
            else:
                assert answer.headers["location"] == to


def test_a_refusal_leads_back_to_a_page_never_to_where_a_form_was_sent(studio: RunningBox) -> None:
    with signed_in(studio) as browser:
        for came_from in ("/settings/keys", "/settings/keys/rotate?a=b", "/library/delete", "/settings?a=b"):
            answer = browser.submit("/settings/keys/revoke", came_from=came_from, key_id="key_none")
            assert answer.status_code == 303
            page = browser.get(answer.headers["location"], follow_redirects=True)
            assert page.status_code == 200, came_from
            assert "There is no such key" in page.text


def test_results_are_shown_from_the_host_that_a_page_is_looked_at_by(tmp_path: Path) -> None:
    """What `public_url` names is another origin to a page that is looked at by an address: it could show nothing."""
    RunningBox(tmp_path / "data")
    add_people(tmp_path / "data")
    with running(tmp_path / "data", public_url="https://box.studio.example") as box, signed_in(box) as browser:
        accepted = browser.post("/v1/generate", json=IMAGE, headers={"X-CSRF-Token": browser.csrf})
        job = box.ended(browser, accepted.json()["job_id"])
        assert job["result_url"].startswith("https://box.studio.example/files/")
        shown = re.compile(r'(?:src|href|poster|data-media)="https?://|":"https://box\.studio\.example/files/')
        for path in ("/create", f"/create?reference={job['job_id']}", "/library", f"/library/{job['job_id']}"):
            page = browser.get(path).text
            assert "/files/" in page
            assert not shown.findall(page), path


def test_a_part_that_refreshes_itself_leads_back_to_its_page(studio: RunningBox) -> None:
    with Browser(studio) as browser:
        here = {"HX-Request": "true", "HX-Current-URL": f"{studio.url}/admin/cards?a=b"}
        answer = browser.get("/admin/cards/now", headers=here)
        assert (answer.status_code, answer.headers["hx-redirect"]) == (200, "/sign-in?next=/admin/cards%3Fa%3Db")
        for elsewhere in ("http://evil.test/x", "http://[", ""):
            answer = browser.get("/admin/cards/now", headers={**here, "HX-Current-URL": elsewhere})
            assert answer.headers["hx-redirect"] == "/sign-in?next="
