"""The ledger told again from its audit, row by row, without the box's own arithmetic: who had what, who might do what.

Each row is judged by what stood before it. What a row leaves owing (an alert) is looked for at the end.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from decimal import Decimal
from typing import Any

from msgspec import Struct

from tests.machine.months import ZoneSince, month_of
from zsky_box.db import Row, Rows

MICROS_PER_USD = 1_000_000
FIRST_CAP_MICROS = 5 * MICROS_PER_USD
CHEAPEST_EVER_MICROS = 1 * MICROS_PER_USD
"""Nothing costs more than this at least, in any test: what is left of a cap below it may count as nothing."""
PERCENTS = (50, 80, 100)


class Limits(Struct):
    """What an account's wallet may be charged in a month, and how it is filled."""

    cap: int = FIRST_CAP_MICROS
    ceiling: int | None = None
    overage: bool = False
    rule: tuple[int, int, int] | None = None

    @property
    def limit(self) -> int:
        return self.cap if self.ceiling is None else min(self.cap, self.ceiling)


class Spent(Struct):
    """Of one scope and month."""

    pending: int = 0
    posted: int = 0
    refunded: int = 0
    replenished: int = 0

    @property
    def committed(self) -> int:
        return self.pending + self.posted - self.refunded


class Replay:
    """Reads one state of the store; `check` fails at the first row that cannot be."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._transfers = {row["id"]: row for row in rows.all("SELECT * FROM transfer")}
        self._key_of_job = {row["id"]: row["key_id"] for row in rows.all("SELECT id, key_id FROM job")}
        self._zones = [
            ZoneSince(row["from_us"], row["period"], row["zone"]) for row in rows.all("SELECT * FROM calendar_zone")
        ]
        self._limits: defaultdict[str, Limits] = defaultdict(Limits)
        self._key_caps: dict[str, int | None] = {}
        self._successor_cap: dict[str, int | None] = {}
        self._box_ceiling: int | None = None
        self._balances: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        self._spent: defaultdict[tuple[str, str], Spent] = defaultdict(Spent)
        self._resolved: dict[int, str] = {}
        self._refunded: set[int] = set()
        self._owed: set[tuple[str, str, int, int]] = set()
        self._said: set[tuple[str, str, int, int]] = set()
        self._seen: set[int] = set()
        self._clock = 0

    def check(self) -> None:
        previous = bytes(32)
        for number, row in enumerate(self._rows.each("SELECT * FROM audit ORDER BY id"), start=1):
            assert row["id"] == number, f"audit row {number} is missing"
            assert row["previous"] == previous, f"audit row {number} does not follow the one before it"
            previous = _hash(previous, row)
            assert row["hash"] == previous, f"audit row {number} is not what was hashed"
            self._step(row)
        assert self._seen == set(self._transfers), "each movement has exactly one audit row"
        self._compare()

    def _step(self, row: Row) -> None:
        action, after = row["action"], json.loads(row["after"])
        assert action.startswith("ledger.") == (row["transfer_id"] is not None)
        match action.split("."):
            case ["ledger", kind]:
                self._movement(row, kind, after)
            case ["overage", what]:
                self._change(row, what, after)
            case ["key", what]:
                self._key(row, what, after)
            case ["alert", name] if name.startswith("cap_"):
                self._alert(row, int(name.removeprefix("cap_")), after)
            case ["clock", "accepted"]:
                self._clock = row["at"]
            case _:
                pass

    # Movements

    def _movement(self, row: Row, kind: str, after: dict[str, Any]) -> None:
        transfer = self._transfers[row["transfer_id"]]
        assert transfer["id"] not in self._seen
        self._seen.add(transfer["id"])
        told = (kind, row["account_id"], row["actor"], row["at"])
        assert told == (transfer["kind"], transfer["account_id"], transfer["actor"], transfer["at"])
        for name in ("ledger", "amount", "debit", "credit"):
            assert after[name] == transfer[name]
        assert transfer["at"] >= self._clock, "the ledger's clock ran backwards"
        self._clock = transfer["at"]
        getattr(self, f"_{kind}")(transfer)
        name, ledger = transfer["debit"], transfer["ledger"]
        if name not in ("issuer", "funding"):
            pending, posted, _, credit = self._balances[name, ledger]
            assert pending + posted <= credit, f"{name} is overdrawn by transfer {transfer['id']}"

    def _move(self, transfer: Row, pending: int, posted: int) -> None:
        for name, first in ((transfer["debit"], 0), (transfer["credit"], 2)):
            balance = self._balances[name, transfer["ledger"]]
            balance[first] += pending * transfer["amount"]
            balance[first + 1] += posted * transfer["amount"]

    def _topup(self, transfer: Row) -> None:
        account, period = transfer["account_id"], transfer["period"]
        assert (transfer["debit"], transfer["credit"]) == ("funding", f"wallet:{account}")
        self._move(transfer, 0, 1)
        if transfer["actor"] == "replenish":
            rule, spent = self._limits[account].rule, self._spent[f"account:{account}", period]
            assert rule is not None, "there is no rule that would replenish"
            assert transfer["amount"] == rule[1]
            spent.replenished += transfer["amount"]
            assert spent.replenished <= rule[2], "more was replenished than the rule allows in a month"

    def _correct(self, transfer: Row) -> None:
        wallet = f"wallet:{transfer['account_id']}"
        assert {transfer["debit"], transfer["credit"]} == {"funding", wallet}
        self._move(transfer, 0, 1)

    def _grant(self, transfer: Row) -> None:
        own = f"included:{transfer['account_id']}:{transfer['period']}"
        assert (transfer["debit"], transfer["credit"]) == ("issuer", own)
        self._move(transfer, 0, 1)

    def _reserve(self, transfer: Row) -> None:
        account, period, amount = transfer["account_id"], transfer["period"], transfer["amount"]
        if transfer["ledger"] != "usd":
            assert (transfer["debit"], transfer["credit"]) == (f"included:{account}:{period}", "consumed")
            assert amount == 1
        else:
            assert (transfer["debit"], transfer["credit"]) == (f"wallet:{account}", "revenue")
            self._spend(transfer, amount)
        self._move(transfer, 1, 0)

    def _spend(self, transfer: Row, amount: int) -> None:
        """At each reserve, what is committed and the price are within each limit then in force."""
        account, period, limits = transfer["account_id"], transfer["period"], self._limits[transfer["account_id"]]
        assert limits.overage, "the wallet was charged while overage was off"
        most = {
            f"account:{account}": limits.limit,
            f"key:{transfer['budget_id']}": self._key_caps.get(self._key_of_job[transfer["job_id"]]),
            "box": self._box_ceiling,
        }
        for scope, limit in most.items():
            spent = self._spent[scope, period]
            spent.pending += amount
            assert limit is None or spent.committed <= limit, f"{scope} spent {spent.committed} of {limit} in {period}"
        self._reached(account, period)

    def _scopes(self, transfer: Row) -> list[Spent]:
        names = (f"account:{transfer['account_id']}", f"key:{transfer['budget_id']}", "box")
        return [self._spent[name, transfer["period"]] for name in names] if transfer["ledger"] == "usd" else []

    def _end(self, transfer: Row, before: Row) -> None:
        """A second phase is of the same money, job, month and key as the first."""
        for name in ("ledger", "debit", "credit", "amount", "account_id", "job_id", "ordinal", "period", "budget_id"):
            assert transfer[name] == before[name], f"transfer {transfer['id']} differs from its reserve in {name}"
        assert before["kind"] == "reserve"
        assert before["id"] not in self._resolved, f"reserve {before['id']} is resolved twice"
        self._resolved[before["id"]] = transfer["kind"]
        for spent in self._scopes(transfer):
            spent.pending -= transfer["amount"]

    def _post(self, transfer: Row) -> None:
        self._end(transfer, self._transfers[transfer["pending_id"]])
        self._move(transfer, -1, 1)
        for spent in self._scopes(transfer):
            spent.posted += transfer["amount"]

    def _void(self, transfer: Row) -> None:
        self._end(transfer, self._transfers[transfer["pending_id"]])
        self._move(transfer, -1, 0)

    def _refund(self, transfer: Row) -> None:
        post = self._transfers[transfer["pending_id"]]
        assert post["kind"] == "post"
        assert post["id"] not in self._refunded, f"post {post['id']} is refunded twice"
        self._refunded.add(post["id"])
        assert transfer["debit"] == post["credit"]
        assert transfer["credit"] == ("issuer" if post["ledger"] != "usd" else post["debit"])
        assert (transfer["amount"], transfer["job_id"]) == (post["amount"], post["job_id"])
        self._move(transfer, 0, 1)
        for spent in self._scopes(post):
            spent.refunded += transfer["amount"]

    # What is allowed

    def _change(self, row: Row, what: str, after: dict[str, Any]) -> None:
        if row["account_id"] is None:
            self._box_ceiling = _micros(after["ceiling_usd"])
            return
        limits = self._limits[row["account_id"]]
        if what == "toggled":
            assert json.loads(row["before"])["enabled"] == limits.overage
            limits.overage = after["enabled"]
        elif what == "cap":
            assert _micros(json.loads(row["before"])["cap_usd"]) == limits.cap
            limits.cap = _micros(after["cap_usd"]) or 0
        elif what == "ceiling":
            limits.ceiling = _micros(after["ceiling_usd"])
        elif after:
            below, add, month = (_micros(after[name]) or 0 for name in ("below_usd", "add_usd", "month_usd"))
            limits.rule = (below, add, month)
        else:
            limits.rule = None
        if what in ("cap", "ceiling"):
            self._reached(row["account_id"], month_of(row["at"], self._zones))

    def _key(self, row: Row, what: str, after: dict[str, Any]) -> None:
        if what == "rotated":
            self._successor_cap[row["account_id"]] = self._key_caps.get(row["subject"])
        elif what == "issued":
            self._key_caps[row["subject"]] = self._successor_cap.pop(row["account_id"], None)
        elif what == "cap":
            self._key_caps[row["subject"]] = _micros(after["cap_usd"])

    def _alert(self, row: Row, percent: int, after: dict[str, Any]) -> None:
        """Said once for each height of the cap in a month, and not before its time."""
        cap, committed = _micros(after["cap_usd"]) or 0, _micros(after["committed_usd"]) or 0
        alert = (row["account_id"], row["subject"].rpartition(":")[2], cap, percent)
        assert alert not in self._said, f"{alert} was said twice"
        assert cap == self._limits[row["account_id"]].limit
        assert committed * 100 >= cap * percent or cap - committed < CHEAPEST_EVER_MICROS
        self._said.add(alert)

    def _reached(self, account: str, period: str) -> None:
        cap, committed = self._limits[account].limit, self._spent[f"account:{account}", period].committed
        if committed:
            self._owed |= {(account, period, cap, percent) for percent in PERCENTS if committed * 100 >= cap * percent}

    # In the end

    def _compare(self) -> None:
        # Under a clock that was disowned a month may have been another zone's: what was owed then cannot be told.
        disowned = self._rows.one("SELECT 1 FROM audit WHERE action = 'clock.accepted'")
        if disowned is None or self._rows.one("SELECT 1 FROM audit WHERE action = 'calendar.zone'") is None:
            assert self._owed <= self._said, f"nobody was told of {self._owed - self._said}"
        kept = {
            (row["name"], row["ledger"]): [row[f"{side}_{phase}"] for side in _SIDES for phase in ("pending", "posted")]
            for row in self._rows.each("SELECT * FROM balance")
        }
        assert kept == self._balances
        for ledger in ("usd", "video", "image"):
            sides = [values for (_, name), values in kept.items() if name == ledger]
            assert sum(values[0] - values[2] for values in sides) == 0
            assert sum(values[1] - values[3] for values in sides) == 0
        counters = {
            (row["scope"], row["period"]): Spent(row["pending"], row["posted"], row["refunded"], row["replenished"])
            for row in self._rows.each("SELECT * FROM spend")
        }
        told = {key: spent for key, spent in self._spent.items() if key in counters or spent != Spent()}
        assert counters == told
        for row in self._rows.each("SELECT * FROM closing WHERE voided_at IS NULL"):
            self._closed(row)

    def _closed(self, row: Row) -> None:
        """A closed month has nothing pending, and its total is its posts less the refunds made in it."""
        total = 0
        for transfer in self._transfers.values():
            if (transfer["account_id"], transfer["period"]) != (row["account_id"], row["period"]):
                continue
            if transfer["kind"] == "reserve":
                assert transfer["id"] in self._resolved, f"{row['period']} is closed while a reserve of it is open"
            elif transfer["ledger"] == "usd" and transfer["kind"] in ("post", "refund"):
                total += transfer["amount"] if transfer["kind"] == "post" else -transfer["amount"]
        assert row["overage_micros"] == total
        fees = self._rows.one(
            "SELECT coalesce(sum(amount_micros), 0) AS sum FROM plan_fee WHERE account_id = ? AND period = ?",
            (row["account_id"], row["period"]),
        )
        assert fees is not None
        assert row["plan_fee_micros"] == fees["sum"]


_SIDES = ("debits", "credits")


def _micros(amount_usd: str | None) -> int | None:
    return None if amount_usd is None else int(Decimal(amount_usd) * MICROS_PER_USD)


def _hash(previous: bytes, row: Row) -> bytes:
    names = ("at", "account_id", "actor", "action", "subject", "before", "after", "transfer_id")
    text = json.dumps([row[name] for name in names], separators=(",", ":"))
    return hashlib.sha256(previous + text.encode()).digest()
