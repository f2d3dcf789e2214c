from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.stores import Rooms, a_file, add_account, caller_for, made
from zsky_box import library, prompt_words
from zsky_box.errors import InvalidFields, Refusal
from zsky_box.keys import Caller
from zsky_box.library import Library, Wall, Wanted


@pytest.fixture
def rooms(tmp_path: Path) -> Generator[Rooms]:
    rooms = Rooms(tmp_path, included_images=200, included_videos=20)
    yield rooms
    rooms.close()


def a_library(rooms: Rooms, *, is_shared: bool = False) -> Library:
    return Library(rooms.store, rooms.assets, rooms.clock, is_shared=is_shared)


def wall(rooms: Rooms, caller: Caller | None = None, *, shared: bool = False, **wanted: Any) -> Wall:
    return a_library(rooms, is_shared=shared).page(caller or rooms.owner, Wanted(**wanted))


def ids(shown: Wall) -> list[str]:
    return [tile.job_id for tile in shown.tiles]


def a_result(rooms: Rooms, caller: Caller | None = None, **fields: Any) -> str:
    job_id = rooms.new_job(caller, **fields)
    rooms.complete(rooms.claimed(job_id))
    return job_id


def a_failure(rooms: Rooms, caller: Caller | None = None, **fields: Any) -> str:
    job_id = rooms.new_job(caller, **fields)
    rooms.end(rooms.claimed(job_id))
    return job_id


def bob(rooms: Rooms) -> Caller:
    """A member beside the owner."""
    return caller_for(rooms.store, add_account(rooms.store, "bob"))


def test_it_works(rooms: Rooms) -> None:
    older, newer = a_result(rooms, prompt="a lake"), a_result(rooms, prompt="a sea", n=3)
    shown = wall(rooms)
    assert (ids(shown), shown.count, shown.next_cursor) == ([newer, older], 2, None)
    tile = shown.tiles[0]
    assert (tile.prompt, tile.type, tile.model, tile.count) == ("a sea", "image", "leader", 3)
    assert (tile.width, tile.height, tile.has_sound, tile.mine, tile.maker) == (64, 36, False, True, "owner")
    assert tile.thumbnail.startswith("/files/file_")
    assert "-0.jpg?" in tile.thumbnail
    assert "-0.png?" in tile.media


def test_only_what_has_ended_is_on_the_wall(rooms: Rooms) -> None:
    rooms.new_job()
    rooms.running()
    rooms.new_job(rooms.tester)
    assert wall(rooms) == Wall([], None, 0)


def test_a_clip_says_its_length_and_its_sound(rooms: Rooms) -> None:
    attempt = rooms.running(type="video", duration=2)
    content = b"a film"
    film = a_file(content, name="film.mp4", mime="video/mp4", frames=48, fps=24, duration_seconds=2.0, channels=2)
    (Path(attempt.out_dir) / film.name).write_bytes(content)
    rooms.book.complete(msgspec.structs.replace(made(attempt), files=(film,)), "CPU", {})
    tile = wall(rooms).tiles[0]
    assert (tile.type, tile.duration_seconds, tile.has_sound, tile.thumbnail) == ("video", 2.0, True, "")
    assert tile.media.startswith("/files/file_")


def test_failures_and_what_was_removed_are_shown_where_they_are_asked_for(rooms: Rooms) -> None:
    result, failure, removed, gone = a_result(rooms), a_failure(rooms), a_result(rooms), a_failure(rooms)
    rooms.delete(removed)
    rooms.delete(gone)
    assert ids(wall(rooms)) == [result]
    failed = wall(rooms, show="failed").tiles
    assert [(tile.job_id, tile.error, tile.error_code, tile.thumbnail, tile.count) for tile in failed] == [
        (failure, "It did not work.", "internal_error", "", 0)
    ]
    shown = wall(rooms, show="removed").tiles
    assert [tile.job_id for tile in shown] == [gone, removed]
    assert all(tile.removed_at and not tile.thumbnail and not tile.media for tile in shown)


def test_a_wall_can_be_narrowed(rooms: Rooms) -> None:
    image = a_result(rooms, prompt="a Neon market")
    rooms.clock.advance(60)
    later = rooms.clock()
    video = a_result(rooms, prompt="neon rain", type="video")
    narrowed: list[tuple[dict[str, Any], list[str]]] = [
        ({"type": "video"}, [video]),
        ({"type": "image"}, [image]),
        ({"model": "leader"}, [video, image]),
        ({"model": "mini"}, []),
        ({"after": later}, [video]),
        ({"before": later}, [image]),
        ({"after": later, "before": later}, []),
        ({"text": "neon"}, [video, image]),
        ({"text": "neon ma"}, [image]),
        ({"text": "neon", "type": "video", "model": "leader", "after": later}, [video]),
        ({"text": "neon", "show": "failed"}, []),
        ({"text": "???"}, []),
        ({"text": "   "}, [video, image]),
    ]
    for wanted, expected in narrowed:
        shown = wall(rooms, **wanted)
        assert (ids(shown), shown.count) == (expected, len(expected)), wanted


@pytest.mark.parametrize("text", ["", "lake"])
def test_pages_follow_each_other_while_results_come_and_go(rooms: Rooms, text: str) -> None:
    mine = [a_result(rooms, prompt="a lake") for _ in range(5)]
    shelf, seen, cursor = a_library(rooms), list[str](), None
    for expected in (2, 2, 1):
        page = shelf.page(rooms.owner, Wanted(text=text), cursor, 2)
        assert len(page.tiles) == expected
        assert page.count == (0 if cursor else 5)
        seen, cursor = seen + ids(page), page.next_cursor
        a_result(rooms, prompt="another lake")
        if len(seen) == 2:
            rooms.delete(seen[0])
    assert (seen, cursor) == (mine[::-1], None)


@pytest.mark.parametrize("cursor", ["", "x", "ajU", "d", "é", "!" * 500])
def test_a_cursor_of_ones_own_making_is_refused(rooms: Rooms, cursor: str) -> None:
    with pytest.raises(InvalidFields):
        a_library(rooms).page(rooms.owner, Wanted(), cursor)


def test_nobody_sees_anothers_results_where_they_are_not_shared(rooms: Rooms) -> None:
    job_id, other = a_result(rooms, prompt="secret"), bob(rooms)
    shelf = a_library(rooms)
    narrowed: list[dict[str, Any]] = [{}, {"text": "secret"}, {"show": "removed"}, {"show": "failed"}]
    for wanted in narrowed:
        assert wall(rooms, other, **wanted) == Wall([], None, 0)
    assert shelf.models(other) == []
    assert shelf.chosen(other, [job_id]) == []
    for asked in (
        lambda: shelf.row(other, job_id),
        lambda: shelf.row(rooms.owner, "job_unknown"),
        lambda: shelf.page(other, Wanted(team=True)),
    ):
        with pytest.raises(Refusal) as refused:
            asked()
        assert refused.value.status == 404


def test_a_shared_library_shows_everybodys_results_with_their_makers_and_nothing_else_of_them(rooms: Rooms) -> None:
    other = bob(rooms)
    mine, his = a_result(rooms, prompt="a lake"), a_result(rooms, other, prompt="a sea")
    failure, removed = a_failure(rooms, other), a_result(rooms, other)
    rooms.delete(removed, other)
    open_job = rooms.new_job(other)
    shelf = a_library(rooms, is_shared=True)
    shown = wall(rooms, shared=True, team=True).tiles
    assert [(tile.job_id, tile.maker, tile.mine) for tile in shown] == [(his, "bob", False), (mine, "owner", True)]
    assert ids(wall(rooms, shared=True)) == [mine]
    assert ids(wall(rooms, shared=True, team=True, text="sea")) == [his]
    assert ids(wall(rooms, shared=True, team=True, show="failed")) == []
    assert ids(wall(rooms, shared=True, team=True, show="removed")) == []
    assert shelf.row(rooms.owner, his)["maker"] == "bob"
    assert [tile.job_id for tile in shelf.chosen(rooms.owner, [mine, his, failure, removed])] == [his, mine]
    for job_id in (failure, removed, open_job):
        with pytest.raises(Refusal):
            shelf.row(rooms.owner, job_id)
    with pytest.raises(Refusal):
        rooms.delete(his)


def test_a_test_keys_jobs_are_in_no_library(rooms: Rooms) -> None:
    job_id = rooms.new_job(rooms.tester)
    rooms.complete(rooms.claimed(job_id))
    assert wall(rooms, shared=True, team=True).tiles == []
    with pytest.raises(Refusal):
        a_library(rooms).row(rooms.owner, job_id)


def test_models_are_those_of_what_is_on_the_wall(rooms: Rooms) -> None:
    shelf, other = a_library(rooms, is_shared=True), bob(rooms)
    assert shelf.models(rooms.owner) == shelf.models(rooms.owner, team=True) == []
    for model in ("b", "a", "b", "c"):
        job_id = a_result(rooms, other if model == "c" else None)
        rooms.store.write(lambda tx, m=model, j=job_id: tx.execute("UPDATE job SET model = ? WHERE id = ?", (m, j)))
    assert shelf.models(rooms.owner) == ["a", "b"]
    assert shelf.models(rooms.owner, team=True) == ["a", "b", "c"]


def test_chosen_jobs_come_newest_first_with_their_files(rooms: Rooms) -> None:
    first, second, failure = a_result(rooms), a_result(rooms, n=2), a_failure(rooms)
    shelf = a_library(rooms)
    tiles = shelf.chosen(rooms.owner, [first, failure, "job_unknown", second, first])
    assert [tile.job_id for tile in tiles] == [failure, second, first]
    files = shelf.files(tiles)
    assert [(tile.job_id, asset.file.kind, asset.file.ordinal) for tile, asset in files] == [
        (second, "result", 0),
        (second, "result", 1),
        (first, "result", 0),
    ]
    rooms.delete(second)
    assert [tile.job_id for tile, _ in shelf.files(shelf.chosen(rooms.owner, [first, second]))] == [first]


def test_several_are_removed_together_or_none(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, still_open = a_result(rooms), a_result(rooms), rooms.new_job()
    with pytest.raises(Refusal, match="job_open"):
        asyncio.run(rooms.desk.delete_all(rooms.owner, [first, still_open]))
    assert ids(wall(rooms)) == [second, first]
    monkeypatch.setattr("zsky_box.assets._PURGE_BATCH", 2)
    asyncio.run(rooms.desk.delete_all(rooms.owner, [first, second]))
    assert ids(wall(rooms)) == []
    asyncio.run(rooms.desk.purge())
    assert list(rooms.assets.root.glob("job_*")) == []


def test_all_that_match_are_found_whatever_is_on_the_page(rooms: Rooms) -> None:
    lake, sea = a_result(rooms, prompt="a lake"), a_result(rooms, prompt="a sea")
    failure, theirs = a_failure(rooms, prompt="a lake"), a_result(rooms, bob(rooms), prompt="a lake")
    as_of = rooms.clock()
    rooms.clock.advance(1)
    later = a_result(rooms, prompt="a lake")
    shelf = a_library(rooms, is_shared=True)

    def matching(most: int = 10, **wanted: Any) -> list[str]:
        return shelf.matching(rooms.owner, Wanted(**wanted), most)

    assert matching() == [later, sea, lake]
    assert matching(2) == [later, sea]
    assert matching(ended_by=as_of) == [sea, lake]
    assert matching(text="lake", ended_by=as_of) == [lake]
    assert matching(text="lake", team=True) == [later, theirs, lake]
    assert matching(show="failed") == [failure]
    assert matching(text='"*') == []
    with pytest.raises(Refusal, match="not_found"):
        a_library(rooms).matching(rooms.owner, Wanted(team=True), 10)


def test_every_wall_is_read_in_the_order_of_an_index(rooms: Rooms) -> None:
    """Nothing is sorted and no row is read that another filter would throw away: a wall of 10,000 is as one of ten."""
    for wanted in (
        Wanted(),
        Wanted(type="video"),
        Wanted(model="leader", type="video"),
        Wanted(show="failed"),
        Wanted(show="removed"),
        Wanted(team=True, type="video"),
        Wanted(text="lake"),
        Wanted(text="lake", team=True),
    ):
        plan = _plan(rooms, wanted)
        assert "TEMP B-TREE" not in plan, wanted
        assert ("prompt_words" in plan) == bool(wanted.text)
        assert wanted.text or "USING INDEX job_" in plan, plan


def _plan(rooms: Rooms, wanted: Wanted) -> str:
    account = "" if wanted.team else rooms.owner.account.id
    words = prompt_words.match(account, wanted.text)
    tables, clauses, values = library._query(rooms.owner, wanted, words)  # pyright: ignore[reportPrivateUsage]
    seq = "prompt_words.rowid" if words else "job.seq"
    sql = f"EXPLAIN QUERY PLAN SELECT job.* FROM {tables} WHERE {' AND '.join(clauses)} ORDER BY {seq} DESC LIMIT 9"  # noqa: S608
    return "\n".join(row["detail"] for row in rooms.store.all(sql, values))
