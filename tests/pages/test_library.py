"""The wall: what is on it, what it is narrowed to, and what is done with several results at once."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from scripts.bench.filled import fill
from tests.api.asking import IMAGE, VIDEO, made, submit
from tests.boxes import at_rest
from tests.people import Browser, add_people, signed_in
from tests.running import RunningBox
from tests.waiting import until
from zsky_box import cursors
from zsky_box.db import Store
from zsky_box.pages.library import shape

FAILING = {**IMAGE, "prompt": "double:raises_in_run"}
HOSTILE = """<script>alert(1)</script> "quoted" 'single' & {{ 7*7 }}"""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("library") / "data"
    box = RunningBox(folder, devices="cpu", included_images=10**6, included_videos=10**6)
    add_people(folder, "ada", "ben", "cleo", "dan", "eve", "fay", "gil", "hal")
    box.start()
    yield box
    box.stop()


@contextmanager
def maker(box: RunningBox, name: str) -> Generator[tuple[Browser, httpx.Client]]:
    """A person's browser, and the same session as a client of the API."""
    with signed_in(box, name) as browser:
        token = browser.csrf
        with Browser(box, cookies=browser.cookies) as api:
            api.headers["X-CSRF-Token"] = token
            yield browser, api


def jobs_on(page: httpx.Response) -> list[str]:
    assert page.status_code == 200, page.text
    return re.findall(r'data-job="(job_\w+)"', page.text)


def said(browser: Browser, answer: httpx.Response) -> str:
    """The message on the page that a form leads to."""
    assert answer.status_code == 303, answer.text
    shown = re.search(r'class="said \w+"[^>]*>\s*<p>(.*?)</p>', browser.get(answer.headers["location"]).text)
    return shown[1] if shown else ""


def archive_of(answer: httpx.Response) -> zipfile.ZipFile:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    assert re.fullmatch(r'attachment; filename="zsky-\d{4}-\d\d-\d\d\.zip"', answer.headers["content-disposition"])
    return zipfile.ZipFile(io.BytesIO(answer.content))


def test_it_works(studio: RunningBox) -> None:
    with maker(studio, "ada") as (browser, api):
        image = made(studio, api, {**IMAGE, "prompt": "a lake at dawn", "n": 3})
        video = made(studio, api, {**VIDEO, "prompt": "rain on a tin roof"})
        page = browser.get("/library")
        assert jobs_on(page) == [video["job_id"], image["job_id"]]
        assert "2 results" in page.text
        for part in ("a lake at dawn", "rain on a tin roof", "0:01", "with sound", '3<span class="unseen"> images'):
            assert part in page.text
        for path in re.findall(r'<img src="([^"]+)"', page.text):
            thumbnail = browser.get(path.replace("&amp;", "&"))
            assert (thumbnail.status_code, thumbnail.headers["content-type"]) == (200, "image/jpeg")
        assert len(re.findall(r"data-media=", page.text)) == 1


def test_an_empty_library_says_what_to_do_next(studio: RunningBox) -> None:
    with signed_in(studio, "ben") as browser:
        assert 'href="/create"' in browser.get("/library").text.partition('class="empty"')[2]
        for query, told in (
            ("q=lake", "Nothing matches"),
            ("show=failed", "Nothing failed"),
            ("show=removed", "Nothing was removed"),
            ("show=failed&q=x", "Nothing matches"),
            ("q=%00%ff%22*", "Nothing matches"),
        ):
            page = browser.get(f"/library?{query}")
            assert (page.status_code, told in page.text) == (200, True), query


def test_a_prompt_is_shown_as_it_was_written_and_does_nothing(studio: RunningBox) -> None:
    with maker(studio, "cleo") as (browser, api):
        job = made(studio, api, {**IMAGE, "prompt": HOSTILE})
        for path in ("/library", f"/library/{job['job_id']}", "/library?q=%3Cscript%3Ealert"):
            page = browser.get(path)
            assert "<script>alert" not in page.text
            assert (
                "&lt;script&gt;alert(1)&lt;/script&gt; &#34;quoted&#34; &#39;single&#39; &amp; {{ 7*7 }}" in page.text
            )


def test_the_wall_is_narrowed_by_its_form(studio: RunningBox) -> None:
    with maker(studio, "dan") as (browser, api):
        image = made(studio, api, {**IMAGE, "prompt": "Neon market"})["job_id"]
        video = made(studio, api, {**VIDEO, "prompt": "neon rain"})["job_id"]
        failed = studio.ended(api, submit(api, FAILING))["job_id"]
        today = made(studio, api, IMAGE)["created_at"][:10]
        removed = made(studio, api, {**IMAGE, "prompt": "neon mistake"})["job_id"]
        assert api.delete(f"/v1/jobs/{removed}").status_code == 200
        for query, expected in (
            ("q=neon", [video, image]),
            ("q=NEON+mar", [image]),
            ("q=neon&type=video", [video]),
            ("type=video", [video]),
            ("model=leader&q=neon", [video, image]),
            ("model=none", []),
            (f"q=neon&from={today}&to={today}", [video, image]),
            (f"to=1999-01-01&from={today}", []),
            ("to=2001-01-01", []),
            ("q=neon&from=nonsense&to=9999-12-31&type=x&show=x&whose=team", [video, image]),
            ("show=failed", [failed]),
            ("show=removed", [removed]),
        ):
            assert jobs_on(browser.get(f"/library?{query}")) == expected, query
        failures = browser.get("/library?show=failed").text
        assert '<span class="blank bad"><b>Internal error</b>' in failures
        shown = browser.get("/library?q=neon&type=video&model=leader").text
        for kept in ('value="neon"', '<option value="video" selected>', "<option selected>leader"):
            assert kept in shown


def test_pages_follow_each_other_with_and_without_script(tmp_path: Path) -> None:
    with _filled(tmp_path, 120) as box, signed_in(box) as browser:
        page = browser.get("/library")
        seen, parts = jobs_on(page), 0
        assert len(seen) == 48
        while further := re.search(r'rel="next" href="([^"]+)"', page.text):
            page = browser.get(f"{further[1].replace('&amp;', '&')}{'&part=1' if parts % 2 else ''}")
            assert ("<html" in page.text) == (parts % 2 == 0)
            seen, parts = seen + jobs_on(page), parts + 1
        assert (parts, len(set(seen))) == (2, len(seen))
        assert len(seen) >= 106  # the last two had been cut off, and are made now
        assert browser.get("/library?cursor=nonsense").status_code == 422


# Several at once


def test_an_archive_has_every_file_of_the_chosen_under_readable_names(studio: RunningBox) -> None:
    with maker(studio, "ada") as (browser, api):
        body = {**IMAGE, "prompt": "A Lake", "seed": 7}
        first, again = made(studio, api, body), made(studio, api, body)
        several = made(studio, api, {**IMAGE, "prompt": "a sea", "seed": 1, "n": 2})
        day = first["created_at"][:10]
        jobs = [first["job_id"], again["job_id"], several["job_id"]]
        lake, *seas = (Path(urlsplit(each["url"]).path).name for each in (again["result"], *several["results"]))
        with archive_of(browser.submit("/library/archive", job=jobs)) as archive:
            assert archive.testzip() is None
            assert lake.startswith("a-lake-7")
            names = [*(f"{day} {sea}" for sea in seas), f"{day} {lake}", f"{day} {lake.replace('.', ' (2).')}"]
            assert archive.namelist() == names
            assert archive.read(names[2]) == httpx.get(again["result_url"], trust_env=False).content
            for each, name in zip(several["results"], names, strict=False):
                assert archive.getinfo(name).file_size == each["bytes"]


def test_only_ones_own_come_and_go(studio: RunningBox) -> None:
    with maker(studio, "ada") as (ada, ada_api), signed_in(studio, "ben") as ben:
        job = made(studio, ada_api, {**IMAGE, "prompt": "private to ada"})
        job_id = job["job_id"]
        assert jobs_on(ben.get("/library?q=private")) == []
        assert ben.get("/library?whose=team&q=private").text.count("data-job") == 0
        for path in ("/library/archive", "/library/delete"):
            assert said(ben, ben.submit(path, "/library", job=job_id, sure="yes")).startswith("None of the chosen")
        assert ben.get(f"/library/{job_id}").status_code == 404
        assert ben.get(f"/library/{job_id}/receipt.json").status_code == 404
        for action in ("rerun", "cancel"):
            refused = ben.submit(f"/library/{job_id}/{action}", "/library", once="x")
            assert "There is no" in said(ben, refused) or refused.status_code == 404
        assert httpx.get(job["result_url"], trust_env=False).status_code == 200
        assert jobs_on(ada.get("/library?q=private")) == [job_id]


def test_what_is_deleted_is_asked_for_first_and_then_gone(studio: RunningBox) -> None:
    with maker(studio, "ada") as (browser, api):
        jobs = [made(studio, api, {**IMAGE, "prompt": "unwanted"}) for _ in range(2)]
        ids = [job["job_id"] for job in jobs]
        asked = browser.submit("/library/delete", "/library", job=ids, back="/library?q=unwanted")
        assert (asked.status_code, "Delete these 2 results?" in asked.text) == (200, True)
        assert jobs_on(browser.get("/library?q=unwanted")) == ids[::-1]
        done = browser.submit("/library/delete", "/library", job=ids, back="/library?q=unwanted", sure="yes")
        assert done.headers["location"] == "/library?q=unwanted"
        assert said(browser, done) == "2 results were deleted."
        assert jobs_on(browser.get("/library?q=unwanted")) == []
        assert jobs_on(browser.get("/library?q=unwanted&show=removed")) == ids[::-1]
        assert httpx.get(jobs[0]["result_url"], trust_env=False).status_code == 410
        again = browser.submit("/library/delete", "/library", job=ids, sure="yes", back="https://evil.test/")
        assert said(browser, again) == "None of the chosen is yours to delete."


# All that match


def as_of(page: httpx.Response) -> str:
    """When a wall was read, as its form says it."""
    found = re.search(r'name="as_of" value="(\d+)"', page.text)
    assert found is not None
    return found[1]


def test_all_that_match_come_into_one_archive(studio: RunningBox) -> None:
    with maker(studio, "fay") as (browser, api):
        lakes = [made(studio, api, {**IMAGE, "prompt": "a lake", "seed": seed})["job_id"] for seed in range(2)]
        made(studio, api, {**IMAGE, "prompt": "a sea"})
        wall = browser.get("/library?q=lake")
        assert "All 2 that match" in wall.text
        made(studio, api, {**IMAGE, "prompt": "a later lake"})
        every = {"all": "yes", "q": "lake", "as_of": as_of(wall)}
        with archive_of(browser.submit("/library/archive", "/library", **every, job=["job_unknown"])) as archive:
            assert [name[11:] for name in archive.namelist()] == ["a-lake-1-1.png", "a-lake-0-1.png"]
        assert jobs_on(wall) == lakes[::-1]


def test_all_that_match_are_deleted_as_many_as_were_confirmed(studio: RunningBox) -> None:
    with maker(studio, "gil") as (browser, api), maker(studio, "ada") as (_, ada):
        jobs = [made(studio, api, {**IMAGE, "prompt": "a spoilt take"}) for _ in range(3)]
        kept = made(studio, api, {**IMAGE, "prompt": "a good take"})["job_id"]
        theirs = made(studio, ada, {**IMAGE, "prompt": "a spoilt take"})
        every = {
            "all": "yes",
            "q": "spoilt",
            "as_of": as_of(browser.get("/library?q=spoilt")),
            "back": "/library?q=spoilt",
        }
        asked = browser.submit("/library/delete", "/library", **every)
        assert "Delete these 3 results?" in asked.text
        assert 'name="count" value="3"' in asked.text
        assert "job_" not in asked.text.partition("<form")[2].partition("</form>")[0]
        unconfirmed = browser.submit("/library/delete", "/library", **every, sure="yes")
        assert "Nothing was deleted yet" in unconfirmed.text
        assert api.delete(f"/v1/jobs/{jobs[0]['job_id']}").status_code == 200
        changed = browser.submit("/library/delete", "/library", **every, sure="yes", count="3")
        assert "now it is 2" in changed.text
        later = made(studio, api, {**IMAGE, "prompt": "a spoilt take"})["job_id"]
        done = browser.submit("/library/delete", "/library", **every, sure="yes", count="2")
        assert said(browser, done) == "2 results were deleted."
        assert jobs_on(browser.get("/library")) == [later, kept]
        for job in jobs:
            assert httpx.get(job["result_url"], trust_env=False).status_code == 410
        assert httpx.get(theirs["result_url"], trust_env=False).status_code == 200
        again = browser.submit("/library/delete", "/library", **every, sure="yes", count="2")
        assert said(browser, again).startswith("None of the chosen")


@pytest.mark.parametrize("path", ["/library/archive", "/library/delete"])
def test_a_filter_that_cannot_be_read_never_means_more(studio: RunningBox, path: str) -> None:
    with maker(studio, "hal") as (browser, api):
        made(studio, api, IMAGE)
        wall = browser.get("/library")
        every = {"all": "yes", "as_of": as_of(wall), "sure": "yes", "count": str(len(jobs_on(wall)))}
        for wrong in (
            {"type": "films"},
            {"from": "yesterday"},
            {"to": "9999-12-31"},
            {"show": "everything"},
            {"q": "x" * 500},
            {"whose": "team"},
            {"as_of": ""},
            {"as_of": "now"},
            {"as_of": "9" * 40},
        ):
            refused = browser.submit(path, "/library", **{**every, **wrong})
            assert said(browser, refused).startswith("The form could not be read"), wrong
        nothing = browser.submit(path, "/library", **{**every, "as_of": "0"})
        assert said(browser, nothing).startswith("None of the chosen")
        assert jobs_on(browser.get("/library")) == jobs_on(wall)


def test_an_archive_of_all_that_match_is_bounded_and_deleting_them_is_not(tmp_path: Path) -> None:
    with _filled(tmp_path, 580) as box, signed_in(box) as browser:
        wall = browser.get("/library")
        counted = re.search(r"All (\d+) that match", wall.text)
        assert counted is not None
        assert int(counted[1]) > 500
        every = {"all": "yes", "as_of": as_of(wall)}
        assert "At most 500 results go into one archive" in said(browser, browser.submit("/library/archive", **every))
        asked = browser.submit("/library/delete", "/library", **every)
        assert f"Delete these {counted[1]} results?" in asked.text
        assert f"and {int(counted[1]) - 48} more" in asked.text
        done = browser.submit("/library/delete", "/library", **every, sure="yes", count=counted[1])
        assert said(browser, done) == f"{counted[1]} results were deleted."
        assert jobs_on(browser.get("/library")) == []
        until(
            lambda: not [path for path in (box.folder / "outputs").iterdir() if path.name.startswith("job_")],
            "the files went",
        )


def test_who_comes_back_gets_many_tiles_at_once(tmp_path: Path) -> None:
    with _filled(tmp_path, 300) as box, signed_in(box) as browser:
        further = re.search(r'rel="next" href="([^"]+)"', browser.get("/library").text)
        assert further is not None
        rest = browser.get(f"{further[1].replace('&amp;', '&')}&part=1&tiles=960")
        assert len(jobs_on(rest)) > 200
        assert "<html" not in rest.text
        for odd in ("0", "-1", "x", "99999999", ""):
            assert len(jobs_on(browser.get(f"{further[1].replace('&amp;', '&')}&part=1&tiles={odd}"))) == 48
        assert len(jobs_on(browser.get("/library?tiles=960"))) == 48


@pytest.mark.parametrize("path", ["/library/archive", "/library/delete"])
def test_none_too_many_and_unknown_ones_are_refused(studio: RunningBox, path: str) -> None:
    with signed_in(studio, "eve") as browser:
        for fields, told in (
            ({}, "Choose at least one"),
            ({"job": [f"job_{number}" for number in range(501)]}, "At most 500"),
            ({"job": ["job_unknown", "", "x" * 5_000, "' OR 1=1 --"]}, "None of the chosen"),
        ):
            assert said(browser, browser.submit(path, "/library", **fields)).startswith(told)


def test_nobody_is_served_without_a_session_and_nothing_done_without_its_token(studio: RunningBox) -> None:
    with Browser(studio) as stranger:
        for path in ("/library", "/library/job_x", "/library/job_x/receipt.json"):
            assert stranger.get(path).headers["location"].startswith("/sign-in?next=/library")
        for path in ("archive", "delete", "job_x/rerun", "job_x/cancel"):
            assert stranger.post(f"/library/{path}", data={"job": "job_x"}).status_code in (401, 403)
    with signed_in(studio, "eve") as browser:
        for path in ("archive", "delete", "job_x/rerun", "job_x/cancel"):
            assert browser.post(f"/library/{path}", data={"job": "job_x", "csrf": "guessed"}).status_code == 403


def test_a_client_that_leaves_in_the_middle_leaves_nothing_open(tmp_path: Path) -> None:
    with _filled(tmp_path, 100) as box, signed_in(box) as browser:
        for path in (box.folder / "outputs").rglob("*.png"):
            os.truncate(path, 900_000)  # sparse, and as large as its row says
        chosen = [*jobs_on(browser.get("/library")), *jobs_on(browser.get("/library?type=image"))]
        fields = {"csrf": browser.csrf, "job": chosen}
        with browser.stream("POST", "/library/archive", data=fields, headers={"Referer": f"{box.url}/"}) as answer:
            assert answer.status_code == 200
            assert next(answer.iter_raw()).startswith(b"PK\x03\x04")
            until(lambda: _open_results(box), "a result is open")  # none is between two of them
        until(lambda: not _open_results(box), "no result is open any more")
        assert jobs_on(browser.get("/library"))
        assert "Traceback" not in box.log(), box.log()[-3000:]


# The team's


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("sharing") / "data"
    box = RunningBox(folder, devices="cpu", included_images=10**6, team_library="true")
    add_people(folder, "ada", "ben")
    box.start()
    yield box
    box.stop()


def test_a_shared_library_is_seen_by_everybody_and_changed_by_its_makers_only(sharing: RunningBox) -> None:
    with maker(sharing, "ada") as (ada, ada_api), maker(sharing, "ben") as (ben, _):
        job = made(sharing, ada_api, {**IMAGE, "prompt": "a shared sea", "metadata": {"client": "acme"}})
        failed, job_id = sharing.ended(ada_api, submit(ada_api, FAILING))["job_id"], job["job_id"]
        assert jobs_on(ben.get("/library")) == []
        wall = ben.get("/library?whose=team&q=shared")
        assert (jobs_on(wall), '<span class="maker">ada</span>' in wall.text) == ([job_id], True)
        page = ben.get(f"/library/{job_id}").text
        assert "Made by ada" in page
        for private in ("acme", ">Charge<", "Rerun", ">Delete<", "Vary", "$ZSKY_API_KEY"):
            assert private not in page, private
        assert ben.get(f"/library/{failed}").status_code == 404
        with archive_of(ben.submit("/library/archive", job=job_id)) as archive:
            assert len(archive.namelist()) == 1
        every = {"all": "yes", "whose": "team", "q": "shared", "as_of": as_of(wall)}
        with archive_of(ben.submit("/library/archive", "/library", **every)) as archive:
            assert len(archive.namelist()) == 1
        assert said(ben, ben.submit("/library/delete", "/library", **every)).startswith("None of the chosen")
        assert said(ben, ben.submit("/library/delete", "/library", job=job_id, sure="yes")).startswith("None of the")
        assert "There is no" in said(ben, ben.submit(f"/library/{job_id}/rerun", "/library", once="x"))
        assert jobs_on(ada.get("/library?whose=team")) == [job_id]


# Many


def test_a_wall_of_ten_thousand_is_as_small_as_one_of_hundreds(tmp_path: Path) -> None:
    sizes: dict[int, dict[str, int]] = {}
    for jobs in (600, 10_000):
        with _filled(tmp_path / str(jobs), jobs) as box, signed_in(box) as browser:
            last = _some_job(box, "ASC")
            sizes[jobs] = {
                path: len(browser.get(path).content)
                for path in ("/library", "/library?q=lighthouse", "/library?show=failed", f"/library/{last}")
            }
            assert all(size < 150_000 for size in sizes[jobs].values()), sizes
            assert len(jobs_on(browser.get("/library"))) == 48
            deep = browser.get(f"/library?cursor={cursors.written('w', jobs // 2)}&q=fog")
            assert 0 < len(jobs_on(deep)) <= 48
    few, many = sizes.values()
    for (path, small), large in zip(few.items(), many.values(), strict=True):
        assert large < small * 1.1 + 500, path


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1920, 1080, "16x9"),
        (1080, 1920, "9x16"),
        (1080, 1080, "1x1"),
        (2520, 1080, "21x9"),
        (854, 480, "16x9"),
        (0, 0, "1x1"),
        (9000, 1, "21x9"),
    ],
)
def test_a_box_has_the_nearest_shape(width: int, height: int, expected: str) -> None:
    assert shape(width, height) == expected


@contextmanager
def _filled(folder: Path, jobs: int) -> Generator[RunningBox]:
    """A running box whose owner has a past of so many jobs, every tenth failed."""
    data = folder / "data"
    keys = fill(data, jobs)
    add_people(data)
    box = RunningBox(data, devices="cpu", included_images=10**9)
    box.keys = keys
    try:
        yield at_rest(box.start())
    finally:
        box.stop()


def _some_job(box: RunningBox, order: str) -> str:
    with closing(Store(box.folder)) as store:
        sql = f"SELECT id FROM job WHERE status = 'completed' ORDER BY seq {order} LIMIT 1"  # noqa: S608
        return str(store.all(sql)[0]["id"])


def _open_results(box: RunningBox) -> list[str]:
    """What of the outputs the service has open."""
    found: list[str] = []
    for link in Path(f"/proc/{box.pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        if "/outputs/" in target and target.endswith(".png"):
            found.append(target)
    return found
