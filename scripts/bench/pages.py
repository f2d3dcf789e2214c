"""How long each page takes the service, and how many bytes it is, with few results and with many.

    python -m scripts.bench.pages [--rounds 15] [--results 10000] [--only PATH]

Two boxes run side by side over stores that differ in their past alone (see `scripts.bench.filled`): one with ten jobs,
one with many. Every page that the box has is asked for as a browser that is signed in as the owner does, over a kept
connection, by turns; the time is that until the last byte of the page's HTML, with the client's own part in it. The
bytes are those on the wire, compressed where the box does that: of the HTML, and of it with all styles and scripts that
it names, as at a first visit. Pictures and clips are not in it. A page with a parameter that has no value here is named
below the table, with the downloads and what leads elsewhere.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urljoin

from litestar.handlers import HTTPRouteHandler

from scripts.bench.filled import fill
from scripts.bench.table import aim, show
from tests.people import Browser, add_people
from tests.running import RunningBox
from zsky_box import cursors
from zsky_box.db import Store
from zsky_box.pages import HANDLERS

FEW: Final = 10
AIM_MS: Final = 50.0
AIM_KB: Final = 150.0
WARM_ROUNDS: Final = 3
NO_BOUND: Final = 10**6
_PARAMETER: Final = re.compile(r"\{(\w+):\w+\}")
_NAMED: Final = re.compile(r'(?:<link rel="stylesheet" href|<script[^>]* src)="([^"]+)"')
_IMPORTED: Final = re.compile(r"""(?:from|import) *\(? *"(\./[^"]+)\"""")


class Seen:
    """One page of one box: seconds of each request, and bytes on the wire."""

    def __init__(self, browser: Browser, path: str) -> None:
        self.path = path
        self.status = 0
        self.is_page = False
        self.seconds: list[float] = []
        self.bytes = 0
        self._browser = browser
        self._text = ""

    def ask(self) -> None:
        """Once more."""
        began = time.perf_counter()
        answer = self._browser.get(self.path)
        self.seconds.append(time.perf_counter() - began)
        self.status, self.bytes, self._text = answer.status_code, answer.num_bytes_downloaded, answer.text
        self.is_page = answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")

    @property
    def ms(self) -> float:
        """The median, without the first rounds."""
        return statistics.median(self.seconds[WARM_ROUNDS:]) * 1000

    def with_styles_and_scripts(self) -> int:
        """Bytes of a first visit, pictures and clips not counted."""
        found, waiting, total = (
            set[str](),
            [urljoin(self.path, each) for each in _NAMED.findall(self._text)],
            self.bytes,
        )
        while waiting:
            address = waiting.pop()
            if address not in found:
                found.add(address)
                answer = self._browser.get(address)
                total += answer.num_bytes_downloaded
                waiting += [urljoin(address, each) for each in _IMPORTED.findall(answer.text)]
        return total


def addresses(box: RunningBox) -> tuple[list[str], list[str]]:
    """The address of every page, its parameters filled in from what the box has; and those that cannot be."""
    with closing(Store(box.folder)) as store:
        rows = store.all("SELECT id, seq FROM job WHERE status = 'completed' ORDER BY seq")
        owner = store.all("SELECT id FROM account WHERE role = 'owner'")[0]["id"]
    middle = rows[len(rows) // 2]
    now = datetime.now(UTC)
    values = {"job_id": middle["id"], "period": f"{now:%Y-%m}", "month": f"{now:%Y-%m}", "account_id": owner}
    known, unknown = list[str](), list[str]()
    for path in sorted(set(_paths())):
        if all(name in values for name in _PARAMETER.findall(path)):
            known.append(_PARAMETER.sub(lambda match: values[match[1]], path))
        else:
            unknown.append(path)
    searches = ("q=lighthouse", "q=nothing+like+it", "show=failed", f"cursor={cursors.written('w', middle['seq'])}")
    return known + [f"/library?{query}" for query in searches], unknown


def _paths() -> Iterator[str]:
    for handler in HANDLERS:
        if isinstance(handler, HTTPRouteHandler) and "GET" in handler.http_methods:
            yield from handler.paths


def told(few: Seen, many: Seen) -> list[str]:
    """A page's row."""
    kb = many.with_styles_and_scripts() / 1000
    name = re.sub(r"(job|acc)_\w+", "ID", many.path)
    name = re.sub(r"cursor=\w+", "cursor=…", name)
    times = [f"{few.ms:.1f}", f"{many.ms:.1f}", aim(many.ms, AIM_MS, "ms")]
    return [name, *times, f"{few.bytes / 1000:.1f}", f"{many.bytes / 1000:.1f}", f"{kb:.0f}", aim(kb, AIM_KB, "kB")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--results", type=int, default=10_000, help="jobs of the large store (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="PATH", help="pages whose address begins so")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zsky-bench-") as parent, ExitStack() as running:
        pages: list[dict[str, Seen]] = []
        unknown: list[str] = []
        for jobs in (FEW, asked.results):
            folder = Path(parent) / str(jobs) / "data"
            print(f"filling a store with {jobs:,} jobs", file=sys.stderr)
            fill(folder, jobs)
            add_people(folder)
            box = RunningBox(
                folder,
                double=False,
                devices="cpu",
                included_images=10**9,
                requests_per_second=NO_BOUND // 10,
                requests_burst=NO_BOUND,
            )
            running.callback(box.stop)
            known, unknown = addresses(box)
            browser = running.enter_context(Browser(box.start()))
            browser.sign_in("owner")
            pages.append({_pattern(path): Seen(browser, path) for path in known if path.startswith(asked.only)})
        for _ in range(asked.rounds + WARM_ROUNDS):
            for path in pages[0]:
                for side in pages:
                    side[path].ask()
        shown = [path for path in pages[0] if pages[1][path].is_page]
        rows = [told(pages[0][path], pages[1][path]) for path in shown]
    heads = ["page", f"{FEW} ms", f"{asked.results:,} ms", "aim", f"{FEW} kB", f"{asked.results:,} kB", "all kB", "aim"]
    show(f"pages with {FEW} and with {asked.results:,} jobs, medians of {asked.rounds} requests", heads, rows)
    others = {f"{path} ({pages[1][path].status})" for path in pages[0].keys() - set(shown)}
    print(f"not measured: {', '.join(sorted({*unknown, *others})) or 'none'}")


def _pattern(path: str) -> str:
    """What names the same page in both boxes."""
    return re.sub(r"(job|acc)_\w+|cursor=\w+", "*", path)


if __name__ == "__main__":
    main()
