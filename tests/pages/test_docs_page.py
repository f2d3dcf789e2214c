"""`/docs`: all of the box's own document is on it, within its weight, and every example on it runs."""

from __future__ import annotations

import html
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from PIL import Image

from tests.api.asking import IMAGE, made
from tests.people import Browser, add_people, signed_in
from tests.running import RunningBox
from zsky_box.errors import ErrorCode
from zsky_box.pages.docs import codes
from zsky_box.settings import CHECKOUT

PAGE_MAX_BYTES = 150_000
"""Of the page with all that it loads, as it comes over the wire."""
RUNNERS = {
    "curl": ("quick_start.sh", ["bash", "-eu"]),
    "python": ("quick_start.py", [sys.executable]),
    "javascript": ("quick_start.mjs", ["node"]),
    "go": ("quick_start.go", ["go", "run"]),
}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("docs") / "data"
    box = RunningBox(folder, devices="cpu", included_images=10**6)
    add_people(folder, "ada", "ben")
    add_people(folder, "flo", plan="free")
    box.start()
    yield box
    box.stop()


@pytest.fixture(scope="module")
def document(studio: RunningBox) -> dict[str, Any]:
    with studio.client() as client:
        return client.get("/v1/openapi.json").json()


def text_of(page: str, element: str) -> str:
    """What an element of code says to who copies it."""
    found = re.search(rf'<code id="{re.escape(element)}">(.*?)</code>', page, re.DOTALL)
    assert found is not None, element
    return html.unescape(found[1])


def test_it_works(studio: RunningBox, document: dict[str, Any]) -> None:
    with signed_in(studio, "ada") as browser:
        answer = browser.get("/docs")
    assert answer.status_code == 200
    for path, item in document["paths"].items():
        for method, operation in item.items():
            article = re.search(
                rf'<article class="op card" id="{operation["operationId"]}".*?</article>', answer.text, re.DOTALL
            )
            assert article is not None, (method, path)
            told = html.unescape(article[0])
            assert f">{method.upper()}</span> <code>{path}</code>" in told
            assert operation["summary"] in told
            for parameter in operation.get("parameters", []):
                assert f"<code>{parameter['name']}</code>" in told
            for status, response in operation["responses"].items():
                assert f"<dt>{status}</dt>" in told, (path, status)
                for code in re.findall(r"`([a-z_]+)`", response["description"]) if status >= "400" else ():
                    assert f"<code>{code}</code>" in told, (path, code)
            assert text_of(answer.text, f"ex-{operation['operationId']}").startswith("curl ")


def test_every_field_of_a_body_and_of_an_object_is_told_with_its_bounds(
    studio: RunningBox, document: dict[str, Any]
) -> None:
    with signed_in(studio, "ada") as browser:
        page = html.unescape(browser.get("/docs").text)
    generate = page.split('id="generate"')[1].split("</article>")[0]
    for name in document["components"]["schemas"]["GenerateBody"]["properties"]:
        assert f"<dt><code>{name}</code>" in generate
    assert "1 to 8,000 characters" in generate
    assert "more than 0, at most 3,600" in generate
    assert '"image" | "video"' in generate
    assert "<code>prompt</code> <b>required</b>" in generate
    job = page.split('id="object-JobView"')[1].split("</article>")[0]
    for name in document["components"]["schemas"]["JobView"]["properties"]:
        assert f"<dt><code>{name}</code>" in job
    for name in re.findall(r'href="#([\w-]+)"', page):
        assert f'id="{name}"' in page, name


def test_the_examples_name_this_box_by_the_address_that_was_asked(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as browser:
        page = browser.get("/docs").text
        assert text_of(page, "base-url") == studio.url
        assert f"curl {studio.url}/v1/me" in text_of(page, "ex-getMe")
        assert "YOUR_KEY" in text_of(page, "ex-getMe")
        other = browser.get("/docs", headers={"Host": 'evil.test"><script>'})
        assert other.status_code != 200
        assert "<script>" not in other.text.replace('<script type="module"', "")


def test_a_test_key_is_made_shown_once_and_put_into_the_examples(studio: RunningBox) -> None:
    with signed_in(studio, "ben") as browser:
        key = key_from_the_button(browser)
        again = browser.get("/docs").text
        assert key not in again
        assert "YOUR_KEY" in again
        me = httpx.get(f"{studio.url}/v1/me", headers={"X-API-Key": key}, trust_env=False).json()
        assert (me["name"], me["test"], me["key"]["name"]) == ("ben", True, "from the docs")


def key_from_the_button(browser: Browser) -> str:
    """Press the button; the key, which stands in every example of the page that comes then."""
    assert browser.submit("/docs/test-key", "/docs").headers["location"] == "/docs"
    page = browser.get("/docs").text
    key = text_of(page, "secret-1")
    assert key.startswith("zs_test_")
    assert page.count(key) > 20
    assert "YOUR_KEY" not in page
    return key


def test_who_has_no_api_reads_it_without_the_button(studio: RunningBox) -> None:
    with signed_in(studio, "flo") as browser:
        page = browser.get("/docs").text
        assert "Create test key" not in page
        assert "Your plan is free" in page
        browser.submit("/docs/test-key", "/docs")
        assert "has no API" in browser.get("/docs").text


def test_a_test_key_wants_the_token_of_the_page(studio: RunningBox) -> None:
    with Browser(studio) as stranger:
        assert stranger.get("/docs").status_code == 303
        assert stranger.post("/docs/test-key").status_code == 401
    with signed_in(studio, "ada") as browser:
        assert browser.post("/docs/test-key", data={"csrf": "guessed"}).status_code == 403


def test_a_second_account_sees_nothing_of_the_first_ones_key(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as ada, signed_in(studio, "ben") as ben:
        assert ada.submit("/docs/test-key", "/docs").status_code == 303
        assert "zs_test_" not in ben.get("/docs").text.replace("<code>zs_test_</code>", "")
        assert text_of(ada.get("/docs").text, "secret-1").startswith("zs_test_")


def test_the_page_and_what_it_loads_stay_within_their_weight(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as browser:
        page = browser.get("/docs")
        files = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text))
        scripts = [browser.get(file) for file in files]
        loaded = sum(int(answer.headers["content-length"]) for answer in scripts)
        assert len(files) >= 5
        assert len(page.content) + loaded < PAGE_MAX_BYTES


@pytest.mark.parametrize("language", RUNNERS)
def test_the_quick_start_runs(studio: RunningBox, tmp_path: Path, language: str) -> None:
    name, command = RUNNERS[language]
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]} on this machine")
    with signed_in(studio, "owner") as browser:
        assert browser.submit("/docs/test-key", "/docs").status_code == 303
        page = browser.get("/docs").text
    (tmp_path / name).write_text(text_of(page, f"quick-{language}"))
    done = subprocess.run(
        [*command, name], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "result.mp4").read_bytes()[4:8] == b"ftyp"


def test_every_example_runs(studio: RunningBox, document: dict[str, Any], tmp_path: Path) -> None:
    with signed_in(studio, "owner") as browser, studio.client() as client:
        page = browser.get("/docs").text
        done = made(studio, client, IMAGE)
        Image.new("RGB", (64, 64), "teal").save(tmp_path / "picture.png")
        upload = client.post("/v1/uploads", files={"file": (tmp_path / "picture.png").read_bytes()}).json()["id"]
        month = client.get("/v1/me/overage").json()["period"]["start"][:7]
        words = {"JOB_ID": done["job_id"], "UPLOAD_ID": upload, "MONTH": month, "RESULT_URL": done["result_url"]}
        operations = [each["operationId"] for item in document["paths"].values() for each in item.values()]
        # What deletes comes last, and what is deleted has ended.
        for name in sorted(operations, key=lambda each: each.startswith("delete")):
            line = text_of(page, f"ex-{name}").replace("YOUR_KEY", studio.keys["live"])
            for word, value in words.items():
                line = line.replace(word, value)
            assert not re.search(r"\b[A-Z]+_ID\b", line), line
            status = run_curl(line, tmp_path)
            expected = (409,) if name == "cancelJob" else (200, 201, 202, 204)
            assert status in expected, (name, status, line)


def run_curl(line: str, folder: Path) -> int:
    """The status of a line's answer; a stream is left once it has begun."""
    asked = line.replace("curl ", "curl -s -i --max-time 60 ", 1).replace("-o result.mp4 ", "")
    with subprocess.Popen(
        ["bash", "-c", asked], cwd=folder, env=environment(), stdout=subprocess.PIPE, start_new_session=True
    ) as asking:
        assert asking.stdout is not None
        first = asking.stdout.readline()
        if " -N " not in asked:
            asking.stdout.read()
        elif asking.poll() is None:
            os.killpg(asking.pid, signal.SIGTERM)
    return int(first.split()[1])


def environment() -> dict[str, str]:
    return {**os.environ, "no_proxy": "*", "NO_PROXY": "*"}


def test_every_code_is_explained_and_each_call_leads_to_its_own(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as browser:
        page = browser.get("/docs").text
    refusals = (CHECKOUT / "docs" / "api.md").read_text("utf-8").partition("## Refusals")[2].partition("\n## ")[0]
    table = "\n".join(line for line in refusals.splitlines() if line.startswith("|"))
    told = set(re.findall(r"`([a-z_]+)`", table)) | {"session_ended", "cross_site", "wrong_host"}
    assert {code.name for code in codes.REFUSALS} == told
    assert set(codes.ENDS) == set(get_args(ErrorCode))
    shown = set(re.findall(r'<dt id="code-(\w+)">', page))
    assert shown == told
    linked = set(re.findall(r'href="#code-(\w+)"', page))
    assert linked <= shown
    assert {"cap_reached", "wallet_empty", "job_open", "result_removed"} <= linked
    ends = page.partition('id="end-codes"')[2]
    assert all(f"<code>{name}</code>" in ends for name in codes.ENDS)
