"""`/v1/uploads`, and the pictures that jobs begin with: by id, by data URI, from the request to the worker's hands."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.asking import IMAGE, SLOW, VIDEO, add_member, command, made, nothing_happens, problem, submit
from tests.boxes import add_models
from tests.media import pictures
from tests.media.pictures import MARK, corners, encoded
from tests.running import RunningBox
from tests.waiting import until
from zsky_box.uploads import TMP

PICTURE = encoded(corners())
DAMAGING = pictures.damaging()
STRANGE = pictures.strange()
NEVER = "up_" + "0" * 26
UPLOAD_MAX_BYTES = 200_000
BODY_MAX_BYTES = 20_000
BEGUN: dict[str, Any] = {**VIDEO, "model": "beginner"}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """Two models that begin with a picture, one of which can be told how far to go from it; `member` is another."""
    folder = tmp_path_factory.mktemp("studio") / "data"
    options: dict[str, Any] = {"upload_max_bytes": UPLOAD_MAX_BYTES, "body_max_bytes": BODY_MAX_BYTES}
    running = RunningBox(folder, devices="cpu", included_images=10**6, included_videos=10**6, **options)
    running.keys["member"] = add_member(folder, "member")
    add_models(folder)
    running.start()
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log()


@pytest.fixture
def owner(studio: RunningBox) -> Generator[httpx.Client]:
    """The owner's live key."""
    with studio.client() as client:
        yield client


def upload(client: httpx.Client, content: bytes = PICTURE, key: str | None = None) -> httpx.Response:
    """As a form, which every client can."""
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post("/v1/uploads", files={"file": ("../../a picture.png", content)}, headers=headers)


def uploaded(client: httpx.Client, content: bytes = PICTURE) -> str:
    """The id of what is taken."""
    answer = upload(client, content)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def uri(content: bytes = PICTURE, kind: str = "image/png") -> str:
    """The picture itself in a body."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def files(box: RunningBox) -> set[str]:
    """What lies in the uploads' folder; nothing half-made is there."""
    until(lambda: not list((box.folder / "uploads" / TMP).iterdir()), "what a client has left half-made goes")
    return {path.name for path in (box.folder / "uploads").iterdir()} - {TMP}


def rows(box: RunningBox) -> int:
    """How many uploads the store knows."""
    with closing(sqlite3.connect(f"{(box.folder / 'ledger.db').as_uri()}?mode=ro", uri=True)) as ledger:
        return int(ledger.execute("SELECT count(*) FROM upload").fetchone()[0])


def test_it_works(studio: RunningBox, owner: httpx.Client) -> None:
    answer = upload(owner)
    assert answer.status_code == 201
    sent = answer.json()
    assert list(sent) == ["id", "object", "width", "height", "bytes", "created_at"]
    assert (sent["object"], sent["width"], sent["height"]) == ("upload", 64, 48)
    assert answer.headers["location"] == f"/v1/uploads/{sent['id']}"
    assert owner.get(answer.headers["location"]).json() == sent
    assert (studio.folder / "uploads" / f"{sent['id']}.png").stat().st_size == sent["bytes"]


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_picture_may_be_the_body_itself(owner: httpx.Client, kind: str) -> None:
    content = encoded(corners(), kind.upper())
    answer = owner.post("/v1/uploads", content=content, headers={"Content-Type": f"Image/{kind}; charset=binary"})
    assert answer.status_code == 201
    assert (answer.json()["width"], answer.json()["height"]) == (64, 48)


def test_what_it_is_called_and_said_to_be_counts_for_nothing(studio: RunningBox, owner: httpx.Client) -> None:
    for name in ("../../../etc/passwd", "a.svg", "x" * 255, "\u202egnp.exe", "ledger.db", "a\\b"):
        answer = owner.post("/v1/uploads", files={"file": (name, PICTURE, "text/html")})
        assert answer.status_code == 201, name
    jpeg = owner.post("/v1/uploads", content=encoded(corners(), "JPEG"), headers={"Content-Type": "image/png"})
    assert jpeg.status_code == 201
    assert all(name.startswith("up_") and name.endswith(".png") for name in files(studio))


def test_what_is_stored_has_nothing_of_the_file_that_was_sent(studio: RunningBox, owner: httpx.Client) -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        stored = studio.folder / "uploads" / f"{uploaded(owner, pictures.with_everything(kind))}.png"
        assert MARK not in stored.read_bytes()
        assert set(pictures.chunk_names(stored.read_bytes())) == {b"IHDR", b"IDAT", b"IEND"}


# What is refused


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_picture_is_unsupported_media(studio: RunningBox, owner: httpx.Client, name: str) -> None:
    before = files(studio)
    refused = problem(upload(owner, STRANGE[name]), 415, "unsupported_media", "file")
    assert "PNG, JPEG or WebP" in refused["detail"]
    assert files(studio) == before


@pytest.mark.parametrize("name", ["a PNG of 60000 x 60000", "a JPEG that is cut short", "a WebP that moves", "a dot"])
def test_a_picture_that_cannot_be_taken_says_why(studio: RunningBox, owner: httpx.Client, name: str) -> None:
    content, word = DAMAGING[name]
    before = files(studio), rows(studio)
    assert word in problem(upload(owner, content()), 422, "invalid_field", "file")["detail"]
    refused = problem(
        owner.post("/v1/generate", json={**BEGUN, "image": uri(content())}), 422, "invalid_field", "image"
    )
    assert word in refused["detail"]
    assert (files(studio), rows(studio)) == before


@pytest.mark.parametrize("content", [PICTURE + bytes(UPLOAD_MAX_BYTES), PICTURE + bytes(300_000)])
def test_a_picture_that_is_too_large_is_refused(owner: httpx.Client, content: bytes) -> None:
    problem(upload(owner, content), 413, "too_large")
    problem(owner.post("/v1/uploads", content=content, headers={"Content-Type": "image/png"}), 413, "too_large")
    pieces = (content[at : at + 10_000] for at in range(0, len(content), 10_000))
    problem(owner.post("/v1/uploads", content=pieces, headers={"Content-Type": "image/png"}), 413, "too_large")
    problem(owner.post("/v1/generate", json={**BEGUN, "image": uri(content)}), 413, "too_large")


def test_a_picture_just_within_the_bound_is_taken_in_every_way(owner: httpx.Client) -> None:
    content = PICTURE + bytes(UPLOAD_MAX_BYTES - len(PICTURE))
    uploaded(owner, content)
    assert owner.post("/v1/uploads", content=content, headers={"Content-Type": "image/png"}).status_code == 201
    submit(owner, {**BEGUN, "image": uri(content)})


@pytest.mark.parametrize(
    "body",
    [
        {**IMAGE, "prompt": "x" * BODY_MAX_BYTES},
        {**IMAGE, "image": ["x" * BODY_MAX_BYTES]},
        {**IMAGE, "image": uri(), "metadata": {str(n): "x" * 100 for n in range(300)}},
        ["x" * BODY_MAX_BYTES],
    ],
)
def test_only_a_picture_makes_a_body_that_large(owner: httpx.Client, body: Any) -> None:
    problem(owner.post("/v1/generate", json=body), 413, "too_large")
    problem(owner.post("/v1/quote", json=body), 413, "too_large")
    problem(owner.post("/v1/me/overage/cap", json={"cap": "5", "image": "x" * BODY_MAX_BYTES}), 413, "too_large")


def test_a_large_body_that_is_no_json_says_so(owner: httpx.Client) -> None:
    problem(owner.post("/v1/generate", content=b'{"image": "' + b"A" * BODY_MAX_BYTES), 400, "malformed_json")


@pytest.mark.parametrize(
    ("files_", "code", "field"),
    [
        ({"picture": ("a.png", PICTURE)}, "unknown_field", "picture"),
        ([("file", ("a.png", PICTURE)), ("file", ("b.png", PICTURE))], "invalid_field", "file"),
        ([("file", ("a.png", PICTURE)), ("prompt", (None, "a fox"))], "unknown_field", "prompt"),
        ({"file": (None, "just text")}, "invalid_field", "file"),
        ({"file": ("empty.png", b"")}, "invalid_field", "file"),
    ],
)
def test_a_form_has_one_file_and_nothing_else(owner: httpx.Client, files_: Any, code: str, field: str) -> None:
    problem(owner.post("/v1/uploads", files=files_), 422, code, field)


@pytest.mark.parametrize(
    ("kind", "content", "status", "code"),
    [
        ("multipart/form-data", PICTURE, 400, "malformed_json"),
        ("multipart/form-data; boundary=x", PICTURE, 400, "malformed_json"),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data; name=file\r\n",
            400,
            "malformed_json",
        ),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\n\xff\xfe\r\n--x--\r\n",
            400,
            "malformed_json",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 100 + b"--x--\r\n",
            400,
            "malformed_json",
        ),
        ("image/png", b"", 422, "invalid_field"),
        ("image/gif", PICTURE, 415, "unsupported_media"),
        ("application/octet-stream", PICTURE, 415, "unsupported_media"),
        ("application/json", b'{"file": "x"}', 415, "unsupported_media"),
        ("", PICTURE, 415, "unsupported_media"),
    ],
)
def test_another_body_is_refused_with_what_to_send(
    owner: httpx.Client, kind: str, content: bytes, status: int, code: str
) -> None:
    problem(owner.post("/v1/uploads", content=content, headers={"Content-Type": kind}), status, code)
    headers = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    problem(owner.post("/v1/uploads", content=content, headers=headers), 415, "unsupported_media")


def test_a_client_that_leaves_in_the_middle_is_no_fault(studio: RunningBox, owner: httpx.Client) -> None:
    def half() -> Any:
        yield PICTURE[:50]
        raise ConnectionError("the client leaves")

    for kind in ("image/png", "multipart/form-data; boundary=x"):
        with studio.client() as leaving, pytest.raises(ConnectionError):
            leaving.post("/v1/uploads", content=half(), headers={"Content-Type": kind})
    uploaded(owner)


# Keys, people and modes


def test_a_scope_and_a_mode_bound_what_a_key_may(studio: RunningBox, owner: httpx.Client) -> None:
    upload_id = uploaded(owner)
    reader = command(studio.folder, "keys", "issue", "--scopes", "read")
    with studio.client(reader["api_key"]) as client:
        problem(upload(client), 403, "insufficient_scope")
        problem(client.delete(f"/v1/uploads/{upload_id}"), 403, "insufficient_scope")
        assert client.get(f"/v1/uploads/{upload_id}").status_code == 200
    with studio.client("test") as tester:
        mine = uploaded(tester)
        problem(tester.delete(f"/v1/uploads/{mine}"), 403, "test_key")
        refused = problem(
            tester.post("/v1/generate", json={**IMAGE, "image": mine}), 422, "unsupported_for_model", "image"
        )
        assert "leader takes no reference image" in refused["detail"]


def test_anothers_upload_and_that_of_the_other_mode_are_as_if_they_never_were(
    studio: RunningBox, owner: httpx.Client
) -> None:
    upload_id = uploaded(owner)
    with studio.client("member") as member, studio.client("test") as tester:
        testing = uploaded(tester)
        for client, foreign in ((member, upload_id), (tester, upload_id), (owner, testing), (member, testing)):
            for unknown in (client.get(f"/v1/uploads/{NEVER}"), client.get("/v1/uploads/up_1")):
                told = problem(client.get(f"/v1/uploads/{foreign}"), 404, "not_found")
                assert told | {"request_id": ""} == problem(unknown, 404, "not_found") | {"request_id": ""}
        problem(member.delete(f"/v1/uploads/{upload_id}"), 404, "not_found")
        for path in ("/v1/generate", "/v1/quote"):
            told = problem(member.post(path, json={**BEGUN, "image": upload_id}), 422, "invalid_field", "image")
            never = problem(member.post(path, json={**BEGUN, "image": NEVER}), 422, "invalid_field", "image")
            assert told["detail"].replace(upload_id, NEVER) == never["detail"]
    assert owner.get(f"/v1/uploads/{upload_id}").status_code == 200


def test_the_same_key_stores_a_picture_once_however_the_form_is_made(studio: RunningBox, owner: httpx.Client) -> None:
    before, key = rows(studio), "one picture"
    first = upload(owner, key=key)
    again = upload(owner, key=key)
    raw = owner.post("/v1/uploads", content=PICTURE, headers={"Idempotency-Key": key, "Content-Type": "image/png"})
    assert first.json() == again.json() == raw.json()
    assert first.headers["location"] == again.headers["location"]
    assert again.headers["idempotent-replayed"] == "true"
    problem(upload(owner, encoded(corners(48, 64)), key), 409, "idempotency_conflict")
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(upload, owner, key="at once") for _ in range(4)]
        ids = {answer.result().json()["id"] for answer in sent}
    assert len(ids) == 1
    assert rows(studio) == before + 2
    assert len(files(studio)) >= 2
    problem(upload(owner, key=""), 422, "invalid_field")


# From the request to the worker


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_worker_is_given_the_picture_and_the_strength(
    studio: RunningBox, owner: httpx.Client, kind: str, *, inline: bool
) -> None:
    content = pictures.turned(kind, 6)
    image = uri(content, f"image/{kind.lower()}") if inline else uploaded(owner, content)
    job = made(studio, owner, {**BEGUN, "image": image, "strength": 0.35})
    assert "begins with RGB 48x64 at 0.35" in job["notes"]
    assert job["reference"] == image or inline
    assert owner.get(f"/v1/uploads/{job['reference']}").json()["height"] == 64


def test_strength_has_a_default_where_the_model_can_be_told_one(studio: RunningBox, owner: httpx.Client) -> None:
    image = uploaded(owner)
    assert "begins with RGB 64x48 at 0.6" in made(studio, owner, {**BEGUN, "image": image})["notes"]
    starter = {**BEGUN, "image": image, "model": "starter"}
    assert "begins with RGB 64x48 at None" in made(studio, owner, starter)["notes"]
    plain = made(studio, owner, BEGUN)
    assert plain["reference"] is None
    assert not any("begins" in note for note in plain["notes"])


@pytest.mark.parametrize("inline", [False, True])
def test_a_job_is_run_again_with_the_same_picture(studio: RunningBox, owner: httpx.Client, *, inline: bool) -> None:
    job = made(studio, owner, {**BEGUN, "image": uri() if inline else uploaded(owner), "strength": 0.9})
    again = owner.post(f"/v1/jobs/{job['job_id']}/rerun")
    assert again.status_code == 202, again.text
    rerun = studio.ended(owner, again.json()["job_id"])
    assert (rerun["reference"], rerun["seed"]) == (job["reference"], job["seed"])
    assert "begins with RGB 64x48 at 0.9" in rerun["notes"]


def test_after_a_removal_no_job_begins_with_it(studio: RunningBox, owner: httpx.Client) -> None:
    upload_id = uploaded(owner)
    job = made(studio, owner, {**BEGUN, "image": upload_id})
    slow = submit(owner, {**SLOW, "model": "beginner", "image": upload_id})
    problem(owner.delete(f"/v1/uploads/{upload_id}"), 409, "job_open")
    owner.post(f"/v1/jobs/{slow}/cancel")
    studio.ended(owner, slow)
    removed = owner.delete(f"/v1/uploads/{upload_id}").json()
    assert removed["removed_at"]
    assert owner.delete(f"/v1/uploads/{upload_id}").json() == owner.get(f"/v1/uploads/{upload_id}").json() == removed
    assert f"{upload_id}.png" not in files(studio)
    with nothing_happens(owner):
        problem(owner.post("/v1/generate", json={**BEGUN, "image": upload_id}), 422, "invalid_field", "image")
        problem(owner.post(f"/v1/jobs/{job['job_id']}/rerun"), 422, "invalid_field", "image")
    assert owner.get(f"/v1/jobs/{job['job_id']}").json()["reference"] == upload_id


@pytest.mark.parametrize(
    ("fields", "code", "field", "said"),
    [
        ({"model": "leader", "image": uri()}, "unsupported_for_model", "image", "takes no reference image"),
        ({"model": "starter", "image": uri(), "strength": 0.5}, "unsupported_for_model", "strength", "begins with the"),
        ({"strength": 0.5}, "invalid_field", "strength", "give one as `image`"),
        ({"image": uri(), "strength": 1.01}, "invalid_field", "strength", "<= 1"),
        ({"image": ""}, "invalid_field", "image", "the id of an upload"),
        ({"image": "https://example.com/a.png"}, "invalid_field", "image", "fetches no addresses"),
        ({"image": "file:///etc/passwd"}, "invalid_field", "image", "fetches no addresses"),
        ({"image": "../../ledger.db"}, "invalid_field", "image", "the id of an upload"),
        ({"image": base64.b64encode(PICTURE).decode()}, "invalid_field", "image", "data URI"),
        ({"image": "data:image/png;base64,****"}, "invalid_field", "image", "not base64"),
        ({"image": "data:image/svg+xml;base64,AAAA"}, "invalid_field", "image", "begins with data:image/png"),
        ({"image": 5}, "invalid_field", "image", "text"),
        ({"image": NEVER}, "invalid_field", "image", "there is no upload"),
    ],
)
def test_a_reference_that_is_none_is_refused_alike_by_generate_and_quote(
    studio: RunningBox, owner: httpx.Client, fields: dict[str, Any], code: str, field: str, said: str
) -> None:
    before = files(studio)
    with nothing_happens(owner):
        for path in ("/v1/generate", "/v1/quote"):
            refused = problem(owner.post(path, json={**BEGUN, **fields}), 422, code, field)
            assert said in refused["detail"]
    assert files(studio) == before


def test_a_quote_looks_at_the_picture_and_keeps_nothing(studio: RunningBox, owner: httpx.Client) -> None:
    before = files(studio), rows(studio)
    assert owner.post("/v1/quote", json={**BEGUN, "image": uri()}).json()["would_accept"] is True
    problem(owner.post("/v1/quote", json={**BEGUN, "image": uri(PICTURE[:-30])}), 422, "invalid_field", "image")
    strange = owner.post("/v1/quote", json={**BEGUN, "image": uri(STRANGE["SVG"])})
    problem(strange, 415, "unsupported_media", "image")
    assert (files(studio), rows(studio)) == before
    upload_id = uploaded(owner)
    assert owner.post("/v1/quote", json={**BEGUN, "image": upload_id}).json()["would_accept"] is True


def test_the_same_key_and_data_uri_is_one_job_and_one_picture(studio: RunningBox, owner: httpx.Client) -> None:
    headers, body = {"Idempotency-Key": "with a picture"}, {**BEGUN, "image": uri(encoded(corners(72, 40)))}
    first, before = submit(owner, body, **headers), rows(studio)
    assert submit(owner, body, **headers) == first
    other = {**body, "image": uri(encoded(corners(40, 72)))}
    problem(owner.post("/v1/generate", json=other, headers=headers), 409, "idempotency_conflict")
    assert rows(studio) == before


def test_a_submit_that_cannot_be_paid_for_stores_no_picture(tmp_path: Path) -> None:
    box = RunningBox(tmp_path / "data", devices="cpu", included_videos=0)
    add_models(box.folder)
    box.start()
    try:
        with box.client() as client:
            problem(client.post("/v1/generate", json={**BEGUN, "image": uri()}), 429, "allowance_exhausted")
            assert (files(box), rows(box)) == (set(), 0)
    finally:
        box.stop()


def test_a_full_disk_or_a_full_room_takes_no_uploads(tmp_path: Path) -> None:
    with_floor = RunningBox(tmp_path / "floor", devices="cpu", free_space_floor_bytes=2**62).start(ready=False)
    few = RunningBox(tmp_path / "few", devices="cpu", unused_uploads_max=1).start(ready=False)
    try:
        with with_floor.client() as client, few.client() as owner, few.client("test") as tester:
            refused = upload(client)
            problem(refused, 503, "storage_full")
            assert int(refused.headers["retry-after"]) > 0
            upload_id = uploaded(owner)
            problem(upload(owner), 429, "queue_full")
            uploaded(tester)
            owner.delete(f"/v1/uploads/{upload_id}")
            uploaded(owner)
    finally:
        with_floor.stop()
        few.stop()


def test_a_killed_box_keeps_what_it_has_told_of_and_nothing_else(tmp_path: Path) -> None:
    box = RunningBox(tmp_path / "data", devices="cpu").start(ready=False)
    try:
        with box.client() as client:
            upload_id = uploaded(client)
            (box.folder / "uploads" / "up_orphan.png").write_bytes(PICTURE)
            (box.folder / "uploads" / TMP / "up_half.png").write_bytes(PICTURE)
            box.kill()
            box.start(ready=False)
            assert files(box) == {f"{upload_id}.png"}
            assert client.get(f"/v1/uploads/{upload_id}").status_code == 200
    finally:
        box.stop()


def test_the_catalogue_says_which_models_begin_with_a_picture(owner: httpx.Client) -> None:
    told = {
        model["id"]: (model["reference_image"], model["strength"]) for model in owner.get("/v1/models").json()["data"]
    }
    assert (told["beginner"], told["starter"], told["leader"]) == ((True, True), (True, False), (False, False))
