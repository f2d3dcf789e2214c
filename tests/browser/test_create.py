"""`/create` by clicks and keys: asking, watching, playing, and going on from what was made."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.boxes import add_models, running
from tests.browser.conftest import PLAYED, Visit, visiting
from tests.people import add_people, signed_in
from tests.running import RunningBox

SLOW = "double:slow_steps"
TIMES = "\u00d7"
MADE_MS = 120_000
TOYS = """
name = "toys"
title = "Toys"
makes = ["video", "image"]
bundled = true
experimental = true
[licence]
name = "none"
[limits]
resolutions = ["480p"]
aspect_ratios = ["16:9"]
fps = [24]
max_duration_seconds = 9.0
[limits.vocabulary]
words_read = 8
examples = ["a red ball"]
passes_over = ["a", "and"]
knows = { object = ["ball", "star"], colour = ["red"] }
[options]
family = "leader"
"""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """With two models that begin from a picture (`beginner` by a strength), and `fred` on a small free plan."""
    folder = tmp_path_factory.mktemp("create") / "data"
    box = RunningBox(folder, devices="cpu", free_videos=0, free_images=5)
    add_models(folder)
    (folder / "models/toys.toml").write_text(TOYS)
    add_people(folder, "ada", "ben", "cleo")
    add_people(folder, "fred", plan="free")
    box.start()
    yield box
    box.stop()


def opened(visit: Visit, name: str = "ada", query: str = "") -> Page:
    visit.sign_in(name)
    page = visit.open(f"/create{query}")
    ready(page)
    return page


def ready(page: Page) -> None:
    """The page's script has begun."""
    expect(page.locator("#jobs")).to_have_attribute("aria-busy", "false")


def prompt_of(page: Page) -> Locator:
    return page.get_by_label("Prompt", exact=True)


def ask(page: Page, prompt: str, kind: str = "Image") -> Locator:
    """Ask for something by the keys; the card of its job, and no other."""
    before = {card.get_attribute("data-job") for card in page.locator(".job").all()}
    page.get_by_label(kind, exact=True).check()
    prompt_of(page).fill(prompt)
    page.keyboard.press("Control+Enter")
    expect(page.locator(".job")).to_have_count(len(before) + 1)
    (job_id,) = {card.get_attribute("data-job") for card in page.locator(".job").all()} - before
    return page.locator(f"[data-job={job_id}]")


def made(page: Page, prompt: str, kind: str = "Image") -> Locator:
    """The same, once it is finished."""
    card = ask(page, prompt, kind)
    expect(card).to_have_class(re.compile("finished"), timeout=MADE_MS)
    return card


def act(card: Locator, name: str) -> None:
    card.get_by_role("button", name=name, exact=True).click()


def picture(width: int = 96, height: int = 54) -> bytes:
    file = BytesIO()
    Image.new("RGB", (width, height), (200, 90, 30)).save(file, "PNG")
    return file.getvalue()


def is_seen(page: Page) -> bool:
    """Whether the reference image that the page shows has anything on it."""
    return page.locator("#chosen-picture").evaluate(
        """async (image) => {
          await image.decode();
          const pen = new OffscreenCanvas(1, 1).getContext("2d");
          pen.drawImage(image, 0, 0, 1, 1);
          return pen.getImageData(0, 0, 1, 1).data[3] === 255;
        }"""
    )


def newest(box: RunningBox, name: str = "ada") -> dict[str, Any]:
    with signed_in(box, name) as browser:
        return browser.get("/v1/jobs", params={"limit": 1}).json()["data"][0]


def test_it_works(visit: Visit) -> None:
    page = opened(visit, "cleo")
    expect(page.locator("#nothing")).to_be_visible()
    expect(page.locator("#cost")).to_have_text("Included · 300 videos left this month")
    expect(page.locator("#when")).to_have_text(re.compile("^ready in"))
    visit.axe()
    card = made(page, "a lighthouse in a storm")
    expect(page.locator("#nothing")).to_be_hidden()
    expect(card.locator(".media img")).to_have_js_property("complete", value=True)
    expect(card.get_by_role("link", name="Open in library")).to_have_attribute("href", re.compile("^/library/job_"))
    expect(page.locator("#cost")).to_have_text("Included · 999 images left this month")
    expect(page.locator("#spoken")).to_have_text("a lighthouse in a storm: done")
    with page.expect_download() as download:
        card.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename.startswith("a-lighthouse-in-a-storm")
    visit.axe()


def test_a_running_job_is_watched_and_stopped(visit: Visit) -> None:
    page = opened(visit)
    card = ask(page, SLOW, "Video")
    expect(card.locator(".phase")).to_have_text(re.compile(r"Making it · \d+ %"))
    expect(card.locator(".preview")).to_have_attribute("src", re.compile("^data:image/jpeg;base64,"))
    expect(page).to_have_title(re.compile(r"^\d+ % · Create"))
    assert 0 < card.locator("progress").evaluate("bar => bar.value") < 1
    waiting = ask(page, "a second one")
    expect(waiting.locator(".phase")).to_have_text("Waiting · next in line")
    visit.axe()
    act(card, "Cancel")
    expect(card.locator(".ended")).to_contain_text("Cancelled.")
    expect(card.locator(".ended")).to_contain_text("Charged: 1 included video.")
    expect(waiting).to_have_class(re.compile("finished"))
    expect(page).to_have_title(re.compile("^Create"))


def test_it_survives_a_refresh_and_is_the_same_in_a_second_tab(visit: Visit) -> None:
    page = opened(visit)
    page.get_by_label("Video", exact=True).check()
    page.get_by_label("Duration").fill("3")
    card = ask(page, SLOW, "Video")
    job = card.get_attribute("data-job")
    expect(card.locator(".preview")).to_be_visible()
    page.reload()
    ready(page)
    again = page.locator(f"[data-job={job}]")
    expect(again.locator(".preview")).to_be_visible()
    expect(prompt_of(page)).to_have_value(SLOW)
    expect(page.get_by_label("Duration")).to_have_value("3")
    other = page.context.new_page()
    other.goto(page.url)
    second = other.locator(f"[data-job={job}]")
    expect(second.locator(".preview")).to_be_visible()
    late = ask(page, "asked for in the first tab")
    expect(other.locator(f"[data-job={late.get_attribute('data-job')}] .prompt")).to_have_text(
        "asked for in the first tab"
    )
    act(second, "Cancel")
    expect(again.locator(".ended")).to_contain_text("Cancelled.")
    expect(second.locator(".ended")).to_contain_text("Cancelled.")
    other.close()


def test_what_was_written_is_not_kept_for_who_signs_in_next(visit: Visit) -> None:
    page = opened(visit)
    prompt_of(page).fill("not for ben")
    visit.expect("401 (Unauthorized)")  # what the page asks for while it is being left
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(lambda url: "/sign-in" in url)
    page = opened(visit, "ben")
    expect(prompt_of(page)).to_have_value("")
    assert "not for ben" not in str(page.evaluate("JSON.stringify(sessionStorage)"))
    expect(page.locator(".job")).to_have_count(0)


def test_only_what_the_model_can_do_is_shown(visit: Visit) -> None:
    page = opened(visit)
    expect(page.get_by_label("Model")).to_contain_text("Film leader")
    expect(page.get_by_label("9:16")).to_be_hidden()
    expect(page.get_by_label("Resolution").locator("option")).to_have_text(["480p"])
    expect(page.get_by_label("Images", exact=True)).to_be_hidden()
    expect(page.get_by_label("Pick a reference image")).to_be_attached()
    page.get_by_label("Model").select_option("leader")
    expect(page.get_by_label("9:16")).to_be_visible()
    expect(page.get_by_label("Resolution").locator("option")).to_have_text(["480p", "720p", "1080p"])
    expect(page.locator("#drop")).to_be_hidden()
    page.get_by_label("Image", exact=True).check()
    expect(page.get_by_label("Images", exact=True)).to_be_visible()
    expect(page.get_by_label("Duration")).to_be_hidden()
    expect(page.locator("#cost")).to_have_text(re.compile("images left this month"))


def test_a_reference_is_picked_dropped_or_pasted(visit: Visit) -> None:
    page = opened(visit)
    chosen = page.locator("#chosen-says")
    file: Any = {"name": "dunes.png", "mimeType": "image/png", "buffer": picture()}
    page.get_by_label("Pick a reference image").set_input_files(file)
    expect(chosen).to_have_text(f"dunes.png · 96{TIMES}54")
    page.get_by_role("button", name="Remove").click()
    expect(page.locator("#chosen")).to_be_hidden()
    for event, carrier in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.evaluate(
            """([bytes, kind, carrier]) => {
              const data = new DataTransfer();
              data.items.add(new File([new Uint8Array(bytes)], `${kind}.png`, { type: "image/png" }));
              const kinds = { drop: DragEvent, paste: ClipboardEvent };
              const options = { [carrier]: data, bubbles: true, cancelable: true };
              document.body.dispatchEvent(new kinds[kind](kind, options));
            }""",
            [list(picture(120, 80)), event, carrier],
        )
        expect(chosen).to_have_text(f"{event}.png · 120{TIMES}80")
        page.get_by_role("button", name="Remove").click()
    page.get_by_label("Pick a reference image").set_input_files(file)
    page.get_by_label("How far to go from it").fill("0.3")
    page.reload()
    ready(page)
    expect(chosen).to_have_text(f"dunes.png · 96{TIMES}54")
    assert page.locator("#chosen-picture").evaluate("image => image.decode().then(() => image.naturalWidth)") == 96
    visit.axe()
    made(page, "begun with a picture", "Video")
    job = newest(visit.box)
    assert job["reference"]
    assert "begins with RGB 96x54 at 0.3" in " ".join(job["notes"])
    page.get_by_label("Pick a reference image").set_input_files(
        [{"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}]
    )
    expect(page.locator("#reference-problem")).to_contain_text("Only PNG, JPEG and WebP")


def test_a_model_of_few_words_says_which_and_what_it_makes_nothing_of(visit: Visit) -> None:
    page = opened(visit)
    expect(page.locator("#words")).to_be_hidden()
    page.get_by_label("Model").select_option("toys")
    expect(prompt_of(page)).to_have_attribute("placeholder", "a red ball")
    prompt_of(page).fill("a red ball and a giraffe")
    expect(page.locator("#words-notes")).to_contain_text("does not know \u201cgiraffe\u201d: it leaves that out.")
    expect(page.locator("#words-notes")).not_to_contain_text("try")  # its examples stand below
    page.locator("#words-examples").get_by_role("button").first.click()
    expect(prompt_of(page)).to_have_value(re.compile("ball"))
    expect(page.locator("#words-notes")).not_to_contain_text("giraffe")
    page.get_by_text("All the words it knows").click()
    expect(page.locator("#words-known")).to_contain_text("star")
    visit.axe()
    page.get_by_label("Model").select_option("leader")
    expect(page.locator("#words")).to_be_hidden()


def test_what_is_pressed_twice_by_haste_is_made_once(visit: Visit) -> None:
    page = opened(visit, "ben")
    page.get_by_label("Image", exact=True).check()
    prompt_of(page).fill("pressed by haste")
    page.get_by_role("button", name="Generate").dblclick()
    cards = page.locator(".job.finished", has_text="pressed by haste")
    expect(cards).to_have_count(1, timeout=MADE_MS)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    prompt_of(page).focus()
    page.keyboard.down("Control")
    for _ in range(3):  # held down: the second and the third are repeats
        page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    page.keyboard.up("Control")
    expect(cards).to_have_count(2, timeout=MADE_MS)
    with signed_in(visit.box, "ben") as ben:
        asked = [job["prompt"] for job in ben.get("/v1/jobs").json()["data"]]
    assert asked.count("pressed by haste") == 2, "one by the button, one by the keys"


def test_a_job_that_waits_says_why(visit: Visit) -> None:
    page = opened(visit)
    with signed_in(visit.box) as owner:
        owner.submit("/admin/cards", device="cpu", do="pause")
        try:
            card = ask(page, "wanted while the box is paused")
            expect(card.locator(".why")).to_have_text("All devices are paused.", timeout=MADE_MS)
            other = ask(page, "not wanted any more")
            job = other.get_attribute("data-job")
            owner.submit(f"/admin/queue/{job}/cancel", reason="the card is needed")
            expect(other.locator(".ended")).to_contain_text("The owner of the box cancelled the job: the card")
            expect(other).to_have_class(re.compile("stopped"))
        finally:
            owner.submit("/admin/cards", device="cpu", do="resume")
    expect(card).to_have_class(re.compile("finished"), timeout=MADE_MS)


def test_of_several_images_one_is_chosen_and_begun_with(visit: Visit) -> None:
    page = opened(visit)
    page.get_by_label("Image", exact=True).check()
    page.get_by_label("Images", exact=True).fill("3")
    card = made(page, "three of a kind")
    strip = card.get_by_role("group", name="Images of this job").get_by_role("button")
    expect(strip).to_have_count(3)
    strip.nth(2).click()
    expect(strip.nth(2)).to_have_attribute("aria-pressed", "true")
    expect(card.get_by_role("link", name="Download")).to_have_attribute("href", re.compile("-3.png"))
    page.get_by_label("Model").select_option("leader")
    act(card, "Use as reference")
    expect(page.locator("#chosen-says")).to_have_text(f"One of your images · 854{TIMES}480")
    expect(page.get_by_label("Model")).to_have_value("beginner")
    job_id = card.get_attribute("data-job")
    page.goto(f"{visit.box.url}/create?reference={job_id}&result=2")
    ready(page)
    expect(page.locator("#chosen-says")).to_have_text(f"One of your images · 854{TIMES}480")
    assert page.url.endswith("/create"), "a refresh does not begin with it again"


def test_a_card_whose_files_were_deleted_in_another_tab_says_so(visit: Visit) -> None:
    page = opened(visit)
    page.get_by_label("Image", exact=True).check()
    page.get_by_label("Images", exact=True).fill("2")
    card = made(page, "soon to go")
    other = page.context.new_page()
    other.goto(f"{visit.box.url}/library/{card.get_attribute('data-job')}")
    other.get_by_role("button", name="Delete").click()
    other.get_by_role("dialog").get_by_role("button", name="Delete").click()
    other.wait_for_url("**/library")
    visit.expect("410 (Gone)")
    card.get_by_role("group", name="Images of this job").get_by_role("button").nth(1).click()
    expect(card.locator(".cannot")).to_have_text("Its files were deleted.")
    act(card, "Rerun")
    expect(page.locator(".job .prompt").first).to_have_text("soon to go")


def test_a_prompt_is_read_in_its_own_direction(visit: Visit) -> None:
    page = opened(visit)
    card = made(page, "قطار في الصحراء 🎬")
    for prompt in (prompt_of(page), card.locator(".prompt")):
        assert prompt.evaluate("prompt => getComputedStyle(prompt).direction") == "rtl"
    prompt_of(page).fill("a train")
    assert prompt_of(page).evaluate("prompt => getComputedStyle(prompt).direction") == "ltr"


def test_a_lost_answer_is_told_whichever_it_was(visit: Visit) -> None:
    page = opened(visit)
    card = made(page, "here still")
    visit.expect("ERR_FAILED")
    page.route("**/v1/quote", lambda route: route.abort())
    page.route("**/create/jobs/*", lambda route: route.abort())
    prompt_of(page).fill("nobody hears this")
    expect(page.locator("#offline")).to_be_visible()
    act(card, "Vary")
    expect(page.locator("#refused")).to_have_text("The box does not answer. Press again in a moment.")
    page.unroute("**/v1/quote")
    page.unroute("**/create/jobs/*")
    act(card, "Vary")
    expect(prompt_of(page)).to_have_value("here still")
    expect(page.locator("#offline")).to_be_hidden()


def test_vary_loads_the_form_and_rerun_makes_it_again(visit: Visit) -> None:
    page = opened(visit)
    page.locator("#more > summary").click()
    page.get_by_label("Seed", exact=True).fill("77")
    expect(page.get_by_label("Lock")).to_be_checked()
    card = made(page, "two boats")
    expect(card.locator(".facts")).to_contain_text("seed 77")
    prompt_of(page).fill("something else")
    act(card, "Vary")
    expect(prompt_of(page)).to_have_value("two boats")
    expect(prompt_of(page)).to_be_focused()
    expect(page.get_by_label("Seed", exact=True)).to_have_value("")
    expect(page.get_by_label("Lock")).not_to_be_checked()
    act(card, "Rerun")
    again = page.locator(".job.finished", has_text="two boats")
    expect(again).to_have_count(2)
    expect(again.locator(".facts", has_text="seed 77")).to_have_count(2)


def test_a_job_that_failed_says_why_and_what_it_cost(visit: Visit) -> None:
    page = opened(visit)
    card = ask(page, "double:safety_blocked")
    expect(card.locator(".ended")).to_contain_text("The double will not make this.")
    expect(card.locator(".ended")).to_contain_text("Charged: 1 included image.")
    broken = ask(page, "double:raises_in_run")
    expect(broken.locator(".ended")).to_contain_text("Nothing was charged.", timeout=MADE_MS)
    visit.axe()
    act(broken, "Change and retry")
    expect(prompt_of(page)).to_have_value("double:raises_in_run")


def test_the_free_plan_is_told_what_is_left_and_where_to_go(visit: Visit) -> None:
    page = opened(visit, "fred")
    expect(page.locator(".plan")).to_contain_text("bear the wordmark")
    expect(page.locator(".plan")).to_contain_text("0 videos and 5 images left this month")
    refused = page.locator("#refused")
    expect(refused).to_contain_text("Your plan includes no videos.")
    expect(refused).to_contain_text("The box's owner can give you a larger plan.")
    visit.axe()
    visit.expect("status of 429")
    prompt_of(page).fill("a video all the same")
    with page.expect_response("**/v1/generate"):
        page.keyboard.press("Control+Enter")
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    expect(page.locator(".job")).to_have_count(0)
    made(page, "an image it is")
    expect(refused).to_be_hidden()
    expect(page.locator(".plan")).to_contain_text("4 images left this month")


def test_beyond_the_plan_it_says_the_price_and_where_overage_is(chromium: Browser, tmp_path: Path) -> None:
    with running(tmp_path / "data", included_images=2) as box:
        box.stop()
        add_people(box.folder)
        box.start()
        with visiting(chromium, box) as window:
            page = opened(window, "owner", "?type=image")
            page.get_by_label("Images", exact=True).fill("3")
            expect(page.locator("#cost")).to_have_text("2 included + $0.05 beyond the plan")
            expect(page.locator("#refused")).to_contain_text("You have 2 images left this month, and this asks for 3.")
            link = page.locator("#refused").get_by_role("link", name="API & Overage")
            expect(link).to_have_attribute("href", "/settings#overage")
            window.axe()
            page.get_by_label("Images", exact=True).fill("2")
            expect(page.locator("#cost")).to_have_text("2 included · 2 images left this month")
            expect(page.locator("#refused")).to_be_hidden()


def test_what_is_pressed_again_after_a_lost_answer_is_made_once(visit: Visit) -> None:
    page = opened(visit, "ben")
    visit.expect("ERR_FAILED")

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/v1/generate", lose, times=1)
    page.get_by_label("Image", exact=True).check()
    prompt_of(page).fill("only once")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#refused")).to_contain_text("Press again in a moment: it is made only once.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#refused")).to_be_hidden()
    expect(page.locator(".job", has_text="only once")).to_have_class(re.compile("finished"))
    with signed_in(visit.box, "ben") as ben:
        assert [job["prompt"] for job in ben.get("/v1/jobs").json()["data"]].count("only once") == 1


def test_when_the_box_is_gone_it_says_so_and_goes_on_where_it_comes_back(chromium: Browser, tmp_path: Path) -> None:
    with running(tmp_path / "data") as box:
        box.stop()
        add_people(box.folder)
        box.start()
        with visiting(chromium, box) as window:
            page = opened(window, "owner")
            window.expect("net::ERR_")  # which of them depends on what was under way
            card = ask(page, SLOW, "Video")
            expect(card.locator(".preview")).to_be_visible()
            expect(card.locator(".notes code")).to_contain_text("zsky-box models install")
            expect(card.locator(".notes")).not_to_contain_text("`")
            box.kill()
            expect(page.locator("#offline")).to_be_visible()
            page.keyboard.press("Control+Enter")
            expect(page.locator("#refused")).to_contain_text("The box does not answer.")
            box.start()
            expect(page.locator("#offline")).to_be_hidden(timeout=MADE_MS)
            expect(page.locator("#refused")).to_be_hidden()
            expect(card.locator(".preview")).to_be_visible()
            act(card, "Cancel")
            expect(card.locator(".ended")).to_contain_text("Cancelled.", timeout=MADE_MS)
            expect(card.locator(".stands-in")).to_be_hidden()  # it made nothing
            page.keyboard.press("Control+Enter")
            expect(page.locator(".job")).to_have_count(2)
            expect(page.locator(".job").first.locator(".stands-in")).to_be_visible()


def test_what_is_ready_at_once_is_said_so(visit: Visit) -> None:
    def soon(route: Route) -> None:
        quote = route.fetch()
        route.fulfill(response=quote, json={**quote.json(), "eta_seconds": 0.4})

    visit.page.route("**/v1/quote", soon)
    page = opened(visit, "ben")
    expect(page.locator("#when")).to_have_text("ready at any moment")


def test_a_job_is_copied_as_code_that_runs(visit: Visit, tmp_path: Path) -> None:
    page = opened(visit, "owner")
    page.get_by_label("Image", exact=True).check()
    page.locator("#more > summary").click()
    page.get_by_label("Seed", exact=True).fill("11")
    card = made(page, 'it\'s a "quoted" $HOME `prompt` \\ with ünïcode\nand a line')
    act(card, "Copy as code")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("tab", name="curl")).to_be_focused()
    visit.axe()
    code = dialog.locator("#code-text")
    samples = [code.text_content()]
    for name in ("Python", "JavaScript"):
        page.keyboard.press("ArrowRight")
        expect(dialog.get_by_role("tab", name=name)).to_be_focused()
        samples.append(code.text_content())
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    before = newest(visit.box, "owner")
    curl, python, javascript = (str(sample).replace("YOUR_KEY", visit.box.keys["live"]) for sample in samples)
    (tmp_path / "sample.py").write_text(python)
    (tmp_path / "sample.mjs").write_text(javascript)
    commands = [["bash", "-c", curl], [sys.executable, str(tmp_path / "sample.py")]]
    if node := shutil.which("node"):
        commands.append([node, str(tmp_path / "sample.mjs")])
    seen = {before["job_id"]}
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert "job_" in done.stdout or done.stdout.startswith(f"{visit.box.url}/files/"), done.stdout
        job = newest(visit.box, "owner")
        assert job["job_id"] not in seen
        assert (job["prompt"], job["seed"], job["width"]) == (before["prompt"], 11, before["width"])
        seen.add(job["job_id"])


def test_without_scripts_the_form_and_its_jobs_are_there(chromium: Browser, studio: RunningBox) -> None:
    with visiting(chromium, studio, java_script_enabled=False) as plain:
        plain.sign_in("ben")
        page = plain.open("/create")
        expect(page.get_by_text("Reference image")).to_be_hidden()  # nothing could be chosen there
        page.get_by_role("link", name="Make an image instead").click()
        prompt_of(page).fill("by a plain form")
        page.get_by_role("button", name="Generate").click()
        expect(page.get_by_text("It is in the queue.")).to_be_visible()
        card = page.locator(".job", has_text="by a plain form")
        with signed_in(studio, "ben") as ben:
            studio.ended(ben, newest(studio, "ben")["job_id"])
        page.get_by_role("link", name="Refresh").click()
        expect(card.locator(".badge")).to_have_text("completed")
        card.get_by_role("link", name="Vary").click()
        expect(prompt_of(page)).to_have_value("by a plain form")


def test_on_a_phone_it_is_one_column(chromium: Browser, studio: RunningBox) -> None:
    with visiting(chromium, studio, viewport={"width": 390, "height": 844}) as phone:
        page = opened(phone, "ben")
        made(page, "a very long word " + "o" * 200)
        phone.has_no_sideways_scroll()
        phone.axe()


def test_a_clip_plays_at_once_with_sound_and_its_very_picture_is_begun_with(chromium: Browser, tmp_path: Path) -> None:
    add_models(tmp_path / "data")
    with running(tmp_path / "data", double=False) as box:
        box.stop()
        add_people(box.folder)
        box.start()
        with visiting(chromium, box) as window:
            page = opened(window, "owner")
            page.get_by_label("Duration").fill("2")
            card = made(page, "a clip that plays", "Video")
            expect(card).to_have_attribute("data-plays", "sound", timeout=MADE_MS)
            video = card.locator("video")
            video.evaluate(PLAYED)
            assert not video.evaluate("video => video.muted")
            video.evaluate("video => video.pause()")
            act(card, "Use as reference")
            expect(page.locator("#chosen-says")).to_have_text(re.compile(rf"Your video at \d.\d s · 854{TIMES}480"))
            assert is_seen(page)
            page.goto(f"{box.url}/create?reference={card.get_attribute('data-job')}")
            expect(page.locator("#chosen-says")).to_have_text(f"Your video at 0.0 s · 854{TIMES}480")
            assert is_seen(page)
            expect(video).to_have_js_property("paused", value=True)
            page.locator("#chosen-remove").click()
            act(card, "Use as reference")  # nothing of this clip has been fetched since
            expect(page.locator("#chosen-says")).to_have_text(f"Your video at 0.0 s · 854{TIMES}480")
            assert is_seen(page)
