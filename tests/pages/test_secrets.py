"""Keys, passwords, sessions and links: shown to a person once, and then found in nothing that the box has written."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import httpx

from tests.api.asking import IMAGE, made
from tests.cli.conftest import within
from tests.people import PASSWORD, Browser, add_people
from tests.running import RunningBox
from tests.waiting import until

GUESS: Final = "a guess that nobody was to see"
SECOND: Final = "nine herons on the weir"
THIRD: Final = "seven lamps over the canal"


def shown(browser: Browser, path: str = "/settings") -> str:
    """The secret that the next page shows, once."""
    found = re.search(r'<code id="secret-1">([^<]+)</code>', browser.get(path).text)
    assert found is not None
    return found[1]


def cookie_of(browser: Browser) -> str:
    return next(cookie.value or "" for cookie in browser.cookies.jar)


def at_the_terminal(box: RunningBox, token: str, **command: Any) -> dict[str, Any]:
    answer = httpx.post(f"{box.url}/control", json=command, headers={"X-ZSky-Control": token}, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()


def lived(box: RunningBox) -> dict[str, str]:
    """A day of the box, with all that is secret in it, by what it is."""
    secrets = {**{f"first {mode} key": box.keys[mode] for mode in ("live", "test")}, "first password": PASSWORD}
    secrets["control token"] = json.loads((box.folder / "control.json").read_bytes())["token"]
    with Browser(box) as owner, box.client() as client:
        owner.post("/sign-in", data={"name": "owner", "password": GUESS})
        owner.post("/sign-in", data={"name": GUESS, "password": PASSWORD})
        owner.sign_in("owner")
        secrets |= {"guess": GUESS, "owner's session": cookie_of(owner), "form's token": owner.csrf}
        scopes = ["generate", "read", "billing"]
        owner.submit("/settings/keys", "/settings", scopes=scopes, name="studio")
        secrets["key of a page"] = shown(owner)
        owner.submit("/settings/keys/rotate", "/settings", overlap="3600")
        secrets["rotated key"] = shown(owner)
        owner.submit("/docs/test-key", "/docs")
        secrets["test key of a page"] = shown(owner, "/docs")
        told = at_the_terminal(box, secrets["control token"], command="keys.issue", account="owner")
        secrets["key of the terminal"] = told["api_key"]
        person = owner.submit("/admin/people", name="zoe").headers["location"]
        link = shown(owner, person)
        secrets["link"] = link.partition("token=")[2]
        with Browser(box) as invited:
            assert invited.get(link.removeprefix(box.url)).status_code == 200
            fields = {"token": secrets["link"], "password": SECOND, "again": SECOND}
            assert invited.post("/setup", data=fields).status_code == 303
            secrets |= {"password of a link": SECOND, "session of a link": cookie_of(invited)}
            changed = {"present": SECOND, "password": THIRD, "again": THIRD}
            invited.submit("/settings/password", "/settings", **changed)
            secrets["changed password"] = THIRD
        owner.submit(person, do="invite")
        secrets["link that nobody used"] = shown(owner, person).partition("token=")[2]
        # What a client sends where it does not belong: in a query, in a body that is no JSON, mistyped.
        key = secrets["first live key"]
        client.get("/v1/me", params={"key": key})
        client.post("/v1/generate", content=f'{{"key": "{key}"')
        client.get("/v1/me", headers={"X-API-Key": f"{secrets['rotated key']}x", "User-Agent": "studio"})
        address = made(box, client, {**IMAGE, "metadata": {"shot": "3"}})["result_url"]
        secrets["signature"] = address.partition("signature=")[2].partition("&")[0]
        assert httpx.get(address, trust_env=False).status_code == 200
        owner.submit("/admin/health/backups", "/admin/health")
        until(lambda: ".tar.gz" in owner.get("/admin/health").text, "a backup is made")
    return secrets


def forms(secret: str) -> set[bytes]:
    """As it may have been written: as it is, without what all keys begin with, as JSON, hexadecimal or base64."""
    plain = secret.encode()
    bare = plain.removeprefix(b"zs_live_").removeprefix(b"zs_test_")
    return {plain, bare, bare.hex().encode(), base64.b64encode(plain).rstrip(b"="), json.dumps(secret)[1:-1].encode()}


def written(box: RunningBox) -> dict[str, bytes]:
    """All that the box has written, by where; but for what is there to be read by its commands while it runs."""
    found = {"log": box.log().encode()}
    for path in sorted(box.folder.rglob("*")):
        if path.is_file() and path.name not in ("control.json", "secrets.json"):
            try:
                content = path.read_bytes()
            except FileNotFoundError:  # what a running box had only for a moment
                continue
            name = path.relative_to(box.folder).as_posix()
            found[name] = gzip.decompress(content) if path.suffix == ".gz" else content
    return found


def dumped(box: RunningBox) -> bytes:
    """The ledger as SQL, with all that its journal holds."""
    with closing(sqlite3.connect(box.folder / "ledger.db")) as ledger:
        return "\n".join(ledger.iterdump()).encode()


def test_no_secret_is_found_in_what_the_box_has_written(tmp_path: Path) -> None:
    """Ledger with its journal, queue, backups, outputs and log, beside a running box, after its stop, and as a dump;
    what `doctor` tells, and its bundle.
    """
    box = RunningBox(tmp_path / "data", devices="cpu")
    add_people(box.folder)
    box.start()
    try:
        secrets = lived(box)
        beside = written(box)
        told = within(["doctor", "--bundle", str(tmp_path / "report.json"), "--data", str(box.folder)])
    finally:
        box.stop()
    assert {"ledger.db", "ledger.db-wal", "queue.db", "log"} <= beside.keys()
    assert any(name.startswith("backups/") for name in beside)
    assert any(name.startswith("outputs/") for name in beside)
    assert len(set(secrets.values())) == len(secrets) == 17
    everything = {**{f"{name}, beside": content for name, content in beside.items()}, **written(box)}
    everything["dump"] = dumped(box)
    everything["doctor"] = told.out.encode()
    everything["bundle"] = (tmp_path / "report.json").read_bytes()
    # What is searched has what may stand there: so it would have the rest.
    assert secrets["key of a page"][-4:].encode() in everything["dump"]
    assert b'"status": "completed"' in everything["bundle"]
    assert b"POST /settings/keys 303" in everything["log"]
    assert b"GET /setup 200" in everything["log"]
    for name, secret in secrets.items():
        for form in forms(secret):
            held = [where for where, content in everything.items() if form in content]
            assert held == [], (name, held)
