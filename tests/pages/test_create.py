"""`/create` as it is sent: what it is filled with, whose jobs it shows, and its form without scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from PIL import Image

from tests.api.asking import IMAGE, SLOW, VIDEO, made, newest_id, problem, submit
from tests.boxes import add_models, running
from tests.people import Browser, add_people, signed_in
from tests.running import RunningBox

NOBODYS = "job_00000000000000000000000000"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("create") / "data"
    box = RunningBox(folder, devices="cpu", blocked_terms='{"fruit": ["forbidden fruit"]}')
    add_people(folder, "ada", "ben")
    add_people(folder, "fred", plan="free")
    box.start()
    yield box
    box.stop()


@pytest.fixture
def ada(studio: RunningBox) -> Generator[Browser]:
    with signed_in(studio, "ada") as browser:
        browser.headers["X-CSRF-Token"] = browser.csrf
        yield browser


def state_of(answer: httpx.Response) -> dict[str, Any]:
    """What the page tells its script."""
    assert answer.status_code == 200, answer.text
    found = re.search(r'<script type="application/json" id="state">(.*?)</script>', answer.text)
    assert found is not None
    return json.loads(found[1])


def prefilled(answer: httpx.Response, name: str) -> str | None:
    """The value of an input of the page's form."""
    found = re.search(rf'<input[^>]*name="{name}"[^>]* value="([^"]*)"', answer.text)
    return None if found is None else found[1]


def test_it_works(studio: RunningBox, ada: Browser) -> None:
    job = made(studio, ada, IMAGE)
    state = state_of(ada.get("/create"))
    assert state["jobs"][0]["job_id"] == job["job_id"]
    assert (
        f"{studio.url}{state['jobs'][0]['result_url']}" == job["result_url"]
    )  # of the host that the page is looked at by
    assert state["money"]["plan"] == "max"
    assert {model["id"] for model in state["models"] if model["installed"]} == {"leader"}


def test_it_is_for_who_is_signed_in(studio: RunningBox) -> None:
    with Browser(studio) as stranger:
        location = stranger.get("/create?vary=x").headers["location"]
        assert parse_qs(urlsplit(location).query) == {"next": ["/create?vary=x"]}
        assert stranger.post("/create", data={"type": "image", "prompt": "a"}).status_code == 401


def test_nothing_of_a_prompt_ends_the_data_of_the_page(studio: RunningBox, ada: Browser) -> None:
    prompt = "</script><script>alert(1)</script> <!-- ' \" & \u2028"
    job = made(studio, ada, {**IMAGE, "prompt": prompt})
    answer = ada.get(f"/create?vary={job['job_id']}")
    assert state_of(answer)["jobs"][0]["prompt"] == prompt
    assert state_of(answer)["asked"]["prompt"] == prompt
    assert "<script>alert" not in answer.text


def test_a_form_makes_a_job(studio: RunningBox, ada: Browser) -> None:
    chosen = {"type": "video", "prompt": "a tram in the fog", "aspect_ratio": "9:16", "resolution": "480p", "fps": "25"}
    left = {"model": "", "seed": "", "negative_prompt": "", "image": "", "n": "3"}
    answer = ada.submit("/create", **chosen, **left, duration="2", priority="batch")
    assert (answer.status_code, answer.headers["location"]) == (303, "/create?type=video")
    job = studio.ended(ada, str(newest_id(ada)))
    assert (job["prompt"], job["width"], job["height"]) == ("a tram in the fog", 480, 854)
    assert (job["duration"], job["fps"], job["n"], job["priority"]) == (2.0, 25, 1, "batch")
    page = ada.get("/create").text
    assert "It is in the queue." in page
    without_scripts = page[page.rindex("<noscript>") :]
    assert "a tram in the fog" in without_scripts
    assert "completed" in without_scripts


def test_a_form_that_is_sent_twice_makes_one_job(ada: Browser) -> None:
    once = prefilled(ada.get("/create"), "once")
    assert once
    fields = {"type": "image", "prompt": "only one of them", "resolution": "480p", "once": once}
    before = newest_id(ada)
    assert ada.submit("/create", **fields).status_code == 303
    first = newest_id(ada)
    assert ada.submit("/create", **fields).status_code == 303
    assert newest_id(ada) == first != before
    assert ada.submit("/create", **{**fields, "prompt": "another"}).status_code == 303
    assert newest_id(ada) != first, "the same page may ask for something else"


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [
        ({"prompt": ""}, 422, "it is empty"),
        ({"prompt": "a forbidden fruit"}, 422, "rule"),
        ({"seed": "seven"}, 422, "&#39;seven&#39; is not a number"),
        ({"n": "11", "type": "image"}, 422, "n:"),
        ({"type": "sculpture"}, 422, "sculpture"),
        ({"model": "ltx-2.5"}, 422, "is not installed"),
        ({"image": "up_00000000000000000000000000"}, 422, "takes no reference image"),
    ],
)
def test_a_refusal_brings_the_form_back_as_it_was(ada: Browser, fields: dict[str, str], status: int, told: str) -> None:
    before = newest_id(ada)
    filled = {"type": "video", "prompt": "a kite over dunes", "aspect_ratio": "1:1", "resolution": "720p", **fields}
    answer = ada.submit("/create", **filled)
    assert answer.status_code == status
    assert told in answer.text
    assert f">{filled['prompt']}</textarea>" in answer.text
    assert newest_id(ada) == before


def test_rerun_and_vary_fill_the_form_from_ones_own_job(studio: RunningBox, ada: Browser) -> None:
    asked = {**VIDEO, "aspect_ratio": "21:9", "fps": 30, "seed": 7, "priority": "batch", "duration": 2.5}
    job = made(studio, ada, asked)
    rerun, vary = (ada.get(f"/create?{how}={job['job_id']}") for how in ("rerun", "vary"))
    assert state_of(rerun)["asked"] == {**asked, "model": "leader"}
    assert prefilled(rerun, "seed") == "7"
    expected = {name: value for name, value in asked.items() if name != "seed"}
    assert state_of(vary)["asked"] == {**expected, "model": "leader"}
    assert prefilled(vary, "seed") == ""
    assert ada.get(f"/create/jobs/{job['job_id']}").json() == state_of(rerun)["asked"]


def test_what_is_anothers_is_not_there(studio: RunningBox, ada: Browser) -> None:
    job = made(studio, ada, {**IMAGE, "prompt": "a secret garden"})
    upload = ada.post("/create/reference", data={"job": job["job_id"], "result": "1"})
    assert upload.status_code == 201, upload.text
    with signed_in(studio, "ben") as ben:
        ben.headers["X-CSRF-Token"] = ben.csrf
        assert "a secret garden" not in ben.get("/create").text
        for job_id in (job["job_id"], NOBODYS):
            for how in ("rerun", "vary", "reference"):
                assert ben.get(f"/create?{how}={job_id}").status_code == 404
            problem(ben.get(f"/create/jobs/{job_id}"), 404, "not_found")
            problem(ben.post("/create/reference", data={"job": job_id, "result": "1"}), 404, "not_found")
            answer = ben.submit("/create", type="image", prompt="mine", from_job=job_id, from_result="1")
            assert answer.status_code == 404
        problem(ben.get(f"/create/pictures/{upload.json()['id']}"), 404, "not_found")
        assert newest_id(ben) is None


def test_a_result_becomes_a_reference(studio: RunningBox, ada: Browser) -> None:
    job = made(studio, ada, {**IMAGE, "n": 2})
    for number, status in (("1", 201), ("2", 201), ("0", 404), ("3", 404), ("x", 404), ("1" * 30, 404)):
        answer = ada.post("/create/reference", data={"job": job["job_id"], "result": number})
        assert answer.status_code == status, number
        assert ada.get(f"/create?reference={job['job_id']}&result={number}").status_code == (
            200 if status < 400 else 404
        )
    upload = ada.post("/create/reference", data={"job": job["job_id"], "result": "2"}).json()
    assert (upload["width"], upload["height"]) == (854, 480)
    shown = ada.get(f"/create/pictures/{upload['id']}")
    assert shown.headers["content-type"] == "image/png"
    assert "private" in shown.headers["cache-control"]
    with Image.open(BytesIO(shown.content)) as picture:
        assert picture.size == (854, 480)
    ada.delete(f"/v1/uploads/{upload['id']}").raise_for_status()
    problem(ada.get(f"/create/pictures/{upload['id']}"), 410, "result_removed")


def test_of_a_clip_the_poster_becomes_the_reference(studio: RunningBox, ada: Browser) -> None:
    job = made(studio, ada, VIDEO)
    upload = ada.post("/create/reference", data={"job": job["job_id"], "result": "1"}).json()
    assert (upload["width"], upload["height"]) == (64, 36)
    state = state_of(ada.get(f"/create?reference={job['job_id']}"))
    assert state["from"]["type"] == "video"
    assert ada.get(state["from"]["picture_url"]).headers["content-type"] == "image/jpeg"


def test_of_what_is_open_or_removed_there_is_no_picture(studio: RunningBox, ada: Browser) -> None:
    slow = submit(ada, SLOW)
    assert ada.get(f"/create?reference={slow}").status_code == 404
    ada.post(f"/v1/jobs/{slow}/cancel").raise_for_status()
    studio.ended(ada, slow)
    assert ada.get(f"/create?reference={slow}").status_code == 404
    job = made(studio, ada, IMAGE)
    ada.delete(f"/v1/jobs/{job['job_id']}").raise_for_status()
    assert ada.get(f"/create?reference={job['job_id']}").status_code == 410
    assert job["job_id"] not in {each["job_id"] for each in state_of(ada.get("/create"))["jobs"]}


def test_the_free_plan_says_that_results_bear_the_wordmark(studio: RunningBox, ada: Browser) -> None:
    with signed_in(studio, "fred") as fred:
        page = fred.get("/create").text
        assert "wordmark" in page
        assert "10 videos and 50 images left this month" in page
    assert "wordmark" not in ada.get("/create").text


def test_only_the_owner_is_told_what_could_be_installed(studio: RunningBox, ada: Browser) -> None:
    with signed_in(studio, "owner") as owner:
        assert "can be installed" in owner.get("/create").text
    assert "can be installed" not in ada.get("/create").text


def test_without_scripts_a_result_is_begun_with(tmp_path: Path) -> None:
    add_models(tmp_path / "data")
    with running(tmp_path / "data") as box:
        box.stop()
        add_people(box.folder)
        box.start()
        with signed_in(box) as owner, box.client() as client:
            first = made(box, client, {**IMAGE, "n": 2})
            page = owner.get(f"/create?reference={first['job_id']}&result=2")
            hidden = {name: prefilled(page, name) for name in ("from_job", "from_result", "once")}
            assert (hidden["from_job"], hidden["from_result"]) == (first["job_id"], "2")
            fields = {"type": "video", "prompt": "and now it moves", "duration": "1", "strength": "0.2", **hidden}
            for _ in range(2):  # as by a reload of the answer: it is one job
                assert owner.submit("/create", **fields).status_code == 303
            job = box.ended(client, str(newest_id(client)))
            assert "begins with RGB 854x480 at 0.2" in job["notes"]
            jobs = client.get("/v1/jobs").json()["data"]
            assert [each["prompt"] for each in jobs].count("and now it moves") == 1
            kept = owner.get(f"/create?rerun={job['job_id']}")
            assert prefilled(kept, "image") == job["reference"]
            assert f'src="/create/pictures/{job["reference"]}"' in kept.text
