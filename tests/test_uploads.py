"""Uploads: a file and its row, or neither; one's own alone; kept while a job may want them, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.media.pictures import corners, encoded
from tests.stores import Rooms, add_account, caller_for, job_id_of
from zsky_box import requests
from zsky_box.db import storage_error
from zsky_box.errors import InvalidFields, JobFailure, Refusal
from zsky_box.idempotency import Answer, Idempotency
from zsky_box.keys import Caller
from zsky_box.schemas import GenerateBody
from zsky_box.uploads import TMP, Offered, Upload

PICTURE = encoded(corners())
DAY_SECONDS = 86_400
MODEL = "beginner"


@pytest.fixture
def rooms(tmp_path: Path) -> Generator[Rooms]:
    """Rooms with a model that begins with a picture."""
    opened = Rooms(tmp_path, unused_uploads_max=3, included_images=40)
    learn(opened)
    yield opened
    opened.close()


def learn(rooms: Rooms) -> None:
    """A model that takes pictures and strengths."""
    leader = rooms.catalog.specs["leader"]
    limits = replace(leader.limits, reference_image=True, strength=True)
    rooms.catalog.specs[MODEL] = replace(leader, name=MODEL, limits=limits)


def upload(rooms: Rooms, content: bytes = PICTURE, caller: Caller | None = None) -> Upload:
    """As the route does it."""

    async def work() -> Upload:
        async with rooms.uploads.offered(content, field="file") as offered:
            return rooms.store.write(lambda tx: rooms.uploads.record(tx, caller or rooms.owner, offered, rooms.clock()))

    return asyncio.run(work())


def submit_with(rooms: Rooms, content: bytes = PICTURE, key: Idempotency | None = None, **fields: Any) -> Answer:
    """A submit with the picture in it."""
    body = GenerateBody(type="image", prompt="a quiet lake", model=MODEL, image="data:image/png;base64,AAAA")
    body = replace(body, **fields)
    submission = requests.resolve(body, rooms.catalog, test=False, require_real_model=False)

    async def work() -> Answer:
        async with rooms.uploads.offered(content, field="image") as offered:
            return await rooms.desk.submit(rooms.owner, submission, key, offered)

    return asyncio.run(work())


def job_with(rooms: Rooms, upload_id: str, caller: Caller | None = None) -> str:
    """A job that begins with an upload."""
    return rooms.new_job(caller, image=upload_id, model=MODEL)


def files(rooms: Rooms) -> set[str]:
    """What lies in the uploads' folder, without what is being made."""
    assert list((rooms.uploads.root / TMP).iterdir()) == []
    return {path.name for path in rooms.uploads.root.iterdir()} - {TMP}


def refused(rooms: Rooms, upload_id: str, caller: Caller | None = None) -> InvalidFields:
    with pytest.raises(InvalidFields) as told:
        job_with(rooms, upload_id, caller)
    return told.value


def test_it_works(rooms: Rooms) -> None:
    stored = upload(rooms)
    assert (stored.width, stored.height, stored.created_at) == (64, 48, rooms.clock())
    assert files(rooms) == {f"{stored.id}.png"}
    assert rooms.uploads.find(rooms.store, rooms.owner, stored.id) == stored
    assert (rooms.uploads.root / f"{stored.id}.png").stat().st_size == stored.bytes
    assert requests.UPLOAD_ID.fullmatch(stored.id)


def test_a_job_is_given_its_picture_and_keeps_what_it_began_with(rooms: Rooms) -> None:
    stored = upload(rooms)
    job_id = job_with(rooms, stored.id)
    attempt = rooms.claimed(job_id)
    assert attempt.reference_path == str(rooms.uploads.root / f"{stored.id}.png")
    assert (attempt.work.reference, attempt.work.strength) == (stored.id, requests.DEFAULT_STRENGTH)
    assert rooms.view(job_id).reference == stored.id
    assert rooms.row(job_id)["upload_id"] == stored.id
    plain = rooms.new_job()
    assert rooms.claimed(plain).reference_path == ""
    assert rooms.view(plain).reference is None


# Whose it is


def test_anothers_upload_is_as_if_it_never_was(rooms: Rooms) -> None:
    other = caller_for(rooms.store, add_account(rooms.store, "member"))
    stored, never = upload(rooms), "up_" + "0" * 26
    for caller in (other, rooms.tester):
        assert refused_find(rooms, caller, stored.id) == refused_find(rooms, caller, never)
        with pytest.raises(Refusal) as told:
            rooms.store.write(lambda tx, caller=caller: rooms.uploads.remove(tx, caller, stored.id, 1))
        assert told.value.status == 404
        with pytest.raises(InvalidFields):
            rooms.uploads.require(rooms.store, caller, stored.id)
    assert refused(rooms, stored.id, other).detail.replace(stored.id, never) == refused(rooms, never, other).detail
    assert rooms.uploads.find(rooms.store, rooms.owner, stored.id).removed_at is None


def refused_find(rooms: Rooms, caller: Caller, upload_id: str) -> tuple[int, str]:
    with pytest.raises(Refusal) as told:
        rooms.uploads.find(rooms.store, caller, upload_id)
    return told.value.status, told.value.detail


def test_a_refused_reference_stores_no_job_and_holds_no_money(rooms: Rooms) -> None:
    left = rooms.left()
    told = refused(rooms, "up_" + "0" * 26)
    assert (told.status, told.code, told.field) == (422, "invalid_field", "image")
    assert rooms.left() == left
    assert rooms.store.all("SELECT 1 FROM job") == []


# A file and a row, or neither


def test_a_picture_that_is_refused_leaves_nothing(rooms: Rooms) -> None:
    for content in (b"GIF89a", PICTURE[:-30]):
        with pytest.raises(Refusal):
            upload(rooms, content)
    assert files(rooms) == set()


def test_a_picture_above_the_bound_is_not_even_decoded(rooms: Rooms) -> None:
    rooms.uploads._settings = replace(rooms.settings, upload_max_bytes=len(PICTURE) - 1)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(Refusal) as told:
        upload(rooms, b"no picture" * len(PICTURE))
    assert (told.value.status, told.value.code) == (413, "too_large")


def test_a_checked_picture_is_not_kept(rooms: Rooms) -> None:
    asyncio.run(rooms.uploads.check(PICTURE, field="image"))
    assert files(rooms) == set()


def test_a_submit_that_is_refused_leaves_no_picture(rooms: Rooms) -> None:
    for _ in range(rooms.left()):
        rooms.new_job()
    with pytest.raises(Refusal) as told:
        submit_with(rooms)
    assert told.value.code == "allowance_exhausted"
    assert files(rooms) == set()
    assert rooms.store.all("SELECT 1 FROM upload") == []


def test_a_picture_that_came_with_a_job_is_its_upload(rooms: Rooms) -> None:
    job_id = job_id_of(submit_with(rooms, strength=0.25))
    reference = rooms.view(job_id).reference
    assert files(rooms) == {f"{reference}.png"}
    attempt = rooms.claimed(job_id)
    assert (Path(attempt.reference_path).name, attempt.work.strength) == (f"{reference}.png", 0.25)


def test_an_equal_picture_is_stored_once_for_an_account(rooms: Rooms) -> None:
    first, again = (rooms.view(job_id_of(submit_with(rooms))).reference for _ in range(2))
    other = rooms.view(job_id_of(submit_with(rooms, encoded(corners(48, 64))))).reference
    assert first == again != other
    assert files(rooms) == {f"{first}.png", f"{other}.png"}


def test_a_repeated_submit_leaves_no_second_picture(rooms: Rooms) -> None:
    key = Idempotency("key-1", b"a request")
    first = submit_with(rooms, key=key)
    again = submit_with(rooms, encoded(corners(48, 64)), key=key)
    assert (again.replayed, job_id_of(again)) == (True, job_id_of(first))
    assert files(rooms) == {f"{rooms.view(job_id_of(first)).reference}.png"}


def test_where_the_store_cannot_tell_the_next_start_does(rooms: Rooms) -> None:
    """The write may have happened: its file is not taken from it."""

    async def work(*, happens: bool) -> Offered:
        async with rooms.uploads.offered(PICTURE, field="file") as offered:
            if happens:
                rooms.store.write(lambda tx: rooms.uploads.record(tx, rooms.owner, offered, rooms.clock()))
            holder.append(offered)
            raise storage_error()

    holder = list[Offered]()
    for happens in (True, False):
        with pytest.raises(Refusal):
            asyncio.run(work(happens=happens))
    stored, lost = holder
    assert files(rooms) == {f"{stored.id}.png", f"{lost.id}.png"}
    rooms.restart()
    assert files(rooms) == {f"{stored.id}.png"}


def test_a_start_removes_what_no_row_names_and_nothing_else(rooms: Rooms) -> None:
    stored, gone = upload(rooms), upload(rooms)
    rooms.store.write(lambda tx: rooms.uploads.remove(tx, rooms.owner, gone.id, rooms.clock()))
    for name in ("up_orphan.png", f"{TMP}/up_half.png"):
        (rooms.uploads.root / name).write_bytes(b"left over")
    (rooms.uploads.root / "note.txt").write_text("somebody's own")
    rooms.restart()
    assert files(rooms) == {f"{stored.id}.png", "note.txt"}


@pytest.mark.parametrize("damage", ["gone", "shorter", "symlink"])
def test_a_job_whose_picture_is_lost_fails_free_and_none_follows(rooms: Rooms, damage: str) -> None:
    stored = upload(rooms)
    first, second = job_with(rooms, stored.id), job_with(rooms, stored.id)
    path = rooms.uploads.root / f"{stored.id}.png"
    if damage == "shorter":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        content = path.read_bytes()
        path.unlink()
        if damage == "symlink":
            (rooms.folder / "elsewhere.png").write_bytes(content)
            path.symlink_to(rooms.folder / "elsewhere.png")
    for job_id in (first, second):
        assert rooms.book.claim(job_id, "cpu") is None
        view = rooms.view(job_id)
        assert (view.status, view.error_code, view.charge.state) == ("failed", "internal_error", "voided")
        assert "picture" in str(view.error)
        assert "disk" in str(view.error)
    assert stored.id in refused(rooms, stored.id).detail
    assert rooms.view(job_id_of(submit_with(rooms))).reference != stored.id, "an equal picture is stored anew"


# Bounds and retention


def test_uploads_that_no_job_takes_are_bounded_and_others_are_not(rooms: Rooms) -> None:
    stored = [upload(rooms) for _ in range(3)]
    with pytest.raises(Refusal) as told:
        upload(rooms)
    assert (told.value.status, told.value.code) == (429, "queue_full")
    assert told.value.headers["Retry-After"]
    assert len(files(rooms)) == 3
    upload(rooms, caller=rooms.tester)
    submit_with(rooms, encoded(corners(80, 80)))
    job_with(rooms, stored[0].id)
    upload(rooms)
    rooms.store.write(lambda tx: rooms.uploads.remove(tx, rooms.owner, stored[1].id, rooms.clock()))
    upload(rooms)


def test_their_bytes_are_bounded_too(rooms: Rooms) -> None:
    size = upload(rooms).bytes
    rooms.uploads._settings = replace(rooms.settings, unused_uploads_max_bytes=2 * size)  # pyright: ignore[reportPrivateUsage]
    upload(rooms)
    with pytest.raises(Refusal) as told:
        upload(rooms)
    assert told.value.code == "queue_full"


def test_a_full_disk_takes_no_pictures(rooms: Rooms) -> None:
    rooms.uploads._settings = replace(rooms.settings, free_space_floor_bytes=2**62)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(Refusal) as told:
        upload(rooms)
    assert (told.value.status, told.value.code) == (503, "storage_full")
    assert files(rooms) == set()


def test_what_is_old_and_unused_goes_and_what_a_job_has_stays(rooms: Rooms) -> None:
    first, second, third = (upload(rooms, encoded(corners(64, 48 + n))) for n in range(3))
    ended = job_with(rooms, second.id)
    rooms.complete(rooms.claimed(ended))
    opened = job_with(rooms, third.id)
    rooms.clock.advance(30 * DAY_SECONDS)
    assert rooms.uploads.expire(rooms.clock()) == 0
    rooms.clock.advance(1)
    fresh = upload(rooms)
    assert rooms.uploads.expire(rooms.clock()) == 1
    assert files(rooms) == {f"{kept.id}.png" for kept in (second, third, fresh)}
    assert rooms.uploads.find(rooms.store, rooms.owner, first.id).removed_at == rooms.clock()
    rooms.delete(ended)
    rooms.cancel(opened)
    assert rooms.uploads.expire(rooms.clock()) == 1
    assert files(rooms) == {f"{kept.id}.png" for kept in (third, fresh)}, "what failed can still be run again"


def test_a_job_that_comes_while_its_upload_expires_is_refused_or_has_it(rooms: Rooms) -> None:
    stored = upload(rooms)
    rooms.clock.advance(31 * DAY_SECONDS)
    found = rooms.store.all
    job_ids = list[str]()

    def slow(sql: str, parameters: Any = ()) -> Any:
        late = found(sql, parameters)
        if "created_at <" in sql:
            job_ids.append(job_with(rooms, stored.id))
        return late

    rooms.store.all = slow
    assert rooms.uploads.expire(rooms.clock()) == 0
    rooms.store.all = found
    assert rooms.claimed(job_ids[0]).reference_path


# Removal


def test_an_upload_that_an_open_job_has_is_not_removed(rooms: Rooms) -> None:
    stored = upload(rooms)
    job_id = job_with(rooms, stored.id)

    def remove() -> Upload:
        return rooms.store.write(lambda tx: rooms.uploads.remove(tx, rooms.owner, stored.id, rooms.clock()))

    with pytest.raises(Refusal) as told:
        remove()
    assert (told.value.status, told.value.code) == (409, "job_open")
    rooms.complete(rooms.claimed(job_id))
    removed = remove()
    assert removed.removed_at == rooms.clock()
    rooms.clock.advance(5)
    assert remove() == removed, "once is enough"
    rooms.uploads.discard(removed)
    assert files(rooms) == set()
    assert stored.id in refused(rooms, stored.id).detail


def test_a_row_leads_nowhere_but_under_the_root(rooms: Rooms) -> None:
    stored = upload(rooms)
    job_with(rooms, stored.id)
    (rooms.folder / "secret.png").write_bytes(bytes(stored.bytes))
    rooms.store.write(lambda tx: tx.execute("UPDATE upload SET path = '../secret.png'"))
    with pytest.raises(JobFailure):
        rooms.uploads.path(stored.id, rooms.clock())
