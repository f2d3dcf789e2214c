from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.stores import BASE_URL, Rooms, a_file, add_account, caller_for, made
from zsky_box.errors import InvalidFields, Refusal
from zsky_box.jobs.views import Filters
from zsky_box.keys import Caller
from zsky_box.schemas import JobList


def page(
    rooms: Rooms, limit: int = 100, cursor: str | None = None, caller: Caller | None = None, **filters: Any
) -> JobList:
    return rooms.reader.page(caller or rooms.owner, Filters(**filters), limit, cursor, BASE_URL)


def ids(jobs: JobList) -> list[str]:
    return [job.job_id for job in jobs.data]


def as_json(rooms: Rooms, job_id: str) -> dict[str, Any]:
    """The job as its client's program sees it."""
    return msgspec.json.decode(msgspec.json.encode(rooms.view(job_id)))


# One job


def test_an_open_job_has_neither_result_nor_error(rooms: Rooms) -> None:
    shown = as_json(rooms, rooms.new_job(seed=5))
    assert (shown["status"], shown["seed"], shown["created_at"]) == ("queued", 5, "2026-11-22T12:00:00Z")
    assert {"result_url", "result", "results", "error", "error_code"} & set(shown) == set()
    assert (shown["started_at"], shown["finished_at"], shown["receipt"], shown["removed_at"]) == (None,) * 4


def test_a_completed_job_has_an_absolute_url_that_opens_its_file(rooms: Rooms) -> None:
    attempt = rooms.running(prompt="A Lake")
    rooms.complete(attempt)
    shown = as_json(rooms, attempt.job_id)
    assert shown["result_url"].startswith(f"{BASE_URL}/files/file_")
    assert "/a-lake-7-0.png?expires=" in shown["result_url"]
    assert shown["result"] == shown["results"][0]
    assert shown["result"]["url"] == shown["result_url"]
    assert "/a-lake-7-0.jpg?" in shown["result"]["thumbnail_url"]
    assert {"duration", "fps", "frames", "audio"} & set(shown["result"]) == set()
    assert (shown["result"]["upscaled_from"], shown["duration"], shown["fps"]) == (None, None, None)


def test_the_urls_of_a_job_are_the_same_at_every_poll_of_an_hour(rooms: Rooms) -> None:
    attempt = rooms.running()
    rooms.complete(attempt)
    first = rooms.view(attempt.job_id).result_url
    rooms.clock.advance(1)
    second = rooms.view(attempt.job_id).result_url
    rooms.clock.advance(3_500)
    assert rooms.view(attempt.job_id).result_url == second
    assert isinstance(first, str)


def test_a_video_says_its_length_and_its_sound(rooms: Rooms) -> None:
    attempt = rooms.running(type="video", duration=2)
    done, content = made(attempt), b"a film"
    film = a_file(
        content,
        name="film.mp4",
        mime="video/mp4",
        frames=48,
        fps=24,
        duration_seconds=2.0,
        sample_rate=48_000,
        channels=2,
        upscaled_from="1280x720",
    )
    (Path(attempt.out_dir) / film.name).write_bytes(content)
    rooms.book.complete(msgspec.structs.replace(done, files=(film,), notes=("Upscaled.",)), "CPU", {})
    shown = as_json(rooms, attempt.job_id)
    assert (shown["duration"], shown["fps"], shown["notes"][-1]) == (2.0, 24, "Upscaled.")
    result = shown["result"]
    assert (result["mime"], result["duration"], result["fps"], result["frames"]) == ("video/mp4", 2.0, 24, 48)
    assert result["audio"] == {"sample_rate": 48_000, "channels": 2}
    assert (result["thumbnail_url"], result["upscaled_from"]) == (None, "1280x720")


def test_several_results_come_in_the_order_of_their_seeds(rooms: Rooms) -> None:
    attempt = rooms.running(n=4)
    rooms.complete(attempt, 3, 0, 2)
    shown = as_json(rooms, attempt.job_id)
    assert [result["seed"] for result in shown["results"]] == [7, 9, 10]
    assert len({result["thumbnail_url"] for result in shown["results"]}) == 3


def test_a_failed_job_has_a_plain_sentence_and_a_code(rooms: Rooms) -> None:
    attempt = rooms.running()
    rooms.end(attempt, "out_of_memory")
    shown = as_json(rooms, attempt.job_id)
    assert (shown["status"], shown["error"], shown["error_code"]) == ("failed", "It did not work.", "out_of_memory")
    assert "result_url" not in shown


def test_another_accounts_job_is_as_one_that_never_was(rooms: Rooms) -> None:
    job_id = rooms.new_job()
    other = caller_for(rooms.store, add_account(rooms.store, "bob"))
    refusals: set[str] = set()
    for caller, asked in ((other, job_id), (rooms.tester, job_id), (rooms.owner, "job_unknown")):
        with pytest.raises(Refusal) as refused:
            rooms.view(asked, caller)
        refusals.add(f"{refused.value.status} {refused.value}")
    assert len(refusals) == 1


def test_what_was_asked_for_can_be_asked_for_again(rooms: Rooms) -> None:
    job_id = rooms.new_job(n=2, metadata={"shot": "1"}, priority="batch")
    submission = rooms.reader.submission(rooms.owner, job_id)
    assert (submission.work.n, submission.work.seed, submission.metadata, submission.batch) == (
        2,
        7,
        {"shot": "1"},
        True,
    )


def test_the_place_in_the_queue_counts_those_before_of_the_same_mode(rooms: Rooms) -> None:
    batch = rooms.new_job(priority="batch")
    tests = rooms.new_job(rooms.tester)
    first, second = rooms.new_job(), rooms.new_job()
    assert [rooms.view(job_id).queue_position for job_id in (first, second, batch)] == [1, 2, 3]
    assert rooms.view(tests, rooms.tester).queue_position == 1
    rooms.claimed(first)
    assert [rooms.view(job_id).queue_position for job_id in (first, second, batch)] == [None, 1, 2]


# Lists


def test_a_list_is_newest_first_of_one_account_and_mode(rooms: Rooms) -> None:
    rooms.new_job(caller_for(rooms.store, add_account(rooms.store, "bob")))
    rooms.new_job(rooms.tester)
    mine = [rooms.new_job() for _ in range(3)]
    listed = page(rooms)
    assert (ids(listed), listed.has_more, listed.next_cursor) == (mine[::-1], False, None)
    assert len(ids(page(rooms, caller=rooms.tester))) == 1


def test_pages_follow_each_other_and_stay_right_while_jobs_come(rooms: Rooms) -> None:
    mine = [rooms.new_job() for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    for expected in (2, 2, 1):
        listed = page(rooms, 2, cursor)
        assert len(listed.data) == expected
        assert listed.has_more == (listed.next_cursor is not None)
        seen, cursor = seen + ids(listed), listed.next_cursor
        rooms.new_job()
    assert seen == mine[::-1]
    assert cursor is None


def test_an_empty_list_is_a_list(rooms: Rooms) -> None:
    assert msgspec.json.decode(msgspec.json.encode(page(rooms))) == {
        "object": "list",
        "data": [],
        "has_more": False,
        "next_cursor": None,
    }


@pytest.mark.parametrize("text", ["", "j", "jx", "x5", "j-1", "j5 ", "j" + "9" * 40, "5", "j٣"], ids=repr)
def test_a_cursor_of_ones_own_making_is_refused(rooms: Rooms, text: str) -> None:
    cursor = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    for mangled in (cursor, f"é{cursor}", "!!!", "a"):
        with pytest.raises(InvalidFields) as refused:
            page(rooms, cursor=mangled)
        assert refused.value.field == "cursor"


def test_a_list_can_be_narrowed(rooms: Rooms) -> None:
    image = rooms.new_job(metadata={"shot": "1", "a.b[0]\"'": "x"})
    rooms.clock.advance(60)
    video = rooms.new_job(type="video", metadata={"shot": "2"})
    rooms.end(rooms.claimed(video))
    later = rooms.clock()
    assert ids(page(rooms, status="failed")) == ids(page(rooms, type="video")) == [video]
    assert ids(page(rooms, status="queued")) == [image]
    assert ids(page(rooms, created_after=later)) == [video]
    assert ids(page(rooms, created_before=later)) == [image]
    assert ids(page(rooms, metadata=(("shot", "2"),))) == [video]
    assert ids(page(rooms, metadata=(("a.b[0]\"'", "x"), ("shot", "1")))) == [image]
    assert ids(page(rooms, metadata=(("shot", "1"), ("shot", "2")))) == []
    assert ids(page(rooms, metadata=(("%", "%"),))) == []
    assert ids(page(rooms, status="failed", type="image")) == []


def test_the_open_jobs_are_those_not_ended(rooms: Rooms) -> None:
    queued, running, ended = rooms.new_job(), rooms.running(), rooms.running()
    rooms.end(ended)
    assert [job.job_id for job in rooms.reader.open_jobs(rooms.owner, 10, BASE_URL).data] == [running.job_id, queued]
    newest = rooms.reader.open_jobs(rooms.owner, 1, BASE_URL)
    assert (len(newest.data), newest.has_more) == (1, True)
    older = rooms.reader.page(rooms.owner, Filters(status="queued"), 10, newest.next_cursor, BASE_URL)
    assert queued in [job.job_id for job in older.data]
