"""The owner's pages of what was and what holds, by clicks and keys: audit, health, settings."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit

PAGES = ("/admin/audit",)


@pytest.fixture
def owner(visit: Visit) -> Visit:
    """A window of the owner's."""
    visit.expect("/settings", "/create")  # where a sign-in leads to, whether or not it is there yet
    visit.sign_in()
    return visit


@pytest.mark.parametrize("path", PAGES)
def test_everybody_can_use_it(owner: Visit, path: str) -> None:
    owner.open(path)
    owner.axe()
    owner.page.set_viewport_size({"width": 390, "height": 844})
    owner.page.emulate_media(color_scheme="dark")
    owner.open(path)
    owner.has_no_sideways_scroll()
    owner.axe()


def test_the_audit_is_searched_and_verified(owner: Visit) -> None:
    page = owner.open("/admin/audit")
    page.get_by_role("button", name="Verify now").press("Enter")
    expect(page.locator("#chain")).to_contain_text(re.compile(r"Verified up to row [\d,]+"))
    page.get_by_label("Action").fill("account.")
    page.get_by_label("Action").press("Enter")
    rows = page.locator("table.audit tbody tr")
    expect(rows.first).to_contain_text("account.created")
    rows.first.locator("summary").press("Enter")
    expect(rows.first.get_by_text("Hash")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="JSON lines").click()
    assert download.value.suggested_filename == "zsky-audit.jsonl"
    page.get_by_role("link", name="Clear").click()
    expect(page.get_by_label("Action")).to_have_value("")
