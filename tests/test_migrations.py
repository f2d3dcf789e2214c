# pyright: reportPrivateUsage=false
from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database, Migrations

from tests.stores import START_US, Rooms, add_account, opened
from zsky_box import accounts, invitations, migrations
from zsky_box.db import Store
from zsky_box.errors import StoreError

NEXT = migrations.VERSION + 1


@pytest.fixture
def longer(monkeypatch: pytest.MonkeyPatch) -> Migrations:
    """The schema of a later zsky-box: the present steps; a test adds its own."""
    schema = Migrations("zsky_box")
    schema._migrations = list(migrations.schema._migrations)
    monkeypatch.setattr(migrations, "schema", schema)
    monkeypatch.setattr(migrations, "VERSION", NEXT)
    return schema


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def schema_of(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()


def test_a_fresh_store_has_the_version_of_its_last_step(tmp_path: Path) -> None:
    Store(tmp_path).close()
    assert version_of(tmp_path / "ledger.db") == migrations.VERSION == len(migrations.schema._migrations)


def test_opening_again_changes_nothing_and_copies_nothing(tmp_path: Path) -> None:
    Store(tmp_path).close()
    before = schema_of(tmp_path / "ledger.db")
    Store(tmp_path).close()
    assert schema_of(tmp_path / "ledger.db") == before
    assert list(tmp_path.glob("*.schema-*")) == []


def test_a_newer_schema_is_refused_untouched(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        connection.execute(f"PRAGMA user_version = {NEXT}")
    with pytest.raises(StoreError, match=f"has schema {NEXT}.*install a newer zsky-box"):
        Store(tmp_path)
    assert version_of(tmp_path / "ledger.db") == NEXT


def test_an_existing_store_is_copied_whole_and_private_before_it_is_changed(
    tmp_path: Path, longer: Migrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as present:
        present.setattr(migrations, "VERSION", migrations.VERSION - 1)
        with opened(tmp_path) as store:
            add_account(store, "ann")
            still_open = sqlite3.connect(store.path)  # keeps the WAL from being folded into the file
            still_open.execute("SELECT count(*) FROM account").fetchone()

    @longer()
    def m004_colour(db: Database) -> None:
        db.conn.execute("ALTER TABLE account ADD COLUMN colour TEXT")

    assert callable(m004_colour)
    with opened(tmp_path) as store:
        assert store.all("SELECT name, colour FROM account")[0]["name"] == "ann"
    still_open.close()
    copy = tmp_path / f"ledger.db.schema-{NEXT - 1}"
    assert version_of(copy) == NEXT - 1
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT * FROM account").fetchone()[1] == "ann"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob("*.partial")) == []


def test_a_failing_step_undoes_the_steps_before_it_too(tmp_path: Path, longer: Migrations) -> None:
    @longer()
    def m004_works(db: Database) -> None:
        db.conn.execute("CREATE TABLE fine (id INTEGER) STRICT")

    @longer()
    def m005_fails(db: Database) -> None:
        db.conn.execute("ALTER TABLE account ADD COLUMN colour TEXT")
        db.conn.execute("ALTER TABLE nowhere ADD COLUMN colour TEXT")

    assert callable(m004_works)
    assert callable(m005_fails)
    with pytest.raises(StoreError, match=r"cannot be brought up to date \(no such table: nowhere\)"):
        Store(tmp_path)
    assert version_of(tmp_path / "ledger.db") == 0
    assert schema_of(tmp_path / "ledger.db") == []


def test_the_setup_token_of_an_older_box_becomes_the_owners_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(b"the token").digest()
    with monkeypatch.context() as before:
        older = Migrations("zsky_box")
        older._migrations = migrations.schema._migrations[:5]
        before.setattr(migrations, "schema", older)
        before.setattr(migrations, "VERSION", 5)
        with opened(tmp_path) as store:
            add_account(store, "ann")
            owner = store.write(lambda tx: accounts.create_owner(tx, "studio", START_US))
            store.write(lambda tx: tx.execute("INSERT INTO setup_token VALUES (?, ?)", (digest, START_US)))
    with opened(tmp_path) as store:
        assert invitations.find(store, "the token", START_US) == owner
        assert store.all("SELECT 1 FROM sqlite_master WHERE name = 'setup_token'") == []


def test_every_table_of_ours_checks_its_types(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        tables = store.all("SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table'")
        loose = {row["name"] for row in tables if not row["strict"]}
        assert loose <= {"_sqlite_migrations", "sqlite_schema", "sqlite_sequence"}
        assert len(tables) > len(loose)


@pytest.mark.parametrize("table", ["transfer", "audit"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET actor = 'nobody'", "DELETE FROM {}"])
def test_transfers_and_audit_are_append_only(tmp_path: Path, table: str, statement: str) -> None:
    rooms = Rooms(tmp_path)
    rooms.new_job()
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        rooms.store.write(lambda tx: tx.execute(statement.format(table)))
    rooms.close()


def test_the_store_itself_refuses_what_must_never_be(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path)
    rooms.complete(rooms.running())
    account = rooms.owner.account.id
    resolved = "(SELECT id FROM transfer WHERE kind = 'reserve')"
    columns = "INSERT INTO transfer (kind, ledger, debit, credit, amount, pending_id, account_id, period, actor, at)"
    for name, statement in {
        "an account that spends more than it has": "UPDATE balance SET debits_posted = 2000 WHERE overdraft = 0"
        " AND name != 'consumed'",
        "a second resolution": f"{columns} VALUES ('void', 'image', 'a', 'b', 1, {resolved}, '{account}', 'p', 't', 0)",
        "a post of nothing": f"{columns} VALUES ('post', 'image', 'a', 'b', 1, NULL, '{account}', 'p', 't', 0)",
        "a transfer of zero": f"{columns} VALUES ('grant', 'image', 'a', 'b', 0, NULL, '{account}', 'p', 't', 0)",
        "a failure without a code": "UPDATE job SET status = 'failed'",
        "an end without a time": "UPDATE job SET finished_at = NULL",
        "an account that nobody has": f"{columns} VALUES ('grant', 'image', 'a', 'b', 1, NULL, 'x', 'p', 't', 0)",
    }.items():
        written = rooms.store.submit(lambda tx, statement=statement: tx.execute(statement))
        assert isinstance(written.exception(30), sqlite3.IntegrityError), name
    rooms.close()


def test_times_of_rows_are_plain_integers(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        add_account(store, "ann")
        with pytest.raises(sqlite3.IntegrityError, match="cannot store TEXT value in INTEGER column"):
            store.write(lambda tx: tx.execute("UPDATE account SET created_at = 'today'"))
        assert store.all("SELECT created_at FROM account")[0]["created_at"] == START_US
