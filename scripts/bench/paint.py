"""From a worker's word that a step is done to the moment when the page has painted it, in a real Chromium.

    python -m scripts.bench.paint [--jobs 2]

A box of its own with an empty past and one with 10,000 results, by turns; on each `/create` is open, signed in, and a
job of 100 steps runs, ten a second. The worker writes down the wall clock just before it tells of a step. The page is
watched from inside: when the progress bar's value or the preview's picture changes, the next frame is waited for, and
the first task after that frame has been painted notes the wall clock. A step whose word was overtaken by the next one's
(the service writes the last of several notes) has no paint of its own and is not counted: `seen` says how many were.
Both clocks are this machine's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, Page, sync_playwright

from scripts.bench.box import Box
from scripts.bench.filled import fill
from scripts.bench.stepping import MODULE, STEP_SECONDS, STEPS, STEPS_FILE
from scripts.bench.table import aim, quantile, show
from tests.people import PASSWORD, add_people

AIM_MS: Final = 150.0
RESULTS: Final = (0, 10_000)
WAIT_MS: Final = 1_000 * (STEPS * STEP_SECONDS * 3 + 60)
ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
# Denoising is 5 % to 80 % of a job's progress (zsky_box/jobs/progress.py).
FIRST, SPAN = 0.05, 0.75

_WATCH: Final = """() => {
  window.painted = [];
  const note = (kind, value) => requestAnimationFrame(() => {
    const channel = new MessageChannel(); // its message comes after the frame that is painted now
    channel.port1.onmessage = () => window.painted.push([kind, value, performance.timeOrigin + performance.now()]);
    channel.port2.postMessage(null);
  });
  new MutationObserver((changes) => {
    for (const { target, attributeName } of changes) {
      if (target.localName === "progress") note("progress", target.value);
      else if (target.className === "preview" && attributeName === "src") {
        const value = target.src;
        target.decode().then(() => note("preview", value), () => {});
      }
    }
  }).observe(document.getElementById("jobs"), { subtree: true, attributes: true, attributeFilter: ["value", "src"] });
}"""


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="jobs watched on each box")
    jobs: int = parser.parse_args().jobs
    rows: list[list[str]] = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as parent:
        found = shutil.which("chromium")
        if found is None:
            raise SystemExit("this needs chromium on the PATH; scripts/test installs it")
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        for results in RESULTS:
            rows += measured(browser, Path(parent) / str(results), results, jobs)
        browser.close()
    show("from a worker's word to the page's paint, ms", ["", "seen", "p50", "p95", "max", "aim (p95)"], rows)


def measured(browser: Browser, folder: Path, results: int, jobs: int) -> list[list[str]]:
    """The rows of one box."""
    folder.mkdir()
    steps, data = folder / "steps.txt", folder / "data"
    os.environ[STEPS_FILE] = str(steps)
    keys = fill(data, results)
    add_people(data)
    delays: dict[str, list[float]] = {"progress bar": [], "preview": []}
    with Box(data, keys["live"], command=(MODULE, "serve"), included_videos=10**6) as box:
        page = _opened(browser, box)
        for _ in range(jobs):
            steps.write_bytes(b"")
            painted = _watched(page)
            _compare(steps, painted, delays)
        page.context.close()
    told = jobs * STEPS
    return [
        [
            f"{name}, {results:,} results",
            f"{len(values)} of {told}" if name == "progress bar" else str(len(values)),
            *(f"{value:.0f}" for value in (quantile(values, 0.5), quantile(values, 0.95), max(values))),
            aim(quantile(values, 0.95), AIM_MS, "ms"),
        ]
        for name, values in delays.items()
    ]


def _opened(browser: Browser, box: Box) -> Page:
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    base = f"http://127.0.0.1:{box.port}"
    page.goto(f"{base}/sign-in?next=/create")
    page.get_by_label("Name").fill("owner")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{base}/create")
    page.locator("#jobs[aria-busy=false]").wait_for(state="attached")
    return page


def _watched(page: Page) -> list[tuple[str, Any, float]]:
    """Ask for one job and wait for its end: what was painted, with the wall clock in ms."""
    page.evaluate(_WATCH)
    page.get_by_label("Prompt", exact=True).fill("a clip that is watched")
    page.keyboard.press("Control+Enter")
    page.locator(".job.running").wait_for(timeout=WAIT_MS)
    page.locator(".job.open").wait_for(state="detached", timeout=WAIT_MS)
    return [(kind, value, at) for kind, value, at in page.evaluate("window.painted")]


def _compare(steps: Path, painted: list[tuple[str, Any, float]], delays: dict[str, list[float]]) -> None:
    told: dict[int, float] = {}
    shown: dict[str, float] = {}
    for line in steps.read_text("ascii").splitlines():
        at_ns, step, picture = line.split()
        told[int(step)] = int(at_ns) / 1e6
        if picture != "-":
            shown[picture] = int(at_ns) / 1e6
    first: dict[int, float] = {}
    for kind, value, at_ms in painted:
        if kind == "progress":
            first.setdefault(round((value - FIRST) / SPAN * STEPS), at_ms)
        elif (began := shown.pop(str(value).partition("base64,")[2], None)) is not None:
            delays["preview"].append(at_ms - began)
    delays["progress bar"] += [at_ms - told[step] for step, at_ms in first.items() if step in told]


if __name__ == "__main__":
    main()
