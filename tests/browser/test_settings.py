"""`/settings` by clicks and keys in a real browser."""

from __future__ import annotations

import httpx
from playwright.sync_api import Browser, Page, expect

from tests.api.asking import problem
from tests.browser.conftest import Visit, visiting
from tests.people import PASSWORD
from tests.running import RunningBox

NEW_PASSWORD = "six lanterns on the lock"


def rotated(page: Page) -> str:
    """Press Rotate Key; the key that is shown."""
    page.get_by_role("button", name="Rotate Key").click()
    shown = page.locator("#secret-1")
    expect(shown).to_be_visible()
    return shown.inner_text()


def whoami(box: RunningBox, key: str) -> httpx.Response:
    return httpx.get(f"{box.url}/v1/me", headers={"X-API-Key": key}, trust_env=False)


def test_it_works(visit: Visit, studio: RunningBox) -> None:
    page = visit.sign_in("ada")
    visit.open("/settings#api")
    expect(page.get_by_text("No key yet")).to_be_visible()
    visit.axe()
    first = rotated(page)
    visit.axe()
    page.get_by_label("The old key ends").select_option(label="at once")
    second = rotated(page)
    problem(whoami(studio, first), 401, "revoked_key")
    assert whoami(studio, second).json()["name"] == "ada"
    page.reload()
    expect(page.locator("#secret-1")).to_have_count(0)


def test_a_key_is_issued_capped_and_revoked_by_keyboard(visit: Visit, studio: RunningBox) -> None:
    page = visit.sign_in("ben")
    visit.open("/settings")
    page.get_by_text("Issue another key").press("Enter")
    page.get_by_role("textbox", name="Name").fill("<b>nightly</b> render")
    page.get_by_label("billing").uncheck()
    page.get_by_role("button", name="Issue the key").press("Enter")
    key = page.locator("#secret-1").inner_text()
    expect(page.get_by_role("rowheader", name="<b>nightly</b> render")).to_be_visible()
    page.get_by_role("button", name="Change <b>nightly</b> render").press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    visit.axe()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Change <b>nightly</b> render").press("Enter")
    dialog.get_by_label("Cap a month in dollars").fill("12")
    dialog.get_by_role("button", name="Set the cap").click()
    expect(page.get_by_text("of $12.00", exact=True)).to_be_visible()
    page.get_by_role("button", name="Change <b>nightly</b> render").click()
    dialog.get_by_text("Revoke this key").click()
    dialog.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("status").filter(has_text="is revoked")).to_be_visible()
    problem(whoami(studio, key), 401, "revoked_key")


def test_overage_is_turned_on_and_its_cap_refused_beside_the_field(visit: Visit) -> None:
    page = visit.sign_in("ada")
    visit.open("/settings#overage")
    page.get_by_role("button", name="Turn overage on").click()
    expect(page.get_by_role("button", name="Turn overage off")).to_be_visible()
    cap = page.get_by_label("Spend cap a month in dollars")
    cap.fill("2000")
    visit.expect("422")
    page.locator("#overage").get_by_role("button", name="Set the cap").click()
    expect(page.get_by_role("alert")).to_contain_text("$5.00 to $1000.00")
    expect(cap).to_have_value("2000")
    expect(cap).to_be_focused()
    visit.axe()
    cap.fill("80")
    cap.press("Enter")
    expect(page.get_by_role("status").filter(has_text="$80.00")).to_be_visible()


def test_a_session_is_ended_from_another_browser_and_the_password_changed(
    visit: Visit, chromium: Browser, studio: RunningBox
) -> None:
    page = visit.sign_in("cleo")
    with visiting(chromium, studio) as other:
        other.sign_in("cleo")
        other.open("/settings")  # which has no stream: a page that has one would lead to the sign-in by itself
        visit.open("/settings")
        page.get_by_role("button", name="End the session of Chrome on Linux").click()
        expect(page.get_by_role("status").filter(has_text="session has ended")).to_be_visible()
        other.open("/settings")
        assert "/sign-in" in other.page.url
        other.sign_in("cleo")
        other.open("/settings")
        page.get_by_label("Present password").fill(PASSWORD)
        page.get_by_label("New password").fill(NEW_PASSWORD)
        page.get_by_label("The same again").fill(NEW_PASSWORD)
        page.get_by_role("button", name="Change the password").click()
        expect(page.get_by_role("status").filter(has_text="The password is changed.")).to_be_visible()
        other.open("/settings")
        assert "/sign-in" in other.page.url
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(lambda url: "/sign-in" in url)
    visit.sign_in("cleo", NEW_PASSWORD)


def test_all_of_it_works_without_scripts_on_a_phone_with_twenty_keys(chromium: Browser, studio: RunningBox) -> None:
    phone = {"width": 390, "height": 844}
    with visiting(chromium, studio, java_script_enabled=False, viewport=phone) as window:
        page = window.sign_in("dora")
        for number in range(20):
            window.open("/settings")
            page.get_by_text("Issue another key").click()
            page.get_by_role("textbox", name="Name").fill(f"a script with quite a long name, number {number}")
            page.get_by_role("button", name="Issue the key").click()
        expect(page.get_by_role("button", name="Change a script")).to_have_count(20)
        page.get_by_role("button", name="Change a script").first.click()
        page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
        expect(page.get_by_text("at most 20 keys")).to_be_visible()
    with visiting(chromium, studio, viewport=phone) as window:
        window.sign_in("dora")
        window.open("/settings")
        window.has_no_sideways_scroll()
        window.axe()
