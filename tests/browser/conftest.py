"""A real browser on a running box. Whatever a test does, it fails on a console error, a request that would leave the
box, or a report of the Content Security Policy.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route, expect, sync_playwright

from tests.people import PASSWORD, add_people
from tests.running import RunningBox

ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)
SERIOUS: Final = ("serious", "critical")
TIMEOUT_MS: Final = 60_000
"""For what a page does and for what is expected of it: a busy machine takes a while, and nobody waits in vain."""
expect.set_options(timeout=TIMEOUT_MS)
LINGER: Final = """(() => {
  const wait = window.setTimeout;
  window.setTimeout = (work, ms, ...rest) => wait(work, ms === 2000 ? 600_000 : ms, ...rest);
})()"""
"""What a page says for two seconds, such as that something is copied, it says until it is looked at."""
PLAYED: Final = """clip => new Promise((done) => {
  const look = () => clip.currentTime > 0.2 && done();
  clip.ontimeupdate = look;
  look();
})"""
"""For a clip: once some of it has been played, also when it has come to its end by now."""


class Visit:
    """A browser window on the box, and what went wrong in it."""

    def __init__(self, box: RunningBox, page: Page) -> None:
        self.box = box
        self.page = page
        self.faults: list[str] = []
        self._expected: tuple[str, ...] = ()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.faults.append(f"error on the page: {error}"))
        page.on("request", self._on_request)
        page.route(lambda url: not self._is_ours(url), _refused)

    def open(self, path: str) -> Page:
        """Go to a page of the box."""
        self.page.goto(f"{self.box.url}{path}")
        return self.page

    def sign_in(self, name: str = "owner", password: str = PASSWORD) -> Page:
        """As a person does it, through the form."""
        page = self.open("/sign-in")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(lambda url: "/sign-in" not in url)
        return page

    def expect(self, *parts: str) -> None:
        """The console may say these: what the test provokes."""
        self._expected += parts

    def axe(self) -> None:
        """No serious violation of accessibility, as axe finds it, on the page as it stands."""
        found: dict[str, Any] = Axe().run(self.page).response
        serious = [
            f"{each['id']} ({each['impact']}): {each['help']}: {[node['target'] for node in each['nodes'][:5]]}"
            for each in found["violations"]
            if each["impact"] in SERIOUS
        ]
        assert serious == [], "\n".join(serious)

    def has_no_sideways_scroll(self) -> None:
        """The page itself, with all its styles, is no wider than its window."""
        self.page.wait_for_load_state()
        wider = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{self.page.url} is {wider} px wider than the window"

    def check(self) -> None:
        """Fail with all that went wrong so far."""
        wrong = [fault for fault in self.faults if not any(part in fault for part in self._expected)]
        assert wrong == [], "\n".join(wrong)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _on_request(self, request: Request) -> None:
        if not self._is_ours(request.url):
            self.faults.append(f"a request left the box: {request.url}")

    def _is_ours(self, url: str) -> bool:
        return url.startswith((self.box.url, "data:", f"blob:{self.box.url}", "about:"))


def _refused(route: Route) -> None:
    route.abort()


@pytest.fixture(scope="module")
def chromium() -> Generator[Browser]:
    """Debian's Chromium; of one module, as its event loop must not be there when other tests run their own."""
    found = shutil.which("chromium")
    assert found is not None, "tests/browser needs chromium on the PATH; scripts/test installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """A running box with the acting worker, an owner and members; all have the password."""
    folder = tmp_path_factory.mktemp("studio") / "data"
    box = RunningBox(folder, devices="cpu", included_images=10**6)
    add_people(folder, "ada", "ben", "cleo", "dora")
    box.start()
    yield box
    box.stop()


@pytest.fixture
def visit(chromium: Browser, studio: RunningBox) -> Generator[Visit]:
    """A fresh window on the studio's box; what went wrong in it fails the test."""
    with visiting(chromium, studio) as window:
        yield window


@contextmanager
def visiting(chromium: Browser, box: RunningBox, **options: Any) -> Generator[Visit]:
    """A window on any box; `options` are those of a browser context, such as a phone's viewport."""
    chosen: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}, "accept_downloads": True, **options}
    context = chromium.new_context(**chosen)
    context.add_init_script(LINGER)
    try:
        window = Visit(box, context.new_page())
        yield window
        window.check()
    finally:
        context.close()


SCREENSHOTS: Final[tuple[tuple[int, int, Literal["light", "dark"]], ...]] = (
    (1440, 900, "light"),
    (1440, 900, "dark"),
    (390, 844, "light"),
    (390, 844, "dark"),
)


def take_screenshots(window: Visit, folder: Path, name: str) -> list[Path]:
    """The page as it stands, at two widths, light and dark: for a person to look at."""
    taken: list[Path] = []
    for width, height, scheme in SCREENSHOTS:
        window.page.set_viewport_size({"width": width, "height": height})
        window.page.emulate_media(color_scheme=scheme)
        path = folder / f"{name}-{width}-{scheme}.png"
        window.page.screenshot(path=path, full_page=True)
        taken.append(path)
    return taken
