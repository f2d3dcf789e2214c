"""The first run from end to end: the terminal's link, a password, a key, and the call that was copied."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.api.asking import command
from tests.browser.conftest import visiting
from tests.running import RunningBox

PASSWORD = "seven lamps over the canal"


@pytest.mark.parametrize("scripts", [True, False])
def test_it_works(tmp_path: Path, chromium: Browser, scripts: bool) -> None:
    folder = tmp_path / "data"
    told = command(folder, "init", "--owner", "Studio North")
    box = RunningBox(folder, devices="cpu").start()
    try:
        link = httpx.URL(told["setup_url"]).raw_path.decode()
        with visiting(chromium, box, java_script_enabled=scripts, permissions=["clipboard-read"]) as window:
            page = window.open(link)
            expect(page.get_by_role("heading", level=1)).to_have_text("Welcome to your box")
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_label("The same again").fill(PASSWORD)
            page.get_by_role("button", name="Set the password").click()
            page.wait_for_url("**/settings#api")
            expect(page.get_by_role("heading", name="API keys")).to_be_in_viewport()
            page.get_by_role("button", name="Rotate Key").click()
            line = page.locator("#example-1")
            expect(line).to_be_in_viewport()
            text = line.inner_text()
            if scripts:
                window.axe()
                page.wait_for_load_state()  # with the script that copies
                page.get_by_role("button", name="Copy the line").click()
                expect(page.get_by_role("button", name="Copied")).to_be_visible()
                assert page.evaluate("navigator.clipboard.readText()") == text
        environment = {**os.environ, "no_proxy": "*"}
        done = subprocess.run(
            ["bash", "-c", text], capture_output=True, text=True, check=True, timeout=120, env=environment
        )
        key = page_key(text)
        with box.client(key) as client:
            assert box.ended(client, json.loads(done.stdout)["job_id"])["status"] == "completed"
            assert client.get("/v1/me").json()["name"] == "Studio North"
    finally:
        box.stop()
    assert command(folder, "ledger", "verify")["verifies"]


def page_key(line: str) -> str:
    """The key that stands in a call."""
    return line.split("X-API-Key: ")[1].split("'", maxsplit=1)[0]
