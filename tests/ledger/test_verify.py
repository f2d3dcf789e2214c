from __future__ import annotations

import shutil
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.stores import Rooms, SetClock, add_account, caller_for, opened, tamper
from zsky_box import accounts, audit, db, keys, ledger, overage, plans, statements, timeline
from zsky_box.accounts import Replenish
from zsky_box.clock import parse_rfc3339
from zsky_box.db import FILE_NAME, Tx
from zsky_box.idempotency import Idempotency
from zsky_box.ledger import Payer
from zsky_box.ledger.verify import rows_to_read, verify
from zsky_box.ledger.verify_files import Files
from zsky_box.ledger.verify_report import Report
from zsky_box.settings import Settings
from zsky_box.terms import Terms

USD = 1_000_000


def busy(folder: Path) -> None:
    """A box whose ledger has something of everything, over a month's end and a clock that was set back."""
    rooms = Rooms(folder, included_images=4, included_videos=0, free_images=3)
    owner, terms = rooms.owner.account.id, rooms.terms

    def write(work: object, *arguments: object, **options: object) -> None:
        assert callable(work)
        rooms.store.write(lambda tx: work(tx, *arguments, now=rooms.clock(), **options))

    write(overage.topup, owner, 20 * USD, actor="terminal", terms=terms, why="budget")
    write(overage.correct, owner, -USD, actor="terminal", terms=terms, why="entered twice")
    write(overage.toggle, owner, enabled=True, actor=owner, terms=terms)
    write(overage.set_cap, owner, 10 * USD, actor=owner, terms=terms)
    write(overage.set_ceiling, owner, 15 * USD, actor="terminal", terms=terms)
    write(overage.set_box_ceiling, 12 * USD, actor="terminal")
    write(overage.set_rule, owner, Replenish(19 * USD, 2 * USD, 4 * USD), actor="terminal", terms=terms)
    write(keys.limit, owner, rooms.owner.key.id, 9 * USD, actor="terminal")
    rooms.owner = keys_reread(rooms)

    included = rooms.running(n=3)
    rooms.complete(included)
    write(ledger.refund, included.job_id, frozenset({1}), actor="terminal", why="a blot", terms=terms)
    mixed = rooms.running(n=4)
    rooms.complete(mixed, 0, 2, 3)
    failed = rooms.running(type="video")
    rooms.end(failed)
    blocked = rooms.running(type="video")
    rooms.end(blocked, "safety_blocked")
    write(ledger.refund, blocked.job_id, None, actor="terminal", why="it was harmless", terms=terms)
    begun = rooms.running()
    rooms.step(begun)
    rooms.cancel(begun.job_id)
    rooms.end(begun, "cancelled")
    rooms.cancel(rooms.new_job())
    rooms.complete(rooms.running(caller=rooms.tester))
    removed = rooms.running()
    rooms.complete(removed)
    rooms.delete(removed.job_id)
    guest = caller_for(rooms.store, add_account(rooms.store, "guest", "free"))
    rooms.complete(rooms.running(caller=keys.Caller(guest.account, guest.key, in_person=True), n=2))

    rooms.clock.set("2026-11-30T23:59:59Z")
    lapsing = rooms.running(caller=keys.Caller(guest.account, guest.key, in_person=True))
    write(overage.set_cap, owner, 5 * USD, actor=owner, terms=terms)
    rooms.clock.set("2026-12-02T12:00:00Z")
    rooms.end(lapsing)
    for account_id in (owner, guest.account.id):
        write(close_due, account_id, terms=terms)
    rooms.submit(idempotency=Idempotency("an-order", b"digest"))
    rooms.new_job(n=5)
    rooms.clock.advance(-3_600)
    write(timeline.accept, actor="terminal")
    rooms.complete(rooms.running())
    rooms.close()


def keys_reread(rooms: Rooms) -> keys.Caller:
    """The owner's caller as its next request would find it, with the cap that its key has by now."""
    (key,) = [key for key in keys.listed(rooms.store, rooms.owner.account.id) if key.id == rooms.owner.key.id]
    return keys.Caller(accounts.get(rooms.store, rooms.owner.account.id), key)


def close_due(tx: Tx, account_id: str, *, now: int, terms: Terms) -> None:
    statements.close_due(tx, accounts.get(tx, account_id), now, terms)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("busy")
    busy(folder)
    return folder


@pytest.fixture
def box(original: Path, tmp_path: Path) -> Path:
    """A copy of the busy box."""
    return Path(shutil.copytree(original, tmp_path / "box"))


@contextmanager
def snapshot(folder: Path) -> Generator[db.Rows]:
    with closing(db.connect(folder / FILE_NAME, read_only=True)) as connection, db.snapshot(connection) as rows:
        yield rows


def verified(folder: Path, *, content: bool = False) -> Report:
    files = Files(folder / "outputs", content, lambda _: False)
    with snapshot(folder) as rows:
        return verify(rows, files=files)


def broken(folder: Path) -> dict[str, str]:
    """What is broken: each rule's first row by `table row`."""
    return {fault.rule: f"{fault.table} {fault.row}" for fault in verified(folder).faults}


def number(folder: Path, sql: str) -> str:
    """The one value that a query over the store finds."""
    with snapshot(folder) as rows:
        row = rows.one(sql)
    assert row is not None, sql
    return str(row[0])


def test_a_busy_ledger_verifies(box: Path) -> None:
    report = verified(box, content=True)
    assert report.faults == ()
    with snapshot(box) as rows:
        assert report.transfers == len(rows.all("SELECT 1 FROM transfer"))
        kinds = {row["kind"] for row in rows.all("SELECT DISTINCT kind FROM transfer")}
        assert kinds == {"topup", "grant", "reserve", "post", "void", "refund", "correct"}
        assert report.jobs == len(rows.all("SELECT 1 FROM job"))
        assert rows.all("SELECT 1 FROM closing WHERE voided_at IS NULL")
        assert rows.all("SELECT 1 FROM asset WHERE removed_at IS NOT NULL")


def test_an_empty_ledger_verifies(tmp_path: Path) -> None:
    with opened(tmp_path):
        assert verified(tmp_path).faults == ()


# By rule: what is done to the store, the rule that must be named, and the row that it names. A row that a query finds
# is looked for before the tampering.
TAMPERED = [
    (
        "debits equal credits",
        "balance usd",
        "UPDATE balance SET debits_posted = debits_posted + 1 WHERE name = 'funding'",
    ),
    (
        "a balance is what its movements say",
        "balance consumed/image",
        "UPDATE balance SET credits_posted = credits_posted - 1 WHERE name = 'consumed' AND ledger = 'image'",
    ),
    ("a balance is what its movements say", "balance revenue/usd", "DELETE FROM balance WHERE name = 'revenue'"),
    (
        "a balance is what its movements say",
        "balance nowhere/usd",
        "INSERT INTO balance (name, ledger, overdraft, credits_posted) VALUES ('nowhere', 'usd', 0, 5)",
    ),
    (
        "no wallet and no allowance is ever overdrawn",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'correct'",
        "UPDATE transfer SET amount = 99000000 WHERE kind = 'correct'",
    ),
    (
        "no wallet and no allowance is ever overdrawn",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'reserve' AND ledger = 'image'",
        "UPDATE transfer SET amount = 9 WHERE ledger = 'image' AND kind IN ('reserve', 'post')",
    ),
    (
        "a counter of spending is what its movements say",
        "spend box/2026-11",
        "UPDATE spend SET posted = posted + 1 WHERE scope = 'box' AND period = '2026-11'",
    ),
    (
        "a counter of spending is what its movements say",
        "spend SELECT scope || '/2026-11' FROM spend WHERE scope LIKE 'key:%' AND period = '2026-11'",
        "UPDATE spend SET refunded = 0 WHERE scope LIKE 'key:%' AND period = '2026-11'",
    ),
    (
        "a counter of spending is what its movements say",
        "spend SELECT scope || '/2026-11' FROM spend WHERE replenished > 0",
        "UPDATE spend SET replenished = 1 WHERE replenished > 0",
    ),
    (
        "a counter of spending is what its movements say",
        "spend box/2026-12",
        "DELETE FROM spend WHERE scope = 'box' AND period = '2026-12'",
    ),
    (
        "a movement is between the balances of its kind",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'topup'",
        "UPDATE transfer SET credit = 'wallet:somebody' WHERE kind = 'topup'",
    ),
    (
        "a post or a void says what its reserve says",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'post'",
        "UPDATE transfer SET ordinal = 7 WHERE id = (SELECT min(id) FROM transfer WHERE kind = 'post')",
    ),
    (
        "a post or a void says what its reserve says",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'void'",
        "UPDATE transfer SET period = '2026-12' WHERE id = (SELECT min(id) FROM transfer WHERE kind = 'void')",
    ),
    (
        "a refund pays back what its post took",
        "transfer SELECT id FROM transfer WHERE kind = 'refund' AND ledger = 'usd'",
        "UPDATE transfer SET amount = amount - 1 WHERE kind = 'refund' AND ledger = 'usd'",
    ),
    (
        "a refund pays back what its post took",
        "transfer SELECT id FROM transfer WHERE kind = 'refund' AND ledger = 'usd'",
        "UPDATE transfer SET credit = 'wallet:somebody' WHERE kind = 'refund' AND ledger = 'usd'",
    ),
    (
        "a reserve is resolved at most once",
        "transfer SELECT max(id) + 1 FROM transfer",
        "DROP INDEX transfer_resolves_once",
        (
            "INSERT INTO transfer (kind, ledger, debit, credit, amount, pending_id, account_id, job_id, ordinal,"
            " period, actor, at) SELECT 'void', ledger, debit, credit, amount, pending_id, account_id, job_id,"
            " ordinal, period, actor, at FROM transfer WHERE kind = 'post' ORDER BY id LIMIT 1"
        ),
    ),
    (
        "a post is refunded at most once",
        "transfer SELECT max(id) + 1 FROM transfer",
        "DROP INDEX transfer_refunds_once",
        (
            "INSERT INTO transfer (kind, ledger, debit, credit, amount, pending_id, account_id, job_id, ordinal,"
            " period, actor, at) SELECT kind, ledger, debit, credit, amount, pending_id, account_id, job_id,"
            " ordinal, period, actor, at FROM transfer WHERE kind = 'refund' ORDER BY id LIMIT 1"
        ),
    ),
    (
        "a charge names its job",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'reserve'",
        "DELETE FROM job WHERE seq = 1",
    ),
    (
        "a job's end decides its charge",
        "job SELECT job_id FROM transfer WHERE kind = 'post' ORDER BY id LIMIT 1",
        "DELETE FROM transfer WHERE id = (SELECT min(id) FROM transfer WHERE kind = 'post')",
    ),
    (
        "a job's end decides its charge",
        "job SELECT id FROM job WHERE error_code = 'internal_error' ORDER BY seq LIMIT 1",
        (
            "UPDATE transfer SET kind = 'post' WHERE kind = 'void' AND job_id ="
            " (SELECT id FROM job WHERE error_code = 'internal_error' ORDER BY seq LIMIT 1)"
        ),
    ),
    (
        "a job's end decides its charge",
        "job SELECT id FROM job WHERE error_code = 'safety_blocked'",
        (
            "UPDATE transfer SET kind = 'void' WHERE kind = 'post' AND job_id ="
            " (SELECT id FROM job WHERE error_code = 'safety_blocked')"
        ),
    ),
    (
        "a job's end decides its charge",
        "job SELECT id FROM job WHERE error_code = 'cancelled' AND work_begun = 1",
        "UPDATE job SET work_begun = 0 WHERE error_code = 'cancelled'",
    ),
    (
        "a job's end decides its charge",
        "job SELECT id FROM job WHERE status = 'completed' AND test = 0 ORDER BY seq LIMIT 1",
        "DELETE FROM asset WHERE kind = 'result' AND ordinal = 0",
    ),
    (
        "a job's end decides its charge",
        "job SELECT id FROM job WHERE test = 1",
        (
            "UPDATE transfer SET job_id = (SELECT id FROM job WHERE test = 1)"
            " WHERE job_id = (SELECT id FROM job WHERE error_code = 'internal_error' ORDER BY seq LIMIT 1)"
        ),
        (
            "UPDATE job SET test = 1 - test WHERE error_code = 'internal_error' AND seq ="
            " (SELECT min(seq) FROM job WHERE error_code = 'internal_error')"
        ),
    ),
    (
        "a job's end decides its charge",
        "job SELECT id FROM job WHERE status = 'queued' ORDER BY seq LIMIT 1",
        "UPDATE job SET status = 'completed', finished_at = 1 WHERE status = 'queued'",
    ),
    (
        "a job's end decides its charge",
        "job SELECT job_id FROM transfer WHERE kind = 'reserve' AND ledger = 'usd' ORDER BY id LIMIT 1",
        "UPDATE job SET price_micros = 1",
    ),
    (
        "a job's end decides its charge",
        "job SELECT id FROM job WHERE wordmarked > 0",
        "UPDATE job SET wordmarked = 1 WHERE wordmarked > 0",
    ),
    (
        "a plan's units are granted once",
        "grant SELECT account_id || ':2026-11:image' FROM 'grant' WHERE units = 4 AND period = '2026-11'",
        "UPDATE \"grant\" SET units = 9 WHERE units = 4 AND period = '2026-11'",
    ),
    (
        "further units are granted only for what is given back",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'grant'",
        "UPDATE transfer SET actor = 'terminal' WHERE id = (SELECT min(id) FROM transfer WHERE kind = 'grant')",
    ),
    (
        "further units are granted only for what is given back",
        "transfer SELECT id FROM transfer WHERE kind = 'refund' AND ledger = 'image'",
        "DELETE FROM transfer WHERE kind = 'grant' AND actor = 'terminal'",
    ),
    (
        "further units are granted only for what is given back",
        "transfer SELECT max(id) FROM transfer WHERE kind = 'void' AND period = '2026-11'",
        "DELETE FROM transfer WHERE kind = 'grant' AND actor = 'box'",
    ),
    (
        "a movement bears its period",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'topup'",
        "UPDATE transfer SET period = '2026-10' WHERE kind = 'topup'",
    ),
    (
        "no charge goes beyond a limit in force",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'reserve' AND ledger = 'usd'",
        (
            "UPDATE audit SET after = '{\"cap_usd\":\"0.04\"}' WHERE action = 'overage.cap' AND id ="
            " (SELECT min(id) FROM audit WHERE action = 'overage.cap')"
        ),
    ),
    (
        "no charge goes beyond a limit in force",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'reserve' AND ledger = 'usd'",
        "UPDATE audit SET after = '{\"ceiling_usd\":\"0.04\"}' WHERE action = 'overage.ceiling' AND account_id IS NULL",
    ),
    (
        "no charge goes beyond a limit in force",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'reserve' AND ledger = 'usd'",
        (
            'UPDATE audit SET after = \'{"ceiling_usd":"0.04"}\''
            " WHERE action = 'overage.ceiling' AND account_id IS NOT NULL"
        ),
    ),
    (
        "no charge goes beyond a limit in force",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'reserve' AND ledger = 'usd'",
        "UPDATE audit SET after = json_set(after, '$.cap_usd', '0.04') WHERE action = 'key.cap'",
    ),
    (
        "no charge goes beyond a limit in force",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'reserve' AND ledger = 'usd'",
        "UPDATE audit SET after = '{\"enabled\":false}' WHERE action = 'overage.toggled'",
    ),
    (
        "no charge goes beyond a limit in force",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'topup' AND actor = 'replenish'",
        "UPDATE audit SET after = json_set(after, '$.month_usd', '1.99') WHERE action = 'overage.replenish'",
    ),
    (
        "a limit is what the audit says of it",
        "account SELECT id FROM account WHERE role = 'owner'",
        "UPDATE account SET cap_micros = 1000000000 WHERE role = 'owner'",
    ),
    (
        "a limit is what the audit says of it",
        "api_key SELECT id FROM api_key WHERE cap_micros IS NOT NULL",
        "UPDATE api_key SET cap_micros = NULL",
    ),
    ("a limit is what the audit says of it", "box 1", "UPDATE box SET ceiling_micros = NULL"),
    (
        "a limit is what the audit says of it",
        "audit SELECT min(id) FROM audit WHERE action = 'overage.cap'",
        "UPDATE audit SET after = '{\"cap_usd\":\"much\"}' WHERE action = 'overage.cap'",
    ),
    (
        "each movement has one audit row that says the same",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'post'",
        "DELETE FROM audit WHERE id = (SELECT min(id) FROM audit WHERE action = 'ledger.post')",
    ),
    (
        "each movement has one audit row that says the same",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'topup'",
        "UPDATE audit SET after = json_set(after, '$.amount', 1) WHERE action = 'ledger.topup'",
    ),
    (
        "each movement has one audit row that says the same",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'refund'",
        "UPDATE audit SET after = '{' WHERE action = 'ledger.refund'",
    ),
    (
        "each movement has one audit row that says the same",
        "transfer SELECT min(id) FROM transfer WHERE kind = 'void'",
        "UPDATE audit SET at = at + 1 WHERE id = (SELECT min(id) FROM audit WHERE action = 'ledger.void')",
    ),
    (
        "each audit row of a movement has its movement",
        "audit SELECT min(id) FROM audit WHERE action = 'ledger.post'",
        "UPDATE audit SET transfer_id = NULL WHERE id = (SELECT min(id) FROM audit WHERE action = 'ledger.post')",
    ),
    (
        "each audit row of a movement has its movement",
        "audit SELECT max(id) FROM audit WHERE action = 'ledger.post'",
        "DELETE FROM transfer WHERE id = (SELECT max(id) FROM transfer WHERE kind = 'post')",
    ),
    (
        "the audit's rows are chained",
        "audit 5",
        "UPDATE audit SET actor = 'somebody' WHERE id = 5",
    ),
    (
        "the audit's rows are chained",
        "audit SELECT max(id) FROM audit",
        "DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)",
    ),
    (
        "the ledger's clock never runs backwards",
        "audit SELECT max(id) + 1 FROM audit WHERE action = 'overage.toggled'",
        "UPDATE audit SET at = at + 99999999999 WHERE action = 'overage.toggled'",
    ),
    (
        "the ledger's clock never runs backwards",
        "audit SELECT id FROM audit WHERE action = 'clock.accepted'",
        "UPDATE audit SET action = 'clock.set' WHERE action = 'clock.accepted'",
    ),
    (
        "a closed statement never changes",
        "closing 1",
        "UPDATE closing SET plan_fee_micros = 1 WHERE id = 1",
    ),
    (
        "a closed statement never changes",
        "closing 1",
        (
            "INSERT INTO plan_fee (account_id, period, description, amount_micros, annual, at)"
            " SELECT account_id, period, 'a gift', -1, 0, 0 FROM closing WHERE id = 1"
        ),
    ),
    ("a closed statement never changes", "closing 1", "UPDATE closing SET overage_micros = 0 WHERE id = 1"),
    (
        "a closed statement never changes",
        "closing 2",
        "UPDATE transfer SET period = '2026-11' WHERE id = (SELECT max(id) FROM transfer WHERE kind = 'grant')",
        (
            "UPDATE transfer SET account_id = (SELECT account_id FROM closing WHERE id = 2)"
            " WHERE id = (SELECT max(id) FROM transfer WHERE kind = 'grant')"
        ),
    ),
    (
        "the same idempotency key is the same job",
        "idempotency SELECT account_id || ':an-order' FROM idempotency",
        "UPDATE idempotency SET body = CAST(json_object('job_id', 'job_of_nobody') AS BLOB)",
    ),
    (
        "the same idempotency key is the same job",
        "idempotency SELECT account_id || ':an-order' FROM idempotency",
        "UPDATE idempotency SET body = x'7b'",
    ),
    (
        "the same idempotency key is the same job",
        "idempotency SELECT account_id || ':an-order' FROM idempotency",
        (
            "UPDATE idempotency SET body = CAST(json_set(CAST(body AS TEXT), '$.job_id',"
            " (SELECT id FROM job WHERE seq = 1)) AS BLOB)"
        ),
    ),
    (
        "the same idempotency key is the same job",
        "idempotency SELECT account_id || ':an-order' FROM idempotency",
        (
            "UPDATE idempotency SET body = CAST(json_set(CAST(body AS TEXT), '$.job_id',"
            " (SELECT id FROM job ORDER BY seq DESC LIMIT 1)) AS BLOB)"
        ),
    ),
    (
        "each plan fee has one audit row that says the same",
        "plan_fee SELECT max(id) FROM plan_fee",
        "UPDATE plan_fee SET amount_micros = 0 WHERE id = (SELECT max(id) FROM plan_fee)",
    ),
    (
        "each plan fee has one audit row that says the same",
        "plan_fee 1",
        "UPDATE plan_fee SET annual = 1 WHERE id = 1",
    ),
    (
        "each plan fee has one audit row that says the same",
        "plan_fee 1",
        "UPDATE plan_fee SET amount_micros = 1 WHERE id = 1",
        "UPDATE closing SET plan_fee_micros = 1 WHERE id = 1",
    ),
    (
        "each plan fee has one audit row that says the same",
        "plan_fee SELECT account_id || ':2026-11' FROM plan_fee WHERE id = 1",
        "DELETE FROM plan_fee WHERE id = 1",
    ),
    (
        "each plan fee has one audit row that says the same",
        "plan_fee SELECT account_id || ':' || period FROM plan_fee ORDER BY id DESC LIMIT 1",
        "DELETE FROM plan_fee WHERE id = (SELECT max(id) FROM plan_fee)",
    ),
    (
        "each plan fee has one audit row that says the same",
        "plan_fee SELECT max(id) + 1 FROM plan_fee",
        (
            "INSERT INTO plan_fee (account_id, period, description, amount_micros, annual, at)"
            " SELECT account_id, period, description, amount_micros, annual, at FROM plan_fee WHERE id = 1"
        ),
    ),
    (
        "each closed statement has audit rows that say the same",
        "closing SELECT account_id || ':' || period FROM closing WHERE id = 1",
        "DELETE FROM closing",
    ),
    (
        "each closed statement has audit rows that say the same",
        "closing SELECT account_id || ':' || period FROM closing WHERE id = 1",
        "DELETE FROM closing WHERE id = 1",
    ),
    (
        "each closed statement has audit rows that say the same",
        "closing SELECT max(id) + 1 FROM closing",
        (
            "INSERT INTO closing (account_id, period, start_us, end_us, at, plan, plan_fee_micros, overage_micros,"
            " included, last_transfer_id) SELECT account_id, '2026-10', start_us, end_us, at, plan, 0, 0, included, 0"
            " FROM closing WHERE id = 1"
        ),
    ),
    *(
        ("each closed statement has audit rows that say the same", "closing 1", statement)
        for statement in (
            "UPDATE closing SET voided_at = 1",
            "UPDATE closing SET plan = 'free'",
            """UPDATE closing SET included = '{"video":9,"image":4}'""",
            "UPDATE closing SET included = 'none'",
            "UPDATE closing SET last_transfer_id = last_transfer_id + 1000",
            "UPDATE closing SET at = at + 1",
        )
    ),
    *(
        ("a plan is what the audit says of it", "account SELECT id FROM account WHERE role = 'owner'", statement)
        for statement in (
            "UPDATE account SET plan = 'free' WHERE role = 'owner'",
            "UPDATE account SET renews = 'annual' WHERE role = 'owner'",
            "UPDATE account SET annual = 1 WHERE role = 'owner'",
            "UPDATE account SET paid_until = '2099-01' WHERE role = 'owner'",
        )
    ),
    (
        "a plan is what the audit says of it",
        "account SELECT id FROM account WHERE name = 'guest'",
        "UPDATE account SET plan = 'max' WHERE name = 'guest'",
    ),
    (
        "a plan is what the audit says of it",
        "audit SELECT max(id) FROM audit WHERE action = 'plan.fee'",
        "UPDATE audit SET after = '{' WHERE id = (SELECT max(id) FROM audit WHERE action = 'plan.fee')",
    ),
    *(
        ("a limit is what the audit says of it", "account SELECT id FROM account WHERE role = 'owner'", statement)
        for statement in (
            "UPDATE account SET replenish_below_micros = 1 WHERE role = 'owner'",
            "UPDATE account SET replenish_add_micros = 1 WHERE role = 'owner'",
            "UPDATE account SET replenish_month_micros = NULL WHERE role = 'owner'",
        )
    ),
    (
        "the ledger's clock is not behind its last movement",
        "box 1",
        "UPDATE box SET clock_at = clock_at - 1",
    ),
    (
        "the queue is as long as it is counted",
        "open_jobs SELECT account_id || ':0' FROM open_jobs WHERE n > 0",
        "UPDATE open_jobs SET n = n + 1 WHERE n > 0",
    ),
    (
        "the queue is as long as it is counted",
        "open_jobs SELECT account_id || ':0' FROM open_jobs WHERE n > 0",
        "DELETE FROM open_jobs",
    ),
    (
        "a job's results are removed with it",
        "asset SELECT id FROM asset WHERE removed_at IS NULL ORDER BY rowid LIMIT 1",
        "UPDATE asset SET removed_at = 1 WHERE removed_at IS NULL",
    ),
    (
        "a job's results are removed with it",
        "asset SELECT id FROM asset WHERE removed_at IS NOT NULL ORDER BY rowid LIMIT 1",
        "UPDATE job SET removed_at = NULL",
    ),
]


@pytest.mark.parametrize(("rule", "row", "statements"), [(rule, row, rest) for rule, row, *rest in TAMPERED])
def test_what_was_changed_behind_the_boxs_back_is_named(box: Path, rule: str, row: str, statements: list[str]) -> None:
    table, _, where = row.partition(" ")
    expected = f"{table} {number(box, where) if where.startswith('SELECT') else where}"
    tamper(box / FILE_NAME, *statements)
    assert broken(box).get(rule) == expected


def test_a_cap_of_before_its_first_change_is_five_dollars(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path, included_images=0)
    owner, terms = rooms.owner.account.id, rooms.terms
    rooms.store.write(lambda tx: overage.topup(tx, owner, 20 * USD, actor="t", now=rooms.clock(), terms=terms))
    rooms.store.write(lambda tx: overage.toggle(tx, owner, enabled=True, actor="t", now=rooms.clock(), terms=terms))
    for _ in range(10):
        rooms.new_job(n=10)
    last = number(tmp_path, "SELECT max(id) FROM transfer")
    rooms.close()
    assert verified(tmp_path).faults == ()
    tamper(tmp_path / FILE_NAME, "UPDATE transfer SET amount = amount + 1 WHERE id = (SELECT max(id) FROM transfer)")
    assert broken(tmp_path)["no charge goes beyond a limit in force"] == f"transfer {last}"


@pytest.mark.parametrize(
    ("row", "statement"),
    [
        ("2026-11:5.00:80", "DELETE FROM alert WHERE percent = 80"),
        ("2026-11:5.00:80", "UPDATE alert SET at = at + 1 WHERE percent = 80"),
        ("2026-11:6.00:80", "UPDATE alert SET cap_micros = 6000000 WHERE percent = 80"),
        ("2026-12:5.00:80", "INSERT INTO alert SELECT account_id, '2026-12', 5000000, 80, at FROM alert LIMIT 1"),
    ],
)
def test_an_alert_that_was_changed_behind_the_boxs_back_is_named(tmp_path: Path, row: str, statement: str) -> None:
    rooms = Rooms(tmp_path, included_images=0)
    owner, terms = rooms.owner.account.id, rooms.terms
    rooms.store.write(lambda tx: overage.topup(tx, owner, 20 * USD, actor="t", now=rooms.clock(), terms=terms))
    rooms.store.write(lambda tx: overage.toggle(tx, owner, enabled=True, actor="t", now=rooms.clock(), terms=terms))
    for _ in range(10):
        rooms.new_job(n=10)
    rooms.close()
    assert verified(tmp_path).faults == ()
    tamper(tmp_path / FILE_NAME, statement)
    assert broken(tmp_path) == {"each alert has one audit row that says the same": f"alert {owner}:{row}"}


def test_a_statement_that_was_opened_and_closed_again_verifies_and_cannot_be_closed_behind_the_boxs_back(
    tmp_path: Path,
) -> None:
    rooms = Rooms(tmp_path, plan_month_usd="0.00")
    owner, terms = rooms.owner.account.id, rooms.terms

    def close() -> None:
        rooms.store.write(lambda tx: close_due(tx, owner, now=rooms.clock(), terms=terms))

    def accept(tx: Tx) -> None:
        timeline.accept(tx, rooms.clock(), "terminal")
        statements.reopen_after(tx, rooms.clock())
        plans.undo_after(tx, accounts.get(tx, owner), "2026-11", rooms.clock())

    rooms.complete(rooms.running())
    rooms.clock.set("2027-01-02T00:00:00Z")
    close()
    rooms.clock.set("2026-11-30T00:00:00Z")
    rooms.store.write(accept)
    assert verified(tmp_path).faults == ()
    rooms.clock.set("2026-12-02T00:00:00Z")
    close()
    rooms.close()
    assert number(tmp_path, "SELECT group_concat(period || (voided_at IS NULL)) FROM closing") == (
        "2026-110,2026-120,2026-111"
    )
    assert verified(tmp_path).faults == ()
    tamper(tmp_path / FILE_NAME, "UPDATE closing SET voided_at = NULL WHERE id = 2")
    assert broken(tmp_path) == {"each closed statement has audit rows that say the same": "closing 2"}


def test_what_was_written_before_the_ledger_had_a_clock_and_a_calendar_is_not_judged_by_them(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path)
    owner, elsewhere = rooms.owner.account.id, Terms.of(Settings(timezone="America/New_York"))

    def older(time: str) -> None:
        """A job of which nothing came, its month that of another zone, its units not granted again."""
        at, payer = parse_rfc3339(time), Payer(owner, rooms.owner.key.budget_id)
        job_id = rooms.new_job(caller=rooms.tester)
        rooms.store.write(lambda tx: ledger.reserve(tx, payer, "image", 1, job_id, at, elsewhere))
        rooms.store.write(lambda tx: ledger.resolve(tx, job_id, frozenset(), actor="box", now=at + 1, terms=elsewhere))
        rooms.store.write(lambda tx: tx.execute("UPDATE box SET clock_at = 0"))

    older("2026-12-01T04:00:00Z")
    older("2026-12-01T03:00:00Z")
    tamper(tmp_path / FILE_NAME, "UPDATE job SET test = 0", "UPDATE box SET clock_at = (SELECT max(at) FROM transfer)")
    rules = {
        "the ledger's clock never runs backwards",
        "a movement bears its period",
        "further units are granted only for what is given back",
    }
    assert rules <= set(broken(tmp_path))
    tamper(tmp_path / FILE_NAME, "UPDATE box SET kept_since_audit_id = (SELECT max(id) FROM audit)")
    assert rules & set(broken(tmp_path)) == set()
    before = number(tmp_path, "SELECT max(id) FROM transfer")
    older("2026-12-01T04:30:00Z")
    older("2026-12-01T04:20:00Z")
    found = broken(tmp_path)
    assert rules <= set(found)
    assert found["a movement bears its period"] == f"transfer {int(before) + 1}"
    rooms.close()


def test_the_first_fault_of_all_is_a_sentence(box: Path) -> None:
    tamper(box / FILE_NAME, "UPDATE spend SET posted = posted + 1000000 WHERE scope = 'box' AND period = '2026-12'")
    report = verified(box)
    assert report.first is not None
    assert str(report.first).startswith("a counter of spending is what its movements say: spend box/2026-12 is [")
    assert len(report.faults) == 1


# Files


def result(folder: Path) -> Path:
    return folder / "outputs" / number(folder, "SELECT path FROM asset WHERE removed_at IS NULL ORDER BY rowid LIMIT 1")


def asset(folder: Path) -> str:
    name = number(folder, "SELECT id FROM asset WHERE removed_at IS NULL ORDER BY rowid LIMIT 1")
    return f"asset {name}"


FILES = "a result that is not removed on record is on disk"


def test_a_result_that_is_gone_or_cut_short_is_named(box: Path) -> None:
    path = result(box)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert broken(box) == {FILES: asset(box)}
    path.unlink()
    assert broken(box) == {FILES: asset(box)}
    path.write_bytes(content)
    assert broken(box) == {}


def test_a_result_of_the_same_size_is_told_apart_only_by_reading_it(box: Path) -> None:
    path = result(box)
    path.write_bytes(path.read_bytes()[::-1])
    assert verified(box).faults == ()
    (fault,) = verified(box, content=True).faults
    assert f"asset {fault.row}" == asset(box)
    assert "not what was recorded" in fault.told


def test_a_result_that_is_removed_while_it_is_looked_for_is_no_fault(box: Path) -> None:
    result(box).unlink()
    with snapshot(box) as rows:
        report = verify(rows, files=Files(box / "outputs", content=False, is_removed=lambda _: True))
    assert report.faults == ()


def test_without_its_files_only_the_store_is_looked_at(box: Path) -> None:
    result(box).unlink()
    with snapshot(box) as rows:
        report = verify(rows)
    assert (report.faults, report.files) == ((), None)


# Beside a running box


def test_it_sees_one_state_while_others_write(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path, included_images=10**6)
    done = threading.Event()
    reports: list[Report] = []

    def look() -> None:
        while not done.is_set():
            reports.append(verified(tmp_path))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for _ in range(40):
            attempt = rooms.running()
            rooms.complete(attempt)
            rooms.store.write(
                lambda tx, attempt=attempt: ledger.refund(
                    tx, attempt.job_id, None, actor="t", why="because", now=rooms.clock(), terms=rooms.terms
                )
            )
    finally:
        done.set()
        reader.join(30)
        rooms.close()
    assert len(reports) > 2
    assert [report.faults for report in reports if report.faults] == []
    assert reports[0].transfers < reports[-1].transfers


def test_how_far_it_is_adds_up_to_what_was_announced(box: Path) -> None:
    told: list[int] = []
    with snapshot(box) as rows:
        files = Files(box / "outputs", content=False, is_removed=lambda _: False)
        total = rows_to_read(rows, files)
        verify(rows, files=files, told=told.append)
    assert total <= sum(told) <= total * 2
    assert len(told) >= 3


def test_the_owners_word_on_the_clock_takes_back_what_a_wrong_one_has_ended(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path, clock=SetClock())
    terms, start = rooms.terms, rooms.clock()
    account = add_account(rooms.store, "ann")

    def roll(period: str) -> accounts.Account:
        return rooms.store.write(lambda tx: plans.roll(tx, accounts.get(tx, account.id), period, start, terms))

    roll("2026-11")
    rooms.store.write(
        lambda tx: plans.choose(
            tx, accounts.get(tx, account.id), "free", annual=False, period="2026-11", at=start, actor="t", terms=terms
        )
    )
    assert roll("2027-03").plan == "free"
    rooms.store.write(lambda tx: plans.undo_after(tx, accounts.get(tx, account.id), "2026-11", start))
    restored = accounts.get(rooms.store, account.id)
    assert (restored.plan, restored.plan_in("2026-11"), restored.plan_in("2026-12")) == ("max", "max", "free")
    assert audit.first_broken_row(rooms.store) is None
    rooms.close()
