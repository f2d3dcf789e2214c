"""`/admin/audit`: all rows of the box and the state of their chain, for the owner alone."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Generator

import pytest

from tests.people import Browser, add_people, signed_in
from tests.running import RunningBox
from tests.stores import SetClock
from tests.studio import Studio
from tests.waiting import until
from zsky_box.clock import parse_rfc3339

DAY = "2026-08-14"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    folder = tmp_path_factory.mktemp("audit") / "data"
    folder.mkdir()
    rooms = Studio(folder, clock=SetClock(parse_rfc3339(f"{DAY}T10:00:00Z")))
    rooms.refund(rooms.make(10), "<i>a smear</i>")
    rooms.clock.set("2026-08-20T10:00:00Z")
    for _ in range(3):
        rooms.make(10)
    rooms.close()
    add_people(folder, "ada")
    running = RunningBox(folder, devices="cpu").start()
    yield running
    running.stop()


@pytest.fixture
def owner(box: RunningBox) -> Generator[Browser]:
    with signed_in(box) as browser:
        yield browser


def rows(text: str) -> list[int]:
    return [int(number) for number in re.findall(r'<tr>\s*<td class="num">(\d+)</td>', text)]


def test_it_works(owner: Browser) -> None:
    until(lambda: "The chain is whole" in owner.get("/admin/audit/chain").text, "verified")
    text = owner.get("/admin/audit").text
    numbers = rows(text)
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == 50
    assert "session.begun" in text
    assert "owner (browser)" in text
    assert re.search(r"Verified up to row [\d,]+", text)


def test_it_goes_on_to_the_first_row(owner: Browser) -> None:
    seen: list[int] = []
    path = "/admin/audit"
    while path:
        text = owner.get(path).text
        seen += rows(text)
        older = re.search(r'rel="next" href="(/admin/audit[^"#]*)', text)
        path = older[1].replace("&amp;", "&") if older else ""
    assert seen == list(range(seen[0], 0, -1))


def test_filters_narrow_it(owner: Browser) -> None:
    refunds = owner.get("/admin/audit", params={"action": "ledger.refund", "from": DAY, "to": DAY}).text
    assert len(rows(refunds)) == 10
    assert "&lt;i&gt;a smear" in refunds
    assert "<i>a smear" not in refunds
    assert "No row fits" in owner.get("/admin/audit", params={"actor": "nobody at all"}).text
    for query in ({"from": "x"}, {"action": "x" * 101}, {"cursor": "?"}, {"limit": "3"}):
        assert owner.get("/admin/audit", params=query).status_code == 422


def test_what_is_downloaded_is_what_is_shown(owner: Browser) -> None:
    query = {"action": "ledger.refund"}
    shown = rows(owner.get("/admin/audit", params=query).text)
    sheet = owner.get("/admin/audit.csv", params=query)
    assert sheet.headers["content-disposition"] == 'attachment; filename="zsky-audit.csv"'
    assert [int(row["id"]) for row in csv.DictReader(io.StringIO(sheet.text, newline=""))] == shown
    lines = owner.get("/admin/audit.jsonl", params=query)
    assert lines.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line)["id"] for line in lines.text.splitlines()] == shown


def test_it_is_verified_when_the_owner_wants(owner: Browser) -> None:
    before = rows(owner.get("/admin/audit").text)[0]
    answer = owner.submit("/admin/audit/verify", "/admin/audit")
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/audit")

    def up_to() -> int:
        found = re.search(r"Verified up to row ([\d,]+)", owner.get("/admin/audit/chain").text)
        return int(found[1].replace(",", "")) if found else 0

    assert "being verified" in owner.get("/admin/audit").text or up_to() >= before  # as quick as that
    until(lambda: up_to() >= before, "verified again")


def test_it_is_the_owners_alone(box: RunningBox) -> None:
    paths = ("/admin/audit", "/admin/audit/chain", "/admin/audit.csv", "/admin/audit.jsonl")
    with signed_in(box, "ada") as ada:
        assert [ada.get(path).status_code for path in paths] == [404] * 4
        assert ada.submit("/admin/audit/verify").status_code in (303, 404)
        assert "being verified" not in ada.get("/usage").text
    with Browser(box) as nobody:
        assert [nobody.get(path).status_code for path in paths] == [303] * 4
