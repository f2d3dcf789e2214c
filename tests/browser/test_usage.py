"""`/usage` in a real browser: charts read by keys, filters, a job's cost, a statement, at a phone's width too."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from scripts.bench.filled import fill
from tests.browser.conftest import Visit, visiting
from tests.people import PASSWORD, add_people
from tests.running import RunningBox
from tests.stores import SetClock
from tests.studio import Studio
from zsky_box.clock import parse_rfc3339

MONTH = "2026-08"
PAGE_MAX_BYTES = 150_000


def work(folder: Path) -> None:
    """Two days of a month."""
    rooms = Studio(folder, clock=SetClock(parse_rfc3339(f"{MONTH}-03T10:00:00Z")))
    script = rooms.named_key("render farm")
    rooms.make(3)
    rooms.make(1, script, type="video")
    rooms.clock.set(f"{MONTH}-05T10:00:00Z")
    rooms.refund(rooms.make(2, script))
    rooms.close()


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """A box whose owner worked on two days of a month, through two keys."""
    folder = tmp_path_factory.mktemp("usage") / "data"
    folder.mkdir()
    with ThreadPoolExecutor(1) as pool:  # Playwright's own loop runs on this thread
        pool.submit(work, folder).result()
    add_people(folder)
    box = RunningBox(folder, devices="cpu", included_images=1).start()
    yield box
    box.stop()


@pytest.fixture
def window(chromium: Browser, past: RunningBox) -> Generator[Visit]:
    with visiting(chromium, past) as found:
        found.expect("/settings", "/create")  # where a sign-in leads to, whether or not it is there yet
        found.sign_in()
        yield found


def test_it_works(window: Visit) -> None:
    page = window.open(f"/usage?month={MONTH}")
    expect(page.get_by_role("heading", name="Usage")).to_be_visible()
    expect(page.locator(".chart canvas")).to_have_count(4)
    expect(page.locator("#by-day")).to_be_hidden()
    page.get_by_text("The figures as a table").first.press("Enter")
    expect(page.locator("#by-day")).to_be_visible()
    window.axe()


def test_a_chart_is_read_with_the_arrow_keys(window: Visit) -> None:
    page = window.open(f"/usage?month={MONTH}")
    days = page.get_by_role("group", name="Chart: Generations by day, 4 in all.")
    days.focus()
    page.keyboard.press("Home")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    said = page.locator("figure", has=days).locator("output")
    expect(said).to_have_text("3 August: 1 videos, 3 images")
    page.keyboard.press("End")
    expect(said).to_have_text("31 August: 0 videos, 0 images")
    keys = page.get_by_role("group", name="Chart: Spent from the wallet by key, $0.10 in all.")
    keys.press("ArrowDown")
    expect(page.locator("figure", has=keys).locator("output")).to_contain_text("$0.00 videos, $0.10 images")


def test_a_pointer_reads_it_too(window: Visit) -> None:
    page = window.open(f"/usage?month={MONTH}")
    over = page.locator(".chart .u-over").first
    box = over.bounding_box()
    assert box is not None
    over.hover(position={"x": box["width"] * 2.6 / 31.2, "y": box["height"] / 2})
    expect(page.locator(".chart output").first).to_have_text("3 August: 1 videos, 3 images")


def test_the_ledger_is_filtered_and_a_jobs_cost_is_shown(window: Visit) -> None:
    page = window.open("/usage")
    page.get_by_label("Month", exact=True).select_option(label="August 2026")
    page.get_by_role("button", name="Show").click()
    page.get_by_label("Entry").select_option(label="Paid back")
    page.get_by_role("button", name="Filter").press("Enter")
    rows = page.locator("table.ledger tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("+$0.10")
    job_id = rows.get_by_role("link").get_attribute("title")
    page.get_by_label("Job", exact=True).fill(str(job_id))
    page.get_by_label("Job", exact=True).press("Enter")
    expect(page.get_by_role("heading", name="What one job cost")).to_be_visible()
    expect(page.locator(".job")).to_contain_text("paid back")
    page.get_by_role("link", name="Clear").click()
    expect(page.locator(".job")).to_have_count(0)


def test_a_sheet_is_downloaded(window: Visit) -> None:
    page = window.open(f"/usage?month={MONTH}")
    with page.expect_download() as download:
        page.locator("#ledger").get_by_role("link", name="Download as CSV").click()
    assert download.value.suggested_filename == "zsky-ledger.csv"
    with page.expect_download() as download:
        page.get_by_role("link", name="August 2026 as CSV").click()
    assert download.value.suggested_filename == f"zsky-statement-{MONTH}.csv"


def test_a_statement_is_printed(window: Visit, tmp_path: Path) -> None:
    page = window.open("/usage/statements")
    page.get_by_role("link", name="August 2026", exact=True).click()
    expect(page.get_by_role("button", name="Print")).to_be_visible()
    expect(page.locator(".charges tfoot")).to_contain_text("$0.10")
    window.axe()
    page.emulate_media(media="print")
    expect(page.get_by_role("button", name="Print")).to_be_hidden()
    expect(page.locator("header.top")).to_be_hidden()
    printed = page.pdf(path=tmp_path / "statement.pdf", prefer_css_page_size=True)
    assert b"/MediaBox [0 0 594.95996 841.91998]" in printed or b"/MediaBox [0 0 595" in printed


@pytest.mark.parametrize("path", [f"/usage?month={MONTH}", "/usage", "/usage/statements", f"/usage/statements/{MONTH}"])
def test_on_a_phone_in_the_dark(window: Visit, path: str) -> None:
    window.page.set_viewport_size({"width": 390, "height": 844})
    window.page.emulate_media(color_scheme="dark")
    window.open(path)
    window.has_no_sideways_scroll()
    window.axe()


def test_without_scripts_the_tables_are_there(chromium: Browser, past: RunningBox) -> None:
    with visiting(chromium, past, java_script_enabled=False) as found:
        found.expect("/settings", "/create")
        page = found.sign_in()
        found.open(f"/usage?month={MONTH}")
        expect(page.locator("#by-day")).to_be_visible()
        expect(page.locator(".chart").first).to_be_hidden()
        page.get_by_label("Entry").select_option(label="Charged")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator("table.ledger tbody tr")).to_have_count(4)  # of the images one was included


def test_ten_thousand_jobs_make_no_longer_page(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("many") / "data"
    fill(folder, 10_000)
    add_people(folder)
    box = RunningBox(folder, devices="cpu", included_images=10**6).start()
    try:
        with visiting(chromium, box) as found:
            found.expect("410")  # the sign-in leads by the wall, whose filled rows have no files
            page = found.open("/usage")
            page.get_by_label("Name").fill("owner")
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Sign in").click()
            expect(page.locator(".chart canvas")).to_have_count(4)
            assert len(page.content()) < PAGE_MAX_BYTES
            page.get_by_role("link", name="Older entries").click()
            page.get_by_role("link", name="Older entries").click()
            expect(page.locator("table.ledger tbody tr").first).to_be_visible()
            assert page.locator("table.ledger tbody tr").count() <= 50
    finally:
        box.stop()
