"""Server-Sent Events: an account's jobs, or one, live and resumable."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.api.asking import IMAGE, SLOW, VIDEO, Told, add_member, made, problem, submit, told
from tests.running import RunningBox
from tests.waiting import until
from zsky_box.feed import RING_LENGTH

STREAMS_MAX = 4
ENDS = ("completed", "failed")


@contextmanager
def listening(client: httpx.Client, path: str = "/v1/events", last: str = "") -> Generator[Iterator[Told]]:
    """An open stream's messages."""
    with client.stream("GET", path, headers={"Last-Event-ID": last} if last else {}) as answer:
        yield told(answer)


def until_end(messages: Iterator[Told], job_id: str) -> list[Told]:
    """The messages up to a job's end, which comes last."""
    heard: list[Told] = []
    for message in messages:
        heard.append(message)
        if message.kind == "status" and message.data["job_id"] == job_id and message.data["status"] in ENDS:
            return heard
    raise AssertionError(f"the stream ended before the job: {[(m.kind, m.data) for m in heard]}")


def opened(client: httpx.Client) -> httpx.Response:
    """A stream that is let in; a place may still be held by one that has just been closed."""
    streams: list[httpx.Response] = []

    def is_let_in() -> bool:
        stream = client.send(client.build_request("GET", "/v1/events"), stream=True)
        if stream.status_code == 200:
            streams.append(stream)
            return True
        stream.close()
        return False

    until(is_let_in, "a place is free")
    return streams[0]


def refused(client: httpx.Client) -> dict[str, Any]:
    """That no further stream is let in; the problem's body."""
    with client.stream("GET", "/v1/events") as answer:
        assert answer.status_code == 429
        answer.read()
        return problem(answer, 429, "rate_limited")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """A box with few streams and two accounts."""
    folder = tmp_path_factory.mktemp("streams") / "data"
    running = RunningBox(
        folder,
        devices="cpu",
        streams_per_key_max=STREAMS_MAX,
        streams_per_account_max=STREAMS_MAX + 1,
        streams_max=STREAMS_MAX + 2,
    )
    running.keys["member"] = add_member(folder, "member")
    running.start()
    yield running
    running.stop()


def test_it_works(live: httpx.Client) -> None:
    with listening(live) as messages:
        first = next(messages)
        assert first.kind == "snapshot"
        assert first.data["object"] == "list"
        job_id = submit(live, {**IMAGE, "metadata": {"shot": "3"}})
        heard = [message for message in until_end(messages, job_id) if message.data["job_id"] == job_id]
    statuses = [message.data["status"] for message in heard if message.kind == "status"]
    assert statuses == ["queued", "running", "completed"]
    # The end is told with the whole job, as job_status shows it.
    assert heard[-1].data == live.get(f"/v1/job_status/{job_id}").json()
    assert len({message.id for message in heard}) == len(heard)


def test_a_jobs_stream_tells_its_progress_and_ends_with_it(shared_box: RunningBox, live: httpx.Client) -> None:
    job_id = submit(live, SLOW)
    with listening(live, f"/v1/jobs/{job_id}/events") as messages:
        heard: list[Told] = []
        for message in messages:
            heard.append(message)
            if len(heard) == 6:
                live.post(f"/v1/jobs/{job_id}/cancel")
    snapshot = heard[0]
    assert (snapshot.kind, [job["job_id"] for job in snapshot.data["data"]]) == ("snapshot", [job_id])
    assert {message.data["job_id"] for message in heard[1:]} == {job_id}
    progress = [snapshot.data["data"][0]["progress"]]
    progress += [message.data["progress"] for message in heard[1:] if "progress" in message.data]
    assert progress == sorted(progress)
    assert len(progress) > 3
    assert (heard[-1].data["status"], heard[-1].data["error_code"]) == ("failed", "cancelled")
    assert shared_box.ended(live, job_id) == heard[-1].data


def previews(messages: list[Told]) -> list[Image.Image]:
    """The pictures of the previews among the messages."""
    found = [message.data["image"] for message in messages if message.kind == "preview"]
    assert all(data.startswith("data:image/jpeg;base64,") for data in found)
    return [Image.open(BytesIO(b64decode(data.partition(",")[2]))) for data in found]


def test_previews_are_shown_while_a_job_denoises_and_are_not_told_again(live: httpx.Client) -> None:
    with listening(live) as messages:
        position = next(messages).id
        job_id = submit(live, SLOW)
        with listening(live, f"/v1/jobs/{job_id}/events") as own:
            heard: list[Told] = []
            for message in own:
                heard.append(message)
                if len(previews(heard)) == 3:
                    live.post(f"/v1/jobs/{job_id}/cancel")
        shown = previews(heard)
        assert len(shown) >= 3
        assert all((picture.format, picture.size) == ("JPEG", (64, 36)) for picture in shown)
        assert len({picture.tobytes() for picture in shown}) == len(shown), "each shows another step"
        assert {message.data["job_id"] for message in heard if message.kind == "preview"} == {job_id}
        of_the_account = [message for message in until_end(messages, job_id) if message.data["job_id"] == job_id]
        assert len(previews(of_the_account)) >= 3
    with listening(live, last=position) as messages:
        replayed = [message for message in until_end(messages, job_id) if message.data["job_id"] == job_id]
    assert previews(replayed) == []


def test_a_setting_turns_previews_off(tmp_path: Path) -> None:
    box = RunningBox(tmp_path / "data", devices="cpu", previews=False).start()
    with box.client() as client, listening(client) as messages:
        next(messages)
        assert previews(until_end(messages, submit(client, VIDEO))) == []
    box.stop()


def test_an_ended_jobs_stream_is_one_snapshot(shared_box: RunningBox, live: httpx.Client) -> None:
    job = made(shared_box, live, IMAGE)
    path = f"/v1/jobs/{job['job_id']}/events"
    with listening(live, path) as messages:
        heard = list(messages)
    assert [message.kind for message in heard] == ["snapshot"]
    assert heard[0].data == {"object": "list", "data": [job], "has_more": False, "next_cursor": None}
    # Browsers come again by themselves after a stream's end: 204 tells them to stop.
    again = live.get(path, headers={"Last-Event-ID": heard[0].id})
    assert (again.status_code, again.content) == (204, b"")


def test_a_stream_resumes_without_loss_or_repetition(shared_box: RunningBox, live: httpx.Client) -> None:
    with listening(live) as messages:
        next(messages)
        first = submit(live, IMAGE)
        before = [message for message in until_end(messages, first) if message.kind != "preview"]
    second, third = (made(shared_box, live, IMAGE)["job_id"] for _ in range(2))
    with listening(live, last=before[0].id) as messages:
        replayed = until_end(messages, third)
    assert [message.id for message in replayed[: len(before) - 1]] == [message.id for message in before[1:]]
    later = replayed[len(before) - 1 :]
    assert {message.data["job_id"] for message in later} == {second, third}
    for job_id in (second, third):
        statuses = [m.data["status"] for m in later if m.kind == "status" and m.data["job_id"] == job_id]
        assert statuses == ["queued", "running", "completed"]
    ids = [message.id for message in replayed]
    assert len(set(ids)) == len(ids)


def test_one_jobs_stream_resumes_too(shared_box: RunningBox, live: httpx.Client) -> None:
    with listening(live) as messages:
        position = next(messages).id
        job_id = made(shared_box, live, IMAGE)["job_id"]
        made(shared_box, live, IMAGE)
    with listening(live, f"/v1/jobs/{job_id}/events", position) as messages:
        heard = list(messages)
    assert heard[-1].data["status"] == "completed"
    assert {message.data["job_id"] for message in heard} == {job_id}
    assert live.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": heard[-1].id}).status_code == 204


@pytest.mark.parametrize("last", ["nonsense", "0-1", "-", "1", "x" * 5_000, "5f0a-99999999999999999999"])
def test_an_id_that_the_box_does_not_know_begins_with_a_snapshot(live: httpx.Client, last: str) -> None:
    with listening(live, last=last) as messages:
        assert next(messages).kind == "snapshot"


def test_an_id_that_has_left_the_ring_begins_with_a_snapshot(shared_box: RunningBox, live: httpx.Client) -> None:
    with listening(live) as messages:
        position = next(messages).id
    for job_id in [submit(live, IMAGE) for _ in range(RING_LENGTH // 3 + 1)]:  # each tells of three states at least
        shared_box.ended(live, job_id)
    with listening(live, last=position) as messages:
        assert next(messages).kind == "snapshot"


def test_the_snapshot_shows_the_open_jobs(shared_box: RunningBox, live: httpx.Client) -> None:
    job_id = submit(live, SLOW)
    with listening(live) as messages:
        shown = {job["job_id"]: job for job in next(messages).data["data"]}
        live.post(f"/v1/jobs/{job_id}/cancel")
        until_end(messages, job_id)
    assert shown[job_id]["status"] in ("queued", "running")
    shared_box.ended(live, job_id)


def test_others_hear_nothing(small: RunningBox) -> None:
    with (
        small.client() as owner,
        small.client("member") as member,
        small.client("test") as tester,
        listening(member) as members,
        listening(tester) as testers,
    ):
        assert next(members).data["data"] == next(testers).data["data"] == []
        made(small, owner, IMAGE)
        own, test = made(small, member, IMAGE)["job_id"], made(small, tester, IMAGE)["job_id"]
        assert {message.data["job_id"] for message in until_end(members, own)} == {own}
        assert {message.data["job_id"] for message in until_end(testers, test)} == {test}


def test_streams_are_limited_and_a_place_is_given_back(small: RunningBox) -> None:
    with small.client() as client, small.client("member") as member:
        for _ in range(3):  # more often than there are places
            streams = [opened(client) for _ in range(STREAMS_MAX)]
            heard = [told(stream) for stream in streams]
            assert [next(messages).kind for messages in heard] == ["snapshot"] * STREAMS_MAX
            assert str(STREAMS_MAX) in refused(client)["detail"]
            opened(member).close()
            for stream in streams:
                stream.close()


def test_streams_are_limited_in_all(small: RunningBox) -> None:
    with small.client() as client, small.client("member") as member:
        streams = [opened(client) for _ in range(STREAMS_MAX)] + [opened(member) for _ in range(2)]
        assert f"the box has {STREAMS_MAX + 2}" in refused(member)["detail"]
        for stream in streams:
            stream.close()
        opened(member).close()


def test_an_account_with_many_keys_leaves_room_for_others(small: RunningBox) -> None:
    with small.client() as client, small.client("test") as tester, small.client("member") as member:
        streams = [opened(client) for _ in range(STREAMS_MAX)] + [opened(tester)]
        assert f"an account may have {STREAMS_MAX + 1}" in refused(tester)["detail"]
        opened(member).close()
        streams.pop().close()
        opened(tester).close()
        for stream in streams:
            stream.close()


def test_a_client_that_leaves_before_the_first_message_holds_no_place(small: RunningBox) -> None:
    for _ in range(3 * STREAMS_MAX):
        with small.client() as client:
            client.send(client.build_request("GET", "/v1/events"), stream=True).close()
    with small.client() as client:
        for stream in [opened(client) for _ in range(STREAMS_MAX)]:
            stream.close()
    assert "Traceback" not in small.log()


def test_a_stop_of_the_service_ends_the_streams_at_once(tmp_path: Path) -> None:
    box = RunningBox(tmp_path / "data", devices="cpu").start()
    with box.client() as client, listening(client) as messages:
        next(messages)
        assert box.stop() in (0, -15)
        assert list(messages) == []
    assert "graceful shutdown exceeded" not in box.log()
    assert "Traceback" not in box.log()
