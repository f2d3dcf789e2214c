"""The owner's pages of what was and what holds, by clicks and keys: audit, health, settings."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.people import PASSWORD

PAGES = ("/admin/audit", "/admin/health", "/admin/settings")


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
    page.wait_for_load_state("load")  # which goes to the rows, and takes the focus there
    rows.first.locator("summary").click()
    expect(rows.first.get_by_text("Hash")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="JSON lines").click()
    assert download.value.suggested_filename == "zsky-audit.jsonl"
    page.get_by_role("link", name="Clear").click()
    expect(page.get_by_label("Action")).to_have_value("")


def test_a_backup_is_made_and_saved(owner: Visit) -> None:
    page = owner.open("/admin/health")
    expect(page.get_by_role("heading", name="Findings")).to_be_visible()
    page.get_by_role("button", name="Back up now").press("Enter")
    expect(page.locator("#backup-list .notice")).to_contain_text("verified and read back")
    owner.axe()
    page.get_by_role("link", name=re.compile("^Download zsky-")).first.click()
    expect(page.get_by_label("Your password")).to_be_focused()
    owner.axe()
    page.keyboard.type(PASSWORD)
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename.endswith(".tar.gz")


def test_a_setting_is_found_and_changed(owner: Visit) -> None:
    page = owner.open("/admin/settings")
    page.get_by_label("Find a setting").fill("wallet below")
    page.get_by_label("Find a setting").press("Enter")
    row = page.locator("#low_wallet_usd")
    expect(page.locator(".settings li")).to_have_count(1)
    row.locator("summary").press("Enter")
    owner.axe()
    row.get_by_label("New value of low_wallet_usd").fill("12.5x")
    row.get_by_role("button", name="Save low_wallet_usd").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("allowed is an amount")
    page = owner.open("/admin/settings?find=low_wallet")
    row.locator("summary").click()
    row.get_by_label("New value of low_wallet_usd").fill("12.50")
    row.get_by_role("button", name="Save low_wallet_usd").click()
    expect(page.locator(".said")).to_contain_text("takes effect at the next start")
    expect(row).to_contain_text("then 12.50")
    row.locator("summary").click()
    row.get_by_role("button", name="Back to 5.00").click()
    expect(page.locator(".said")).to_contain_text("back to its default")


def test_a_setting_that_can_lock_out_asks_first(owner: Visit) -> None:
    page = owner.open("/admin/settings?find=host")
    row = page.locator("#host")
    row.locator("summary").click()
    expect(row.locator(".warn")).to_contain_text("may not be reached")
    page.once("dialog", lambda dialog: dialog.dismiss())
    row.get_by_label("New value of host").fill("192.0.2.7")
    row.get_by_role("button", name="Save host").click()
    expect(row.get_by_label("New value of host")).to_have_value("192.0.2.7")
    expect(page.locator(".said")).to_have_count(0)
