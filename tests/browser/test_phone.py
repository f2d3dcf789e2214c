"""All pages at a phone's width: nothing is wider than the window, and every place is reached by keys and by touch."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Visit, visiting
from tests.people import PASSWORD, signed_in
from tests.running import RunningBox

PHONE: Final[dict[str, Any]] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
PLACES: Final = ("Create", "Library", "Usage", "Settings", "Docs", "Admin")
FILTERED: Final = (("/library", "Type"), ("/usage", "Entry"), ("/admin/audit", "Account"), ("/admin/queue", "Type"))
"""Pages whose filters are folded, and one of these."""
PAGES: Final = (
    "/create",
    "/create?type=image",
    "/library",
    "/library?show=failed",
    "/library?q=nothing+like+it",
    "/library/{job}",
    "/settings",
    "/usage",
    "/usage?job={job}",
    "/usage/statements",
    "/usage/statements/{month}",
    "/admin/cards",
    "/admin/queue",
    "/admin/models",
    "/admin/people",
    "/admin/people/{account}",
    "/admin/people/{account}/charges",
    "/admin/settings",
    "/admin/audit",
    "/admin/health",
    "/docs",
    "/no/such/page",
)


@pytest.fixture(scope="module")
def parts(studio: RunningBox) -> dict[str, str]:
    """What the addresses of pages name: a job that is done, its month, the owner's account."""
    with studio.client() as client:
        job = client.post("/v1/generate", json={"type": "image", "prompt": "a lantern " + "o" * 120}).json()["job_id"]
        ended = studio.ended(client, job)
        assert ended["status"] == "completed"
    return {"job": job, "month": ended["created_at"][:7], "account": studio.keys["account"]}


@pytest.fixture
def phone(chromium: Browser, studio: RunningBox) -> Generator[Visit]:
    """A phone in the owner's hand."""
    with visiting(chromium, studio, **PHONE) as visit:
        visit.sign_in()
        yield visit


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_the_window(
    chromium: Browser, studio: RunningBox, parts: dict[str, str], scheme: str
) -> None:
    with visiting(chromium, studio, color_scheme=scheme, **PHONE) as visit:
        visit.expect("404")
        visit.sign_in()
        for path in PAGES:
            visit.open(path.format(**parts))
            visit.has_no_sideways_scroll()
            visit.axe()


def test_every_place_is_reached_by_keys(phone: Visit) -> None:
    page = phone.open("/settings")
    for name in PLACES:
        expect(page.get_by_role("navigation", name="Main").get_by_role("link", name=name)).to_be_hidden()
    menu = page.get_by_role("button", name="Menu")
    menu.focus()
    page.keyboard.press("Enter")
    for name in PLACES:
        page.keyboard.press("Tab")
        link = page.get_by_role("link", name=name, exact=True)
        expect(link).to_be_focused()
        expect(link).to_be_in_viewport(ratio=1)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Sign out")).to_be_focused()
    phone.axe()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Sign out")).to_be_hidden()
    expect(menu).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/create")


def test_the_menu_opens_by_touch_without_scripts(chromium: Browser, studio: RunningBox) -> None:
    with visiting(chromium, studio, java_script_enabled=False, **PHONE) as visit:
        page = visit.open("/sign-in?next=/usage")
        page.get_by_label("Name").fill("owner")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").tap()
        page.get_by_role("button", name="Menu").tap()
        expect(page.get_by_role("link", name="Usage", exact=True)).to_have_attribute("aria-current", "page")
        page.get_by_role("link", name="Admin", exact=True).tap()
        expect(page.get_by_role("heading", name="Cards", exact=True)).to_be_visible()
        page.get_by_role("button", name="Menu").tap()
        page.get_by_role("button", name="Sign out").tap()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_filters_are_folded_and_say_how_many_are_active(phone: Visit, parts: dict[str, str]) -> None:
    page = phone.open("/library")
    wall = page.get_by_role("link", name="a lantern")
    expect(wall).to_be_in_viewport()
    kind = page.get_by_label("Type")
    expect(kind).to_be_hidden()
    page.get_by_role("button", name="Filters").tap()
    kind.select_option("video")
    page.get_by_label("From").fill("2026-01-01")
    expect(wall).to_be_visible()  # a choice alone does not leave the sheet
    phone.axe()
    page.get_by_role("button", name="Apply").tap()
    page.wait_for_url("**/library?*type=video*")
    assert "from=2026-01-01" in page.url
    expect(page.get_by_role("button", name="Filters 2 active")).to_be_visible()
    page.get_by_role("link", name="Clear", exact=True).tap()
    expect(wall).to_be_visible()
    assert parts["job"] in (wall.get_attribute("href") or "")


@pytest.mark.parametrize(("path", "label"), FILTERED)
def test_folded_filters_are_used_with_keys_and_without_scripts(
    chromium: Browser, studio: RunningBox, path: str, label: str
) -> None:
    with visiting(chromium, studio, java_script_enabled=False, **PHONE) as visit:
        page = visit.open(f"/sign-in?next={path}")
        page.get_by_label("Name").fill("owner")
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        sheet = page.get_by_role("group", name="Filters")
        expect(sheet).to_be_hidden()
        page.get_by_role("button", name="Filters").focus()
        page.keyboard.press("Enter")
        expect(sheet).to_be_visible()
        page.keyboard.press("Tab")
        assert _is_within(page, ".fold")
        sheet.get_by_label(label).select_option(index=1)
        sheet.get_by_role("button", name="Apply").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Filters 1 active")).to_be_visible()
        expect(sheet).to_be_hidden()


def test_with_room_the_menu_and_the_filters_stand_in_the_line(visit: Visit) -> None:
    page = visit.sign_in()
    visit.open("/library")
    expect(page.get_by_role("button", name="Menu")).to_be_hidden()
    expect(page.get_by_role("button", name="Filters")).to_be_hidden()
    for name in PLACES:
        expect(page.get_by_role("link", name=name, exact=True)).to_be_in_viewport(ratio=1)
    page.get_by_label("Type").select_option("image")
    page.wait_for_url("**/library?type=image")


def test_a_page_stays_light(studio: RunningBox, parts: dict[str, str]) -> None:
    """What a page sends before its pictures and clips, as it goes over the wire: under 150 kB."""
    with signed_in(studio) as browser:
        for path in PAGES:
            answer = browser.get(path.format(**parts))
            assert answer.num_bytes_downloaded < 150_000, path


def _is_within(page: Page, selector: str) -> bool:
    return bool(page.evaluate("(selector) => document.activeElement.closest(selector) !== null", selector))
