"""`/v1/me/usage`, `/v1/me/ledger` and `/v1/me/statements`, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Generator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.api.asking import IMAGE, add_member, made, problem
from tests.running import RunningBox
from zsky_box import keys, overage, secretfile
from zsky_box.clock import system_clock
from zsky_box.db import Store
from zsky_box.periods import following
from zsky_box.pricing import micros
from zsky_box.settings import Settings
from zsky_box.terms import open_terms

PATHS = ("/v1/me/usage", "/v1/me/ledger", "/v1/me/statements")


class Studio:
    """A box whose owner pays for images from a wallet, and what it has made."""

    def __init__(self, box: RunningBox, job: dict[str, Any]) -> None:
        self.box, self.job = box, job
        self.month: str = job["created_at"][:7]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[Studio]:
    box = RunningBox(tmp_path_factory.mktemp("studio") / "data", devices="cpu", included_images=1)
    box.keys |= {"bob": add_member(box.folder, "bob"), **_fund(box)}
    box.start()
    with box.client() as client:
        job = made(box, client, {**IMAGE, "n": 3, "metadata": {"shot": "=1+1"}})
    yield Studio(box, job)
    box.stop()


@pytest.fixture
def owner(studio: Studio) -> Generator[httpx.Client]:
    with studio.box.client() as client:
        yield client


def _fund(box: RunningBox) -> dict[str, str]:
    """$20 in the owner's wallet, overage on, and a key that may not read."""
    store, account, now = Store(box.folder), box.keys["account"], system_clock()
    try:
        terms, pepper = open_terms(store, Settings(), now), secretfile.load(box.folder).pepper

        def work(tx: Any) -> str:
            overage.topup(tx, account, micros("20"), actor="ann", now=now, terms=terms, why="@budget")
            overage.toggle(tx, account, enabled=True, actor="ann", now=now, terms=terms)
            return keys.issue(tx, pepper, account, now=now, actor="ann", scopes=("generate",))[1]

        return {"blind": store.write(work)}
    finally:
        store.close()


def table(answer: httpx.Response, name: str) -> list[dict[str, str]]:
    """The rows of a CSV answer that is saved under this name."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; header=present; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="zsky-{name}.csv"'
    assert answer.headers["cache-control"] == "no-store"
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


# Statements


def test_it_works(studio: Studio, owner: httpx.Client) -> None:
    answer = owner.get(f"/v1/me/statements/{studio.month}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json()
    assert (found["account"], found["name"], found["status"]) == (studio.box.keys["account"], "owner", "open")
    assert (found["plan_fee_usd"], found["overage_usd"], found["total_usd"]) == ("99.00", "0.10", "99.10")
    assert [line["job_id"] for line in found["lines"]] == [studio.job["job_id"]] * 2
    assert {line["ledger_id"] for line in found["lines"]} < set(studio.job["charge"]["ledger_ids"])
    assert [credit["amount_usd"] for credit in found["credits"]] == ["20.00"]


def test_a_months_first_look_shows_its_fee(studio: Studio) -> None:
    with studio.box.client("bob") as bob:
        found = bob.get(f"/v1/me/statements/{studio.month}").json()
    assert (found["plan"], found["plan_fee_usd"], found["lines"], found["credits"]) == ("max", "99.00", [], [])


def test_the_same_as_csv_by_suffix_and_by_accept(studio: Studio, owner: httpx.Client) -> None:
    path, name = f"/v1/me/statements/{studio.month}", f"statement-{studio.month}"
    rows = table(owner.get(f"{path}.csv"), name)
    assert table(owner.get(path, headers={"Accept": "text/csv"}), name) == rows
    assert table(owner.get(path, headers={"Accept": "text/csv, application/json;q=0.5, */*;q=0.1"}), name) == rows
    owed = sum(Decimal(row["amount_usd"]) for row in rows if row["row"] in ("plan_fee", "overage", "refund"))
    assert owed == Decimal(owner.get(path).json()["total_usd"])
    lines = [row for row in rows if row["row"] == "overage"]
    assert json.loads(lines[0]["metadata"]) == {"shot": "=1+1"}
    assert [row["description"] for row in rows if row["row"] == "topup"] == ["'@budget (ann)"]
    for accept in ("application/json, text/csv", "*/*", "text/html", "text/csv;q=0", "text/csv;q=x", ""):
        assert owner.get(path, headers={"Accept": accept}).headers["content-type"] == "application/json", accept


@pytest.mark.parametrize("month", ["2026-13", "2026-1", "now", "2026-11.csv.csv", "2026-11.CSV", "٢٠٢٦-11", "0000-01"])
def test_what_is_no_month_is_refused(owner: httpx.Client, month: str) -> None:
    problem(owner.get(f"/v1/me/statements/{month}"), 422, "invalid_field", "month")


def test_there_is_none_of_a_month_to_come_or_before_the_account(studio: Studio, owner: httpx.Client) -> None:
    for month in (following(studio.month), following(studio.month, -1), "1999-12"):
        problem(owner.get(f"/v1/me/statements/{month}"), 404, "not_found")
        problem(owner.get(f"/v1/me/statements/{month}.csv"), 404, "not_found")
        problem(owner.get("/v1/me/usage", params={"period": month}), 404, "not_found")


def test_statements_are_listed(studio: Studio, owner: httpx.Client) -> None:
    listed = owner.get("/v1/me/statements").json()
    assert (listed["object"], listed["has_more"], listed["next_cursor"]) == ("list", False, None)
    [item] = listed["data"]
    assert (item["period"]["key"], item["status"], item["total_usd"]) == (studio.month, "open", "99.10")
    problem(owner.get("/v1/me/statements", params={"cursor": "czk5OTk5OQ"}), 422, "invalid_field", "cursor")
    assert owner.get("/v1/me/statements", params={"cursor": "czIwOTkxMg"}).json() == listed  # December 2099
    ended = owner.get("/v1/me/statements", params={"cursor": "czE5NzAwMQ"}).json()  # January 1970
    assert (ended["data"], ended["has_more"], ended["next_cursor"]) == ([], False, None)


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(studio: Studio, owner: httpx.Client) -> None:
    for _ in range(8):  # more than there are readers of the store
        with studio.box.client() as client, client.stream("GET", "/v1/me/ledger.csv") as answer:
            assert next(answer.iter_bytes(16))
    assert owner.get(f"/v1/me/statements/{studio.month}").status_code == 200
    assert "Traceback" not in studio.box.log()


# The ledger


def test_the_ledger_is_paged_and_filtered(studio: Studio, owner: httpx.Client) -> None:
    seen: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 4}
    while True:
        page = owner.get("/v1/me/ledger", params=query).json()
        seen += page["data"]
        if not page["has_more"]:
            break
        query["cursor"] = page["next_cursor"]
    assert [row["id"] for row in seen] == sorted({row["id"] for row in seen}, reverse=True)
    charges = owner.get("/v1/me/ledger", params={"type": "deduction", "job_id": studio.job["job_id"]}).json()["data"]
    assert charges == [row for row in seen if row["type"] == "deduction"]
    assert [row["transfer"].get("amount_usd") for row in charges] == ["0.05", "0.05", None]
    assert [row["action"] for row in seen if row["type"] == "toggle"] == ["overage.toggled"]
    of_month = owner.get("/v1/me/ledger", params={"period": studio.month, "limit": 100}).json()["data"]
    assert of_month == seen


def test_the_ledger_as_csv_is_all_of_it(owner: httpx.Client) -> None:
    rows = table(owner.get("/v1/me/ledger.csv"), "ledger")
    listed = owner.get("/v1/me/ledger", params={"limit": 100}).json()["data"]
    assert [row["id"] for row in rows] == [str(entry["id"]) for entry in listed]
    assert table(owner.get("/v1/me/ledger", headers={"Accept": "text/csv"}), "ledger") == rows
    assert len(table(owner.get("/v1/me/ledger.csv", params={"limit": 3}), "ledger")) == 3
    deductions = table(owner.get("/v1/me/ledger.csv", params={"type": "deduction"}), "ledger")
    assert {row["type"] for row in deductions} == {"deduction"}


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("type=x&limit=0&cursorr=1", ["type", "limit", "cursorr"]),
        ("period=2026-13&created_after=now", ["period", "created_after"]),
        ("limit=101", ["limit"]),
        ("job_id=a&job_id=b", ["job_id"]),
        ("cursor=x", ["cursor"]),
    ],
)
def test_a_query_that_is_wrong_is_told_all_at_once(owner: httpx.Client, query: str, fields: list[str]) -> None:
    for path in ("/v1/me/ledger", "/v1/me/ledger.csv"):
        answer = owner.get(f"{path}?{query}")
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == fields


# Usage


def test_usage_is_told_by_day_and_key(studio: Studio, owner: httpx.Client) -> None:
    found = owner.get("/v1/me/usage").json()
    assert (found["period"]["key"], found["totals"]["jobs"], found["totals"]["amount_usd"]) == (studio.month, 1, "0.10")
    [row] = found["data"]
    assert (row["type"], row["units"], row["included_units"], row["wallet_units"]) == ("image", 3, 1, 2)
    assert found["limits"]["spend_usd"] == "0.10"
    assert owner.get("/v1/me/usage", params={"period": studio.month}).json() == found
    rows = table(owner.get("/v1/me/usage.csv"), f"usage-{studio.month}")
    assert table(owner.get("/v1/me/usage", headers={"Accept": "text/csv"}), f"usage-{studio.month}") == rows
    assert [(row["day"] == "total", row["amount_usd"]) for row in rows] == [(False, "0.10"), (True, "0.10")]
    problem(owner.get("/v1/me/usage", params={"period": "soon"}), 422, "invalid_field", "period")
    problem(owner.get("/v1/me/usage", params={"month": "2026-11"}), 422, "unknown_field", "month")


# Who may read


def test_a_key_needs_the_scope_read(studio: Studio) -> None:
    with studio.box.client("blind") as blind:
        for path in (*PATHS, "/v1/me/usage.csv", "/v1/me/ledger.csv", f"/v1/me/statements/{studio.month}.csv"):
            problem(blind.get(path), 403, "insufficient_scope")


def test_a_test_key_sees_no_money(studio: Studio) -> None:
    with studio.box.client("test") as tester:
        for path in ("/v1/me/ledger", "/v1/me/statements"):
            assert tester.get(path).json() == {"object": "list", "data": [], "has_more": False, "next_cursor": None}
        found = tester.get("/v1/me/usage").json()
        assert (found["test"], found["data"], found["limits"]) == (True, [], None)
        problem(tester.get(f"/v1/me/statements/{studio.month}"), 404, "not_found")
        assert len(tester.get("/v1/me/ledger.csv").text.splitlines()) == 1


def test_nobody_sees_anothers(studio: Studio) -> None:
    with studio.box.client("bob") as bob:
        job_id = studio.job["job_id"]
        assert bob.get("/v1/me/ledger", params={"job_id": job_id}).json()["data"] == []
        for path in (*PATHS, "/v1/me/ledger.csv", f"/v1/me/statements/{studio.month}"):
            text = bob.get(path).text
            assert job_id not in text
            assert studio.box.keys["account"] not in text
