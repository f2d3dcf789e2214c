"""The owner's pages by clicks and keys."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit
from tests.people import PASSWORD


def opened(visit: Visit, path: str) -> Page:
    """Sign in as the owner, on the way to a page."""
    page = visit.open(path)
    page.get_by_label("Name").fill("owner")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/sign-in" not in url)
    return page


def test_a_card_is_freed_and_given_back_with_the_keyboard(visit: Visit) -> None:
    page = opened(visit, "/admin")
    expect(page.get_by_role("heading", name="Cards")).to_be_visible()
    visit.axe()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Free cpu now").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("cpu is freed")).to_be_visible()
    expect(page.locator(".device .badge").first).to_have_text("Freed")
    resume = page.get_by_role("button", name="Resume cpu")
    resume.focus()
    with page.expect_response("**/admin/cards/now"):
        pass
    with page.expect_response("**/admin/cards/now"):
        pass
    expect(resume).to_be_focused()
    assert page.locator("#devices[aria-live], #devices [aria-live]").count() == 0
    page.keyboard.press("Enter")
    expect(page.get_by_text("cpu takes jobs again")).to_be_visible()
    expect(page.locator(".device .badge").first).to_have_text("Ready")
    visit.has_no_sideways_scroll()
