"""Another person's ids, wherever one can be named: as if they never were, and nothing happens to what they name."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Generator
from contextlib import closing
from typing import Any, Final

import httpx
import pytest

from tests.api.asking import VIDEO, made
from tests.boxes import add_models
from tests.media import pictures
from tests.people import Browser, add_people, signed_in
from tests.routes import Way, all_ways
from tests.running import RunningBox

Ids = dict[str, str]

BEGUN: Final = {**VIDEO, "model": "beginner"}
FIELDS: Final[dict[str, dict[str, str]]] = {
    "/create": {"from_job": "job_id", "image": "upload_id"},
    "/create/reference": {"job": "job_id"},
    "/library/archive": {"job": "job_id"},
    "/library/delete": {"job": "job_id"},
    "/settings/keys/cap": {"key_id": "key_id"},
    "/settings/keys/revoke": {"key_id": "key_id"},
    "/settings/keys/rotate": {"key_id": "key_id"},
    "/settings/sessions/end": {"session_id": "session_id"},
}
"""Of forms that name something, which field names what."""
BESIDE: Final = {"once": "1", "sure": "yes", "overlap": "0", "cap_usd": "5", "type": "video", "prompt": "a lake"}
QUERIES: Final[dict[str, dict[str, str]]] = {
    "/create": {"reference": "job_id", "rerun": "job_id", "vary": "job_id"},
    "/library": {"cursor": "job_cursor", "q": "job_id"},
    "/usage": {"job": "job_id", "key": "key_id", "cursor": "ledger_cursor"},
    "/v1/jobs": {"cursor": "job_cursor"},
    "/v1/me/ledger": {"job_id": "job_id", "key_id": "key_id", "cursor": "ledger_cursor"},
    "/v1/me/ledger.csv": {"job_id": "job_id", "key_id": "key_id"},
}


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> list[Way]:
    """What a member may ask."""
    every = all_ways(tmp_path_factory.mktemp("routes") / "data")
    return [way for way in every if way.audience in ("member", "api") and way.method != "HEAD"]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("others") / "data"
    box = RunningBox(folder, devices="cpu", requests_burst=100_000)
    add_people(folder, "ada")
    add_models(folder)
    box.start()
    yield box
    box.stop()


@pytest.fixture(scope="module")
def owners(studio: RunningBox) -> Ids:
    """Ids of the owner's by what they name."""
    with studio.client() as client, signed_in(studio) as browser:
        uploaded = client.post("/v1/uploads", files={"file": ("a.png", pictures.encoded(pictures.corners()))}).json()
        job = made(studio, client, {**BEGUN, "image": uploaded["id"]})
        made(studio, client, BEGUN)
        return {
            "month": client.get("/v1/me/overage").json()["period"]["start"][:7],
            "job_id": job["job_id"],
            "upload_id": uploaded["id"],
            "key_id": client.get("/v1/me").json()["key"]["id"],
            "session_id": _session_of(studio, browser),
            "job_cursor": client.get("/v1/jobs", params={"limit": 1}).json()["next_cursor"],
            "ledger_cursor": client.get("/v1/me/ledger", params={"limit": 1}).json()["next_cursor"],
        }


def _session_of(box: RunningBox, browser: Browser) -> str:
    account = browser.get("/v1/me").json()["account"]
    with closing(sqlite3.connect(box.folder / "ledger.db")) as ledger:
        return str(ledger.execute("SELECT id FROM session WHERE account_id = ?", (account,)).fetchone()[0])


def unknown(owners: Ids) -> Ids:
    """Ids of the same form that name nothing; a month is everybody's, and a cursor that nobody was given is refused."""
    return {
        name: f"{value.partition('_')[0]}_{'0' * 26}" if name.endswith("_id") else value
        for name, value in owners.items()
    }


def plainly(answer: httpx.Response, ids: Ids) -> tuple[int, str, str]:
    """An answer without what differs from one to the next, and without the ids that were asked for."""
    texts = [answer.headers.get("location", ""), answer.text]
    for number, text in enumerate(texts):
        without = re.sub("|".join(map(re.escape, ids.values())), "ID", text)
        texts[number] = re.sub(r"req_\w+|\d{4}-\d\d-\d\dT[\d:.]+Z|(?<=name=\"once\" value=\")[^\"]+", "…", without)
    return answer.status_code, texts[0], texts[1]


def said(browser: Browser) -> str:
    """What the next page tells of the request before."""
    return " ".join(re.findall(r'<div class="said .*?</div>', browser.get("/settings").text, re.DOTALL))


def ask(browser: Browser, token: str, way: Way, ids: Ids, fields: dict[str, str]) -> httpx.Response:
    """One request that names these ids, in its address or in one of its fields."""
    named = {field: ids[of] for field, of in fields.items()}
    address, headers = way.with_ids(ids), {"X-CSRF-Token": token}
    if way.path.startswith("/v1/"):
        is_asked_by_body = way.method == "POST" and bool(named)
        body: dict[str, Any] | None = {**BEGUN, **named} if is_asked_by_body else None
        return browser.request(way.method, address, headers=headers, params=None if body else named, json=body)
    if way.method == "GET":
        return browser.get(address, params=named)
    return browser.post(address, data={**BESIDE, **named}, headers=headers)


def cases(ways: list[Way]) -> list[tuple[Way, dict[str, str]]]:
    """Each way that names something, once for each field that it names it in."""
    found: list[tuple[Way, dict[str, str]]] = []
    for way in ways:
        if way.path in ("/v1/generate", "/v1/quote"):
            found.append((way, {"image": "upload_id"}))
        elif set(way.names) - {"month"}:
            found.append((way, {}))
        for field, of in (QUERIES if way.method == "GET" else FIELDS).get(way.path, {}).items():
            found.append((way, {field: of}))
    return found


def test_every_id_in_an_address_is_thought_of(studio: RunningBox, ways: list[Way], owners: Ids) -> None:
    """A route that is added names something of the owner's here; the owner is shown it."""
    assert {name for way in ways for name in way.names} <= owners.keys()
    known = {way.path for way in ways}
    assert known > {*FIELDS, *QUERIES}
    assert len(cases(ways)) > 35
    with signed_in(studio) as owner:
        for way in ways:
            if way.method == "GET" and way.names:
                assert ask(owner, "", way, owners, {}).status_code == 200, way


def test_anothers_ids_are_as_if_they_never_were(studio: RunningBox, ways: list[Way], owners: Ids) -> None:
    """To a person in the browser and to a key alike, wherever an id is named."""
    never = unknown(owners)
    with studio.client() as client, signed_in(studio, "ada") as browser:
        before = _standing(client, owners)
        token, own = browser.csrf, browser.get("/v1/me").text
        for way, fields in cases(ways):
            told: list[tuple[Any, ...]] = []
            for ids in (owners, never):
                answer = ask(browser, token, way, ids, fields)
                assert answer.status_code < 500, (way, answer.text)
                told.append((*plainly(answer, ids), said(browser) if answer.is_redirect else ""))
                if any(of.endswith("_cursor") for of in fields.values()):
                    assert owners["job_id"] not in answer.text, (way, fields)
            assert told[0] == told[1], (way, fields)
            if way.names and not fields:
                assert told[0][0] in (303, 404), (way, told)
        assert browser.get("/v1/me").text == own
        assert _standing(client, owners) == before


def _standing(owner: httpx.Client, ids: Ids) -> dict[str, Any]:
    """All that others might have touched; the key with which it is asked is one of it."""
    job = owner.get(f"/v1/jobs/{ids['job_id']}").json()
    return {
        "job": {name: value for name, value in job.items() if not name.endswith("url") and name != "result"},
        "file": httpx.get(job["result_url"], trust_env=False).content,
        "upload": owner.get(f"/v1/uploads/{ids['upload_id']}").json(),
        "money": owner.get("/v1/me/overage").json(),
        "jobs": [each["job_id"] for each in owner.get("/v1/jobs").json()["data"]],
    }
