"""Takes the pictures of the pages that the README shows, of a real box whose results are mini's.

    python -m scripts.screenshots [docs/pages]

Each is a window of 1280 by 800, shrunk by half, so that all six together stay small.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final, Literal

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.people import PASSWORD, add_people
from tests.running import RunningBox

PROMPTS: Final = (
    "a big red metal ball bounces quickly on stone under a sky",
    "a small yellow glass star falls slowly on snow at night",
    "an orange glass cube falls quickly on stone in a forest",
    "a green rubber ball rolls quickly on grass at sunset",
    "a purple metal heart bounces slowly on brick in a studio",
    "a blue wooden cube rolls slowly on sand at sunset",
    "a white rubber ring floats slowly on grass in a forest",
)
SHOTS: Final[tuple[tuple[str, str, Literal["light", "dark"]], ...]] = (
    ("create", "/create", "light"),
    ("library", "/library", "dark"),
    ("result", "/library/{job}", "light"),
    ("usage", "/usage", "light"),
    ("settings", "/settings", "dark"),
    ("models", "/admin/models", "light"),
)
WIDTH, HEIGHT = 1280, 800
QUALITY: Final = 80
SETTLE_MS: Final = 1_000
ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


def main() -> None:
    """Make the results, then take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs/pages"))
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        box = RunningBox(Path(data) / "data", double=False, mini=True, devices="cpu")
        add_people(box.folder, "ada")
        box.start()
        try:
            with box.client() as client:
                jobs = _make(box, client)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(ARGUMENTS))
                _take(browser, box, jobs[0], folder)
                browser.close()
        finally:
            box.stop()


def _make(box: RunningBox, client: httpx.Client) -> list[str]:
    """A clip or an image of each prompt; the ids of their jobs, the first a clip's."""
    jobs: list[str] = []
    for number, prompt in enumerate(PROMPTS):
        body: dict[str, Any] = {"type": "image" if number % 3 == 1 else "video", "prompt": prompt, "seed": number}
        answer = client.post("/v1/generate", json=body)
        answer.raise_for_status()
        jobs.append(answer.json()["job_id"])
    for job in jobs:
        ended = box.ended(client, job, seconds=600)
        if ended["status"] != "completed":
            raise SystemExit(f"{ended['error']}")
    return jobs


def _take(browser: Browser, box: RunningBox, job: str, folder: Path) -> None:
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    page.goto(f"{box.url}/sign-in")
    page.get_by_label("Name").fill("owner")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/sign-in" not in url)
    for name, path, scheme in SHOTS:
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{box.url}{path.format(job=job)}", wait_until="load")
        _settle(page)
        with Image.open(io.BytesIO(page.screenshot())) as picture:
            small = picture.convert("RGB").resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.LANCZOS)
            small.save(folder / f"{name}.webp", quality=QUALITY, method=6)


def _settle(page: Page) -> None:
    """Until every picture in the window is there; a clip stands in its first second, where something can be seen."""
    page.wait_for_function("() => [...document.images].every((image) => image.complete || image.loading === 'lazy')")
    page.evaluate(
        """() => Promise.all([...document.querySelectorAll("video")].map((video) => new Promise((shown) => {
          video.addEventListener("seeked", shown, { once: true });
          video.addEventListener("error", shown, { once: true });
          setTimeout(shown, 5000);
          video.preload = "auto";
          video.currentTime = 0.9;
        })))"""
    )
    # Until a clip can go on from there its player shows that it loads.
    page.wait_for_function("() => [...document.querySelectorAll('video[src]')].every((clip) => clip.readyState === 4)")
    page.wait_for_timeout(SETTLE_MS)


if __name__ == "__main__":
    main()
