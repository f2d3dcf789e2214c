"""Rooms with money in them: what is made in them is paid for, and asked for in statements."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from tests.stores import PEPPER, Rooms
from zsky_box import accounts, keys, ledger, overage, plans, statements
from zsky_box.accounts import Account, Plan
from zsky_box.keys import Caller
from zsky_box.pricing import micros


class Studio(Rooms):
    """Rooms whose owner has $100: one image a month is included, each further one is $0.05 of the wallet."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        options: dict[str, Any] = {"included_images": 1, **settings}
        super().__init__(folder, **options)
        self.fund(self.owner.account, "100")

    def fund(self, account: Account, amount: str, why: str = "") -> None:
        """Fill a wallet, turn overage on, and put the cap where it is in nobody's way."""
        now, terms = self.clock(), self.terms

        def work(tx: Any) -> None:
            overage.topup(tx, account.id, micros(amount), actor="ann", now=now, terms=terms, why=why)
            overage.toggle(tx, account.id, enabled=True, actor="ann", now=now, terms=terms)
            overage.set_cap(tx, account.id, micros("1000"), actor="ann", now=now, terms=terms)

        self.store.write(work)

    def make(self, n: int = 1, caller: Caller | None = None, **fields: Any) -> str:
        """A completed job's id."""
        job_id = self.new_job(caller, n=n, **fields)
        self.complete(self.claimed(job_id))
        return job_id

    def refund(self, job_id: str, why: str = "a smear") -> int:
        return self.store.write(
            lambda tx: ledger.refund(tx, job_id, None, actor="ann", why=why, now=self.clock(), terms=self.terms)
        )

    def named_key(self, name: str, cap: str | None = None) -> Caller:
        """A further live key of the owner."""
        account, cap_micros = self.owner.account, None if cap is None else micros(cap)
        key, _ = self.store.write(
            lambda tx: keys.issue(
                tx, PEPPER, account.id, now=self.clock(), actor="ann", name=name, cap_micros=cap_micros
            )
        )
        return Caller(account, key)

    def choose(self, plan: Plan, *, annual: bool = False, account: Account | None = None) -> None:
        """Put an account (the owner's) on a plan, now."""
        chosen = (account or self.owner.account).id
        period = self.terms.calendar.period_at(self.clock()).key
        self.store.write(
            lambda tx: plans.choose(
                tx,
                accounts.get(tx, chosen),
                plan,
                annual=annual,
                period=period,
                at=self.clock(),
                actor="ann",
                terms=self.terms,
            )
        )

    def close_due(self, account: Account | None = None) -> list[str]:
        chosen = account or self.owner.account
        return self.store.write(
            lambda tx: statements.close_due(tx, accounts.get(tx, chosen.id), self.clock(), self.terms)
        )

    def statement(self, key: str, account: Account | None = None) -> statements.Statement:
        with self.store.snapshot() as rows:
            return statements.statement(rows, (account or self.owner.account).id, key, self.clock(), self.terms)

    def json(self, key: str, account: Account | None = None) -> dict[str, Any]:
        return json.loads(self.json_bytes(key, account))

    def json_bytes(self, key: str, account: Account | None = None) -> bytes:
        return b"".join(statements.json_pieces(self.store, self.statement(key, account)))

    def csv_bytes(self, key: str) -> bytes:
        return b"".join(statements.csv_pieces(self.store, self.statement(key)))

    def csv(self, key: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.csv_bytes(key).decode(), newline="")))
