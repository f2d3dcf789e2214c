"""The frame around all pages: signing in by keys, the pages of a stranger, and a box that does not answer."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Visit, visiting
from tests.people import PASSWORD
from tests.running import RunningBox
from zsky_box.clock import rfc3339, system_clock

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


def test_it_works_with_keys_alone(visit: Visit) -> None:
    page = visit.open("/library")
    assert "/sign-in?next=/library" in page.url
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("ada")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: url.endswith("/library"))
    skip = page.get_by_role("link", name="Skip to the page")
    skip.focus()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()


def test_a_wrong_password_is_told_and_the_name_kept(visit: Visit) -> None:
    visit.expect("422")
    page = visit.open("/sign-in")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill("not this one")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("do not belong together")
    expect(page.get_by_label("Name")).to_have_value("ada")
    expect(page.get_by_label("Password")).to_have_value("")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/sign-in", "/setup?token=wrong", "/no/such/page"])
def test_a_strangers_pages_are_for_everybody(chromium: Browser, studio: RunningBox, path: str, scheme: str) -> None:
    with visiting(chromium, studio, color_scheme=scheme, **PHONE) as visit:
        visit.expect("403", "404")
        visit.open(path)
        visit.axe()
        visit.has_no_sideways_scroll()


def test_signing_out_leads_to_the_sign_in(visit: Visit) -> None:
    page = visit.sign_in("ada")
    visit.expect("401 (Unauthorized)")  # what the page asks for while it is being left
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(lambda url: "/sign-in" in url)  # with where to go next, if the page was asking for something
    visit.open("/library")
    assert "/sign-in" in page.url


def test_a_link_from_elsewhere_finds_who_is_signed_in(visit: Visit) -> None:
    page, month = visit.sign_in("ada"), rfc3339(system_clock())[:7]
    page.goto("about:blank")
    page.set_content(f'<a href="{visit.box.url}/usage?month={month}">a link in a chat</a>')
    page.get_by_text("a link in a chat").click()
    expect(page.get_by_role("heading", name="Usage", exact=True)).to_be_visible()
    assert page.url.endswith(f"/usage?month={month}")


def test_an_open_tab_whose_session_was_ended_elsewhere_leads_to_the_sign_in(
    visit: Visit, chromium: Browser, studio: RunningBox
) -> None:
    """By itself, as its event stream ends: nobody touches it, and it comes back to the page that it showed."""
    visit.expect("401")  # what its stream is told when it comes again
    page = visit.sign_in("dora")
    with page.expect_response(lambda answer: answer.url.endswith("/v1/events")):
        visit.open("/create")
    with visiting(chromium, studio) as other:
        elsewhere = other.sign_in("dora")
        other.open("/settings")
        elsewhere.get_by_role("button", name="End all others").click()
        expect(elsewhere.get_by_role("status").filter(has_text="Ended")).to_be_visible()
    page.wait_for_url(lambda url: url.endswith("/sign-in?next=%2Fcreate"))
