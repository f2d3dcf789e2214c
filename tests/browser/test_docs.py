"""`/docs` by clicks and keys in a real browser."""

from __future__ import annotations

import httpx
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Visit, visiting
from tests.running import RunningBox


def test_it_works(visit: Visit) -> None:
    page = visit.sign_in("ada")
    visit.open("/docs")
    page.keyboard.press("/")
    find = page.get_by_label("Find a call")
    expect(find).to_be_focused()
    page.keyboard.type("wallet_empty")
    expect(page.get_by_text("2 of ")).to_be_visible()
    expect(page.locator("#generate")).to_be_in_viewport()
    expect(page.locator("#getMe")).to_be_hidden()
    visit.axe()
    page.keyboard.press("Escape")
    expect(page.locator("#getMe")).to_be_visible()
    find.fill("no such words at all")
    expect(page.get_by_text("No call and no object")).to_be_visible()
    find.fill("")
    page.get_by_role("navigation", name="Contents").get_by_role("link", name="Set the spend cap").click()
    expect(page.locator("#setCap")).to_be_in_viewport()
    visit.axe()


def test_a_link_to_what_the_filter_hides_shows_it(visit: Visit) -> None:
    page = visit.sign_in("ada")
    visit.open("/docs")
    page.get_by_label("Find a call").fill("malformed_json quote")
    page.locator("#quote").get_by_role("link", name="QuoteView").click()
    expect(page.locator("#object-QuoteView")).to_be_in_viewport()


def test_a_test_key_is_made_and_copied_with_the_quick_start(chromium: Browser, studio: RunningBox) -> None:
    with visiting(chromium, studio, permissions=["clipboard-read"]) as window:
        page = window.sign_in("ben")
        window.open("/docs")
        page.get_by_role("button", name="Create test key").click()
        key = page.locator("#secret-1").inner_text()
        page.wait_for_load_state()  # with the script that copies
        page.get_by_role("radio", name="curl").focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#quick-python")).to_be_visible()
        expect(page.locator("#quick-curl")).to_be_hidden()
        page.locator(".sample-python").get_by_role("button", name="Copy").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert key in copied
        assert f'BASE = "{studio.url}"' in copied
        me = httpx.get(f"{studio.url}/v1/me", headers={"X-API-Key": key}, trust_env=False).json()
        assert (me["name"], me["test"]) == ("ben", True)
        window.axe()


def test_it_is_read_on_a_phone_and_without_scripts(chromium: Browser, studio: RunningBox) -> None:
    phone = {"width": 390, "height": 844}
    with visiting(chromium, studio, viewport=phone) as window:
        page = window.sign_in("ada")
        window.open("/docs")
        window.has_no_sideways_scroll()
        window.axe()
        contents = page.get_by_role("navigation", name="Contents")
        expect(contents).to_be_hidden()
        page.get_by_role("button", name="Contents").click()
        window.axe()
        contents.get_by_role("link", name="Set the spend cap").click()
        expect(contents).to_be_hidden()
        expect(page.locator("#setCap")).to_be_in_viewport()
        page.get_by_role("button", name="Contents").click()
        page.get_by_label("Find a call").fill("wallet_empty")
        page.keyboard.press("Enter")
        expect(contents).to_be_hidden()
        expect(page.locator("#generate")).to_be_in_viewport()
    with visiting(chromium, studio, viewport=phone, java_script_enabled=False) as window:
        page = window.sign_in("ada")
        window.open("/docs")
        page.get_by_role("button", name="Contents").click()
        contents = page.get_by_role("navigation", name="Contents")
        expect(contents.get_by_role("link", name="What a job would cost")).to_be_in_viewport()
        expect(page.get_by_label("Find a call")).to_be_hidden()
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Copy")).to_have_count(0)
        page.get_by_text("JavaScript", exact=True).first.click()
        expect(page.locator("#quick-javascript")).to_be_visible()
        expect(page.locator("#quick-curl")).to_be_hidden()
