"""`/usage`: the month's figures, the ledger with its filters, the statements, and nobody else's rows."""

from __future__ import annotations

import re
from collections.abc import Generator

import pytest

from tests.api.asking import IMAGE, made
from tests.people import Browser, add_people, signed_in
from tests.running import RunningBox
from tests.stores import SetClock
from tests.studio import Studio
from zsky_box.clock import parse_rfc3339
from zsky_box.pages.usage_tables import dollars
from zsky_box.periods import following

EARLIER = "2026-08"
BUSY = "2026-10"
DAY = "2026-08-14"
ONCE = f"{DAY}T10:00:00Z"


class Past:
    """A box with a studio's work of an earlier month in it, and ada and zoe, who have done nothing."""

    def __init__(self, box: RunningBox, jobs: dict[str, str]) -> None:
        self.box, self.jobs = box, jobs


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Generator[Past]:
    folder = tmp_path_factory.mktemp("usage") / "data"
    folder.mkdir()
    rooms = Studio(folder, clock=SetClock(parse_rfc3339(ONCE)))
    script = rooms.named_key("=night & day")
    jobs = {"paid": rooms.make(3), "script": rooms.make(1, script), "video": rooms.make(1, type="video")}
    rooms.clock.set("2026-08-20T10:00:00Z")
    jobs["refunded"] = rooms.make(2, script)
    rooms.refund(jobs["refunded"], "<b>a smear</b>")
    jobs["failed"] = rooms.new_job()
    rooms.end(rooms.claimed(jobs["failed"]))
    rooms.clock.set(f"{BUSY}-03T10:00:00Z")
    for _ in range(4):
        rooms.make(10)
    rooms.close()
    add_people(folder, "ada", "zoe")
    box = RunningBox(folder, devices="cpu", included_images=1).start()
    yield Past(box, jobs)
    box.stop()


@pytest.fixture
def owner(past: Past) -> Generator[Browser]:
    with signed_in(past.box) as browser:
        yield browser


@pytest.fixture
def ada(past: Past) -> Generator[Browser]:
    with signed_in(past.box, "ada") as browser:
        yield browser


@pytest.fixture
def zoe(past: Past) -> Generator[Browser]:
    with signed_in(past.box, "zoe") as browser:
        yield browser


def page(browser: Browser, path: str = "/usage", **query: str) -> str:
    answer = browser.get(path, params=query or None)
    assert answer.status_code == 200, answer.text
    return answer.text


def plain(text: str) -> str:
    """What is left to read of a page."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


def table(text: str, name: str) -> dict[str, list[str]]:
    """A chart's table: its rows' cells by the row's name."""
    found = re.search(rf'<table[^>]* id="{name}".*?</table>', text, re.DOTALL)
    assert found is not None, text
    rows = re.findall(r"<tr><th scope=\"row\".*?</tr>", found[0], re.DOTALL)
    cells = [[plain(cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in rows]
    return {row[0]: row[1:] for row in cells}


def ledger_jobs(text: str) -> set[str]:
    """The jobs that the ledger's rows name."""
    return set(re.findall(r'title="(job_\w+)"', text))


def badges(text: str) -> set[str]:
    """What the ledger's rows are called."""
    return set(re.findall(r'<td><span class="badge [a-z]*">([^<]+)</span>', text))


def test_it_works(owner: Browser) -> None:
    text = page(owner, month=EARLIER)
    assert table(text, "by-day") == {
        "14 August": ["1", "4", "$0.00", "$0.15", "3"],
        "20 August": ["0", "0", "$0.00", "$0.00", "2"],
        "Total": ["1", "4", "$0.00", "$0.15", "5"],
    }
    by_key = table(text, "by-key")
    assert by_key["=night &amp; day"] == ["0", "1", "$0.00", "$0.05", "2"]
    assert by_key["Total"] == ["1", "4", "$0.00", "$0.15", "5"]
    words = plain(text)
    for told in ("Generations 5", "1 video, 4 images; 1 failed job", "Spent from the wallet $0.15", "1 of 1"):
        assert told in words
    assert "&lt;b&gt;a smear&lt;/b&gt;" in text
    assert "<b>a smear" not in text
    assert "Plan max, a month: $99.00" in words


def test_a_month_without_anything_says_what_to_do(owner: Browser) -> None:
    text = page(owner, month=following(EARLIER))
    assert "Nothing was made in September 2026" in text
    assert 'href="/create"' in text
    assert 'id="by-day"' not in text


def test_what_is_made_now_is_there_at_once(past: Past, ada: Browser) -> None:
    ada.headers["X-CSRF-Token"] = ada.csrf
    job = made(past.box, ada, IMAGE)
    text = page(ada)
    assert table(text, "by-key") == {
        "Browser": ["0", "1", "$0.00", "$0.00", "1"],
        "Total": ["0", "1", "$0.00", "$0.00", "1"],
    }
    assert ledger_jobs(text) == {job["job_id"]}


def test_the_months_are_those_of_the_account(owner: Browser, ada: Browser) -> None:
    months = re.findall(r'<option value="(\d{4}-\d\d)"', page(owner))
    assert months[-1] == EARLIER
    assert months == [following(EARLIER, number) for number in reversed(range(len(months)))]
    assert f'value="{EARLIER}"' not in page(ada)


@pytest.mark.parametrize("month", ["2026-07", "2099-01", "soon", "2026-13", "../2026-08"])
def test_another_month_is_not_found(owner: Browser, month: str) -> None:
    answer = owner.get("/usage", params={"month": month})
    assert answer.status_code == 404
    assert "text/html" in answer.headers["content-type"]


def test_the_ledger_is_narrowed_by_its_filters(past: Past, owner: Browser) -> None:
    jobs = past.jobs
    assert ledger_jobs(page(owner, month=EARLIER)) == set(jobs.values())
    assert ledger_jobs(page(owner, month=EARLIER, type="refund")) == {jobs["refunded"]}
    assert ledger_jobs(page(owner, month=EARLIER, **{"from": DAY, "to": DAY})) == {
        jobs["paid"],
        jobs["script"],
        jobs["video"],
    }
    assert ledger_jobs(page(owner, month=EARLIER, **{"from": "2026-08-15", "to": "2026-08-31"})) == {
        jobs["refunded"],
        jobs["failed"],
    }
    key = re.search(r'<option value="(key_\w+)">=night &amp; day', page(owner))
    assert key is not None
    narrowed = page(owner, month=EARLIER, key=key[1])
    assert ledger_jobs(narrowed) == {jobs["script"], jobs["refunded"]}
    told = owner.get("/v1/me/ledger", params={"key_id": key[1], "limit": 100}).json()["data"]
    assert {entry["job_id"] for entry in told} == {jobs["script"], jobs["refunded"]}
    assert "No entry fits these filters" in page(owner, month=EARLIER, type="alert")


def test_sign_ins_stand_apart_from_the_money(past: Past, zoe: Browser) -> None:
    zoe.headers["X-CSRF-Token"] = zoe.csrf
    job_id = made(past.box, zoe, IMAGE)["job_id"]
    day = zoe.get("/v1/me/ledger", params={"job_id": job_id}).json()["data"][0]["at"][:10]
    span = {"from": "2026-01-01", "to": day}  # of all months: this one may have begun since the sign-in
    text = page(zoe, **span)
    assert job_id in ledger_jobs(text)
    assert not badges(text) & {"Session", "Password", "Key", "Account", "Other"}
    assert {"Session", "Password", "Account", "Charged"} <= badges(page(zoe, type="all", **span))
    assert "Session" in badges(page(zoe, type="other", **span))
    for narrowed, are_told in ((span, False), (span | {"type": "all"}, True)):
        href = re.search(r'href="(/v1/me/ledger\.csv[^"]*)"', page(zoe, **narrowed))
        assert href is not None
        sheet = zoe.get(href[1].replace("&amp;", "&")).text
        assert job_id in sheet
        assert ("session.begun" in sheet) is are_told


def test_what_can_be_downloaded_is_what_is_shown(past: Past, owner: Browser) -> None:
    text = page(owner, month=EARLIER, type="refund")
    href = re.search(r'href="(/v1/me/ledger\.csv[^"]*)"', text)
    assert href is not None
    rows = owner.get(href[1].replace("&amp;", "&")).text.splitlines()
    assert len(rows) == 1 + 2
    assert all(past.jobs["refunded"] in row for row in rows[1:])
    assert owner.get(f"/v1/me/usage.csv?period={EARLIER}").text.splitlines()[-1].startswith("total")


def test_a_filter_that_is_none_is_told(owner: Browser) -> None:
    for query in ({"type": "x"}, {"from": "tomorrow"}, {"to": "1026-08-01"}, {"job": "x" * 101}, {"cursor": "zz"}):
        answer = owner.get("/usage", params=query)
        assert answer.status_code == 422, query
        assert "text/html" in answer.headers["content-type"]


def test_pages_go_on_where_the_last_one_ended(owner: Browser) -> None:
    entries, pages, path = 0, 0, f"/usage?month={BUSY}"
    while path:
        text = page(owner, path)
        rows = re.findall(r"<tr>\s*<td><time.*?</tr>", text, re.DOTALL)
        entries += sum(
            int(count[1]) if (count := re.search("\N{MULTIPLICATION SIGN} ([0-9]+)", row)) else 1 for row in rows
        )
        pages += 1
        older = re.search(r'rel="next" href="(/usage[^"]+cursor[^"]+)"', text)
        path = older[1].replace("&amp;", "&") if older else ""
    assert pages == 2
    assert entries == len(owner.get(f"/v1/me/ledger.csv?period={BUSY}").text.splitlines()) - 1 > 50


def test_what_one_job_cost(past: Past, owner: Browser) -> None:
    text = plain(page(owner, job=past.jobs["paid"]))
    for told in ("What one job cost", "3 images", "$0.10", "charged", "1 included, 2 from the wallet"):
        assert told in text
    assert "paid back" in plain(page(owner, job=past.jobs["refunded"]))
    assert "released: nothing charged" in plain(page(owner, job=past.jobs["failed"]))
    assert ledger_jobs(page(owner, job=past.jobs["paid"])) == {past.jobs["paid"]}


def test_nobody_sees_anothers(past: Past, ada: Browser) -> None:
    texts = [page(ada), page(ada, "/usage/statements"), page(ada, job=past.jobs["paid"])]
    assert "There is no such job" in texts[-1]
    texts[-1] = texts[-1].replace(past.jobs["paid"], "")  # what was asked for is said again
    for text in texts:
        assert not any(job in text for job in past.jobs.values())
        assert "night &amp; day" not in text
    assert ada.get(f"/usage/statements/{EARLIER}").status_code == 404
    assert ada.get("/usage", params={"month": EARLIER}).status_code == 404


def test_signed_out_there_is_nothing(past: Past) -> None:
    with Browser(past.box) as browser:
        for path in ("/usage", "/usage/statements", f"/usage/statements/{EARLIER}"):
            answer = browser.get(path)
            assert (answer.status_code, answer.headers["location"]) == (303, f"/sign-in?next={path}")


# Statements


def test_statements_are_listed_newest_first(owner: Browser) -> None:
    months = re.findall(r'href="/usage/statements/(\d{4}-\d\d)"', page(owner, "/usage/statements"))
    assert months == sorted(months, reverse=True)
    assert months[-1] == EARLIER
    assert EARLIER not in page(owner, "/usage/statements", before=EARLIER).replace(f"before={EARLIER}", "")
    assert owner.get("/usage/statements", params={"before": "x"}).status_code == 404


def test_a_statement_adds_up_and_names_each_job(past: Past, owner: Browser) -> None:
    text = page(owner, f"/usage/statements/{EARLIER}")
    words = plain(text)
    for told in ("1 to 31 August 2026", "Plan max", "$99.15", "Overage $0.15", "paid back: &lt;b&gt;a smear&lt;/b&gt;"):
        assert told in words
    for name in ("paid", "script", "refunded"):
        assert past.jobs[name] in text
    assert past.jobs["failed"] not in text
    assert "2026-08-14 10:00" in words
    assert owner.get(f"/v1/me/statements/{EARLIER}").json()["total_usd"] == "99.15"


def test_nothing_has_no_sign(zoe: Browser) -> None:
    months = re.findall(r'href="/usage/statements/(\d{4}-\d\d)"', page(zoe, "/usage/statements"))
    words = plain(page(zoe, f"/usage/statements/{months[0]}"))
    assert "Overage of this statement $0.00" in words


@pytest.mark.parametrize(
    ("amount", "read"),
    [("0.05", "$0.05"), ("1250.50", "$1,250.50"), ("-1000000.00", "\u2212$1,000,000.00"), (".5", "$.5"), ("x", "$x")],
)
def test_an_amount_is_written_as_people_read_it(amount: str, read: str) -> None:
    assert dollars(amount) == read


@pytest.mark.parametrize("month", ["2026-07", "2099-01", "x"])
def test_there_is_no_such_statement(owner: Browser, month: str) -> None:
    assert owner.get(f"/usage/statements/{month}").status_code == 404
