"""The library by clicks and keys, over clips and pictures that a browser can really show."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, expect

from scripts.bench.filled import fill
from tests.api.asking import made
from tests.boxes import at_rest
from tests.browser.conftest import PLAYED, Visit, visiting
from tests.people import PASSWORD, add_people
from tests.running import RunningBox

SMALL: Final[dict[str, Any]] = {"resolution": "480p"}
ASKED: Final[tuple[dict[str, Any], ...]] = (
    {"type": "image", "prompt": "a lighthouse in the fog", "aspect_ratio": "9:16"},
    {"type": "image", "prompt": "an espresso bar at golden hour", "n": 2},
    {"type": "video", "prompt": "a neon night market", "duration": 1},
    {"type": "image", "prompt": "a neon sign in the rain", "aspect_ratio": "1:1"},
)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """A box with its real film leader, whose owner has made four things; `ada` has made nothing."""
    box = RunningBox(tmp_path_factory.mktemp("reel") / "data", double=False, devices="cpu", included_images=10**6)
    add_people(box.folder, "ada")
    box.start()
    with box.client() as client:
        for seed, body in enumerate(ASKED):
            made(box, client, {**SMALL, "seed": seed, **body})
    yield box
    box.stop()


def entered(visit: Visit, path: str, name: str = "owner") -> Page:
    """A page that a person was on the way to when the box asked who they are."""
    page = visit.open(path)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"**{path}")
    return page


def opened(page: Page, prompt: str) -> None:
    """A result's page, once its scripts have run."""
    page.get_by_role("link", name=prompt).click()
    page.wait_for_url("**/library/job_*", wait_until="load")


def prompts(page: Page) -> list[str]:
    """What is on the wall, as its captions say."""
    return [text.strip() for text in page.locator("#wall .caption").all_inner_texts()]


def make(studio: RunningBox, prompt: str) -> str:
    with studio.client() as client:
        return str(made(studio, client, {**SMALL, "type": "image", "prompt": prompt})["job_id"])


def filled(folder: Path, jobs: int) -> RunningBox:
    """A box whose owner has a past of so many jobs; it is not started yet."""
    keys = fill(folder / "data", jobs)
    box = RunningBox(folder / "data", devices="cpu", included_images=10**9)
    box.keys = keys
    add_people(box.folder)
    return box


def test_it_works(visit: Visit) -> None:
    page = entered(visit, "/library")
    assert prompts(page) == [str(body["prompt"]) for body in reversed(ASKED)]
    expect(page.get_by_text("4 results")).to_be_visible()
    for picture in page.locator("#wall img").all():
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", value=True)
        assert picture.evaluate("image => image.naturalWidth") > 100
    visit.axe()


def test_nothing_moves_when_the_pictures_come(visit: Visit) -> None:
    places = "() => [...document.querySelectorAll('#wall .tile')].map((tile) => tile.getBoundingClientRect().top)"
    visit.page.route("**/files/**", lambda route: route.abort())
    visit.expect("Failed to load resource")
    before = entered(visit, "/library").evaluate(places)
    visit.page.unroute("**/files/**")
    page = visit.open("/library")
    page.wait_for_load_state("networkidle")
    assert page.evaluate(places) == before


def test_searching_and_filtering_is_kept_in_the_address(visit: Visit) -> None:
    page = entered(visit, "/library")
    page.keyboard.press("/")
    expect(page.get_by_label("Search in prompts")).to_be_focused()
    page.keyboard.type("neon")
    page.keyboard.press("Enter")
    page.wait_for_url("**/library?q=neon")
    assert prompts(page) == ["a neon sign in the rain", "a neon night market"]
    page.get_by_label("Type").select_option("Videos")
    page.wait_for_url("**/library?q=neon&type=video")
    assert prompts(page) == ["a neon night market"]
    page.reload()
    expect(page.get_by_label("Search in prompts")).to_have_value("neon")
    page.get_by_role("link", name="Clear").click()
    page.wait_for_url("**/library")
    page.get_by_label("Show").select_option("Failed")
    expect(page.get_by_role("heading", name="Nothing failed")).to_be_visible()
    visit.axe()


def test_chosen_results_are_downloaded_as_one_archive(visit: Visit, tmp_path: Path) -> None:
    page = entered(visit, "/library")
    bar = page.get_by_role("region", name="Chosen results")
    expect(bar).to_be_hidden()
    page.get_by_role("link", name="a neon sign in the rain").hover()
    page.get_by_label("Choose: a neon sign in the rain").check()
    page.get_by_label("Choose: an espresso bar at golden hour").check()
    expect(bar).to_contain_text("2 results chosen")
    with page.expect_download() as download:
        bar.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename.startswith("zsky-")
    download.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.testzip() is None
        assert [name[11:] for name in archive.namelist()] == [
            "a-neon-sign-in-the-rain-3.png",
            "an-espresso-bar-at-golden-hour-1.png",
            "an-espresso-bar-at-golden-hour-1-2.png",
        ]
        assert all(archive.read(name).startswith(b"\x89PNG") for name in archive.namelist())
    expect(bar).to_contain_text("2 results chosen")  # the page is still there


def test_the_keyboard_moves_chooses_and_opens(visit: Visit) -> None:
    page = entered(visit, "/library")
    links = page.locator("#wall .look")
    picks, chosen = page.locator("#wall .pick"), page.locator("#wall .pick:checked")
    links.nth(0).focus()
    page.keyboard.press("x")
    assert picks.nth(0).is_checked()
    page.keyboard.press("ArrowRight")
    expect(links.nth(1)).to_be_focused()
    page.keyboard.press("Shift+ArrowRight")
    expect(links.nth(2)).to_be_focused()
    assert chosen.count() == 3
    page.keyboard.press("Escape")
    assert chosen.count() == 0
    page.keyboard.press("x")
    links.nth(0).click(modifiers=["Shift"])
    assert chosen.count() == 3
    picks.nth(0).focus()
    page.keyboard.press("Space")
    assert chosen.count() == 2
    page.get_by_role("button", name="Clear").click()
    assert chosen.count() == 0
    links.nth(3).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#prompt")).to_have_text("a lighthouse in the fog")


def test_a_result_is_deleted_after_a_question(visit: Visit, studio: RunningBox) -> None:
    make(studio, "nobody wants this")
    page = entered(visit, "/library")
    page.get_by_label("Choose: nobody wants this").check(force=True)
    page.get_by_role("region", name="Chosen results").get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Delete 1 result?")
    visit.axe()
    dialog.get_by_role("button", name="Keep").click()
    expect(dialog).to_be_hidden()
    assert prompts(page)[0] == "nobody wants this"
    page.get_by_role("region", name="Chosen results").get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("1 result was deleted.")).to_be_visible()
    page.wait_for_load_state()
    assert "nobody wants this" not in prompts(page)
    page.get_by_label("Show").select_option("Removed")
    expect(page.get_by_role("link", name="nobody wants this")).to_be_visible()


def test_a_clip_plays_silently_under_the_pointer_and_with_sound_on_its_page(visit: Visit) -> None:
    page = entered(visit, "/library")
    tile = page.get_by_role("link", name="a neon night market")
    tile.hover()
    clip = tile.locator("video")
    clip.evaluate("clip => new Promise((done) => { clip.ontimeupdate = () => clip.currentTime > 0 && done(); })")
    assert clip.evaluate("clip => clip.muted")
    page.mouse.move(0, 0)
    expect(clip).to_have_count(0)
    tile.click()
    large = page.locator("#clip")
    expect(large).to_be_visible()
    large.evaluate("clip => clip.play()")
    large.evaluate(PLAYED)
    assert large.evaluate("clip => [clip.muted, clip.videoWidth, clip.error]") == [False, 854, None]
    assert large.evaluate("clip => clip.webkitAudioDecodedByteCount") > 0
    visit.axe()


def test_a_results_page_is_left_by_keys_and_makes_the_same_again(visit: Visit) -> None:
    page = entered(visit, "/library?q=neon")
    opened(page, "a neon sign in the rain")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#prompt")).to_have_text("a neon night market")
    page.wait_for_load_state()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#prompt")).to_have_text("a neon sign in the rain")
    first = page.url
    page.get_by_role("button", name="Rerun").click()
    page.wait_for_url(lambda url: "/library/" in url and url != first)
    expect(page.get_by_role("link", name="Download")).to_be_visible()  # it shows the result when it is there
    expect(page.get_by_text("completed")).to_be_visible()
    page.wait_for_load_state()  # with the script that asks
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("1 result was deleted.")).to_be_visible()
    page.wait_for_load_state()
    assert prompts(page).count("a neon sign in the rain") == 1


def test_the_results_beside_one_are_those_of_the_wall_it_was_opened_from(visit: Visit) -> None:
    page = entered(visit, "/library?type=image")
    opened(page, "a neon sign in the rain")
    shown, older = page.locator("#prompt"), page.locator("#older")
    page.keyboard.press("ArrowRight")
    expect(shown).to_have_text("an espresso bar at golden hour")  # a clip lies between them
    page.wait_for_load_state()
    older.click()
    expect(shown).to_have_text("a lighthouse in the fog")
    expect(older).to_be_hidden()
    page.wait_for_load_state()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(shown).to_have_text("an espresso bar at golden hour")
    page.wait_for_load_state()
    page.locator("#back").click()
    page.wait_for_url("**/library?type=image")


def test_copying_and_the_receipt(visit: Visit, tmp_path: Path) -> None:
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = entered(visit, "/library?q=lighthouse")
    opened(page, "a lighthouse in the fog")
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    link = page.evaluate("() => navigator.clipboard.readText()")
    assert page.request.get(link).headers["content-type"] == "image/png"
    page.get_by_text("As a call of the API").click()
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.locator("[data-copy=curl]")).to_have_text("Copied")
    assert '"aspect_ratio":"9:16"' in page.evaluate("() => navigator.clipboard.readText()")
    page.get_by_role("button", name="Python, JavaScript").click()
    page.get_by_role("tab", name="Python").click()
    expect(page.locator("#code-text")).to_contain_text('"aspect_ratio": "9:16"')
    visit.axe()
    page.get_by_role("button", name="Close").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="JSON").click()
    download.value.save_as(tmp_path / "receipt.json")
    assert '"weights_sha256"' in (tmp_path / "receipt.json").read_text()


def test_the_wall_goes_on_as_it_is_scrolled(chromium: Browser, tmp_path: Path) -> None:
    box = filled(tmp_path, 120)
    try:
        with visiting(chromium, at_rest(box.start())) as visit:
            visit.expect("Failed to load resource")  # the files of this past are empty
            page = entered(visit, "/library")
            tiles = page.locator("#wall .tile")
            seen = tiles.count()
            assert seen < 106
            while page.locator("#wall .more").count():
                page.mouse.wheel(0, 20_000)
                expect(tiles.nth(seen)).to_be_attached()
                seen = tiles.count()
            assert seen >= 106
            names = tiles.evaluate_all("tiles => tiles.map((tile) => tile.dataset.job)")
            assert len(set(names)) == len(names)
            assert page.url.endswith("/library")
    finally:
        box.stop()


def test_the_way_back_from_a_result_leads_to_the_place_on_the_wall(chromium: Browser, tmp_path: Path) -> None:
    box = filled(tmp_path, 200)
    try:
        with visiting(chromium, at_rest(box.start())) as visit:
            visit.expect("Failed to load resource")  # the files of this past are empty
            page = entered(visit, "/library")
            tiles, chosen = page.locator("#wall .tile"), page.locator("#bar-count")
            page.wait_for_function(
                "() => {const more = document.querySelector('#wall .more'); more?.scrollIntoView(); return !more;}"
            )
            count = tiles.count()
            assert count > 150
            job = tiles.nth(120).get_attribute("data-job")
            tile = page.locator(f"[data-job={job}]")
            tile.scroll_into_view_if_needed()
            tile.locator(".pick").check(force=True)
            for back in (page.go_back, lambda: page.locator("#back").click(), page.reload):
                top = tile.evaluate("tile => tile.getBoundingClientRect().top")
                if back != page.reload:
                    tile.locator(".look").click()
                    page.wait_for_url("**/library/job_*", wait_until="load")
                back()
                expect(tiles).to_have_count(count)
                page.wait_for_function(
                    "([job, top]) => Math.abs(document.querySelector(`[data-job=${job}]`)"
                    ".getBoundingClientRect().top - top) < 2",
                    arg=[job, top],
                )
                expect(chosen).to_have_text("1 result chosen")
            first = page.evaluate_handle(
                "[...document.querySelectorAll('#wall .tile')].find((tile) => tile.getBoundingClientRect().bottom > 0)"
            )
            job, top, after = first.evaluate(
                "tile => [tile.dataset.job, tile.getBoundingClientRect().top, tile.nextElementSibling.dataset.job]"
            )
            first.evaluate("tile => tile.querySelector('.pick').click()")  # without any scrolling
            page.locator("#bar").get_by_role("button", name="Delete").click()
            page.get_by_role("dialog").get_by_role("button", name="Delete").click()
            expect(page.get_by_text("2 results were deleted.")).to_be_attached()
            page.wait_for_function(
                "([job, top]) => Math.abs((document.querySelector(`[data-job=${job}]`)?.getBoundingClientRect().top"
                " ?? Infinity) - top) < 400 && scrollY > 0",
                arg=[after, top],
            )
            expect(page.locator(f"[data-job={job}]")).to_have_count(0)
            page.get_by_role("link", name="Library", exact=True).click()
            expect(page.locator("#bar")).to_be_hidden()
            assert page.evaluate("scrollY") == 0
    finally:
        box.stop()


def test_all_that_match_are_chosen_and_deleted_once_their_number_is_confirmed(
    chromium: Browser, tmp_path: Path
) -> None:
    box = filled(tmp_path, 120)
    try:
        with visiting(chromium, at_rest(box.start())) as visit:
            visit.expect("Failed to load resource")
            page = entered(visit, "/library?type=image")
            bar, count = page.locator("#bar"), page.locator("#bar-count")
            page.locator("#wall .look").first.focus()
            page.keyboard.press("Control+a")
            expect(count).to_have_text(re.compile(r"All 1\d\d results chosen"))
            number = re.sub(r"\D", "", count.inner_text())
            page.locator("#wall .pick").nth(3).uncheck(force=True)
            expect(count).not_to_contain_text("All")
            page.keyboard.press("Escape")
            expect(bar).to_be_hidden()
            page.get_by_role("button", name="Choose all").click()
            expect(count).to_have_text(f"All {number} results chosen")
            visit.axe()
            seen = page.locator("#wall .tile").count()
            page.locator("#wall .more").scroll_into_view_if_needed()
            expect(page.locator("#wall .tile").nth(seen)).to_be_attached()
            expect(page.locator("#wall .pick:not(:checked)")).to_have_count(0)
            bar.get_by_role("button", name="Delete").click()
            expect(page.get_by_role("heading", name=f"Delete these {number} results?")).to_be_visible()
            visit.axe()
            page.get_by_role("link", name="Keep").click()
            page.wait_for_load_state()
            page.get_by_role("button", name="Choose all").click()
            bar.get_by_role("button", name="Delete").click()
            page.get_by_role("button", name=f"Delete {number}").click()
            expect(page.get_by_text(f"{number} results were deleted.")).to_be_visible()
            expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    finally:
        box.stop()


def test_it_works_without_javascript(chromium: Browser, studio: RunningBox) -> None:
    make(studio, "plainly unwanted")
    with visiting(chromium, studio, java_script_enabled=False) as visit:
        page = entered(visit, "/library")
        page.get_by_label("Search in prompts").fill("plainly")
        page.get_by_role("button", name="Search").click()
        assert prompts(page) == ["plainly unwanted"]
        page.get_by_label("Choose: plainly unwanted").check()
        with page.expect_download() as download:
            page.get_by_role("button", name="Download").click()
        assert download.value.suggested_filename.endswith(".zip")
        page.get_by_role("button", name="Delete").first.click()
        expect(page.get_by_role("heading", name="Delete this result?")).to_be_visible()
        page.get_by_role("button", name="Delete").click()
        expect(page.get_by_text("1 result was deleted.")).to_be_visible()
        expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()


def test_another_account_sees_an_empty_wall(visit: Visit) -> None:
    page = entered(visit, "/library", "ada")
    expect(page.get_by_role("heading", name="Nothing here yet")).to_be_visible()
    visit.axe()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it(chromium: Browser, studio: RunningBox, scheme: str) -> None:
    with visiting(
        chromium, studio, viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True
    ) as visit:
        page = entered(visit, "/library")
        visit.has_no_sideways_scroll()
        visit.axe()
        page.get_by_role("link", name="a lighthouse in the fog").tap()
        expect(page.get_by_role("link", name="Download")).to_be_visible()
        visit.has_no_sideways_scroll()
        visit.axe()
