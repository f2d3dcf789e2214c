"""The only writer of transfers and balances: two-phase transfers (reserve, then post or void) over double entries.

A period's included units are a ledger like the wallet: `issuer` grants them to `included:ACCOUNT:PERIOD`, a reserve
holds one for a job, a post moves it to `consumed`, a void lets it go. Every movement has exactly one audit row, written
in the same transaction.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from zsky_box import audit
from zsky_box.accounts import Account, included_units
from zsky_box.catalog import JobType
from zsky_box.clock import SECOND_US, rfc3339
from zsky_box.db import Row, Store, Tx
from zsky_box.errors import Refusal
from zsky_box.periods import Period, period_at
from zsky_box.settings import Settings

Resolution = Literal["post", "void"]

CLOCK_TOLERANCE_US: Final = 600 * SECOND_US
ISSUER: Final = "issuer"
CONSUMED: Final = "consumed"


class Allowance(Struct, frozen=True):
    """Included units of one kind in one period; `left` is what a new job can still take."""

    granted: int
    used: int
    pending: int

    @property
    def left(self) -> int:
        """Never negative: the balance is checked by the store."""
        return self.granted - self.used - self.pending


class Charge(Struct, frozen=True):
    """What a job asked for (`units`), what of it is held or paid from which source, and the transfers that say so."""

    units: int
    included_units: int
    wallet_units: int
    amount_micros: int
    state: Literal["reserved", "posted", "voided", "refunded"]
    ledger_ids: tuple[int, ...]


def included(account_id: str, period: str) -> str:
    """The name of the balance that holds a period's included units."""
    return f"included:{account_id}:{period}"


def check_clock(tx: Tx, now: int) -> None:
    """503 `clock_behind` when the clock is more than 10 minutes behind the ledger's last entry."""
    last = tx.one("SELECT max(at) AS at FROM (SELECT at FROM transfer ORDER BY id DESC LIMIT 1)")
    if last is not None and last["at"] is not None and now < last["at"] - CLOCK_TOLERANCE_US:
        raise Refusal(
            503,
            "clock_behind",
            f"The box's clock is behind its ledger, whose last entry is of {rfc3339(last['at'])}: set the clock.",
            headers={"Retry-After": "60"},
        )


def reserve(tx: Tx, account: Account, kind: JobType, units: int, job_id: str, now: int, settings: Settings) -> None:
    """Hold `units` for a job, one reserve each, all or none; raises 429 `allowance_exhausted`."""
    check_clock(tx, now)
    period = period_at(now, settings.zone())
    _grant_plan(tx, account, kind, period, now, settings)
    source = included(account.id, period.key)
    held = tx.execute(
        "UPDATE balance SET debits_pending = debits_pending + :units WHERE name = :name AND ledger = :kind"
        " AND credits_posted - debits_posted - debits_pending >= :units",
        {"units": units, "name": source, "kind": kind},
    )
    if held.rowcount != 1:
        raise _exhausted(allowance_in(tx, account, kind, period, settings), kind, units, period, now)
    _open(tx, CONSUMED, kind)
    tx.execute(
        "UPDATE balance SET credits_pending = credits_pending + ? WHERE name = ? AND ledger = ?",
        (units, CONSUMED, kind),
    )
    for ordinal in range(units):
        _transfer(
            tx,
            "reserve",
            kind,
            source,
            CONSUMED,
            1,
            account_id=account.id,
            period=period.key,
            actor=account.id,
            at=now,
            job_id=job_id,
            ordinal=ordinal,
        )


def resolve(tx: Tx, job_id: str, posted: frozenset[int] | None, *, actor: str, now: int, settings: Settings) -> None:
    """Post the reserves of a job whose ordinals are in `posted` (None: all of them) and void the rest.

    Reserves that are resolved already stay as they are; a job of a test key has none.
    """
    for row in tx.all(
        "SELECT * FROM transfer r WHERE job_id = ? AND kind = 'reserve' AND NOT EXISTS"
        " (SELECT 1 FROM transfer x WHERE x.pending_id = r.id AND x.kind IN ('post', 'void')) ORDER BY id",
        (job_id,),
    ):
        kind: Resolution = "post" if posted is None or row["ordinal"] in posted else "void"
        _resolve_one(tx, row, kind, actor, now)
        if kind == "void":
            _grant_lapsed(tx, row, actor, now, settings)


def allowance(store: Store, account: Account, kind: JobType, now: int, settings: Settings) -> Allowance:
    """Included units of the current period, as a reader sees them."""
    period = period_at(now, settings.zone())
    with store.snapshot() as connection:
        row = connection.execute(_BALANCE, (included(account.id, period.key), kind)).fetchone()
        granted = connection.execute(_PLAN_GRANT, (account.id, period.key, kind)).fetchone()
    return _allowance(row, granted, account, kind, settings)


def allowance_in(tx: Tx, account: Account, kind: JobType, period: Period, settings: Settings) -> Allowance:
    """The same within a transaction."""
    row = tx.one(_BALANCE, (included(account.id, period.key), kind))
    return _allowance(row, tx.one(_PLAN_GRANT, (account.id, period.key, kind)), account, kind, settings)


def charges(store: Store, job_ids: list[str]) -> dict[str, Charge]:
    """The charge of each job that has one."""
    if not job_ids:
        return {}
    marks = ",".join("?" * len(job_ids))
    rows = store.all(
        f"SELECT id, kind, ledger, job_id, pending_id FROM transfer WHERE job_id IN ({marks}) ORDER BY id",  # noqa: S608
        tuple(job_ids),
    )
    by_job: dict[str, list[Row]] = {}
    for row in rows:
        by_job.setdefault(row["job_id"], []).append(row)
    return {job_id: _charge(of_job) for job_id, of_job in by_job.items()}


def first_wrong_balance(store: Store) -> str | None:
    """Replay all transfers against the balances kept beside them; a sentence about the first that differs, or None."""
    with store.snapshot() as connection:
        replayed: dict[tuple[str, str], list[int]] = {}
        for row in connection.execute("SELECT * FROM transfer ORDER BY id"):
            _replay(replayed, row)
        for row in connection.execute("SELECT * FROM balance"):
            kept = [row["debits_pending"], row["debits_posted"], row["credits_pending"], row["credits_posted"]]
            expected = replayed.pop((row["name"], row["ledger"]), [0, 0, 0, 0])
            if kept != expected:
                return f"balance {row['name']}/{row['ledger']} is {kept}, its transfers say {expected}"
    return f"no balance is kept for {next(iter(replayed))}" if replayed else None


_BALANCE: Final = "SELECT * FROM balance WHERE name = ? AND ledger = ?"
_PLAN_GRANT: Final = 'SELECT units FROM "grant" WHERE account_id = ? AND period = ? AND kind = ?'


def _grant_plan(tx: Tx, account: Account, kind: JobType, period: Period, now: int, settings: Settings) -> None:
    """Open the period's allowance once; a larger plan within the period tops it up to the plan's figure."""
    units = included_units(account.plan, kind, settings)
    row = tx.one(_PLAN_GRANT, (account.id, period.key, kind))
    granted = 0 if row is None else int(row["units"])
    if granted >= units:
        return
    tx.execute(
        'INSERT INTO "grant" (account_id, period, kind, units) VALUES (?, ?, ?, ?)'
        " ON CONFLICT (account_id, period, kind) DO UPDATE SET units = excluded.units",
        (account.id, period.key, kind, units),
    )
    _grant(tx, account.id, kind, period.key, units - granted, "plan", now)


def _grant_lapsed(tx: Tx, reserve: Row, actor: str, now: int, settings: Settings) -> None:
    """A unit that comes back after its period ended is granted again in the current one."""
    period = period_at(now, settings.zone())
    # Earlier only: by a clock that was set back a little, its own period may still be to come.
    if reserve["debit"].startswith("included:") and reserve["period"] < period.key:
        _grant(tx, reserve["account_id"], reserve["ledger"], period.key, reserve["amount"], actor, now)


def _grant(tx: Tx, account_id: str, kind: str, period: str, units: int, actor: str, now: int) -> None:
    target = included(account_id, period)
    _open(tx, ISSUER, kind, overdraft=True)
    _open(tx, target, kind)
    tx.execute(
        "UPDATE balance SET debits_posted = debits_posted + ? WHERE name = ? AND ledger = ?", (units, ISSUER, kind)
    )
    tx.execute(
        "UPDATE balance SET credits_posted = credits_posted + ? WHERE name = ? AND ledger = ?", (units, target, kind)
    )
    _transfer(tx, "grant", kind, ISSUER, target, units, account_id=account_id, period=period, actor=actor, at=now)


def _resolve_one(tx: Tx, reserve: Row, kind: Resolution, actor: str, now: int) -> None:
    kept = int(reserve["amount"]) if kind == "post" else 0
    for side, name in (("debits", reserve["debit"]), ("credits", reserve["credit"])):
        tx.execute(
            f"UPDATE balance SET {side}_pending = {side}_pending - ?, {side}_posted = {side}_posted + ?"  # noqa: S608
            " WHERE name = ? AND ledger = ?",
            (reserve["amount"], kept, name, reserve["ledger"]),
        )
    _transfer(
        tx,
        kind,
        reserve["ledger"],
        reserve["debit"],
        reserve["credit"],
        reserve["amount"],
        account_id=reserve["account_id"],
        period=reserve["period"],
        actor=actor,
        at=now,
        job_id=reserve["job_id"],
        ordinal=reserve["ordinal"],
        pending_id=reserve["id"],
    )


def _transfer(
    tx: Tx,
    kind: str,
    ledger: str,
    debit: str,
    credit: str,
    amount: int,
    *,
    account_id: str,
    period: str,
    actor: str,
    at: int,
    job_id: str | None = None,
    ordinal: int | None = None,
    pending_id: int | None = None,
) -> None:
    cursor = tx.execute(
        "INSERT INTO transfer (kind, ledger, debit, credit, amount, pending_id, account_id, job_id, ordinal, period,"
        " actor, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (kind, ledger, debit, credit, amount, pending_id, account_id, job_id, ordinal, period, actor, at),
    )
    audit.append(
        tx,
        at=at,
        account_id=account_id,
        actor=actor,
        action=f"ledger.{kind}",
        subject=job_id or f"{account_id}:{period}",
        after={"ledger": ledger, "amount": amount, "debit": debit, "credit": credit},
        transfer_id=cursor.lastrowid,
    )


def _open(tx: Tx, name: str, ledger: str, *, overdraft: bool = False) -> None:
    """Begin a balance; only the issuer, which is where units come from, may owe more than it has."""
    tx.execute(
        "INSERT INTO balance (name, ledger, overdraft) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (name, ledger, int(overdraft)),
    )


def _allowance(row: Row | None, granted: Row | None, account: Account, kind: JobType, settings: Settings) -> Allowance:
    """What the next reserve would find: of the plan's figure, the part that it would still grant counts as granted."""
    to_come = max(0, included_units(account.plan, kind, settings) - (0 if granted is None else int(granted["units"])))
    if row is None:
        return Allowance(to_come, 0, 0)
    return Allowance(row["credits_posted"] + to_come, row["debits_posted"], row["debits_pending"])


def _exhausted(left: Allowance, kind: JobType, units: int, period: Period, now: int) -> Refusal:
    seconds = -(-(period.end_us - now) // SECOND_US)
    return Refusal(
        429,
        "allowance_exhausted",
        f"The plan's {left.granted} {kind}s of this month are used up or held by open jobs ({left.left} left, {units}"
        f" asked for); they are renewed at {rfc3339(period.end_us)}.",
        headers={"Retry-After": str(seconds)},
    )


def _charge(rows: list[Row]) -> Charge:
    reserves = {row["id"]: row for row in rows if row["kind"] == "reserve"}
    ends = {row["pending_id"]: row["kind"] for row in rows if row["kind"] in ("post", "void")}
    posted = [number for number in reserves if ends.get(number) == "post"]
    if len(ends) < len(reserves):
        state, counted = "reserved", list(reserves)
    elif posted:
        state, counted = "posted", posted
    else:
        state, counted = "voided", []
    return Charge(
        units=len(reserves),
        included_units=len(counted),
        wallet_units=0,
        amount_micros=0,
        state=state,
        ledger_ids=tuple(row["id"] for row in rows),
    )


def _replay(replayed: dict[tuple[str, str], list[int]], row: Row) -> None:
    pending, posted = {"reserve": (1, 0), "post": (-1, 1), "void": (-1, 0)}.get(row["kind"], (0, 1))
    for first, name in ((0, row["debit"]), (2, row["credit"])):
        balance = replayed.setdefault((name, row["ledger"]), [0, 0, 0, 0])
        balance[first] += pending * row["amount"]
        balance[first + 1] += posted * row["amount"]
