"""The owner's pages by clicks and keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from scripts.tiny_models import cached
from tests.boxes import running
from tests.browser.conftest import Visit, visiting
from tests.doubles.hub import a_hub, files_of
from tests.hub.checkpoint import TINY_REPOSITORY, write_manifest
from tests.people import PASSWORD, add_people, signed_in
from tests.running import RunningBox

SLOW_MS = 120_000
"""What waits for another process to begin, or to end."""


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


def test_the_queue_is_put_in_order_and_a_job_is_cancelled_on_a_phone(visit: Visit) -> None:
    page = opened(visit, "/admin/queue")
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.get_by_role("heading", name="Nothing waits")).to_be_visible()
    page.get_by_role("button", name="Pause all cards").click()
    expect(page.get_by_text("All cards are paused: nothing more starts.")).to_be_visible()
    with visit.box.client() as client:
        for prompt in ("a first lake", "a second lake", "a third lake"):
            assert client.post("/v1/generate", json={"type": "image", "prompt": prompt}).status_code == 202
    rows = page.locator("ol.line > li")
    expect(rows).to_have_count(3)  # by itself
    front = rows.nth(2).get_by_role("button", name="to the front")
    front.focus()
    with page.expect_response("**/admin/queue/now*"):
        pass
    expect(front).to_be_focused()
    page.keyboard.press("Enter")
    expect(rows.first).to_contain_text("a third lake")
    expect(rows.first).to_contain_text("moved ahead")
    visit.axe()
    visit.has_no_sideways_scroll()
    rows.nth(1).get_by_role("link", name="Cancel").click()
    page.get_by_label("Reason").fill("the card is needed")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The job is cancelled.")).to_be_visible()
    expect(rows).to_have_count(2)
    page.get_by_role("button", name="Resume all cards").click()
    expect(page.get_by_role("heading", name="Nothing waits")).to_be_visible()


def test_a_wallet_is_filled_with_the_keyboard(visit: Visit) -> None:
    page = opened(visit, "/admin/people")
    visit.axe()
    page.get_by_role("link", name="ben", exact=True).click()
    visit.axe()
    page.get_by_label("Top up, in dollars").fill("12.50")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="ben: is this right?")).to_be_visible()
    expect(page.get_by_role("row", name="Wallet")).to_contain_text("$12.50")
    visit.axe()
    expect(page.get_by_role("button", name="Yes, do it")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("The wallet is filled.")).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 844})
    visit.has_no_sideways_scroll()
    page.get_by_role("button", name="Make a link").click()
    expect(page.locator(".secret code")).to_contain_text("/setup?token=")


def test_a_job_is_paid_back_with_the_keyboard(visit: Visit) -> None:
    with signed_in(visit.box, "dora") as dora:
        body = {"type": "image", "prompt": "a fox in the snow", "n": 2}
        answer = dora.post("/v1/generate", json=body, headers={"X-CSRF-Token": dora.csrf})
        assert visit.box.ended(dora, answer.json()["job_id"])["status"] == "completed"
    page = opened(visit, "/admin/people")
    page.get_by_role("link", name="dora", exact=True).click()
    page.get_by_role("link", name="Charges, and paying them back").click()
    expect(page.get_by_role("row", name="a fox in the snow")).to_contain_text("2 included images")
    visit.axe()
    page.get_by_role("link", name="Pay back").press("Enter")
    expect(page.get_by_label("All of its charge")).to_be_checked()
    visit.axe()
    page.get_by_label("Image 2 only").check()
    page.get_by_label("Reason").fill("a blot")
    page.keyboard.press("Enter")
    expect(page.get_by_text("This pays back 1 included image, good this month.")).to_be_visible()
    expect(page.get_by_role("button", name="Yes, do it")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Paid back: 1 included image")).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 844})
    visit.has_no_sideways_scroll()
    expect(page.get_by_role("row", name="a fox in the snow")).to_contain_text("1 included image")


def test_a_model_is_installed_while_one_watches(
    chromium: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    RunningBox(tmp_path / "data")
    write_manifest(tmp_path / "data")
    add_people(tmp_path / "data")
    with (
        a_hub(TINY_REPOSITORY, files_of(cached("tiny-klein"))) as hub,
        running(tmp_path / "data", hub_url=hub.url) as box,
        visiting(chromium, box) as visit,
    ):
        hub.faults.hold_after = 300_000
        page = opened(visit, "/admin/models")
        tiny = page.locator("#model-tiny-klein")
        tiny.locator("summary", has_text="Install").click()
        tiny.get_by_label("I have read").check()
        visit.axe()
        tiny.get_by_role("button", name="Install").click()
        bar = page.get_by_role("progressbar", name="fetching")
        expect(bar).to_be_visible(timeout=SLOW_MS)
        page.reload()
        expect(bar).to_be_visible(timeout=SLOW_MS)
        visit.axe()
        page.get_by_role("button", name="Cancel").click()
        expect(tiny.get_by_role("button", name="Go on")).to_be_visible(timeout=SLOW_MS)
        hub.faults.hold_after = None
        hub.released.set()
        tiny.get_by_label("I have read").check()
        page.keyboard.press("Enter")
        expect(page.get_by_text("tiny-klein is installed.")).to_be_visible(timeout=SLOW_MS)
        expect(tiny.get_by_text("installed", exact=True)).to_be_visible()
        page.set_viewport_size({"width": 390, "height": 844})
        visit.has_no_sideways_scroll()
        tiny.get_by_role("link", name="Remove").click()
        page.get_by_role("button", name="Remove it").click()
        expect(tiny.get_by_text("not installed")).to_be_visible()


def test_a_box_that_does_not_answer_is_told_and_what_is_shown_stays(chromium: Browser, tmp_path: Path) -> None:
    RunningBox(tmp_path / "data")
    add_people(tmp_path / "data")
    with running(tmp_path / "data") as box, visiting(chromium, box) as visit:
        page = opened(visit, "/admin/cards")
        page.route("**/admin/cards/now", lambda route: route.fulfill(status=503, body="<h1>No</h1>"))
        expect(page.locator("#offline")).to_be_visible()
        page.unroute("**/admin/cards/now")
        expect(page.locator("#offline")).to_be_hidden()
        visit.expect("net::ERR_", "503", "htmx")
        box.kill()
        expect(page.locator("#offline")).to_be_visible()
        expect(page.locator(".device")).to_have_count(1)
        expect(page.get_by_role("heading", name="No")).to_have_count(0)
