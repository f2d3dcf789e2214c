from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from hashlib import sha256
from io import StringIO
from pathlib import Path

import pytest

from tests.boxes import running
from tests.cli.conftest import Run
from tests.running import make_owner
from zsky_box import passwords
from zsky_box.db import connect


@pytest.fixture(params=["running", "stopped"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Path]:
    """A data folder with an owner, whose service runs or does not: the commands are the same."""
    if request.param == "running":
        with running(tmp_path / "data", ready=False) as started:
            yield started.folder
    else:
        make_owner(tmp_path / "data")
        yield tmp_path / "data"


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    make_owner(tmp_path / "data")
    return tmp_path / "data"


def test_a_person_is_added_given_money_and_bounded(run: Run, data: Path) -> None:
    assert "is on the plan max" in run("accounts", "add", "ann", data=data).out
    assert "has $50.00" in run("accounts", "topup", "ann", "50", "--note", "November", data=data).out
    assert "has $45.50" in run("accounts", "correct", "ann", "-4.50", "--reason", "entered twice", data=data).out
    assert "may spend $100.00 a month" in run("accounts", "cap", "ann", "100", data=data).out
    assert "Overage is on for ann: $100.00 is left" in run("accounts", "overage", "ann", "on", data=data).out
    assert "at most $20.00 a month" in run("accounts", "ceiling", "ann", "20", data=data).out
    assert "has no ceiling" in run("accounts", "ceiling", "ann", "none", data=data).out
    assert "together spend at most $500.00" in run("accounts", "ceiling", "--box", "500", data=data).out
    table = run("accounts", "list", data=data).out
    (line,) = [line for line in table.splitlines() if line.startswith("ann ")]
    assert line.split()[2:] == ["max", "on", "$100.00", "$0.00", "$0.00", "$45.50"]
    assert "All together: at most $500.00 a month." in table
    assert run("ledger", "verify", data=data).status == 0


def test_plans_begin_change_and_are_cancelled(run: Run, stopped: Path) -> None:
    assert "on the plan free" in run("accounts", "add", "ann", "--plan", "free", data=stopped).out
    assert "on the plan free" in run("accounts", "plan", "ann", "free", data=stopped).out
    assert "by the month, paid until" in run("accounts", "plan", "ann", "max", data=stopped).out
    assert "by the year, paid until" in run("accounts", "plan", "ann", "max", "--annual", data=stopped).out
    assert "on by the month" in run("accounts", "plan", "ann", "max", data=stopped).out
    assert "begins, then on free" in run("accounts", "plan", "ann", "free", data=stopped).out
    assert "--annual goes with max" in run("accounts", "plan", "ann", "free", "--annual", data=stopped).sentence


def test_a_rule_fills_the_wallet_until_it_is_ended(run: Run, stopped: Path) -> None:
    rule = ["--below", "5", "--add", "20", "--month", "100"]
    told = run("accounts", "replenish", "owner", *rule, data=stopped).out
    assert told == "Below $5.00, $20.00 is added to the wallet of owner, at most $100.00 a month; it has $20.00.\n"
    assert "Nothing fills" in run("accounts", "replenish", "owner", "off", data=stopped).out
    for bad in (["--below", "5"], [], ["off", "--add", "5"]):
        assert run("accounts", "replenish", "owner", *bad, data=stopped).status == 2


def test_scripts_read_json(run: Run, stopped: Path) -> None:
    added = run("accounts", "add", "Post production", "--annual", "--json", data=stopped).json
    assert (added["name"], added["term"], added["wallet_usd"]) == ("Post production", "annual", "0.00")
    filled = run("accounts", "topup", added["id"], "0.01", "--json", data=stopped).json
    assert (filled["wallet_usd"], filled["ledger_id"]) == ("0.01", 1)
    listed = run("accounts", "list", "--json", data=stopped).json
    assert [account["name"] for account in listed["data"]] == ["owner", "Post production"]
    assert listed["box_ceiling_usd"] is None


@pytest.mark.parametrize("amount", ["1,50", "1.505", "1e3", "0x10", "٣", "$5", "+5", " 5", ".5", "5.", "NaN", "-5", ""])
def test_what_is_no_amount_is_a_usage_error(run: Run, tmp_path: Path, amount: str) -> None:
    told = run("accounts", "topup", "owner", "--", amount, data=tmp_path)
    assert told.status == 2
    assert "not an amount of dollars" in told.err


def test_what_cannot_be_done_is_one_sentence(run: Run, stopped: Path) -> None:
    assert "no account 'bob'" in run("accounts", "topup", "bob", "5", data=stopped).sentence
    assert "$5.00 to $1000.00" in run("accounts", "cap", "owner", "4.99", data=stopped).sentence
    assert "already" in run("accounts", "add", "owner", data=stopped).sentence
    assert "take from" in run("accounts", "correct", "owner", "-1", "--reason", "x", data=stopped).sentence
    assert run("accounts", "ceiling", "20", data=stopped).status == 2
    assert run("accounts", "ceiling", "owner", "much", data=stopped).status == 2
    assert run("accounts", "correct", "owner", "5", data=stopped).status == 2


def test_keys_are_made_capped_and_ended_for_anybody(run: Run, stopped: Path) -> None:
    run("accounts", "add", "ann", "--plan", "free", data=stopped)
    assert "has no API" in run("keys", "issue", "--account", "ann", data=stopped).sentence
    run("accounts", "topup", "ann", "5", data=stopped)
    issued = run("keys", "issue", "--account", "ann", "--cap", "2.50", "--json", data=stopped).json
    assert issued["cap_usd"] == "2.50"
    assert "$2.50" in run("keys", "list", "--account", "ann", data=stopped).out
    told = run("keys", "cap", issued["id"], "7", "--account", "ann", data=stopped).out
    assert "takes at most $7.00 a month" in told
    assert "has no cap" in run("keys", "cap", issued["id"], "none", "--account", "ann", data=stopped).out
    assert "no such key" in run("keys", "revoke", issued["id"], data=stopped).sentence
    assert run("keys", "revoke", issued["id"], "--account", "ann", data=stopped).status == 0
    assert run("ledger", "verify", data=stopped).status == 0


# Signing in


def test_a_password_is_read_from_a_script_and_shown_nowhere(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("a lake at dawn\r\nanother line\n"))
    told = run("accounts", "password", "owner", "--stdin", data=data)
    assert told.out == "owner has a new password.\n"
    monkeypatch.setattr("sys.stdin", StringIO("a lake at dawn\n"))
    assert run("accounts", "password", "owner", "--stdin", "--json", data=data).json["sessions_ended"] == 0
    with closing(connect(data / "ledger.db", read_only=True)) as connection:
        stored = connection.execute("SELECT hash FROM password").fetchone()[0]
    assert passwords.matches(stored, "a lake at dawn")
    log = data.with_name(f"{data.name}.log")
    assert "lake" not in told.err + (log.read_text() if log.exists() else "")


def test_a_password_is_typed_twice_where_nobody_sees_it(
    run: Run, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    typed = iter(["a lake at dawn", "a lake at noon", "a lake at dusk", "a lake at dusk"])
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda *_, **__: next(typed))  # pyright: ignore[reportUnknownLambdaType]
    told = run("accounts", "password", "owner", data=stopped)
    assert "has a new password" in told.out
    assert "do not match" in told.err
    with closing(connect(stopped / "ledger.db", read_only=True)) as connection:
        stored = connection.execute("SELECT hash FROM password").fetchone()[0]
    assert passwords.matches(stored, "a lake at dusk")


def test_a_password_that_cannot_be_set_is_one_sentence(
    run: Run, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line, sentence in {"short": "10 to 200 characters", "x" * 201: "at most 200", "": "10 to 200"}.items():
        monkeypatch.setattr("sys.stdin", StringIO(line))
        assert sentence in run("accounts", "password", "owner", "--stdin", data=stopped).sentence
    monkeypatch.setattr("sys.stdin", StringIO("a lake at dawn"))
    assert "--stdin" in run("accounts", "password", "owner", data=stopped).sentence
    assert "no account 'bob'" in run("accounts", "password", "bob", "--stdin", data=stopped).sentence


def test_a_link_is_printed_once_for_one_person(run: Run, data: Path) -> None:
    run("accounts", "add", "ann", data=data)
    lines = run("accounts", "invite", "ann", data=data).out.splitlines()
    assert lines[0].startswith("For ann, once, until ")
    url, _, token = lines[1].partition("/setup?token=")
    assert url.startswith("http://127.0.0.1:")
    with closing(connect(data / "ledger.db", read_only=True)) as connection:
        digest = connection.execute("SELECT digest FROM invitation").fetchone()[0]
    assert digest == sha256(token.encode()).digest()
    told = run("accounts", "invite", "ann", "--json", data=data, env={"ZSKY_PUBLIC_URL": "https://box.example"}).json
    assert told["url"].endswith(told["path"])
    assert told["path"] != lines[1].removeprefix(url)
    assert "no account 'bob'" in run("accounts", "invite", "bob", data=data).sentence
