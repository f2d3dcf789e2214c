from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.always_true import check_always_true
from tests.stores import START_US, Rooms, a_file, made
from zsky_box.assets import Asset, Assets, stem
from zsky_box.errors import JobFailure, Refusal
from zsky_box.events import File

SECOND_US = 1_000_000
CONTENT = b"a picture"


@pytest.fixture
def rooms(tmp_path: Path) -> Generator[Rooms]:
    rooms = Rooms(tmp_path)
    yield rooms
    rooms.close()


@pytest.fixture
def asset(rooms: Rooms) -> Asset:
    """The result of a finished job."""
    attempt = rooms.running(prompt="A Lake, at dawn!")
    rooms.complete(attempt)
    return rooms.assets.of_jobs([attempt.job_id])[attempt.job_id][0]


def parts(signed: str) -> tuple[str, str, str, str]:
    """Id, name, expiry and signature of a signed path."""
    url = urlsplit(signed)
    _, _, asset_id, name = url.path.split("/")
    query = parse_qs(url.query)
    return asset_id, name, query["expires"][0], query["signature"][0]


def refusal(assets: Assets, *signed: str, now: int = START_US) -> str:
    with pytest.raises(Refusal) as refused:
        assets.open_signed(*signed, now=now)
    return refused.value.code


# Names


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A neon night market, 4K!", "a-neon-night-market-4k-7"),
        ("Café Müller", "cafe-muller-7"),
        ("夜市", "untitled-7"),
        ("../../etc/passwd", "etc-passwd-7"),
        ("-rf /", "rf-7"),
        ("x" * 500, f"{'x' * 48}-7"),
    ],
)
def test_files_are_named_by_the_prompts_first_words(prompt: str, name: str) -> None:
    assert stem(prompt, 7) == name


# Signed paths


def test_a_signed_path_opens_its_file(rooms: Rooms, asset: Asset) -> None:
    signed = rooms.assets.signed_path(asset, START_US)
    assert signed.startswith(f"/files/{asset.id}/a-lake-at-dawn-7-0.png?expires=")
    found, path = rooms.assets.open_signed(*parts(signed), now=START_US)
    assert found == asset
    assert path.read_bytes().decode() == f"{asset.job_id} 1 0 result"


def test_a_signed_path_is_the_same_for_a_whole_hour_and_lasts_a_day_at_least(rooms: Rooms, asset: Asset) -> None:
    hour = 3_600 * SECOND_US
    start = START_US + SECOND_US
    signed = {rooms.assets.signed_path(asset, start + minute * 60 * SECOND_US) for minute in range(60)}
    assert len(signed) == 1
    assert rooms.assets.signed_path(asset, start + hour) not in signed
    last = START_US + 24 * hour
    assert rooms.assets.open_signed(*parts(signed.pop()), now=last)[0] == asset


def test_an_expired_path_is_refused_from_its_second_on(rooms: Rooms, asset: Asset) -> None:
    signed = parts(rooms.assets.signed_path(asset, START_US))
    end = int(signed[2]) * SECOND_US
    assert rooms.assets.open_signed(*signed, now=end - 1)[0] == asset
    assert refusal(rooms.assets, *signed, now=end) == "expired_signature"


def test_no_part_of_a_signed_path_can_be_changed(rooms: Rooms, asset: Asset) -> None:
    asset_id, name, expires, signature = parts(rooms.assets.signed_path(asset, START_US))
    flipped = ("0" if signature[0] != "0" else "1") + signature[1:]
    for changed in (
        (asset_id[:-1] + ("y" if asset_id[-1] == "x" else "x"), name, expires, signature),
        (asset_id, "other.png", expires, signature),
        (asset_id, name, str(int(expires) + 1), signature),
        (asset_id, name, "0" + expires, signature[::-1]),
        (asset_id, name, expires, flipped),
        (asset_id, name, expires, signature[:-1]),
        (asset_id, name, expires, ""),
        (asset_id, name, expires, "é" * 43),
        (asset_id, name, "", signature),
        (asset_id, name, "-1", signature),
        (asset_id, name, "1e9", signature),
        (asset_id, name, "٣", signature),
        (asset_id, name, "9" * 5_000, signature),
    ):
        assert refusal(rooms.assets, *changed) == "invalid_signature"


def test_a_path_signed_by_another_box_is_refused(rooms: Rooms, asset: Asset) -> None:
    other = Assets(rooms.store, rooms.assets.root, bytes(32), 24)
    assert refusal(rooms.assets, *parts(other.signed_path(asset, START_US))) == "invalid_signature"


def traversals() -> list[str]:
    """Thousands of ways to write a path that leads elsewhere."""
    ups = [
        "..",
        "%2e%2e",
        "..%2f",
        "%252e%252e",
        "..\\",
        "..%5c",
        "....//",
        "..;",
        "\uff0e\uff0e",
        "%c0%ae%c0%ae",
        ".%00.",
        "..\x00",
    ]
    slashes = ["/", "//", "\\", "%2f", "%252f", "%5c", "\u2215", "\uff0f"]
    targets = ["ledger.db", "secrets.json", "etc/passwd", "proc/self/environ", "zsky.toml", "control.json", ".tmp"]
    made_up = [
        slash.join([up] * depth + [target])
        for up in ups
        for slash in slashes
        for depth in (1, 2, 6)
        for target in targets
    ]
    absolute = [f"{slash}{target}" for slash in slashes for target in targets]
    odd = [
        "",
        ".",
        "..",
        "~",
        "~root",
        "\x00",
        "\r\n",
        "CON",
        "a" * 5_000,
        "\ud800",
        "file:///etc/passwd",
        "-",
        "*",
        "?a=b",
    ]
    return made_up + absolute + odd


def test_no_name_and_no_id_leads_to_another_file(rooms: Rooms, asset: Asset) -> None:
    asset_id, name, expires, signature = parts(rooms.assets.signed_path(asset, START_US))
    payloads = traversals()
    assert len(payloads) > 2_000
    for payload in payloads:
        assert refusal(rooms.assets, asset_id, payload, expires, signature) == "invalid_signature"
        assert refusal(rooms.assets, payload, name, expires, signature) == "invalid_signature"
        assert refusal(rooms.assets, f"{asset_id}/{payload}", name, expires, signature) == "invalid_signature"


def test_even_a_rightly_signed_unknown_id_opens_nothing(rooms: Rooms, asset: Asset) -> None:
    for unknown in ("file_unknown", "../../secrets.json", asset.job_id):
        forged = Asset(unknown, "job", asset.path, asset.file, 0, None)
        signed = rooms.assets.signed_path(forged, START_US)
        expires, signature = (parse_qs(urlsplit(signed).query)[name][0] for name in ("expires", "signature"))
        assert refusal(rooms.assets, unknown, asset.file.name, expires, signature) == "not_found"


def test_a_removed_result_is_gone_and_so_is_one_that_is_missing_on_disk(rooms: Rooms, asset: Asset) -> None:
    signed = parts(rooms.assets.signed_path(asset, START_US))
    path = rooms.assets.root / asset.path
    content = path.read_bytes()
    path.unlink()
    assert refusal(rooms.assets, *signed) == "result_removed"
    path.write_bytes(content)
    rooms.delete(asset.job_id)
    assert refusal(rooms.assets, *signed) == "result_removed"


def test_a_link_in_the_place_of_a_result_is_not_followed(rooms: Rooms, asset: Asset, tmp_path: Path) -> None:
    signed = parts(rooms.assets.signed_path(asset, START_US))
    path = rooms.assets.root / asset.path
    path.unlink()
    path.symlink_to(tmp_path / "ledger.db")
    assert refusal(rooms.assets, *signed) == "result_removed"


# Adopting


def adopt(rooms: Rooms, *files: File) -> str:
    """Adopt an attempt whose folder holds `whole.png`; returns the failure, or '' when it went well."""
    folder = rooms.assets.begin("job_1", 1)
    (folder / "whole.png").write_bytes(CONTENT)
    (folder / "left_over.tmp").write_bytes(b"x")
    (folder / "frames").mkdir()
    (folder / "frames" / "0.png").write_bytes(b"x")
    (folder / "link.png").symlink_to(folder / "whole.png")
    try:
        rooms.assets.adopt("job_1", 1, files)
    except JobFailure as failure:
        return failure.error_code
    return ""


def test_an_attempt_is_moved_to_its_lasting_place_with_only_the_reported_files(rooms: Rooms) -> None:
    assert adopt(rooms, a_file(CONTENT, name="whole.png")) == ""
    lasting = rooms.assets.root / "job_1" / "1"
    assert [path.name for path in lasting.iterdir()] == ["whole.png"]
    assert not rooms.assets.attempt_folder("job_1", 1).exists()


def test_adopting_again_after_the_store_failed_gives_the_same_place(rooms: Rooms) -> None:
    whole = a_file(CONTENT, name="whole.png")
    assert adopt(rooms, whole) == ""
    assert rooms.assets.adopt("job_1", 1, (whole,)) == "job_1/1"
    assert (rooms.assets.root / "job_1" / "1" / "whole.png").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "file",
    [
        a_file(CONTENT, name="missing.png"),
        a_file(CONTENT + b"more", name="whole.png"),
        a_file(b"", name="whole.png"),
        a_file(CONTENT, name="../job_1.1/whole.png"),
        a_file(CONTENT, name="frames/0.png", bytes=1),
        a_file(CONTENT, name="/etc/hostname"),
        a_file(CONTENT, name=".."),
        a_file(CONTENT, name="."),
        a_file(CONTENT, name=""),
        a_file(CONTENT, name="frames"),
        a_file(CONTENT, name="link.png"),
        a_file(CONTENT, name="whole.png\x00"),
    ],
    ids=lambda file: repr(file.name),
)
def test_a_file_that_is_not_whole_or_not_in_the_folder_is_not_adopted(rooms: Rooms, file: File) -> None:
    assert adopt(rooms, a_file(CONTENT, name="whole.png"), file) == "internal_error"
    assert not (rooms.assets.root / "job_1").exists()


@pytest.mark.parametrize(("number", "code"), [(28, "storage_full"), (122, "storage_full"), (5, "internal_error")])
def test_a_disk_that_fails_while_adopting_is_a_failure_of_the_job(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    assert adopt(rooms, a_file(CONTENT, name="whole.png")) == code


def test_an_attempt_begins_in_an_empty_folder(rooms: Rooms) -> None:
    (rooms.assets.begin("job_1", 1) / "old").touch()
    assert list(rooms.assets.begin("job_1", 1).iterdir()) == []


# Removing


def test_purging_unlinks_what_is_recorded_and_empty_folders(rooms: Rooms, asset: Asset) -> None:
    kept = rooms.running()
    rooms.complete(kept)
    rooms.delete(asset.job_id)
    assert not (rooms.assets.root / asset.job_id).exists()
    assert (rooms.assets.root / kept.job_id).exists()
    assert rooms.assets.purge(START_US) == 0
    check_always_true(rooms)


def test_a_removal_that_was_recorded_before_a_crash_is_done_after_the_next_start(rooms: Rooms, asset: Asset) -> None:
    rooms.store.write(lambda tx: rooms.assets.mark_removed(tx, asset.job_id, START_US))
    rooms.store.write(lambda tx: tx.execute("UPDATE job SET removed_at = ? WHERE id = ?", (START_US, asset.job_id)))
    assert (rooms.assets.root / asset.path).exists()
    rooms.restart()
    assert not (rooms.assets.root / asset.job_id).exists()
    check_always_true(rooms)


def test_a_purge_that_was_cut_short_is_finished_by_the_next(rooms: Rooms, asset: Asset) -> None:
    rooms.store.write(lambda tx: rooms.assets.mark_removed(tx, asset.job_id, START_US))
    shutil.rmtree(rooms.assets.root / asset.job_id)
    assert rooms.assets.purge(START_US) == 2
    assert rooms.assets.purge(START_US) == 0


def test_a_file_that_cannot_be_unlinked_now_is_unlinked_later(
    rooms: Rooms, asset: Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", _read_only)
        rooms.delete(asset.job_id)
        assert (rooms.assets.root / asset.path).exists()
    assert rooms.assets.purge(START_US) == 2
    assert not (rooms.assets.root / asset.job_id).exists()


def test_files_that_can_never_be_unlinked_hold_up_no_others(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are, wherever they stand among the others; and they go once they can."""
    monkeypatch.setattr("zsky_box.assets._PURGE_BATCH", 2)
    attempts = [rooms.running() for _ in range(12)]
    for attempt in attempts:
        rooms.complete(attempt)
    files = rooms.assets.of_jobs([attempt.job_id for attempt in attempts]).values()
    removed = sorted((each.id, rooms.assets.root / each.path) for of_job in files for each in of_job)
    stuck = {path for number, (_, path) in enumerate(removed) if number < 9 or number % 4 == 0}
    asyncio.run(rooms.desk.delete_all(rooms.owner, [attempt.job_id for attempt in attempts]))
    unlink = Path.unlink

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        if path in stuck:
            raise OSError(1, "Operation not permitted")
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", unlinked)
        assert _purged(rooms) == len(removed) - len(stuck)
        assert {path for _, path in removed if path.exists()} == stuck
        late = rooms.running()
        rooms.complete(late)
        asyncio.run(rooms.desk.delete_all(rooms.owner, [late.job_id]))
        asyncio.run(rooms.desk.purge())
        assert not (rooms.assets.root / late.job_id).exists()
    assert _purged(rooms) == len(stuck)
    assert list(rooms.assets.root.glob("job_*")) == []


def _purged(rooms: Rooms) -> int:
    """How many files go, until none does."""
    return sum(iter(lambda: rooms.assets.purge(START_US), 0))


def test_a_folder_that_cannot_be_removed_now_is_removed_later(
    rooms: Rooms, asset: Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And stops neither a start nor the files beside it."""
    rooms.store.write(lambda tx: rooms.assets.mark_removed(tx, asset.job_id, START_US))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rmdir", _read_only)
        assert rooms.assets.purge(START_US) == 0
    assert not (rooms.assets.root / asset.path).exists()
    assert rooms.assets.purge(START_US) == 2
    assert not (rooms.assets.root / asset.job_id).exists()


def _read_only(*_: object, **__: object) -> None:
    raise OSError(30, "Read-only file system")


def test_purges_at_the_same_time_do_not_trip_over_each_other(rooms: Rooms) -> None:
    attempts = [rooms.running(n=4) for _ in range(10)]
    for attempt in attempts:
        rooms.complete(attempt)
        rooms.store.write(lambda tx, job_id=attempt.job_id: rooms.assets.mark_removed(tx, job_id, START_US))
    with ThreadPoolExecutor(8) as pool:
        purges = [pool.submit(rooms.assets.purge, START_US) for _ in range(16)]
        assert sum(purge.result(30) for purge in purges) >= 80
    assert list(rooms.assets.root.glob("job_*")) == []


def test_leftovers_of_attempts_are_cleared_at_the_start_and_results_are_not(rooms: Rooms, asset: Asset) -> None:
    rooms.assets.begin("job_2", 1)
    rooms.assets.clear_temporary()
    assert list((rooms.assets.root / ".tmp").iterdir()) == []
    assert (rooms.assets.root / asset.path).is_file()


def test_discarding_one_attempt_keeps_the_others(rooms: Rooms) -> None:
    for token in (1, 2):
        adopted = rooms.assets.begin("job_1", token)
        (adopted / "whole.png").write_bytes(CONTENT)
        rooms.assets.adopt("job_1", token, (a_file(CONTENT, name="whole.png"),))
    rooms.assets.begin("job_1", 3)
    rooms.assets.discard("job_1", 1)
    assert sorted(path.name for path in (rooms.assets.root / "job_1").iterdir()) == ["2"]
    assert rooms.assets.attempt_folder("job_1", 3).exists()
    rooms.assets.discard("job_1")
    assert not (rooms.assets.root / "job_1").exists()
    assert not rooms.assets.attempt_folder("job_1", 3).exists()


def test_folders_that_the_ledger_does_not_know_are_left_alone(rooms: Rooms, asset: Asset) -> None:
    mine = rooms.assets.root / "job_of_a_newer_backup"
    mine.mkdir()
    (rooms.assets.root / "my notes").mkdir()
    unrecorded = rooms.running()
    rooms.assets.adopt(unrecorded.job_id, 1, made(unrecorded).files)
    assert rooms.assets.remove_unrecorded() == 1
    assert not (rooms.assets.root / unrecorded.job_id).exists()
    assert mine.exists()
    assert (rooms.assets.root / "my notes").exists()
    assert (rooms.assets.root / asset.path).is_file()


def test_free_space_is_that_of_the_outputs_disk(rooms: Rooms) -> None:
    assert 0 < rooms.assets.free_bytes() <= shutil.disk_usage(rooms.assets.root).total
