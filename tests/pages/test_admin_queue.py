"""`/admin/queue`: everybody's jobs, for the owner alone."""

from __future__ import annotations

import re
from collections.abc import Generator

import pytest

from tests.boxes import running
from tests.pages.test_admin_cards import audited
from tests.people import Browser, add_people, signed_in
from tests.running import RunningBox
from tests.waiting import until

PAGE_BYTES_MAX = 150_000


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """A box whose devices are paused, so that what is asked for waits."""
    folder = tmp_path_factory.mktemp("queue") / "data"
    RunningBox(folder)
    add_people(folder, "ada")
    with running(folder, included_images=10**6) as box:
        with signed_in(box) as owner:
            owner.submit("/admin/cards", device="all", do="pause")
        yield box


@pytest.fixture
def studio(paused: RunningBox) -> Generator[RunningBox]:
    """The same with an empty queue."""
    yield paused
    with signed_in(paused) as owner:
        for job_id in shown(owner.get("/admin/queue").text):
            owner.submit(f"/admin/queue/{job_id}/cancel", reason="the test is over")


def ask(browser: Browser, prompt: str, **fields: object) -> str:
    body = {"type": "image", "prompt": prompt, **fields}
    return browser.post("/v1/generate", json=body, headers={"X-CSRF-Token": browser.csrf}).json()["job_id"]


def shown(page: str) -> list[str]:
    """The jobs that wait, as the page lists them."""
    return re.findall(r'id="wait-(job_\w+)"', page)


def test_it_works(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as ada, signed_in(studio) as owner:
        mine = [ask(owner, f"a lake, {n}") for n in range(2)]
        theirs, late = ask(ada, "an espresso bar"), ask(ada, "a night market", priority="batch")
        until(lambda: "done in" not in owner.get("/admin/queue").text, "the scheduler has heard of the pause")
        page = owner.get("/admin/queue").text
        assert sorted(shown(page)[:3]) == sorted([*mine, theirs])
        assert shown(page)[3] == late
        for part in ("<strong>ada</strong>", "an espresso bar", "All cards are paused", "Resume all cards"):
            assert part in page
        assert "All devices are paused." not in page, "said once, above them"
        part = owner.get("/admin/queue/now", headers={"HX-Request": "true"}).text
        assert "<html" not in part
        assert shown(part) == shown(page)


def test_an_empty_line_of_a_paused_box_promises_nothing(studio: RunningBox) -> None:
    with signed_in(studio) as owner:
        page = owner.get("/admin/queue").text
        assert "Nothing waits" in page
        assert "waits until you resume them" in page
        assert "starts at once" not in page


def test_it_is_there_for_the_owner_alone(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as ada:
        job_id = ask(ada, "a fox")
        for path in ("/admin/queue", "/admin/queue/now", f"/admin/queue/{job_id}"):
            assert ada.get(path).status_code == 404
        for path in ("/admin/queue", f"/admin/queue/{job_id}/cancel"):
            ada.submit(path, front=job_id, reason="mine")
        assert ada.get(f"/v1/job_status/{job_id}").json()["status"] == "queued"
        assert audited(studio.folder, "job.moved") == []


def test_a_job_is_moved_and_the_owner_is_on_record(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as ada, signed_in(studio) as owner:
        first, second, third = (ask(ada, f"a fox, {n}") for n in range(3))
        answer = owner.submit("/admin/queue", front=third, back="/admin/queue?type=image")
        assert (answer.status_code, answer.headers["location"]) == (303, "/admin/queue?type=image")
        page = owner.get("/admin/queue").text
        assert "goes ahead" in page
        assert shown(page) == [third, first, second]
        owner.submit("/admin/queue", end=first)
        assert shown(owner.get("/admin/queue").text) == [third, second, first]
        owner.submit("/admin/queue", batch=third)
        assert shown(owner.get("/admin/queue").text) == [second, first, third]
        owner.submit("/admin/queue", interactive=third)
        assert shown(owner.get("/admin/queue").text)[0] == third
        me = owner.get("/v1/me").json()["account"]
    subjects = [third, first, third, third]
    assert audited(studio.folder, "job.moved") == [(f"browser:{me}", job_id) for job_id in subjects]


def test_what_is_no_move_is_refused_and_leads_nowhere_else(studio: RunningBox) -> None:
    with signed_in(studio) as owner:
        for fields in ({}, {"front": "job_no"}, {"aside": "job_no"}):
            answer = owner.submit("/admin/queue", **fields)
            assert answer.headers["location"] == "/admin/queue"
            assert 'role="alert"' in owner.get("/admin/queue").text
        job_id = ask(owner, "a fox")
        answer = owner.submit("/admin/queue", end=job_id, back="https://elsewhere.example/")
        assert answer.headers["location"] == "/admin/queue"


def test_a_job_is_cancelled_with_a_reason_that_its_people_read(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as ada, signed_in(studio) as owner:
        job_id = ask(ada, "a fox <b>in</b> the snow")
        page = owner.get(f"/admin/queue/{job_id}").text
        assert "Cancel a job of ada?" in page
        assert "cancelling is free" in page
        assert "<b>in</b>" not in page
        owner.submit(f"/admin/queue/{job_id}/cancel", f"/admin/queue/{job_id}", reason=" ")
        assert "Say why" in owner.get(f"/admin/queue/{job_id}").text
        owner.submit(f"/admin/queue/{job_id}/cancel", reason="the card is needed")
        job = ada.get(f"/v1/job_status/{job_id}").json()
        assert (job["error_code"], job["charge"]["state"]) == ("cancelled", "voided")
        assert job["error"].endswith("the card is needed")
        assert owner.get(f"/admin/queue/{job_id}").status_code == 404
        late = owner.submit(f"/admin/queue/{job_id}/cancel", f"/admin/queue/{job_id}", reason="once more")
        assert late.headers["location"] == "/admin/queue"
        assert "it cannot be cancelled" in owner.get("/admin/queue").text
    assert job_id in {subject for _, subject in audited(studio.folder, "job.cancelled")}


def test_filters_narrow_and_pages_have_a_hundred(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as ada, signed_in(studio) as owner:
        for n in range(105):
            ask(owner, f"a long prompt about a lake at dawn with reeds and mist, number {n}, {'x' * 200}")
        fox, video = ask(ada, "a FOX"), ask(ada, "a clip", type="video")
        first = owner.get("/admin/queue")
        assert len(shown(first.text)) == 100
        assert len(first.content) < PAGE_BYTES_MAX
        second = shown(owner.get("/admin/queue?start=100").text)
        assert len(second) == 7
        assert set(second).isdisjoint(shown(first.text))
        account = ada.get("/v1/me").json()["account"]
        assert sorted(shown(owner.get(f"/admin/queue?person={account}").text)) == sorted([fox, video])
        assert shown(owner.get("/admin/queue?q=fox").text) == [fox]
        assert shown(owner.get("/admin/queue?type=video").text) == [video]
        assert "No waiting job matches" in owner.get("/admin/queue?q=nothing").text
        assert "Nothing waits" in owner.get("/admin/queue?keys=test").text
        for odd in ("start=-1", "start=abc", "start=99999999999", "type=%00", "person=%27"):
            assert owner.get(f"/admin/queue?{odd}").status_code == 200
