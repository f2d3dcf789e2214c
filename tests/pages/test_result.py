"""One job's page: what it shows, what can be done from it, and its receipt."""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator
from contextlib import contextmanager

import httpx
import msgspec
import pytest

from tests.api.asking import IMAGE, SLOW, VIDEO, made, runs, submit
from tests.people import Browser, add_people, signed_in
from tests.running import RunningBox
from zsky_box.pages.result import curl
from zsky_box.schemas import GenerateBody


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("result") / "data"
    box = RunningBox(folder, devices="cpu", included_images=10**6, included_videos=10**6)
    add_people(folder, "ada")
    box.start()
    yield box
    box.stop()


@contextmanager
def ada(box: RunningBox) -> Generator[tuple[Browser, httpx.Client]]:
    with signed_in(box, "ada") as browser:
        token = browser.csrf
        with Browser(box, cookies=browser.cookies) as api:
            api.headers["X-CSRF-Token"] = token
            yield browser, api


def once_of(page: str) -> str:
    found = re.search(r'name="once" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def test_it_works(studio: RunningBox) -> None:
    with ada(studio) as (browser, api):
        job = made(studio, api, {**VIDEO, "seed": 77, "metadata": {"shot": "12"}})
        page = browser.get(f"/library/{job['job_id']}")
        assert page.status_code == 200
        shown = page.text
        assert re.search(r"<video [^>]*src=\"/files/[^\"]+\"[^>]* controls", shown)
        for part in (
            "a neon night market",
            "854 × 480",  # noqa: RUF001
            "1.00 s, 24 frames a second",
            "48 kHz, stereo",
            "<code>77</code>",
            "Included: 1 of the month",
            "charged",
            "<code>zsky-box models install",
            ", ".join(map(str, job["charge"]["ledger_ids"])),
            job["receipt"]["device"],
            job["receipt"]["commercial_use"],
            job["result"]["sha256"],
            "<dt>shot</dt><dd>12</dd>",
            f"/create?vary={job['job_id']}",
        ):
            assert part in shown, part
        link = re.search(r'id="link">([^<]+)<', shown)
        assert link is not None
        assert httpx.get(link[1].replace("&amp;", "&"), trust_env=False).status_code == 200


def test_each_of_several_images_can_be_looked_at_large(studio: RunningBox) -> None:
    with ada(studio) as (browser, api):
        job = made(studio, api, {**IMAGE, "n": 3, "seed": 5})
        for query, seed, large in (("", 5, 1), ("?result=3", 7, 3), ("?result=4", 5, 1), ("?result=-1", 5, 1)):
            shown = browser.get(f"/library/{job['job_id']}{query}").text
            assert f"<dt>Seed</dt><dd><code>{seed}</code>" in shown, query
            assert f"/create?reference={job['job_id']}&amp;result={large}" in shown
            assert re.findall(r'href="\?result=(\d)"( aria-current)?', shown)[large - 1] == (
                str(large),
                " aria-current",
            )


def test_its_neighbours_are_the_next_results_on_the_wall(studio: RunningBox) -> None:
    with ada(studio) as (browser, api):
        older, job, newer = (made(studio, api, IMAGE)["job_id"] for _ in range(3))
        shown = browser.get(f"/library/{job}").text
        assert f'id="newer" rel="prev" href="/library/{newer}"' in shown
        assert f'id="older" rel="next" href="/library/{older}"' in shown
        api.delete(f"/v1/jobs/{older}")
        assert f'href="/library/{older}"' not in browser.get(f"/library/{job}").text


def test_a_failed_job_says_why_and_what_it_cost(studio: RunningBox) -> None:
    with ada(studio) as (browser, api):
        job = studio.ended(api, submit(api, {**VIDEO, "prompt": "double:raises_in_run"}))
        shown = browser.get(f"/library/{job['job_id']}").text
        assert "Internal error" in shown
        assert job["error"].replace("'", "&#39;") in shown
        assert "It was not charged." in shown
        assert '<span class="badge bad">failed</span>' in shown
        assert "Rerun" in shown
        assert "<video" not in shown


def test_a_removed_result_keeps_its_receipt_and_charge(studio: RunningBox) -> None:
    with ada(studio) as (browser, api):
        job = made(studio, api, IMAGE)
        api.delete(f"/v1/jobs/{job['job_id']}")
        shown = browser.get(f"/library/{job['job_id']}").text
        assert "The files were removed" in shown
        for part in (">Charge<", ">Receipt<", "Rerun"):
            assert part in shown
        for part in ("Download", "Copy link", ">Delete<"):
            assert part not in shown


def test_an_open_job_shows_how_far_it_is_and_can_be_cancelled(studio: RunningBox) -> None:
    with ada(studio) as (browser, api):
        job_id = submit(api, SLOW)
        studio.until(api, job_id, runs)
        shown = browser.get(f"/library/{job_id}").text
        assert '<progress id="progress"' in shown
        assert "Rerun" not in shown
        answer = browser.submit(f"/library/{job_id}/cancel", f"/library/{job_id}")
        assert answer.headers["location"] == f"/library/{job_id}"
        assert studio.ended(api, job_id)["error_code"] == "cancelled"
        assert '<span class="badge ">cancelled</span>' in browser.get(f"/library/{job_id}").text
        again = browser.submit(f"/library/{job_id}/cancel", f"/library/{job_id}")
        assert "cannot be cancelled" in browser.get(again.headers["location"]).text


def test_a_rerun_makes_the_same_once_however_often_the_form_is_sent(studio: RunningBox) -> None:
    with ada(studio) as (browser, api):
        job = made(studio, api, {**IMAGE, "seed": 9, "n": 2})
        path = f"/library/{job['job_id']}"
        once = once_of(browser.get(path).text)
        places = [browser.submit(f"{path}/rerun", path, once=once).headers["location"] for _ in range(2)]
        assert places[0] == places[1] != path
        other = browser.submit(f"{path}/rerun", path, once=once_of(browser.get(path).text)).headers["location"]
        assert other not in places
        made_again = studio.ended(api, places[0].rpartition("/")[2])
        assert (made_again["seed"], made_again["n"], made_again["prompt"]) == (9, 2, job["prompt"])
        for wrong in ("", "x" * 65, "é"):
            refused = browser.submit(f"{path}/rerun", path, once=wrong)
            assert refused.headers["location"] == path
            assert "could not be read" in browser.get(path).text


def test_what_a_submit_refuses_is_said_on_the_page(tmp_path_factory: pytest.TempPathFactory) -> None:
    box = RunningBox(tmp_path_factory.mktemp("broke") / "data", devices="cpu", included_images=1)
    add_people(box.folder)
    box.start()
    try:
        with signed_in(box) as browser, box.client() as api:
            path = f"/library/{made(box, api, IMAGE)['job_id']}"
            refused = browser.submit(f"{path}/rerun", path, once="a")
            assert refused.headers["location"] == path
            assert 'class="said bad"' in browser.get(path).text
    finally:
        box.stop()


def test_a_receipt_is_json_without_money_or_addresses(studio: RunningBox) -> None:
    with ada(studio) as (browser, api):
        job = made(studio, api, {**IMAGE, "seed": 3})
        answer = browser.get(f"/library/{job['job_id']}/receipt.json")
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.headers["content-disposition"] == f'attachment; filename="{job["job_id"]}.json"'
        told = answer.json()
        assert told["receipt"] == job["receipt"]
        assert (told["request"]["prompt"], told["request"]["seed"], told["maker"]) == (IMAGE["prompt"], 3, "ada")
        assert [each["sha256"] for each in told["results"]] == [job["result"]["sha256"]]
        assert not {"charge", "url", "signature"} & set(re.findall(r'"(\w+)":', answer.text))


@pytest.mark.parametrize("job_id", ["job_unknown", "x", "%00", "..%2f..%2fetc", "x" * 3_000])
def test_an_id_that_names_nothing_is_not_found(studio: RunningBox, job_id: str) -> None:
    with ada(studio) as (browser, _):
        answer = browser.get(f"/library/{job_id}")
        assert answer.status_code == 404
        assert "no such page" in answer.text


def test_the_call_for_the_shell_asks_for_the_same_work(studio: RunningBox) -> None:
    prompt = """it's "quoted" $HOME `date` \\ and\nlong"""
    body = {**VIDEO, "prompt": prompt, "seed": 4, "aspect_ratio": "9:16", "duration": 2}
    with studio.client() as api:
        job = made(studio, api, body)
        words = shlex.split(curl(studio.url, msgspec.convert(body, GenerateBody)))
        assert words[:2] == ["curl", f"{studio.url}/v1/generate"]
        sent = msgspec.json.decode(words[words.index("-d") + 1], type=dict[str, object])
        again = made(studio, api, sent)
        kept = ("prompt", "seed", "model", "width", "height", "duration", "fps")
        assert {name: again[name] for name in kept} == {name: job[name] for name in kept}
