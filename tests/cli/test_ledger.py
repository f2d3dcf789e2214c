from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Generator
from io import StringIO
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.boxes import running
from tests.cli.conftest import Run
from tests.running import RunningBox
from tests.stores import opened, tamper
from zsky_box import control
from zsky_box.cli.main import cli
from zsky_box.cli.session import Session, open_store
from zsky_box.clock import parse_rfc3339, rfc3339, system_clock
from zsky_box.periods import following
from zsky_box.settings import Settings
from zsky_box.terms import open_terms

MONTH = "2026-11"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    with running(tmp_path_factory.mktemp("ledger") / "data", included_images=1) as started:
        yield started


@pytest.fixture(scope="module")
def charged(box: RunningBox) -> str:
    """A job of three images, one of them included: the box goes on running."""
    for command in (["topup", "owner", "10"], ["overage", "owner", "on"]):
        assert CliRunner().invoke(cli, ["accounts", *command, "--data", str(box.folder)]).exit_code == 0
    with box.client() as client:
        answer = client.post("/v1/generate", json={"type": "image", "prompt": "a lake", "n": 3})
        return box.ended(client, answer.json()["job_id"])["job_id"]


@pytest.fixture
def month(box: RunningBox, charged: str) -> str:
    """The month that the job is charged to, which may be over by now."""
    with box.client() as client:
        return client.get(f"/v1/job_status/{charged}").json()["created_at"][:7]


@pytest.fixture
def in_november(monkeypatch: pytest.MonkeyPatch) -> None:
    """A box that is off, in the month MONTH."""
    set_clock(monkeypatch, f"{MONTH}-20T12:00:00Z")


def set_clock(monkeypatch: pytest.MonkeyPatch, time: str) -> None:
    """The clock of all commands of this process."""
    for name in ("session", "main", "ledger"):  # `cli.main` itself is the function
        module = importlib.import_module(f"zsky_box.cli.{name}")
        monkeypatch.setattr(module, "system_clock", lambda: parse_rfc3339(time))


@pytest.mark.usefixtures("charged")
def test_a_running_ledger_verifies_with_its_files(run: Run, box: RunningBox) -> None:
    told = run("ledger", "verify", "--files", "--json", data=box.folder)
    assert told.status == 0
    assert (told.json["verifies"], told.json["faults"]) == (True, [])
    assert told.json["files"] >= 3
    assert run("ledger", "verify", data=box.folder).out.startswith("verifies: ")


def test_all_transfers_are_exported_with_their_audit_hash(
    run: Run, box: RunningBox, charged: str, tmp_path: Path
) -> None:
    rows = list(csv.DictReader(StringIO(run("ledger", "export", data=box.folder).out)))
    assert [int(row["id"]) for row in rows] == sorted(int(row["id"]) for row in rows)
    paid = [row for row in rows if row["kind"] == "post" and row["ledger"] == "usd"]
    assert [(row["job_id"], row["amount_usd"], row["amount"]) for row in paid[:2]] == [(charged, "0.05", "50000")] * 2
    assert {len(row["audit_hash"]) for row in rows} == {64}
    lines = [json.loads(line) for line in run("ledger", "export", "--json", data=box.folder).out.splitlines()]
    assert [line["audit_hash"] for line in lines[: len(rows)]] == [row["audit_hash"] for row in rows]
    out = tmp_path / "ledger.jsonl"
    told = run("ledger", "export", "--format", "jsonl", "--out", str(out), "--json", data=box.folder)
    assert told.json == {"path": str(out)}
    assert len(out.read_text().splitlines()) == len(lines)
    assert (
        "in a folder that is there"
        in run("ledger", "export", "--out", str(tmp_path / "x" / "y"), data=box.folder).sentence
    )


def test_a_statement_names_its_jobs_and_adds_up(run: Run, box: RunningBox, charged: str, month: str) -> None:
    text = run("ledger", "statement", month, data=box.folder, env={"ZSKY_INCLUDED_IMAGES": "1"}).out
    assert text.count(f"{charged}/") >= 2
    assert "Plan max, a month" in text
    assert "$0.05" in text
    assert "Included images: 1 of 1 used" in text
    told = run("ledger", "statement", month, "--format", "json", data=box.folder).json
    assert told["plan_fee_usd"] == "99.00"
    assert {line["job_id"] for line in told["lines"]} == {charged}
    rows = list(csv.reader(StringIO(run("ledger", "statement", month, "--format", "csv", data=box.folder).out)))
    assert sum(charged in row for row in rows) == len(told["lines"])
    assert "no such statement" in run("ledger", "statement", "2020-01", data=box.folder).sentence
    assert "not a month" in run("ledger", "statement", "november", data=box.folder).sentence
    assert "no account" in run("ledger", "statement", month, "--account", "bob", data=box.folder).sentence


@pytest.mark.usefixtures("in_november")
def test_a_statement_of_a_box_that_is_off_bills_the_plan(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    run("init", data=data)
    run("accounts", "add", "guest", "--plan", "free", data=data)
    assert "no such statement" in run("ledger", "statement", following(MONTH), data=data).sentence
    assert fees(data) == []
    told = run("ledger", "statement", MONTH, "--format", "json", data=data).json
    assert (told["plan"], told["plan_fee_usd"], told["total_usd"]) == ("max", "99.00", "99.00")
    assert told["included"]["video"]["granted"] == 300
    assert run("ledger", "statement", MONTH, "--format", "json", data=data).json == told
    assert fees(data) == [99_000_000]
    free = run("ledger", "statement", MONTH, "--account", "guest", "--format", "json", data=data).json
    assert (free["plan"], free["total_usd"]) == ("free", "0.00")
    assert run("ledger", "verify", data=data).status == 0


def fees(data: Path) -> list[int]:
    """What plans were charged, in micros, in a box that is off."""
    with open_store(data) as store:
        return [row["amount_micros"] for row in store.all("SELECT amount_micros FROM plan_fee ORDER BY id")]


def test_a_running_box_puts_the_plans_fee_on_record_for_a_statement(
    run: Run, box: RunningBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with click.Context(cli):
        told = Session(box.folder).control(control.RollPlan())
    assert (told["name"], told["plan"]) == ("owner", "max")
    month = following(told["paid_until"], -1)
    assert month == rfc3339(system_clock())[:7]
    asked: list[control.Command] = []

    def ask(_: Session, command: control.Command) -> None:
        asked.append(command)

    monkeypatch.setattr(Session, "control", ask)
    run("ledger", "statement", month, data=box.folder)
    assert asked == [], "nothing is due: nothing is asked of the box"


@pytest.mark.usefixtures("in_november")
def test_a_statement_tells_what_was_said_of_money_that_was_put_in_or_paid_back(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    run("init", data=data)
    run("accounts", "topup", "owner", "5", "--note", "November\n\x1b[31m invoice 12", data=data)
    run("accounts", "topup", "owner", "7", data=data)
    lines = run("ledger", "statement", MONTH, data=data).out.splitlines()
    [noted] = [line for line in lines if "$5.00" in line and "topup" in line]
    assert noted.endswith("topup by terminal: November [31m invoice 12")
    assert next(line for line in lines if "$7.00" in line).endswith("topup by terminal")


def test_a_refund_is_paid_once_through_the_running_box(run: Run, box: RunningBox, charged: str) -> None:
    told = run("ledger", "refund", charged, "--ordinal", "2", "--reason", "a blot", data=box.folder)
    assert told.out == f"Paid back of {charged}: $0.05 to the wallet of owner.\n"
    again = run("ledger", "refund", charged, "--ordinal", "2", "--reason", "a blot", data=box.folder)
    assert "left to pay back" in again.sentence
    month = rfc3339(system_clock())[:7]
    assert f"{charged}/2: a blot" in run("ledger", "statement", month, data=box.folder).out
    assert run("ledger", "refund", charged, data=box.folder).status == 2
    assert run("ledger", "verify", data=box.folder).status == 0


def test_what_is_written_before_the_first_start_is_of_the_months_of_its_zone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    set_clock(monkeypatch, "2026-11-30T20:00:00Z")
    run("init", data=data)
    assert run("accounts", "topup", "owner", "5", data=data).status == 0
    with opened(data) as store:
        terms = open_terms(store, Settings(timezone="Asia/Tokyo"), parse_rfc3339("2026-11-30T20:01:00Z"))
    assert [terms.calendar.zone_at(parse_rfc3339(f"2026-{day}T20:00:00Z")).key for day in ("11-30", "12-01")] == [
        "UTC",
        "Asia/Tokyo",
    ]
    assert run("ledger", "verify", data=data).out.startswith("verifies: ")


def test_looking_at_a_box_before_its_first_start_does_not_choose_its_zone(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    run("init", data=data)
    assert run("accounts", "list", data=data).status == 0
    with opened(data) as store:
        assert open_terms(store, Settings(timezone="Asia/Tokyo"), system_clock()).calendar.zone.key == "Asia/Tokyo"
        assert len(store.all("SELECT 1 FROM calendar_zone")) == 1


def test_a_broken_ledger_names_its_first_row_and_exits_with_1(run: Run, tmp_path: Path) -> None:
    assert "zsky-box init" in run("ledger", "verify", data=tmp_path / "none").sentence
    run("init", data=tmp_path / "data")
    run("accounts", "topup", "owner", "5", data=tmp_path / "data")
    tamper(tmp_path / "data" / "ledger.db", "UPDATE transfer SET amount = 6000000")
    told = run("ledger", "verify", data=tmp_path / "data")
    assert told.status == 1
    assert "broken: each movement has one audit row that says the same: transfer 1 differs" in told.out
    assert run("ledger", "verify", "--json", data=tmp_path / "data").json["faults"][0]["row"] == "funding/usd"
