from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.boxes import running
from tests.running import RunningBox, make_owner
from zsky_box import accounts, control, secretfile
from zsky_box.clock import system_clock
from zsky_box.control import Address, IssueKey, ListKeys, RevokeKey, RotateKey
from zsky_box.db import Store
from zsky_box.errors import Refusal


@pytest.fixture
def store(tmp_path: Path) -> Generator[Store]:
    make_owner(tmp_path)
    opened = Store(tmp_path)
    yield opened
    opened.close()


def run(store: Store, command: control.Command) -> dict[str, object]:
    owner = accounts.owner(store)
    assert owner is not None
    return control.run(command, store, secretfile.load(store.path.parent), owner, system_clock)


def test_it_works(store: Store) -> None:
    issued = run(store, IssueKey(name="one", scopes=("read",)))
    assert issued["scopes"] == ["read"]
    rotated = run(store, RotateKey(key_id=str(issued["id"])))
    assert rotated["api_key"] != issued["api_key"]
    assert run(store, RevokeKey(key_id=str(rotated["id"])))["revoked_at"]
    listed = run(store, ListKeys())["data"]
    assert isinstance(listed, list)
    assert "api_key" not in msgspec.json.encode(listed).decode()


def test_what_cannot_be_done_is_refused(store: Store) -> None:
    with pytest.raises(Refusal, match="not_found"):
        run(store, RevokeKey(key_id="key_unknown"))
    with pytest.raises(Refusal, match="overlap"):
        run(store, RotateKey(overlap_seconds=-1))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"command": "keys.steal"}',
        b'{"command": "keys.revoke"}',
        b'{"command": "keys.list", "more": 1}',
        b'{"command": "keys.issue", "scopes": ["paint"]}',
        b'{"command": "keys.issue", "name": "' + b"x" * 101 + b'"}',
    ],
)
def test_what_is_no_command_is_not_decoded(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        control.decode(body)


@pytest.mark.parametrize("command", [ListKeys(), IssueKey(name="x"), RotateKey(), RevokeKey(key_id="key_1")])
def test_a_command_survives_the_way_through_the_service(command: control.Command) -> None:
    assert control.decode(msgspec.json.encode(command)) == command


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    with running(tmp_path_factory.mktemp("control") / "data", ready=False) as started:
        yield started


def address(box: RunningBox) -> Address:
    return msgspec.json.decode((box.folder / control.FILE_NAME).read_bytes(), type=Address)


def ask(box: RunningBox, headers: dict[str, str]) -> httpx.Response:
    return httpx.post(
        f"{box.url}/control", content=b'{"command": "keys.list"}', headers=headers, trust_env=False, timeout=10
    )


def test_the_note_is_the_owners_alone_and_names_the_process(box: RunningBox) -> None:
    assert (box.folder / control.FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert address(box).pid == box.pid
    assert address(box).url == box.url


def test_the_token_of_this_start_opens_the_door(box: RunningBox) -> None:
    answer = ask(box, {"X-ZSky-Control": address(box).token})
    assert answer.status_code == 200
    assert answer.json()["object"] == "list"


@pytest.mark.parametrize("name", ["nothing", "wrong", "key", "browser"])
def test_nobody_else_comes_in(box: RunningBox, name: str) -> None:
    headers = {
        "nothing": {},
        "wrong": {"X-ZSky-Control": address(box).token[:-1] + "x"},
        "key": {"X-API-Key": box.keys["live"]},
        "browser": {"X-ZSky-Control": address(box).token, "Origin": box.url},
    }[name]
    answer = ask(box, headers)
    assert answer.status_code in (401, 403)
    assert "zs_live_" not in answer.text


def test_the_token_is_new_at_each_start_and_gone_after_a_stop(tmp_path: Path) -> None:
    with running(tmp_path / "data", ready=False) as own:
        first = address(own)
        assert own.stop() == 0
        assert not (own.folder / control.FILE_NAME).exists()
        own.start(ready=False)
        assert address(own).token != first.token
        assert ask(own, {"X-ZSky-Control": first.token}).status_code in (401, 403)
