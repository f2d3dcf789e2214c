"""`/create` by clicks and keys: asking, watching, playing, and going on from what was made."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import Visit, visiting
from tests.running import RunningBox

SLOW = "double:slow_steps"


def opened(visit: Visit, name: str = "ada", query: str = "") -> Page:
    visit.sign_in(name)
    page = visit.open(f"/create{query}")
    expect(page.locator("#jobs")).to_have_attribute("aria-busy", "false")
    return page


def ask(page: Page, prompt: str, kind: str = "Image") -> Locator:
    """Ask for something by the keys; the card of the job."""
    page.get_by_label(kind, exact=True).check()
    page.get_by_label("Prompt", exact=True).fill(prompt)
    before = page.locator(".job").count()
    page.keyboard.press("Control+Enter")
    expect(page.locator(".job")).to_have_count(before + 1)
    return page.locator(".job").first


def act(card: Locator, name: str) -> None:
    card.get_by_role("button", name=name, exact=True).click()


def test_it_works(visit: Visit) -> None:
    page = opened(visit)
    expect(page.locator("#nothing")).to_be_visible()
    expect(page.locator("#cost")).to_have_text(re.compile("Included · .* left this month"))
    expect(page.locator("#when")).to_have_text(re.compile("^ready in"))
    visit.axe()
    card = ask(page, "a lighthouse in a storm")
    expect(card).to_have_class(re.compile("finished"))
    expect(card.locator(".media img")).to_have_js_property("complete", value=True)
    expect(card.get_by_role("link", name="Open in library")).to_have_attribute("href", re.compile("^/library/job_"))
    with page.expect_download() as download:
        card.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename.startswith("a-lighthouse-in-a-storm")
    visit.axe()


def test_a_running_job_is_watched_and_stopped(visit: Visit) -> None:
    page = opened(visit)
    card = ask(page, SLOW, "Video")
    expect(card.locator(".phase")).to_have_text(re.compile(r"Making it · \d+ %"))
    expect(card.locator(".preview")).to_have_attribute("src", re.compile("^data:image/jpeg;base64,"))
    assert 0 < card.locator("progress").evaluate("bar => bar.value") < 1
    visit.axe()
    act(card, "Cancel")
    expect(card.locator(".ended")).to_contain_text("Cancelled.")
    expect(card.locator(".ended")).to_contain_text("Charged: 1 included video.")


def test_it_survives_a_refresh_and_is_the_same_in_a_second_tab(visit: Visit) -> None:
    page = opened(visit)
    page.get_by_label("9:16").check()
    card = ask(page, SLOW, "Video")
    expect(card.locator(".preview")).to_be_visible()
    job_id = card.get_attribute("data-job")
    page.reload()
    again = page.locator(f"[data-job={job_id}]")
    expect(again.locator(".phase")).to_have_text(re.compile(r"Making it"))
    expect(again.locator(".preview")).to_be_visible()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(SLOW)
    expect(page.get_by_label("9:16")).to_be_checked()
    other = page.context.new_page()
    other.goto(page.url)
    second = other.locator(f"[data-job={job_id}]")
    expect(second.locator(".preview")).to_be_visible()
    act(second, "Cancel")
    expect(again.locator(".ended")).to_contain_text("Cancelled.")
    expect(second.locator(".ended")).to_contain_text("Cancelled.")
    other.close()


def test_on_a_phone_it_is_one_column(chromium: Browser, studio: RunningBox) -> None:
    with visiting(chromium, studio, viewport={"width": 390, "height": 844}) as phone:
        page = opened(phone, "ben")
        ask(page, "a very long word " + "o" * 200)
        phone.has_no_sideways_scroll()
        phone.axe()


def test_vary_loads_the_form_and_rerun_makes_it_again(visit: Visit) -> None:
    page = opened(visit)
    card = ask(page, "two boats")
    expect(card).to_have_class(re.compile("finished"))
    act(card, "Vary")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("two boats")
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    act(card, "Rerun")
    expect(page.locator(".job.finished .prompt", has_text="two boats")).to_have_count(2)
