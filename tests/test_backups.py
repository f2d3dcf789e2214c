"""Backups: whole, verified, read back; a fault leaves none; so many are kept."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import tarfile
import threading
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from tests.stores import tamper
from tests.studio import Studio
from tests.waiting import until
from zsky_box import backup_file, secretfile
from zsky_box.backup_file import Phase
from zsky_box.backups import Backups, Making
from zsky_box.clock import DAY_US, SECOND_US
from zsky_box.errors import BackupError, Refusal


@pytest.fixture
def studio(tmp_path: Path) -> Generator[Studio]:
    folder = tmp_path / "data"
    folder.mkdir()
    secretfile.load(folder)
    (folder / "zsky.toml").write_text('timezone = "UTC"\n')
    rooms = Studio(folder)
    rooms.make(2)
    yield rooms
    rooms.close()


def kept_by(studio: Studio, kept: int = 14) -> Backups:
    return Backups(studio.folder, studio.store, studio.clock, kept)


def nobody(phase: Phase, done: int, of: int) -> None:
    """Nobody listens."""


def made(room: Backups) -> Making:
    assert room.begin("acc_owner")
    return ended(room)


def ended(room: Backups) -> Making:
    until(lambda: (last := room.last()) is not None and last.state != "running", "made or read")
    last = room.last()
    assert last is not None
    return last


def test_it_works(studio: Studio, tmp_path: Path) -> None:
    room = kept_by(studio)
    making = made(room)
    assert making.state == "done", making.told
    [backup] = room.listed()
    assert (backup.name, backup.made_at) == ("zsky-20261122T120000Z.tar.gz", studio.clock())
    path = room.path(backup.name)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [child.name for child in path.parent.iterdir()] == [backup.name]
    manifest = backup_file.check(path, nobody)
    assert set(manifest.files) == {"ledger.db", "secrets.json", "zsky.toml"}
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "restored", filter="data")
    with closing(sqlite3.connect(tmp_path / "restored" / "ledger.db")) as ledger:
        assert ledger.execute("SELECT max(id) FROM audit").fetchone() == (manifest.newest_row,)
        assert ledger.execute("SELECT count(*) FROM job").fetchone() == (1,)
        assert ledger.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    for name in ("secrets.json", "zsky.toml"):
        assert (tmp_path / "restored" / name).read_bytes() == (studio.folder / name).read_bytes()


def test_it_is_on_record(studio: Studio) -> None:
    room = kept_by(studio)
    made(room)
    row = studio.store.one("SELECT actor, subject, after FROM audit WHERE action = 'backup.made'")
    assert row is not None
    assert (row["actor"], row["subject"]) == ("acc_owner", room.listed()[0].name)
    assert json.loads(row["after"])["bytes"] == room.listed()[0].bytes


def test_what_is_written_meanwhile_is_not_in_it(studio: Studio, tmp_path: Path) -> None:
    newest = studio.store.one("SELECT max(id) AS id FROM audit")
    began = False

    def write_on(phase: Phase, done: int, of: int) -> None:
        nonlocal began
        if not began and phase == "copying" and done <= of:
            began = True
            studio.make()

    manifest = backup_file.write(studio.folder, tmp_path / "one.tar.gz", studio.clock(), write_on)
    assert newest is not None
    assert manifest.newest_row == newest["id"]


def test_a_ledger_that_does_not_verify_is_no_backup(studio: Studio) -> None:
    tamper(studio.store.path, "UPDATE audit SET actor = 'nobody' WHERE id = 3")
    room = kept_by(studio)
    making = made(room)
    assert making.state == "failed"
    assert "does not verify" in making.told
    assert list(room.folder.iterdir()) == []


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_flipped_bit_is_found(studio: Studio, tmp_path: Path, at: float) -> None:
    path = tmp_path / "one.tar.gz"
    backup_file.write(studio.folder, path, studio.clock(), nobody)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[512 * 3 + round(at * (len(content) - 512 * 8))] ^= 1
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(BackupError):
        backup_file.check(path, nobody)


def test_what_is_cut_off_or_no_backup_at_all_is_found(studio: Studio, tmp_path: Path) -> None:
    path = tmp_path / "one.tar.gz"
    backup_file.write(studio.folder, path, studio.clock(), nobody)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no archive", gzip.compress(b"no archive" * 100)):
        path.write_bytes(content)
        with pytest.raises(BackupError):
            backup_file.check(path, nobody)


def test_a_disk_that_is_full_leaves_nothing(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    target = tmp_path / "backups"
    target.mkdir()
    with pytest.raises(BackupError, match="No space left"):
        backup_file.write(studio.folder, target / "one.tar.gz", studio.clock(), nobody)
    assert list(target.iterdir()) == []


def test_the_newest_are_kept(studio: Studio) -> None:
    room = kept_by(studio, kept=2)
    for _ in range(3):
        assert made(room).state == "done"
        studio.clock.advance(60)
    assert [backup.name for backup in room.listed()] == [
        "zsky-20261122T120200Z.tar.gz",
        "zsky-20261122T120100Z.tar.gz",
    ]


def test_of_two_in_one_second_none_replaces_the_other(studio: Studio) -> None:
    room = kept_by(studio)
    made(room)
    [first] = room.listed()
    content = room.path(first.name).read_bytes()
    assert made(room).state == "done"
    assert [backup.made_at - first.made_at for backup in room.listed()] == [SECOND_US, 0]
    assert room.path(first.name).read_bytes() == content


def test_one_is_due_a_day_after_the_last(studio: Studio) -> None:
    room = kept_by(studio)
    assert room.begin_if_due()
    until(lambda: (last := room.last()) is not None and last.state == "done", "made")
    studio.clock.advance(DAY_US / 1e6 - 1)
    assert not room.begin_if_due()
    studio.clock.advance(1)
    assert room.begin_if_due()
    room.close()


def test_there_is_one_at_a_time_and_none_after_the_end(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slowly(*_: object) -> None:
        entered.set()
        assert leave.wait(60)
        raise BackupError("it was slow")

    monkeypatch.setattr(backup_file, "write", slowly)
    room = kept_by(studio)
    assert room.begin("acc_owner")
    assert entered.wait(60)
    assert not room.begin("acc_owner")
    leave.set()
    room.close()
    last = room.last()
    assert last is not None
    assert (last.state, last.told) == ("failed", "It was slow.")
    assert not room.begin("acc_owner")


def test_only_backups_are_listed_and_given_out(studio: Studio) -> None:
    room = kept_by(studio)
    made(room)
    name = room.listed()[0].name
    (room.folder / "zsky-20261122T130000Z.tar.gz").symlink_to(studio.folder / "secrets.json")
    (room.folder / "zsky-later.tar.gz").touch()
    assert [backup.name for backup in room.listed()] == [name]
    for other in ("zsky-20261122T130000Z.tar.gz", "../secrets.json", "", "zsky-later.tar.gz"):
        with pytest.raises(Refusal) as refused:
            room.path(other)
        assert refused.value.status == 404


def test_a_start_clears_what_was_cut_off(studio: Studio) -> None:
    room = kept_by(studio)
    (room.folder / ".making-x").mkdir(parents=True)
    (room.folder / ".making-x" / "ledger.db").touch()
    room.clear()
    assert list(room.folder.iterdir()) == []


def test_a_reading_ends_where_the_ledger_cannot_be_asked(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a backup is compared with is on record; the next one can be begun all the same."""

    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    room = kept_by(studio)
    made(room)
    [backup] = room.listed()
    with monkeypatch.context() as patched:
        patched.setattr(studio.store, "one", broken)
        assert room.begin_check(backup.name)
        assert (ended(room).state, ended(room).told) == ("failed", f"{backup.name}: disk I/O error.")
    assert room.begin_check(backup.name)
    assert ended(room).state == "done"


def test_one_that_somebody_else_has_just_deleted_is_not_deleted_twice(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = kept_by(studio)
    made(room)
    [backup] = room.listed()
    with monkeypatch.context() as patched:
        patched.setattr(room, "listed", lambda: [backup])  # both have looked before either has deleted
        room.delete(backup.name, "acc_owner")
        with pytest.raises(Refusal) as refused:
            room.delete(backup.name, "acc_owner")
    assert refused.value.status == 404
    assert len(studio.store.all("SELECT 1 FROM audit WHERE action = 'backup.deleted'")) == 1
