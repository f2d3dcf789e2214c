# ruff: noqa: S608 - the statements are this file's own
from __future__ import annotations

from pathlib import Path

import pytest

from tests.stores import START_US, opened, tampering
from zsky_box import audit
from zsky_box.db import Store, Tx

ROWS = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed store with a chain of `ROWS` rows."""
    with opened(tmp_path) as store:
        for number in range(ROWS):
            note(store, f"subject {number}")
    return tmp_path


def note(store: Store, subject: str) -> None:
    store.write(
        lambda tx: audit.append(
            tx,
            at=START_US,
            account_id=None,
            actor="ann",
            action="cap.changed",
            subject=subject,
            before={"cap_usd": "5.00"},
            after={"cap_usd": "10.00", "note": "Überschuss"},
        )
    )


def first_broken(folder: Path, *statements: str, last_rows: int | None = None) -> int | None:
    """What the verification says after somebody has changed the file."""
    store = Store(folder)
    store.close()
    tampering(store, *statements)
    with opened(folder) as store:
        return audit.first_broken_row(store, last_rows)


def test_an_untouched_chain_verifies_wholly_and_in_part(folder: Path) -> None:
    with opened(folder) as store:
        assert [audit.first_broken_row(store, rows) for rows in (None, 1, 3, ROWS, 1_000)] == [None] * 5


def test_an_empty_chain_verifies(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert audit.first_broken_row(store) is None


@pytest.mark.parametrize(
    "change",
    [
        "at = at + 1",
        "account_id = 'acc_other'",
        "actor = 'bob'",
        "action = 'cap.kept'",
        "subject = 'else'",
        "before = '{}'",
        "after = '{}'",
        "previous = zeroblob(32)",
        "hash = randomblob(32)",
    ],
)
@pytest.mark.parametrize("row", [2, 5, ROWS])
def test_a_changed_row_is_named(folder: Path, change: str, row: int) -> None:
    assert first_broken(folder, f"UPDATE audit SET {change} WHERE id = {row}") == row


@pytest.mark.parametrize("row", range(1, ROWS))
def test_after_a_missing_row_the_next_one_is_named(folder: Path, row: int) -> None:
    assert first_broken(folder, f"DELETE FROM audit WHERE id = {row}") == row + 1


@pytest.mark.parametrize("kept", range(ROWS))
def test_rows_cut_off_at_the_end_are_missed(folder: Path, kept: int) -> None:
    assert first_broken(folder, f"DELETE FROM audit WHERE id > {kept}") == kept + 1


def test_rows_in_another_order_are_named(folder: Path) -> None:
    swap = ("UPDATE audit SET id = -1 WHERE id = 3", "UPDATE audit SET id = 3 WHERE id = 4")
    assert first_broken(folder, *swap, "UPDATE audit SET id = 4 WHERE id = -1") == 3


def test_a_row_put_between_is_named(folder: Path) -> None:
    columns = "at, account_id, actor, action, subject, before, after, transfer_id, previous"
    insert = f"INSERT INTO audit ({columns}, hash) SELECT {columns}, randomblob(32) FROM audit WHERE id = {ROWS}"
    assert first_broken(folder, insert) == ROWS + 1


def test_the_last_rows_are_checked_against_the_one_before_them(folder: Path) -> None:
    assert first_broken(folder, "UPDATE audit SET subject = 'else' WHERE id = 2", last_rows=3) is None
    assert first_broken(folder, f"UPDATE audit SET subject = 'else' WHERE id = {ROWS - 1}", last_rows=3) == ROWS - 1


def test_a_refused_write_leaves_no_row_and_no_gap(folder: Path) -> None:
    with opened(folder) as store:

        def refused(tx: Tx) -> None:
            audit.append(tx, at=START_US, account_id=None, actor="a", action="b", subject="c")
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            store.write(refused)
        note(store, "after")
        assert [row["id"] for row in store.all("SELECT id FROM audit")] == list(range(1, ROWS + 2))
        assert audit.first_broken_row(store) is None
