"""What strangers and members may write, on every page that the owner looks at: shown as it is, and never as markup."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import httpx
import pytest

from tests.api.asking import IMAGE, made
from tests.people import Browser, add_people
from tests.routes import Way, all_ways
from tests.running import RunningBox

HOSTILE: Final = "\"'><img src=x onerror=alert(1)></script><script>alert(1)</script>"
MARKUP: Final = ("<img src=x", "<script>alert", "</script><script>")
ESCAPED: Final = "&lt;img src=x onerror=alert(1)&gt;"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("hostile") / "data"
    box = RunningBox(folder, devices="cpu", requests_burst=100_000, trusted_proxies="127.0.0.1", team_library=True)
    add_people(folder, HOSTILE)
    box.start()
    yield box
    box.stop()


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> list[Way]:
    """Every page, and every address that a part of one comes from."""
    every = all_ways(tmp_path_factory.mktemp("routes") / "data")
    return [way for way in every if way.audience in ("member", "owner") and way.method == "GET"]


@contextmanager
def signed_in_from_nowhere(box: RunningBox, name: str) -> Generator[Browser]:
    """Through a proxy that hands on whatever a client says of its address."""
    with Browser(box) as browser:
        browser.headers.update({"User-Agent": f"Mozilla {HOSTILE}", "X-Forwarded-For": HOSTILE})
        browser.sign_in(name)
        yield browser


def lived(box: RunningBox) -> dict[str, str]:
    """Words where words can be; ids of what bears them."""
    with signed_in_from_nowhere(box, HOSTILE) as member:
        member.submit("/settings/keys", "/settings", scopes=["generate", "read", "billing"], name=HOSTILE)
        body: dict[str, Any] = {**IMAGE, "prompt": HOSTILE, "metadata": {HOSTILE[:40]: HOSTILE}}
        with box.client() as owner:
            job_id = made(box, owner, body)["job_id"]
            for model in (HOSTILE, "mini"):
                owner.post("/v1/generate", json={**body, "negative_prompt": HOSTILE, "model": model})
        with httpx.Client(base_url=box.url, trust_env=False, headers=dict(member.headers)) as nobody:
            nobody.post("/sign-in", data={"name": HOSTILE, "password": HOSTILE})
            nobody.get(f"/no-such/{HOSTILE}")
        member.post("/v1/generate", json=body, headers={"X-CSRF-Token": member.csrf})
        account_id = member.get("/v1/me").json()["account"]
    return {"job_id": job_id, "account_id": account_id, "month": HOSTILE, "name": HOSTILE, "upload_id": HOSTILE}


def test_no_page_takes_words_for_markup(studio: RunningBox, ways: list[Way]) -> None:
    ids, escaped = lived(studio), list[str]()
    queries: list[dict[str, str]] = [{}, {"whose": "team", "show": "results"}]
    names = (
        "q",
        "job",
        "key",
        "month",
        "who",
        "action",
        "cursor",
        "from",
        "to",
        "type",
        "model",
        "prompt",
        "rerun",
        "start",
    )
    queries += [{name: HOSTILE} for name in names] + [{"reference": ids["job_id"]}, {"rerun": ids["job_id"]}]
    with signed_in_from_nowhere(studio, "owner") as owner:
        for way in ways:
            known = {name: httpx.URL(f"/{value}").raw_path.decode().lstrip("/") for name, value in ids.items()}
            address = way.with_ids({name: known.get(name, "none") for name in way.names})
            for query in queries:
                page = owner.get(address, params=query)
                assert page.status_code < 500, (way, query)
                if "text/html" in page.headers.get("content-type", ""):
                    assert not [part for part in MARKUP if part in page.text], (way, query)
                    assert "script-src 'self'" in page.headers["content-security-policy"], way
                    escaped += [way.path] if ESCAPED in page.text else []
    # What bears the words shows them.
    assert {"/create", "/library", "/library/{job_id:str}", "/admin/people", "/admin/queue", "/admin/audit"} <= {
        *escaped
    }
