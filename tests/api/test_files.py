"""Signed results: what a browser, a player and an attacker meet."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.api.asking import IMAGE, VIDEO, made, problem
from tests.running import RunningBox
from tests.waiting import until

TRAVERSALS = [
    "/files/../ledger.db",
    "/files/%2e%2e/ledger.db",
    "/files/..%2fledger.db/a",
    "/files/file_0/..%2f..%2fledger.db",
    "/files/file_0/%2e%2e%2f%2e%2e%2fledger.db",
    "/files/file_0/..%5c..%5cledger.db",
    "/files/file_0/%252e%252e%252fledger.db",
    "/files/file_0/..%c0%afledger.db",
    "/files/file_0/%00",
    "/files/file_0/ledger.db%00.mp4",
    "/files/%00/a.mp4",
    "/files/file_0/%ff%fe",
    "/files/%C3%A9/a.mp4",
    "/files/file_0/" + "a" * 10_000,
    "/files/" + "../" * 50 + "etc/passwd",
    "/files//etc/passwd",
    "/files/file:%2f%2f%2fetc%2fpasswd/a",
    "/files/file_0/http:%2f%2f127.0.0.1",
    "/files/file_0/~root",
    "/files/file_0/a.mp4;.png",
    "/files/file_0/..;/a.mp4",
    "/outputs/.tmp",
    "/static/../../ledger.db",
    "/static/%2e%2e%2f%2e%2e%2fpyproject.toml",
    "/static/..%2f..%2fpyproject.toml",
    "/static//etc/passwd",
]
SIGNED = ["", "?expires=9999999999&signature=" + "0" * 43, "?expires=9999999999&signature=%00", "?expires=&signature="]


@pytest.fixture(scope="module")
def job(shared_box: RunningBox, live: httpx.Client) -> dict[str, Any]:
    """A finished image."""
    return made(shared_box, live, {**IMAGE, "prompt": "Café “noir”\n../../etc/passwd"})


@pytest.fixture(scope="module")
def anyone() -> Generator[httpx.Client]:
    """A client that knows nothing but the URL."""
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield client


def test_it_works(anyone: httpx.Client, job: dict[str, Any]) -> None:
    answer = anyone.get(job["result_url"])
    result = job["result"]
    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).hexdigest() == result["sha256"]
    assert len(answer.content) == result["bytes"] == int(answer.headers["content-length"])
    assert answer.headers["content-type"] == result["mime"] == "image/png"
    assert answer.headers["etag"] == f'"{result["sha256"]}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    # The download's name is readable and safe on any file system.
    names = re.findall(r"filename(?:\*=UTF-8''|=\")([^\";]+)", answer.headers["content-disposition"])
    assert len(names) == 2
    assert set(names) == {f"cafe-noir-etc-passwd-{job['seed']}-1.png"}


def test_a_videos_poster_is_an_image(shared_box: RunningBox, live: httpx.Client, anyone: httpx.Client) -> None:
    video = made(shared_box, live, VIDEO)
    poster = anyone.get(video["result"]["thumbnail_url"])
    assert poster.headers["content-type"] == "image/jpeg"
    assert poster.content.startswith(b"\xff\xd8")
    assert anyone.get(video["result_url"]).headers["content-type"] == "video/mp4"


def test_the_url_stays_the_same_from_poll_to_poll(live: httpx.Client, job: dict[str, Any]) -> None:
    again = live.get(f"/v1/job_status/{job['job_id']}").json()
    assert again["result_url"] == job["result_url"]
    expires = int(parse_qs(urlsplit(job["result_url"]).query)["expires"][0])
    assert expires % 3_600 == 0


def test_head_tells_the_same_without_the_bytes(anyone: httpx.Client, job: dict[str, Any]) -> None:
    got, head = anyone.get(job["result_url"]), anyone.head(job["result_url"], headers={"Range": "bytes=0-9"})
    assert head.status_code == 200
    assert head.content == b""
    for name in ("content-length", "content-type", "etag", "content-disposition", "last-modified", "accept-ranges"):
        assert head.headers[name] == got.headers[name], name


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=0-99", slice(0, 100)),
        ("bytes=100-", slice(100, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=-99999999", slice(0, None)),
        ("bytes=10-99999999", slice(10, None)),
        ("BYTES=5-6", slice(5, 7)),
    ],
)
def test_a_range_is_answered_with_its_bytes(
    anyone: httpx.Client, job: dict[str, Any], header: str, part: slice
) -> None:
    whole = anyone.get(job["result_url"]).content
    answer = anyone.get(job["result_url"], headers={"Range": header})
    assert answer.status_code == 206
    assert answer.content == whole[part]
    first, last, size = map(int, re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers["content-range"]).groups())  # type: ignore[union-attr]
    assert whole[first : last + 1] == answer.content
    assert size == len(whole)


@pytest.mark.parametrize(
    "header",
    ["bytes=0-1,5-6", "bytes=9-5", "bytes=", "bytes=-", "bytes=a-b", "lines=0-1", "nonsense", "bytes=1-2-3", ""],
)
def test_a_range_that_is_not_understood_gives_the_whole_file(
    anyone: httpx.Client, job: dict[str, Any], header: str
) -> None:
    answer = anyone.get(job["result_url"], headers={"Range": header})
    assert (answer.status_code, len(answer.content)) == (200, job["result"]["bytes"])


@pytest.mark.parametrize("header", ["bytes=99999999-", "bytes=999999999999999999-", "bytes=-0"])
def test_a_range_behind_the_end_cannot_be_had(anyone: httpx.Client, job: dict[str, Any], header: str) -> None:
    answer = anyone.get(job["result_url"], headers={"Range": header})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{job['result']['bytes']}"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.content == b""


def test_a_download_resumes_only_where_the_file_is_the_same(anyone: httpx.Client, job: dict[str, Any]) -> None:
    etag = f'"{job["result"]["sha256"]}"'
    for condition, status in ((etag, 206), ('"another"', 200), (f"W/{etag}", 200), ("", 200)):
        answer = anyone.get(job["result_url"], headers={"Range": "bytes=1-2", "If-Range": condition})
        assert answer.status_code == status, condition


def test_a_file_that_is_known_is_not_sent_again(anyone: httpx.Client, job: dict[str, Any]) -> None:
    etag = f'"{job["result"]["sha256"]}"'
    for condition, status in ((etag, 304), (f'"x", W/{etag}', 304), ("*", 304), ('"x"', 200), ("", 200)):
        answer = anyone.get(job["result_url"], headers={"If-None-Match": condition, "Range": "bytes=0-1"})
        assert answer.status_code == (status if status == 304 else 206), condition
        assert answer.headers["etag"] == etag
    assert anyone.get(job["result_url"], headers={"If-None-Match": etag}).content == b""


def test_a_changed_link_is_refused(anyone: httpx.Client, job: dict[str, Any], live: httpx.Client) -> None:
    url = job["result_url"]
    thumbnail = job["result"]["thumbnail_url"]
    expires = parse_qs(urlsplit(url).query)["expires"][0]
    signature = parse_qs(urlsplit(url).query)["signature"][0]
    other_name = url.replace("-1.png", "-2.png")
    swapped = thumbnail.partition("?")[0] + "?" + url.partition("?")[2]
    for changed in (
        url.replace(signature, signature[:-1] + ("0" if signature[-1] != "0" else "1")),
        url.replace(signature, signature[:-1]),
        url.replace(signature, signature.upper()),
        url.replace(signature, ""),
        url.replace(signature, "%C3%A9" * 43),
        url.replace(f"expires={expires}", f"expires={int(expires) + 3600}"),
        url.replace(f"expires={expires}", f"expires=+{expires}"),
        url.replace(f"expires={expires}", f"expires={'9' * 400}"),
        url.replace(f"expires={expires}", "expires=-1"),
        url.replace(f"expires={expires}", "expires="),
        url.partition("?")[0],
        other_name,
        swapped,
    ):
        problem(anyone.get(changed), 403, "invalid_signature")
        problem(live.get(changed), 403, "invalid_signature")  # a key opens nothing either
        assert anyone.head(changed).status_code == 403


def test_an_old_link_is_refused_and_job_status_gives_a_fresh_one(box: RunningBox) -> None:
    """An expired link is one that the box has signed: another box's clock stands in for the time."""
    from zsky_box import secretfile
    from zsky_box.assets import Assets
    from zsky_box.clock import SECOND_US, system_clock
    from zsky_box.db import Store

    with box.client() as client:
        result = made(box, client, IMAGE)
    box.stop()
    store = Store(box.folder)
    try:
        assets = Assets(store, box.folder / "outputs", secretfile.load(box.folder).signing, 24)
        asset = assets.of_jobs([result["job_id"]])[result["job_id"]][0]
        old = assets.signed_path(asset, system_clock() - 26 * 3_600 * SECOND_US)
        young = assets.signed_path(asset, system_clock() - 22 * 3_600 * SECOND_US)
    finally:
        store.close()
    box.start()
    refused = problem(httpx.get(box.url + old, trust_env=False), 403, "expired_signature")
    assert "job_status" in refused["detail"]
    assert httpx.get(box.url + young, trust_env=False).status_code == 200
    with box.client() as client:
        fresh = client.get(f"/v1/job_status/{result['job_id']}").json()["result_url"]
    assert httpx.get(fresh, trust_env=False).status_code == 200


def test_a_file_that_was_changed_on_the_disk_is_not_passed_off(shared_box: RunningBox, live: httpx.Client) -> None:
    """Somebody who works in the outputs' folder shortens, links or removes a file: the answer says so, whole."""
    result = made(shared_box, live, IMAGE)
    path = next((shared_box.folder / "outputs" / result["job_id"]).rglob("*-1.png"))
    path.write_bytes(path.read_bytes()[:-1])
    problem(httpx.get(result["result_url"], trust_env=False), 410, "result_removed")
    assert httpx.head(result["result_url"], trust_env=False).status_code == 410
    path.unlink()
    path.symlink_to(shared_box.folder / "ledger.db")
    problem(httpx.get(result["result_url"], trust_env=False), 410, "result_removed")
    path.unlink()
    problem(httpx.get(result["result_url"], trust_env=False), 410, "result_removed")


@pytest.mark.parametrize("query", SIGNED)
def test_no_path_leads_out(shared_box: RunningBox, query: str) -> None:
    with shared_box.client() as client:
        for path in TRAVERSALS:
            url = httpx.URL(shared_box.url).copy_with(raw_path=(path + query).encode())
            answer = client.get(url)
            assert answer.status_code in (403, 404), (path, answer.status_code)
            assert answer.headers["content-type"] == "application/problem+json"
            assert b"SQLite" not in answer.content
            assert b"root:" not in answer.content


def test_signatures_are_not_logged(shared_box: RunningBox, anyone: httpx.Client, job: dict[str, Any]) -> None:
    path, told = urlsplit(job["result_url"]).path, shared_box.log()
    anyone.get(job["result_url"])
    anyone.get(job["result_url"].replace("expires=", "expires=9"))
    signature = parse_qs(urlsplit(job["result_url"]).query)["signature"][0]
    until(lambda: shared_box.log().count(path) >= told.count(path) + 2, "both requests are logged")
    log = shared_box.log()
    assert signature not in log
    for secret in ("live", "test"):
        assert shared_box.keys[secret] not in log


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("studio.local:8420", "http://studio.local:8420/"),
        ("[::1]:8420", "http://[::1]:8420/"),
        ("", "http://127.0.0.1:PORT/"),
    ],
)
def test_the_url_is_built_of_the_requests_host_or_the_sockets(
    shared_box: RunningBox, live: httpx.Client, job: dict[str, Any], host: str, expected: str
) -> None:
    answer = live.get(f"/v1/job_status/{job['job_id']}", headers={"Host": host})
    assert answer.json()["result_url"].startswith(expected.replace("PORT", str(shared_box.port)) + "files/")


@pytest.mark.parametrize(
    "host", ["evil.example/path?", '"><script>', "a b", "evil.example#", "user@evil.example", "a:b:c"]
)
def test_what_is_no_host_is_refused(live: httpx.Client, job: dict[str, Any], host: str) -> None:
    problem(live.get(f"/v1/job_status/{job['job_id']}", headers={"Host": host}), 400, "malformed_json")


def test_a_public_url_is_used_where_one_is_set(tmp_path: Any) -> None:
    box = RunningBox(tmp_path / "data", devices="cpu", public_url="https://box.studio.example").start()
    try:
        with box.client() as client:
            url = made(box, client, IMAGE)["result_url"]
        assert url.startswith("https://box.studio.example/files/")
        assert httpx.get(box.url + url.removeprefix("https://box.studio.example"), trust_env=False).status_code == 200
    finally:
        box.stop()
