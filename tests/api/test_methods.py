"""Whatever is got can be asked for without its body, as monitors and `curl -I` do."""

from __future__ import annotations

import httpx
import pytest

from tests.running import RunningBox

UNTOLD = ("date", "x-request-id", "ratelimit", "transfer-encoding")
"""Of each answer its own, or of how its body is sent."""


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_a_monitor_that_asks_for_headers_alone_needs_no_key(shared_box: RunningBox, path: str) -> None:
    with shared_box.client(None) as anyone:
        answer = anyone.head(path)
        assert answer.status_code == anyone.get(path).status_code == 200
        assert answer.content == b""
        assert int(answer.headers["content-length"]) > 0
        assert anyone.get("/healthz").json()["status"] == "ok", "the connection is still in step"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/me",
        "/v1/me/overage",
        "/v1/jobs?limit=1",
        "/v1/jobs?limit=0",
        "/v1/jobs/job_00000000000000000000000000",
        "/v1/models",
        "/v1/openapi.json",
        "/v1/me.csv",
        "/v1/me/usage.csv",
        "/v1/me/ledger.csv",
        "/v1/me/statements/1999-01",
    ],
)
def test_head_tells_what_get_would(shared_box: RunningBox, live: httpx.Client, path: str) -> None:
    whole, answer = live.get(path), live.head(path)
    assert answer.status_code == whole.status_code
    assert answer.content == b""
    for told in (whole, answer):
        for name in UNTOLD:
            told.headers.pop(name, None)
    assert answer.headers == whole.headers
    with shared_box.client(None) as anyone:
        assert anyone.head(path).status_code == 401
