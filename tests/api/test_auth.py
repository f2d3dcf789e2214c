"""Who may ask what: keys, scopes, test keys, other people's accounts, and the terminal's own header."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from typing import Any

import httpx
import pytest

from tests.api.asking import IMAGE, SLOW, add_member, command, made, nothing_happens, problem, submit
from tests.running import RunningBox
from tests.waiting import until

UNKNOWN_KEY = "zs_live_" + "0" * 30
PUBLIC = {"/healthz", "/readyz", "/files/{file_id}/{name}"}


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """A box of two accounts; `keys["member"]` is the second one's."""
    folder = tmp_path_factory.mktemp("people") / "data"
    running = RunningBox(folder, devices="cpu")
    running.keys["member"] = add_member(folder, "member")
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def routes(live: httpx.Client) -> list[tuple[str, str]]:
    """Every method and path of the served document, with ids that name nothing."""
    document = live.get("/v1/openapi.json").json()
    return [
        (method.upper(), re.sub(r"{(\w+?)(_id)?}", r"\1_0", path))
        for path, item in document["paths"].items()
        if path not in PUBLIC
        for method in item
    ]


def test_it_works(live: httpx.Client, shared_box: RunningBox) -> None:
    me = live.get("/v1/me")
    assert me.status_code == 200
    assert me.json()["account"] == shared_box.keys["account"]
    assert shared_box.keys["live"] not in me.text
    assert me.json()["key"]["last_four"] == shared_box.keys["live"][-4:]


def test_a_bearer_token_is_a_key(shared_box: RunningBox) -> None:
    with shared_box.client(None) as client:
        for scheme in ("Bearer", "bearer", "BEARER "):
            answer = client.get("/v1/me", headers={"Authorization": f"{scheme} {shared_box.keys['live']}"})
            assert answer.status_code == 200, scheme


def test_no_route_but_the_public_ones_answers_without_a_key(
    shared_box: RunningBox, routes: list[tuple[str, str]]
) -> None:
    assert len(routes) > 10
    with shared_box.client(None) as client:
        for method, path in routes:
            refused = problem(client.request(method, path), 401, "missing_key")
            assert "X-API-Key" in refused["detail"], path
        for path in ("/v1/jobs/job_0", "/v1/generate"):
            assert client.options(path).status_code == 401
        problem(client.post("/control", content=b'{"command": "keys.list"}'), 401, "invalid_key")
        assert client.get("/setup").status_code == 403
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        # Not in the document: open to this machine, and to nobody who is not plainly on it.
        assert client.get("/metrics").status_code == 200
        problem(client.get("/metrics", headers={"X-Forwarded-For": "192.0.2.7"}), 401, "missing_key")


@pytest.mark.parametrize(
    "presented",
    [
        "nonsense",
        "zs_live_",
        UNKNOWN_KEY,
        "zs_live_" + "x" * 36,
        "zs_live_" + "é" * 36,
        "zs_test_' OR 1=1 --",
        "x" * 10_000,
        "zs_live_\x00",
    ],
)
def test_what_is_no_key_is_refused(shared_box: RunningBox, presented: str) -> None:
    with shared_box.client(None) as client:
        headers = httpx.Headers([(b"X-API-Key", presented.encode("latin-1"))]) if "\x00" not in presented else None
        answer = client.get("/v1/me", headers=headers)
        problem(answer, 401, "invalid_key" if headers else "missing_key")
        assert answer.headers["www-authenticate"]


def test_a_mistyped_key_is_refused(shared_box: RunningBox) -> None:
    secret = shared_box.keys["live"]
    swapped = secret[:-1] + ("a" if secret[-1] != "a" else "b")
    for wrong in (swapped, secret[:-1], secret + "0", secret.upper(), secret.replace("zs_live_", "zs_test_")):
        with shared_box.client(wrong) as client:
            problem(client.get("/v1/me"), 401, "invalid_key")


def test_a_revoked_key_ends_at_once(shared_box: RunningBox) -> None:
    issued = command(shared_box.folder, "keys", "issue", "--name", "short-lived")
    with shared_box.client(issued["api_key"]) as client:
        assert client.get("/v1/me").json()["key"]["name"] == "short-lived"
        command(shared_box.folder, "keys", "revoke", issued["id"])
        problem(client.get("/v1/me"), 401, "revoked_key")


def test_a_rotated_key_works_until_its_overlap_ends(shared_box: RunningBox) -> None:
    first = command(shared_box.folder, "keys", "issue", "--scopes", "read")
    second = command(shared_box.folder, "keys", "rotate", first["id"], "--overlap", "600")
    with shared_box.client(first["api_key"]) as old, shared_box.client(second["api_key"]) as new:
        assert new.get("/v1/me").json()["key"]["scopes"] == ["read"]
        assert old.get("/v1/me").status_code == 200
    command(shared_box.folder, "keys", "rotate", second["id"], "--overlap", "1")
    with shared_box.client(second["api_key"]) as old:
        until(lambda: old.get("/v1/me").status_code == 401, "the old key ends")
        refused = problem(old.get("/v1/me"), 401, "revoked_key")
        assert "rotated" in refused["detail"]


def test_a_key_can_do_only_what_its_scopes_say(shared_box: RunningBox, live: httpx.Client) -> None:
    job_id = made(shared_box, live, IMAGE)["job_id"]
    reader = command(shared_box.folder, "keys", "issue", "--scopes", "read")
    with shared_box.client(reader["api_key"]) as client, nothing_happens(live):
        assert client.get(f"/v1/jobs/{job_id}").status_code == 200
        for method, path in (
            ("POST", "/v1/generate"),
            ("POST", f"/v1/jobs/{job_id}/rerun"),
            ("POST", f"/v1/jobs/{job_id}/cancel"),
            ("DELETE", f"/v1/jobs/{job_id}"),
        ):
            refused = problem(client.request(method, path, json=IMAGE), 403, "insufficient_scope")
            assert "'generate'" in refused["detail"]
    writer = command(shared_box.folder, "keys", "issue", "--scopes", "generate")
    with shared_box.client(writer["api_key"]) as client:
        assert client.post("/v1/generate", json=IMAGE).status_code == 202
        for path in ("/v1/jobs", f"/v1/job_status/{job_id}", "/v1/me", "/v1/models", "/v1/events", "/v1/openapi.json"):
            problem(client.get(path), 403, "insufficient_scope")


def test_options_needs_a_key_and_no_scope(live: httpx.Client) -> None:
    answer = live.options("/v1/generate")
    assert answer.status_code == 204
    assert "POST" in answer.headers["allow"]


# Test keys


def test_test_jobs_and_live_jobs_do_not_see_each_other(
    shared_box: RunningBox, live: httpx.Client, tester: httpx.Client
) -> None:
    jobs = {client: made(shared_box, client, IMAGE)["job_id"] for client in (live, tester)}
    for client, other in ((live, tester), (tester, live)):
        problem(client.get(f"/v1/job_status/{jobs[other]}"), 404, "not_found")
        problem(client.get(f"/v1/jobs/{jobs[other]}/events"), 404, "not_found")
        problem(client.post(f"/v1/jobs/{jobs[other]}/cancel"), 404, "not_found")
        problem(client.post(f"/v1/jobs/{jobs[other]}/rerun"), 404, "not_found")
        listed = client.get("/v1/jobs", params={"limit": 100}).json()["data"]
        assert {job["test"] for job in listed} == {client is tester}
        assert jobs[client] in {job["job_id"] for job in listed}


def test_a_test_key_may_not_delete(shared_box: RunningBox, tester: httpx.Client) -> None:
    job = made(shared_box, tester, IMAGE)
    problem(tester.delete(f"/v1/jobs/{job['job_id']}"), 403, "test_key")
    assert httpx.get(job["result_url"], trust_env=False).status_code == 200


def test_a_test_key_cannot_name_another_model_and_costs_nothing(
    shared_box: RunningBox, live: httpx.Client, tester: httpx.Client
) -> None:
    before = live.get("/v1/me").json()["included"]["image"]
    job = made(shared_box, tester, {**IMAGE, "model": "no-such-model"})
    assert (job["model"], job["test"]) == ("leader", True)
    assert job["charge"]["ledger_ids"] == []
    assert (job["charge"]["amount_usd"], job["charge"]["included_units"]) == ("0.00", 0)
    assert any("Test output" in note for note in job["notes"])
    assert live.get("/v1/me").json()["included"]["image"]["granted"] == before["granted"]
    assert tester.get("/v1/me").json()["test"] is True


def test_what_a_test_key_acts_out_is_a_plain_prompt_to_a_live_one(shared_box: RunningBox, live: httpx.Client) -> None:
    for prompt in ("test:cap", "test:fail", "test:safety"):
        assert made(shared_box, live, {**IMAGE, "prompt": prompt})["charge"]["state"] == "posted"


# Other people


def _asked(client: httpx.Client, job_id: str) -> list[httpx.Response]:
    return [
        client.get(f"/v1/job_status/{job_id}"),
        client.get(f"/v1/jobs/{job_id}"),
        client.get(f"/v1/jobs/{job_id}/events"),
        client.post(f"/v1/jobs/{job_id}/cancel"),
        client.post(f"/v1/jobs/{job_id}/rerun"),
        client.delete(f"/v1/jobs/{job_id}"),
    ]


def test_anothers_job_is_as_if_it_never_was(people: RunningBox) -> None:
    with people.client() as owner, people.client("member") as member:
        done, running = made(people, owner, IMAGE)["job_id"], submit(owner, SLOW)
        for job_id in (done, running):
            for foreign, unknown in zip(_asked(member, job_id), _asked(member, "job_" + "0" * 26), strict=True):
                told, never = problem(foreign, 404, "not_found"), problem(unknown, 404, "not_found")
                assert told | {"request_id": ""} == never | {"request_id": ""}
                assert foreign.headers.keys() == unknown.headers.keys()
        assert member.get("/v1/jobs").json()["data"] == []
        problem(member.get("/v1/jobs", params={"cursor": "x" * 9}), 422, "invalid_field", "cursor")
        assert owner.get(f"/v1/jobs/{running}").json()["cancel_requested"] is False
        owner.post(f"/v1/jobs/{running}/cancel")
        people.ended(owner, running)


def test_a_cursor_of_another_account_shows_only_ones_own(people: RunningBox) -> None:
    with people.client() as owner, people.client("member") as member:
        mine = submit(member, IMAGE)
        for _ in range(3):
            submit(owner, IMAGE)
        cursor = owner.get("/v1/jobs", params={"limit": 1}).json()["next_cursor"]
        listed = member.get("/v1/jobs", params={"cursor": cursor}).json()["data"]
        assert [job["job_id"] for job in listed] == [mine]


def test_accounts_do_not_share_idempotency_or_allowance(people: RunningBox) -> None:
    with people.client() as owner, people.client("member") as member:
        headers = {"Idempotency-Key": "everybody's"}
        used = member.get("/v1/me").json()["included"]["image"]
        assert submit(owner, IMAGE, **headers) != submit(member, IMAGE, **headers)
        assert member.get("/v1/me").json()["included"]["image"]["left"] == used["left"] - 1


# The terminal


def test_the_terminals_token_acts_as_the_owner(shared_box: RunningBox) -> None:
    token = _token(shared_box)
    with shared_box.client(None) as terminal:
        terminal.headers["X-ZSky-Control"] = token
        assert terminal.get("/v1/me").json()["account"] == shared_box.keys["account"]
        listed = terminal.post("/control", content=b'{"command": "keys.list"}').json()
        assert listed["data"]
        assert "api_key" not in listed["data"][0]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-ZSky-Control": "wrong"},
        {"X-ZSky-Control": ""},
        {"X-ZSky-Control": "TOKEN", "Origin": "http://127.0.0.1"},
        {"X-ZSky-Control": "TOKEN", "Origin": "null"},
        {"X-API-Key": "KEY"},
        {"X-ZSky-Control": "wrong", "X-API-Key": "KEY"},
    ],
)
def test_another_token_or_a_browser_is_refused(shared_box: RunningBox, headers: dict[str, str]) -> None:
    known = {"TOKEN": _token(shared_box), "KEY": shared_box.keys["live"]}
    sent = {name: known.get(value, value) for name, value in headers.items()}
    with shared_box.client(None) as client:
        client.headers.update(sent)
        problem(client.post("/control", content=b'{"command": "keys.list"}'), 401, "invalid_key")
        if "X-ZSky-Control" in headers:
            problem(client.get("/v1/me"), 401, "invalid_key")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"command": "rm"}', b"\xff", b"[" * 100_000, b'{"command": 5}'])
def test_what_is_no_command_is_refused(shared_box: RunningBox, body: bytes) -> None:
    with shared_box.client(None) as terminal:
        terminal.headers["X-ZSky-Control"] = _token(shared_box)
        problem(terminal.post("/control", content=body), 422, "invalid_field")


def _token(box: RunningBox) -> str:
    address: dict[str, Any] = json.loads((box.folder / "control.json").read_bytes())
    return address["token"]
