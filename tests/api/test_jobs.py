"""`job_status`, the list, cancel, rerun and delete."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from tests.api.asking import IMAGE, SLOW, VIDEO, denoises, made, nothing_happens, problem, runs, submit
from tests.running import RunningBox

UNKNOWN_ID = "job_" + "0" * 26
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")


def test_it_works(shared_box: RunningBox, live: httpx.Client) -> None:
    job = made(shared_box, live, {**VIDEO, "seed": 7, "metadata": {"shot": "12"}})
    assert (job["status"], job["progress"], job["seed"], job["metadata"]) == ("completed", 1.0, 7, {"shot": "12"})
    assert (job["queue_position"], job["removed_at"], job["test"]) == (None, None, False)
    assert "error" not in job
    assert "error_code" not in job
    for name in ("created_at", "started_at", "finished_at"):
        assert TIME.fullmatch(job[name]), name
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    result = job["result"]
    assert job["result_url"] == result["url"]
    assert (result["mime"], result["width"], result["height"], result["seed"]) == ("video/mp4", 854, 480, 7)
    assert (result["frames"], result["fps"], result["duration"]) == (24, 24, 1.0)
    assert result["audio"] == {"sample_rate": 48_000, "channels": 2}
    assert result["upscaled_from"] is None
    assert job["charge"]["state"] == "posted"
    assert (job["charge"]["units"], job["charge"]["wallet_units"], job["charge"]["amount_usd"]) == (1, 0, "0.00")
    assert len(job["charge"]["ledger_ids"]) == 2
    assert (job["receipt"]["model"], job["receipt"]["commercial_use"]) == ("leader", "yes")
    assert job["receipt"]["device"]
    assert job["receipt"]["versions"]


def test_both_addresses_show_the_same_job(shared_box: RunningBox, live: httpx.Client) -> None:
    job = made(shared_box, live, IMAGE)
    assert live.get(f"/v1/jobs/{job['job_id']}").json() == live.get(f"/v1/job_status/{job['job_id']}").json() == job


def test_a_poll_with_a_content_type_and_no_body_is_answered(live: httpx.Client) -> None:
    job_id = submit(live, IMAGE)
    for path in (f"/v1/job_status/{job_id}", "/v1/jobs", "/v1/me", "/v1/models"):
        assert live.get(path, headers={"Content-Type": "application/json"}).status_code == 200, path


def test_a_failed_job_says_why(shared_box: RunningBox, live: httpx.Client) -> None:
    job = shared_box.ended(live, submit(live, {**VIDEO, "prompt": "double:raises_in_run"}))
    assert (job["status"], job["error_code"], job["charge"]["state"]) == ("failed", "internal_error", "voided")
    assert isinstance(job["error"], str)
    assert "result_url" not in job
    assert job["charge"]["included_units"] == 0


def test_a_blocked_job_is_charged(shared_box: RunningBox, live: httpx.Client) -> None:
    job = shared_box.ended(live, submit(live, {**VIDEO, "prompt": "double:safety_blocked"}))
    assert (job["error_code"], job["charge"]["state"], job["charge"]["included_units"]) == (
        "safety_blocked",
        "posted",
        1,
    )


def test_progress_never_goes_back(shared_box: RunningBox, live: httpx.Client) -> None:
    seen: list[float] = []
    phases: list[str] = []

    def watch(job: dict[str, Any]) -> bool:
        seen.append(job["progress"])
        phases.append(job["phase"])
        return job["status"] in ("completed", "failed") or job["progress"] > 0.1

    job_id = submit(live, SLOW)
    shared_box.until(live, job_id, watch)
    live.post(f"/v1/jobs/{job_id}/cancel")
    shared_box.ended(live, job_id)
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    assert set(phases) <= {"waiting", "loading", "denoising", "decoding", "encoding"}


@pytest.mark.parametrize("job_id", [UNKNOWN_ID, "x", "job_%00", "%F0%9F%98%80", "job_' OR 1=1 --", "x" * 5_000])
def test_an_id_that_names_nothing_is_not_found(live: httpx.Client, job_id: str) -> None:
    for method, path in (
        ("GET", f"/v1/job_status/{job_id}"),
        ("GET", f"/v1/jobs/{job_id}"),
        ("GET", f"/v1/jobs/{job_id}/events"),
        ("POST", f"/v1/jobs/{job_id}/cancel"),
        ("POST", f"/v1/jobs/{job_id}/rerun"),
        ("DELETE", f"/v1/jobs/{job_id}"),
    ):
        problem(live.request(method, path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/generate", {"POST"}),
        ("PUT", "/v1/generate", {"POST"}),
        ("POST", f"/v1/job_status/{UNKNOWN_ID}", {"GET", "HEAD"}),
        ("PATCH", f"/v1/jobs/{UNKNOWN_ID}", {"GET", "HEAD", "DELETE"}),
        ("PATCH", f"/v1/uploads/{UNKNOWN_ID}", {"GET", "HEAD", "DELETE"}),
        ("GET", f"/v1/jobs/{UNKNOWN_ID}/cancel", {"POST"}),
        ("DELETE", f"/v1/jobs/{UNKNOWN_ID}/rerun", {"POST"}),
        ("POST", "/v1/jobs", {"GET", "HEAD"}),
        ("POST", "/v1/events", {"GET"}),
        ("HEAD", "/v1/events", {"GET"}),
        ("DELETE", "/healthz", {"GET", "HEAD"}),
        ("POST", "/files/a/b", {"GET", "HEAD"}),
        ("POST", "/static/0/box.css", {"GET", "HEAD"}),
    ],
)
def test_another_method_is_refused_with_what_is_allowed(
    live: httpx.Client, method: str, path: str, allowed: set[str]
) -> None:
    answer = live.request(method, path)
    assert answer.status_code == 405
    if method != "HEAD":
        problem(answer, 405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == {*allowed, "OPTIONS"}
    assert live.options(path).headers["allow"] == answer.headers["allow"]


@pytest.mark.parametrize(
    "path", ["/v1/nope", "/v1", "/v2/generate", "/v1/jobs/a/b/c", "//v1/jobs", "/static/../app.py"]
)
def test_an_unknown_address_is_not_found(live: httpx.Client, path: str) -> None:
    problem(live.get(path), 404, "not_found")


# The list


def test_pages_show_each_job_once_while_jobs_come_and_go(shared_box: RunningBox, live: httpx.Client) -> None:
    mark = {"metadata": {"pages": "1"}}
    wanted = [submit(live, {**IMAGE, **mark}) for _ in range(7)]
    query: dict[str, Any] = {"limit": 3, "metadata[pages]": "1"}
    seen: list[str] = []
    while True:
        page = live.get("/v1/jobs", params=query).json()
        assert page["object"] == "list"
        assert len(page["data"]) <= 3
        seen += [job["job_id"] for job in page["data"]]
        if not page["has_more"]:
            assert page["next_cursor"] is None
            break
        query["cursor"] = page["next_cursor"]
        submit(live, {**IMAGE, **mark})  # a newcomer does not shift the pages behind it
        shared_box.ended(live, wanted[0])
        live.delete(f"/v1/jobs/{wanted[0]}")
    assert seen == wanted[::-1]


def test_filters_narrow_the_list(shared_box: RunningBox, live: httpx.Client) -> None:
    tag = {"tag[a] = 'x'; --": "✓ & more"}
    image = made(shared_box, live, {**IMAGE, "metadata": {**tag, "second": "1"}})
    video = made(shared_box, live, {**VIDEO, "metadata": tag})
    failed = shared_box.ended(live, submit(live, {**IMAGE, "prompt": "double:raises_in_run", "metadata": tag}))

    def found(**filters: Any) -> list[str]:
        query = {"metadata[tag[a] = 'x'; --]": "✓ & more", "limit": 100} | filters
        return [job["job_id"] for job in live.get("/v1/jobs", params=query).json()["data"]]

    everything = [failed["job_id"], video["job_id"], image["job_id"]]
    assert found() == everything
    assert found(type="video") == [video["job_id"]]
    assert found(status="failed") == [failed["job_id"]]
    assert found(status="completed", type="image") == [image["job_id"]]
    assert found(status="queued") == []
    assert found(**{"metadata[second]": "1"}) == [image["job_id"]]
    assert found(**{"metadata[second]": "2"}) == []
    assert found(created_after=video["created_at"]) == everything[:2]
    assert found(created_before=video["created_at"]) == everything[2:]
    assert found(created_after="2026-01-01T00:00:00+05:30") == everything
    assert found(created_after="9999-12-31T23:59:59Z") == []


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("limit=0", ["limit"]),
        ("limit=101", ["limit"]),
        ("limit=ten", ["limit"]),
        ("limit=%D9%A3", ["limit"]),
        ("limit=", ["limit"]),
        ("status=done", ["status"]),
        ("status=", ["status"]),
        ("status=queued&status=running", ["status"]),
        ("metadata[a]=x&metadata[a]=y", ["metadata[a]"]),
        ("type=audio", ["type"]),
        ("created_after=yesterday", ["created_after"]),
        ("created_after=2026-11-01T00:00:00", ["created_after"]),
        ("created_before=1e9", ["created_before"]),
        ("created_before=99999-01-01T00:00:00Z", ["created_before"]),
        ("cursor=garbage", ["cursor"]),
        ("cursor=%00", ["cursor"]),
        ("metadata[]=x", ["metadata[]"]),
        ("metadata[" + "k" * 65 + "]=x", ["metadata[" + "k" * 55]),
        ("&".join(f"metadata[{i}]=x" for i in range(17)), ["metadata"]),
        ("limit=0&status=x&type=y&created_after=z&order=asc", ["limit", "status", "type", "created_after", "order"]),
    ],
)
def test_a_bad_query_is_refused_all_at_once(live: httpx.Client, query: str, fields: list[str]) -> None:
    answer = live.get(f"/v1/jobs?{query}")
    refused = problem(answer, 422, answer.json()["code"])
    assert [error["field"] for error in refused["errors"]] == fields
    assert refused["code"] in ("invalid_field", "unknown_field")


def test_an_unknown_filter_is_told_with_the_nearest_name(live: httpx.Client) -> None:
    refused = problem(live.get("/v1/jobs?statsu=queued"), 422, "unknown_field", "statsu")
    assert "'status'" in refused["detail"]


# Cancel, rerun, delete


def test_a_queue_is_counted_and_a_waiting_job_is_cancelled_free(box: RunningBox) -> None:
    with box.client() as client:
        running = submit(client, SLOW)
        box.until(client, running, runs)
        waiting = [submit(client, IMAGE) for _ in range(3)]
        urgent = client.get("/v1/jobs", params={"status": "queued"}).json()["data"]
        assert [job["queue_position"] for job in urgent] == [3, 2, 1]
        batch = submit(client, {**IMAGE, "priority": "batch"})
        late = submit(client, IMAGE)
        assert client.get(f"/v1/jobs/{late}").json()["queue_position"] == 4
        box.until(client, batch, lambda job: job["queue_position"] == 5)  # others' jobs are counted twice a second
        cancelled = client.post(f"/v1/jobs/{waiting[0]}/cancel")
        assert cancelled.status_code == 200
        job = cancelled.json()
        assert (job["status"], job["error_code"], job["charge"]["state"]) == ("failed", "cancelled", "voided")
        assert client.get(f"/v1/jobs/{waiting[1]}").json()["queue_position"] == 1
        problem(client.post(f"/v1/jobs/{waiting[0]}/cancel"), 409, "job_finished")
        client.post(f"/v1/jobs/{running}/cancel")
        assert box.ended(client, batch)["status"] == "completed"


def test_a_running_job_stops_within_two_steps(shared_box: RunningBox, live: httpx.Client) -> None:
    job_id = submit(live, SLOW)
    shared_box.until(live, job_id, denoises)
    asked = live.post(f"/v1/jobs/{job_id}/cancel")
    assert asked.status_code == 200
    before = asked.json()
    assert before["cancel_requested"] or before["status"] == "failed"
    job = shared_box.ended(live, job_id)
    assert (job["status"], job["error_code"], job["charge"]["state"]) == ("failed", "cancelled", "posted")
    steps = (job["progress"] - before["progress"]) / (0.75 / 200)  # the double makes 200 steps
    assert steps <= 8, f"{steps} steps after the cancel"  # some, as the service hears of it: the child takes two
    problem(live.post(f"/v1/jobs/{job_id}/cancel"), 409, "job_finished")


def test_a_finished_job_cannot_be_cancelled(shared_box: RunningBox, live: httpx.Client) -> None:
    job_id = made(shared_box, live, IMAGE)["job_id"]
    problem(live.post(f"/v1/jobs/{job_id}/cancel"), 409, "job_finished")
    assert live.get(f"/v1/jobs/{job_id}").json()["cancel_requested"] is False


def test_a_rerun_is_the_same_request_again(shared_box: RunningBox, live: httpx.Client) -> None:
    first = made(shared_box, live, {**VIDEO, "metadata": {"shot": "1"}, "priority": "batch", "fps": 25})
    answer = live.post(f"/v1/jobs/{first['job_id']}/rerun")
    assert answer.status_code == 202
    second = shared_box.ended(live, answer.json()["job_id"])
    assert second["job_id"] != first["job_id"]
    for name in ("type", "model", "prompt", "seed", "width", "height", "duration", "fps", "n", "metadata", "priority"):
        assert second[name] == first[name], name
    assert second["result"]["sha256"] == first["result"]["sha256"]


def test_a_rerun_takes_no_changes(shared_box: RunningBox, live: httpx.Client) -> None:
    path = f"/v1/jobs/{made(shared_box, live, IMAGE)['job_id']}/rerun"
    problem(live.post(path, json={"seed": 1}), 422, "unknown_field")
    problem(live.post(path, content=b"{"), 400, "malformed_json")
    assert live.post(path, json={}).status_code == 202


def test_a_rerun_can_be_retried(shared_box: RunningBox, live: httpx.Client) -> None:
    first = made(shared_box, live, IMAGE)["job_id"]
    headers = {"Idempotency-Key": "rerun once"}
    once, again = (live.post(f"/v1/jobs/{first}/rerun", headers=headers) for _ in range(2))
    assert once.json()["job_id"] == again.json()["job_id"]
    assert again.headers["idempotent-replayed"] == "true"


def test_deleting_removes_the_files_and_keeps_the_record(shared_box: RunningBox, live: httpx.Client) -> None:
    job = made(shared_box, live, IMAGE)
    path = f"/v1/jobs/{job['job_id']}"
    removed = live.delete(path)
    assert removed.status_code == 200
    assert TIME.fullmatch(removed.json()["removed_at"])
    for url in (job["result_url"], job["result"]["thumbnail_url"]):
        problem(httpx.get(url, trust_env=False), 410, "result_removed")
    kept = live.get(path).json()
    assert (kept["status"], kept["charge"], kept["prompt"]) == ("completed", job["charge"], job["prompt"])
    assert kept["result_url"] == job["result_url"]
    assert not (shared_box.folder / "outputs" / job["job_id"]).exists()
    assert live.delete(path).json()["removed_at"] == removed.json()["removed_at"]
    assert live.post(f"{path}/rerun").status_code == 202


def test_an_open_job_cannot_be_deleted(shared_box: RunningBox, live: httpx.Client) -> None:
    job_id = submit(live, SLOW)
    with nothing_happens(live):
        problem(live.delete(f"/v1/jobs/{job_id}"), 409, "job_open")
    live.post(f"/v1/jobs/{job_id}/cancel")
    assert shared_box.ended(live, job_id)["removed_at"] is None
    assert live.delete(f"/v1/jobs/{job_id}").status_code == 200
