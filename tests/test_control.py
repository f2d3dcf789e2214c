from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.boxes import running
from tests.running import RunningBox
from tests.stores import PEPPER, SIGNING, Rooms
from zsky_box import accounts, control, invitations, passwords, sessions
from zsky_box.control import (
    AcceptClock,
    AddAccount,
    Address,
    CapKey,
    ChoosePlan,
    Correct,
    InviteAccount,
    IssueKey,
    ListAccounts,
    ListKeys,
    PauseDevice,
    RefundJob,
    ResumeDevice,
    RevokeKey,
    RotateKey,
    SetCap,
    SetCeiling,
    SetOverage,
    SetPassword,
    SetReplenish,
    TopUp,
)
from zsky_box.errors import Refusal
from zsky_box.ledger.verify import verify
from zsky_box.secretfile import Secrets

USD = 1_000_000


class Hand:
    """The owner's commands over rooms that tests can work in too."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self._means = control.Means(rooms.store, Secrets(PEPPER, SIGNING), rooms.terms, rooms.clock)

    def __call__(self, command: control.Command) -> dict[str, Any]:
        return control.run(command, self._means)

    def by(self, actor: str) -> None:
        """From now on somebody else asks."""
        self._means = msgspec.structs.replace(self._means, actor=actor)

    def refused(self, command: control.Command) -> Refusal:
        with pytest.raises(Refusal) as refused:
            self(command)
        return refused.value


@pytest.fixture
def run(tmp_path: Path) -> Generator[Hand]:
    rooms = Rooms(tmp_path, included_images=1)
    yield Hand(rooms)
    with rooms.store.snapshot() as rows:
        assert verify(rows).faults == ()
    rooms.close()


# Keys


def test_it_works(run: Hand) -> None:
    issued = run(IssueKey(name="one", scopes=("read",)))
    assert issued["scopes"] == ["read"]
    rotated = run(RotateKey(key_id=issued["id"]))
    assert rotated["api_key"] != issued["api_key"]
    assert run(RevokeKey(key_id=rotated["id"]))["revoked_at"]
    assert "api_key" not in msgspec.json.encode(run(ListKeys())["data"]).decode()


def test_what_cannot_be_done_is_refused(run: Hand) -> None:
    assert run.refused(RevokeKey(key_id="key_unknown")).code == "not_found"
    assert run.refused(RotateKey(overlap_seconds=-1)).field == "overlap"


def test_another_persons_keys_are_named_by_the_person(run: Hand) -> None:
    ann = run(AddAccount(name="ann"))
    issued = run(IssueKey(account="ann", name="hers"))
    assert [key["name"] for key in run(ListKeys(account=ann["id"]))["data"]] == ["hers"]
    assert run.refused(RevokeKey(key_id=issued["id"])).code == "not_found"
    assert run(RevokeKey(account="ann", key_id=issued["id"]))["revoked_at"]
    assert "'bob'" in run.refused(IssueKey(account="bob")).detail


def test_a_keys_cap_holds_for_its_successors_and_for_the_key_that_overlaps(run: Hand) -> None:
    first = run(IssueKey(cap_micros=20 * USD))
    assert first["cap_usd"] == "20.00"
    second = run(RotateKey(key_id=first["id"], overlap_seconds=60))
    assert second["cap_usd"] == "20.00"
    assert run(CapKey(key_id=second["id"], cap_micros=USD))["cap_usd"] == "1.00"
    caps = {key["id"]: key["cap_usd"] for key in run(ListKeys())["data"]}
    assert (caps[first["id"]], caps[second["id"]]) == ("1.00", "1.00")
    assert run(CapKey(key_id=first["id"], cap_micros=None))["cap_usd"] is None


def test_a_plan_without_an_api_has_no_keys_until_its_wallet_has_money(run: Hand) -> None:
    run(AddAccount(name="guest", plan="free"))
    for command in (IssueKey(account="guest"), RotateKey(account="guest")):
        refusal = run.refused(command)
        assert (refusal.status, refusal.code) == (403, "plan_without_api")
        assert "guest" in refusal.detail
    assert run(ListKeys(account="guest"))["data"] == []
    run(TopUp(account="guest", amount_micros=1 * USD))
    issued = run(IssueKey(account="guest"))
    run(Correct(account="guest", amount_micros=-1 * USD, reason="a mistake"))
    # A key that has leaked can be replaced, whatever the plan.
    assert run(RotateKey(account="guest", key_id=issued["id"]))["api_key"]
    assert run(RotateKey(account="guest"))["api_key"]


# Accounts


def test_the_list_says_how_everybody_stands(run: Hand) -> None:
    run(AddAccount(name="ann", annual=True))
    run(TopUp(account="ann", amount_micros=5 * USD))
    run(SetCeiling(account=None, ceiling_micros=500 * USD))
    listed = run(ListAccounts())
    owner, ann = listed["data"]
    assert (owner["role"], owner["wallet_usd"]) == ("owner", "0.00")
    assert (ann["name"], ann["plan"], ann["term"], ann["paid_until"]) == ("ann", "max", "annual", "2027-11")
    assert (ann["wallet_usd"], ann["cap_usd"], ann["ceiling_usd"], ann["overage"]) == ("5.00", "5.00", None, False)
    assert listed["box_ceiling_usd"] == "500.00"


def test_a_person_is_on_the_plan_max_unless_said_otherwise(run: Hand) -> None:
    assert run(AddAccount(name="ann"))["plan"] == "max"
    assert run(AddAccount(name="guest", plan="free"))["plan"] == "free"
    assert run.refused(AddAccount(name="ann")).field == "name"
    assert run.refused(AddAccount(name="  ")).field == "name"


def test_a_cancelled_plan_lasts_until_its_paid_term_ends(run: Hand) -> None:
    run(AddAccount(name="ann"))
    cancelled = run(ChoosePlan(account="ann", plan="free"))
    assert (cancelled["plan"], cancelled["renews"], cancelled["paid_until"]) == ("max", "no", "2026-12")
    assert run(ChoosePlan(account="ann", plan="max"))["renews"] == "monthly"


def test_a_wallet_is_filled_and_put_right_on_record(run: Hand) -> None:
    filled = run(TopUp(account="owner", amount_micros=50 * USD, note="November"))
    assert (filled["wallet_usd"], filled["amount_usd"]) == ("50.00", "50.00")
    corrected = run(Correct(account="owner", amount_micros=-20 * USD, reason="entered twice"))
    assert corrected["wallet_usd"] == "30.00"
    said = run.rooms.store.one("SELECT * FROM audit WHERE transfer_id = ?", (corrected["ledger_id"],))
    assert said is not None
    assert (said["actor"], said["action"]) == ("terminal", "ledger.correct")
    assert '"why":"entered twice"' in said["after"]
    for amount in (-31 * USD, 0):
        assert run.refused(Correct(account="owner", amount_micros=amount, reason="x")).field == "amount_usd"
    assert run.refused(Correct(account="owner", amount_micros=1, reason=" ")).field == "reason"
    assert run.refused(TopUp(account="owner", amount_micros=0)).field == "amount_usd"


def test_a_cap_keeps_within_its_bounds_and_the_ceiling(run: Hand) -> None:
    assert run(SetCap(account="owner", cap_micros=100 * USD))["cap_usd"] == "100.00"
    for cap in (499 * USD // 100, 1_001 * USD):
        assert run.refused(SetCap(account="owner", cap_micros=cap)).field == "cap_usd"
    assert run(SetCeiling(account="owner", ceiling_micros=8 * USD))["remaining_usd"] == "8.00"
    assert "ceiling" in run.refused(SetCap(account="owner", cap_micros=9 * USD)).detail
    assert run(SetCeiling(account="owner", ceiling_micros=None))["remaining_usd"] == "100.00"


def test_a_rule_fills_the_wallet_at_once_and_can_be_ended(run: Hand) -> None:
    rule = SetReplenish(account="owner", below_micros=5 * USD, add_micros=20 * USD, month_micros=100 * USD)
    begun = run(rule)
    assert begun["wallet_usd"] == "20.00"
    assert begun["replenish"] == {"below_usd": "5.00", "add_usd": "20.00", "month_usd": "100.00"}
    assert run(SetReplenish(account="owner"))["replenish"] is None
    assert run.refused(SetReplenish(account="owner", below_micros=5 * USD)).code == "invalid_field"
    never = SetReplenish(account="owner", below_micros=5 * USD, add_micros=20 * USD, month_micros=19 * USD)
    assert run.refused(never).field == "month_usd"


def test_overage_is_turned_on_and_off(run: Hand) -> None:
    assert run(SetOverage(account="owner", enabled=True))["overage"] is True
    assert run(SetOverage(account="owner", enabled=False))["overage"] is False


# Signing in


def test_a_password_is_set_and_ends_what_could_undo_it(run: Hand) -> None:
    ann, store = run(AddAccount(name="ann"))["id"], run.rooms.store
    token = run(InviteAccount(account="ann"))["path"].partition("=")[2]
    for each in (ann, run.rooms.owner.account.id):
        store.write(lambda tx, each=each: sessions.begin(tx, each, now=run.rooms.clock(), address="", agent=""))
    told = run(SetPassword(account="ann", password="a lake at dawn"))
    assert (told["name"], told["sessions_ended"]) == ("ann", 1)
    assert passwords.matches(passwords.hash_of(store, ann), "a lake at dawn")
    assert invitations.find(store, token, run.rooms.clock()) is None
    assert len(store.all("SELECT * FROM session")) == 1


def test_a_password_that_will_not_do_changes_nothing(run: Hand) -> None:
    ann = run(AddAccount(name="ann of the lake"))["id"]
    for password in ("short", "Ann Of The Lake!"):
        assert run.refused(SetPassword(account="ann of the lake", password=password)).field == "password"
    assert run.refused(SetPassword(account="bob", password="a lake at dawn")).status == 404
    assert passwords.hash_of(run.rooms.store, ann) is None


def test_a_password_is_not_shown_with_its_command() -> None:
    assert "dawn" not in f"{SetPassword(account='ann', password='a lake at dawn')!r}"


def test_a_link_is_made_for_a_person_there_is(run: Hand) -> None:
    ann = run(AddAccount(name="ann"))
    told = run(InviteAccount(account="ann"))
    assert told["url"] == f"http://127.0.0.1:8420{told['path']}"
    assert told["expires_at"] == "2026-11-25T12:00:00Z"
    path, _, token = told["path"].partition("?token=")
    found = invitations.find(run.rooms.store, token, run.rooms.clock())
    assert (path, found and found.id) == ("/setup", ann["id"])
    assert run.refused(InviteAccount(account="bob")).status == 404


# Who is on record


def test_who_asked_is_on_record_for_everything_that_is_done(run: Hand) -> None:
    run(AddAccount(name="terminal's own"))
    before = run.rooms.store.all("SELECT max(id) AS id FROM audit")[0]["id"]
    run.by("owner:acc_1")
    run(AddAccount(name="ann"))
    issued = run(IssueKey(account="ann"))
    rotated = run(RotateKey(account="ann", key_id=issued["id"]))
    run(CapKey(account="ann", key_id=rotated["id"], cap_micros=USD))
    run(RevokeKey(account="ann", key_id=rotated["id"]))
    run(TopUp(account="ann", amount_micros=20 * USD))
    run(Correct(account="ann", amount_micros=-USD, reason="x"))
    run(SetCap(account="ann", cap_micros=10 * USD))
    run(SetCeiling(account="ann", ceiling_micros=9 * USD))
    run(SetCeiling(account=None, ceiling_micros=9 * USD))
    run(SetOverage(account="ann", enabled=True))
    run(SetReplenish(account="ann", below_micros=USD, add_micros=USD, month_micros=USD))
    run(ChoosePlan(account="ann", plan="free"))
    run(InviteAccount(account="ann"))
    run(SetPassword(account="ann", password="a lake at dawn"))
    run(PauseDevice(device="cpu"))
    run(ResumeDevice(device="cpu"))
    rows = run.rooms.store.all("SELECT DISTINCT action, actor FROM audit WHERE id > ?", (before,))
    by_the_box = {row["action"] for row in rows if row["actor"] in ("box", "plan")}
    assert by_the_box <= {"ledger.grant", "plan.fee", "plan.began", "plan.renewed"}
    asked_for = {row["action"] for row in rows if row["actor"] == "owner:acc_1"}
    assert {row["action"] for row in rows} - by_the_box == asked_for
    assert {"account.created", "key.issued", "password.set", "invitation.made", "device.paused"} <= asked_for
    assert {row["actor"] for row in rows} <= {"owner:acc_1", "box", "plan"}


# Ledger and clock


def test_a_refund_pays_back_once_what_a_job_was_charged(run: Hand) -> None:
    run(TopUp(account="owner", amount_micros=10 * USD))
    run(SetOverage(account="owner", enabled=True))
    attempt = run.rooms.running(n=3)
    refund = RefundJob(job_id=attempt.job_id, reason="a blot")
    assert run.refused(refund).field == "job_id"
    run.rooms.complete(attempt)
    first = run(RefundJob(job_id=attempt.job_id, ordinal=2, reason="a blot"))
    assert (first["units"], first["included_units"], first["amount_usd"]) == (1, 0, "0.05")
    rest = run(refund)
    assert (rest["units"], rest["included_units"], rest["amount_usd"], rest["account"]) == (2, 1, "0.05", "owner")
    assert run.rooms.overage().wallet_usd == "10.00"
    assert run.refused(refund).field == "job_id"
    assert run.refused(RefundJob(job_id="job_unknown", reason="x")).code == "not_found"
    assert run.refused(RefundJob(job_id=attempt.job_id, reason=" ")).field == "reason"


def test_the_owner_accepts_a_clock_that_was_set_back(run: Hand) -> None:
    assert run(AcceptClock())["accepted"] is False
    run(AddAccount(name="ann"))
    run.rooms.clock.set("2027-01-05T00:00:00Z")
    run(TopUp(account="ann", amount_micros=1 * USD))
    run(ChoosePlan(account="ann", plan="max"))
    assert accounts.named(run.rooms.store, "ann").paid_until == "2027-02"
    run.rooms.clock.set("2026-11-23T00:00:00Z")
    assert run.refused(TopUp(account="ann", amount_micros=1 * USD)).code == "clock_behind"
    accepted = run(AcceptClock())
    assert accepted["accepted"] is True
    assert (accepted["was"], accepted["at"]) == ("2027-01-05T00:00:00Z", "2026-11-23T00:00:00Z")
    assert accounts.named(run.rooms.store, "ann").paid_until == "2026-12"
    run(TopUp(account="ann", amount_micros=1 * USD))
    fees = run.rooms.store.all("SELECT period, sum(amount_micros) AS sum FROM plan_fee GROUP BY period ORDER BY period")
    assert [(row["period"], row["sum"]) for row in fees if row["sum"]] == [("2026-11", 99 * USD)]


# On the wire


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"command": "keys.steal"}',
        b'{"command": "keys.revoke"}',
        b'{"command": "keys.list", "more": 1}',
        b'{"command": "keys.issue", "scopes": ["paint"]}',
        b'{"command": "keys.issue", "name": "' + b"x" * 101 + b'"}',
        b'{"command": "keys.issue", "cap_micros": -1}',
        b'{"command": "accounts.topup", "account": "ann", "amount_micros": 0.5}',
        b'{"command": "accounts.plan", "account": "ann", "plan": "gold"}',
        b'{"command": "accounts.correct", "account": "ann", "amount_micros": 1, "reason": "' + b"x" * 501 + b'"}',
        b'{"command": "ledger.refund", "job_id": "job_1"}',
        b'{"command": "accounts.password", "account": "ann"}',
        b'{"command": "accounts.password", "account": "ann", "password": "' + b"x" * 201 + b'"}',
        b'{"command": "accounts.invite"}',
    ],
)
def test_what_is_no_command_is_not_decoded(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        control.decode(body)


@pytest.mark.parametrize(
    "command",
    [
        ListKeys(),
        IssueKey(name="x", cap_micros=50_000),
        RotateKey(),
        RevokeKey(key_id="key_1"),
        CapKey(key_id="key_1", cap_micros=None),
        ListAccounts(),
        AddAccount(name="ann", annual=True),
        ChoosePlan(account="ann", plan="free"),
        SetPassword(account="ann", password="a lake at dawn"),
        InviteAccount(account="ann"),
        TopUp(account="ann", amount_micros=1),
        Correct(account="ann", amount_micros=-1, reason="x"),
        SetCap(account="ann", cap_micros=50_000),
        SetCeiling(account=None, ceiling_micros=None),
        SetOverage(account="ann", enabled=True),
        SetReplenish(account="ann", below_micros=10_000, add_micros=10_000, month_micros=10_000),
        RefundJob(job_id="job_1", ordinal=0, reason="x"),
        AcceptClock(),
    ],
)
def test_a_command_survives_the_way_through_the_service(command: control.Command) -> None:
    assert control.decode(msgspec.json.encode(command)) == command


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    with running(tmp_path_factory.mktemp("control") / "data", ready=False) as started:
        yield started


def address(box: RunningBox) -> Address:
    return msgspec.json.decode((box.folder / control.FILE_NAME).read_bytes(), type=Address)


def ask(box: RunningBox, headers: dict[str, str]) -> httpx.Response:
    return httpx.post(
        f"{box.url}/control", content=b'{"command": "keys.list"}', headers=headers, trust_env=False, timeout=120
    )


def test_the_note_is_the_owners_alone_and_names_the_process(box: RunningBox) -> None:
    assert (box.folder / control.FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert address(box).pid == box.pid
    assert address(box).url == box.url


def test_the_token_of_this_start_opens_the_door(box: RunningBox) -> None:
    answer = ask(box, {"X-ZSky-Control": address(box).token})
    assert answer.status_code == 200
    assert answer.json()["object"] == "list"


@pytest.mark.parametrize("name", ["nothing", "wrong", "key", "browser"])
def test_nobody_else_comes_in(box: RunningBox, name: str) -> None:
    headers = {
        "nothing": {},
        "wrong": {"X-ZSky-Control": address(box).token[:-1] + "x"},
        "key": {"X-API-Key": box.keys["live"]},
        "browser": {"X-ZSky-Control": address(box).token, "Origin": box.url},
    }[name]
    answer = ask(box, headers)
    assert answer.status_code in (401, 403)
    assert "zs_live_" not in answer.text


def test_the_token_is_new_at_each_start_and_gone_after_a_stop(tmp_path: Path) -> None:
    with running(tmp_path / "data", ready=False) as own:
        first = address(own)
        assert own.stop() == 0
        assert not (own.folder / control.FILE_NAME).exists()
        own.start(ready=False)
        assert address(own).token != first.token
        assert ask(own, {"X-ZSky-Control": first.token}).status_code in (401, 403)
