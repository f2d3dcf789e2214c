"""`POST /v1/quote`: it says what a submit would do, in every state, and does nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from tests import money
from tests.api.asking import IMAGE, VIDEO, nothing_happens, problem, submit
from tests.money import stands
from tests.running import RunningBox
from tests.stores import Rooms, caller_for
from zsky_box import accounts, overage, timeline
from zsky_box.accounts import Replenish
from zsky_box.errors import Refusal
from zsky_box.keys import Caller
from zsky_box.manifest import JobType
from zsky_box.plans import choose
from zsky_box.pricing import micros

FIELDS = [
    *("amount_usd", "included_units", "wallet_units", "would_accept", "refusal", "refusal_detail"),
    *("model", "fits", "eta_seconds", "notes"),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """A box that includes two images and no video; the owner has $1 and overage on, `member` neither."""
    folder = tmp_path_factory.mktemp("small") / "data"
    running = RunningBox(folder, devices="cpu", included_images=2, included_videos=0)
    money.filled(folder, "1.00")
    money.spending(folder, "5.00")
    money.member(folder, "member")
    running.keys["member"] = money.key(folder, "member")
    money.member(folder, "guest", "free")
    running.keys["guest"] = money.key(folder, "guest")
    running.keys["thrifty"] = money.key(folder, money.OWNER, cap_usd="0.20")
    running.keys["reader"] = money.key(folder, money.OWNER, "read", "billing")
    running.start()
    yield running
    running.stop()


@pytest.fixture
def owner(small: RunningBox) -> Generator[httpx.Client]:
    """The owner's client."""
    with small.client() as client:
        yield client


def asked(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """A quote, which moves nothing."""
    before = stands(client)
    answer = client.post("/v1/quote", json=body)
    assert answer.status_code == 200, answer.text
    assert stands(client) == before
    quote: dict[str, Any] = answer.json()
    assert list(quote) == FIELDS
    assert quote["would_accept"] is (quote["refusal"] is None) is (quote["refusal_detail"] is None)
    return quote


def test_it_works(owner: httpx.Client) -> None:
    told = asked(owner, {**IMAGE, "n": 5})
    eta_seconds = told.pop("eta_seconds")  # there is none before a worker is up
    assert eta_seconds is None or eta_seconds > 0
    (note,) = told.pop("notes")
    assert note.startswith("No image model is installed: Film leader")
    assert told == {
        "amount_usd": "0.15",
        "included_units": 2,
        "wallet_units": 3,
        "would_accept": True,
        "refusal": None,
        "refusal_detail": None,
        "model": "leader",
        "fits": True,
    }
    assert asked(owner, VIDEO)["amount_usd"] == "0.50"
    assert owner.get("/v1/jobs").json()["data"] == []


def test_a_refusal_of_money_is_data(small: RunningBox, owner: httpx.Client) -> None:
    with small.client("member") as member, small.client("guest") as guest, small.client("thrifty") as thrifty:
        exhausted = asked(member, {**IMAGE, "n": 3})
        assert (exhausted["refusal"], exhausted["amount_usd"]) == ("allowance_exhausted", "0.05")
        assert "2 left, 3 asked for" in exhausted["refusal_detail"]
        assert asked(guest, IMAGE)["refusal"] == "plan_without_api"
        reached = asked(thrifty, VIDEO)
        assert (reached["refusal"], reached["amount_usd"]) == ("cap_reached", "0.50")
        assert "cap of this key" in reached["refusal_detail"]
        assert asked(owner, VIDEO)["would_accept"] is True


def test_a_quote_writes_nothing(small: RunningBox, owner: httpx.Client) -> None:
    def rows() -> list[int]:
        tables = ("transfer", "balance", "audit", "job", "spend", "alert", '"grant"', "plan_fee", "idempotency")
        with closing(sqlite3.connect(f"{(small.folder / 'ledger.db').as_uri()}?mode=ro", uri=True)) as ledger:
            return [ledger.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]  # noqa: S608

    before = rows()
    for body in (IMAGE, VIDEO, {**IMAGE, "n": 10}):
        assert owner.post("/v1/quote", json=body, headers={"Idempotency-Key": "quoted"}).status_code == 200
    assert rows() == before


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"type": "image"}, "invalid_field", "prompt"),
        ({**IMAGE, "promt": "a"}, "unknown_field", "promt"),
        ({**IMAGE, "n": 11}, "invalid_field", "n"),
        ({**VIDEO, "n": 2}, "unsupported_for_model", "n"),
        ({**IMAGE, "model": "no-such-model"}, "model_not_installed", "model"),
    ],
)
def test_a_body_that_generate_refuses_is_refused(
    owner: httpx.Client, body: dict[str, Any], code: str, field: str
) -> None:
    with nothing_happens(owner):
        told = problem(owner.post("/v1/quote", json=body), 422, code, field)
        again = problem(owner.post("/v1/generate", json=body), 422, code, field)
        assert told | {"request_id": ""} == again | {"request_id": ""}


def test_a_key_without_generate_may_not_ask(small: RunningBox) -> None:
    with small.client("reader") as client:
        problem(client.post("/v1/quote", json=IMAGE), 403, "insufficient_scope")


def test_a_test_key_pays_nothing_and_acts_out_its_cap(small: RunningBox) -> None:
    with small.client("test") as tester:
        free = asked(tester, {**VIDEO, "model": "no-such-model"})
        assert (free["amount_usd"], free["wallet_units"], free["would_accept"]) == ("0.00", 0, True)
        acted = asked(tester, {**IMAGE, "prompt": " test:cap\n"})
        assert (acted["refusal"], acted["would_accept"], acted["model"]) == ("cap_reached", False, "leader")
        problem(tester.post("/v1/generate", json={**IMAGE, "prompt": "test:cap"}), 429, "cap_reached")


def test_no_model_is_data_and_a_full_queue_too(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    running = RunningBox(folder, devices="cpu", require_real_model=True, queue_open_per_account_max=1).start()
    try:
        with running.client() as client:
            none = asked(client, IMAGE)
            assert (none["refusal"], none["model"], none["fits"], none["would_accept"]) == (
                "no_model",
                None,
                False,
                False,
            )
            problem(client.post("/v1/generate", json=IMAGE), 503, "no_model")
            # A named model stands for itself, whatever the box requires of its defaults.
            named = {**IMAGE, "model": "leader", "prompt": "double:slow_steps"}
            job_id = submit(client, named)
            assert asked(client, named)["refusal"] == "queue_full"
            problem(client.post("/v1/generate", json=named), 429, "queue_full")
            client.post(f"/v1/jobs/{job_id}/cancel")
    finally:
        running.stop()


def test_what_is_too_large_for_the_box_is_data_and_refused_at_submit_with_what_fits(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "models").mkdir(parents=True)
    for name, billion in (("long", 0.1), ("giant", 40.0)):
        (folder / "models" / f"{name}.toml").write_text(
            f'name = "{name}"\ntitle = "{name}"\nmakes = ["video"]\ndefault_duration_seconds = 2.0\n'
            f'[licence]\nname = "none"\n[limits]\nresolutions = ["1080p"]\naspect_ratios = ["16:9"]\nfps = [24]\n'
            f'min_duration_seconds = 1.0\nmax_duration_seconds = 9.0\n[options]\nfamily = "leader"\n'
            f'[parameters_billion]\ntransformer = {billion}\n[[recipes]]\nname = "whole"\nworking_gib = 1.0\n'
        )
        (folder / "weights" / name).mkdir(parents=True)
        (folder / "weights" / name / "installed.json").write_text("{}")
    running = RunningBox(folder, devices="cpu", host_memory_max_bytes=2**31).start()
    try:
        with running.client() as client:
            for asked_for, told in (
                ({"model": "long", "duration": 8}, "has 2.0 GiB; 2 s fits"),
                ({"model": "giant", "duration": 1}, "too little for this model at any size"),
            ):
                body = {"type": "video", "prompt": "x", "resolution": "1080p", **asked_for}
                quote = asked(client, body)
                assert (quote["refusal"], quote["fits"], quote["would_accept"]) == (
                    "unsupported_for_model",
                    False,
                    False,
                )
                assert told in quote["refusal_detail"]
                with nothing_happens(client):
                    refused = problem(
                        client.post("/v1/generate", json=body), 422, "unsupported_for_model", "resolution"
                    )
                assert told in refused["detail"]
            fitting = asked(client, {"type": "video", "prompt": "x", "model": "long", "duration": 2})
            assert (fitting["fits"], fitting["would_accept"]) == (True, True)
            assert fitting["eta_seconds"] > 0
    finally:
        running.stop()


# Agreement with a submit, over many states of the rooms


@pytest.fixture
def rooms(tmp_path: Path) -> Generator[Rooms]:
    """Two videos and three images included, and a queue of 16."""
    opened = Rooms(tmp_path, included_videos=2, included_images=3, queue_open_per_account_max=16)
    yield opened
    opened.close()


def with_key(rooms: Rooms) -> Caller:
    """The owner through the API."""
    return caller_for(rooms.store, accounts.get(rooms.store, rooms.owner.account.id), now=rooms.clock())


def with_a_capped_key(rooms: Rooms) -> Caller:
    """Through a key that may spend $0.25 a month."""
    caller = with_key(rooms)
    return replace(caller, key=replace(caller.key, cap_micros=micros("0.25")))


def in_person(rooms: Rooms) -> Caller:
    """At the terminal or in the browser."""
    return replace(with_key(rooms), in_person=True)


def changed(rooms: Rooms, change: Callable[..., object], *given: object, **named: object) -> None:
    """One of the room `overage`'s changes to the owner's money."""
    circumstances: dict[str, Any] = {"actor": "test", "now": rooms.clock(), "terms": rooms.terms, **named}
    rooms.store.write(lambda tx: change(tx, rooms.owner.account.id, *given, **circumstances))


def on(rooms: Rooms) -> None:
    changed(rooms, overage.toggle, enabled=True)


def paid(rooms: Rooms, usd: str = "9.00") -> None:
    changed(rooms, overage.topup, micros(usd))


def capped(rooms: Rooms) -> None:
    changed(rooms, overage.set_ceiling, micros("0.60"))


def by_rule(rooms: Rooms) -> None:
    changed(rooms, overage.set_rule, Replenish(micros("1.00"), micros("0.50"), micros("1.00")))


def box_capped(rooms: Rooms) -> None:
    rooms.store.write(lambda tx: overage.set_box_ceiling(tx, micros("0.55"), actor="test", now=rooms.clock()))


def cancelled(rooms: Rooms) -> None:
    def work(tx: Any) -> None:
        account, at = accounts.get(tx, rooms.owner.account.id), rooms.clock()
        period = rooms.terms.calendar.period_at(at).key
        choose(tx, account, "free", annual=False, period=period, at=at, actor="test", terms=rooms.terms)

    rooms.store.write(work)


def next_month(rooms: Rooms) -> None:
    rooms.clock.advance(31 * 86_400)


def clock_falls(rooms: Rooms) -> None:
    rooms.store.write(lambda tx: timeline.advance(tx, rooms.clock()))
    rooms.clock.advance(-3_600)


def draining(rooms: Rooms) -> None:
    rooms.desk.draining = True


def disk_full(rooms: Rooms) -> None:
    rooms.assets.free_bytes = lambda: -1


STATES: dict[str, tuple[Callable[[Rooms], None], ...]] = {
    "as it begins": (),
    "overage on, wallet empty": (on,),
    "a wallet, overage off": (paid,),
    "a small wallet": (on, lambda rooms: paid(rooms, "0.70")),
    "the account's ceiling": (on, paid, capped),
    "the box's ceiling": (on, paid, box_capped),
    "a rule": (on, by_rule),
    "a cancelled plan that is paid for": (on, cancelled),
    "a plan that has ended": (cancelled, next_month),
    "a plan that has ended, with a wallet": (on, lambda rooms: paid(rooms, "0.60"), cancelled, next_month),
    "the next month": (on, lambda rooms: paid(rooms, "1.00"), next_month),
    "a clock that is behind": (clock_falls,),
    "draining": (draining,),
    "a full disk": (disk_full,),
}


@pytest.mark.parametrize("caller_in", [with_key, with_a_capped_key, in_person])
@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_a_submit_does_what_the_quote_before_it_said(
    rooms: Rooms, state: tuple[Callable[[Rooms], None], ...], caller_in: Callable[[Rooms], Caller]
) -> None:
    """Twenty jobs of several sizes in a row, until whatever there is runs out: each is quoted, then submitted."""
    for step in state:
        step(rooms)
    caller = caller_in(rooms)
    for number in range(20):
        kind: JobType = "video" if number % 3 == 0 else "image"
        units = 1 if kind == "video" else 1 + number % 4
        before = rooms.overage()
        quote = rooms.desk.quote(caller, kind, units, "a lighthouse")
        assert rooms.overage() == before
        if quote.refusal is None:
            charge = rooms.view(rooms.new_job(caller, type=kind, n=units), caller).charge
            assert (charge.included_units, charge.wallet_units) == (quote.included_units, quote.wallet_units)
            assert micros(charge.amount_usd) == quote.amount_micros
        else:
            with pytest.raises(Refusal) as refused:
                rooms.submit(caller, type=kind, n=units)
            assert (refused.value.status, refused.value.code) == (quote.refusal.status, quote.refusal.code)
            assert rooms.overage() == before


def test_a_test_keys_quote_agrees_with_its_submit(rooms: Rooms) -> None:
    assert rooms.desk.quote(rooms.tester, "video", 1, "a lighthouse").refusal is None
    rooms.desk.draining = True
    quote = rooms.desk.quote(rooms.tester, "video", 1, "a lighthouse")
    assert quote.refusal is not None
    assert quote.refusal.code == "draining"
    with pytest.raises(Refusal, match="draining"):
        rooms.submit(rooms.tester)
