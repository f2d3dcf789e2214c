"""Connections that no client library makes: half a head, and one that is framed twice."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from tests.inside import inside
from tests.running import RunningBox
from zsky_box import server

BOUND_SECONDS = 60.0
SHORT_SECONDS = 0.05


def connected(port: int) -> socket.socket:
    """A connection that waits as long as a crowded machine may take."""
    return socket.create_connection(("127.0.0.1", port), timeout=BOUND_SECONDS)


def answer(connection: socket.socket) -> bytes:
    """All that comes until the box closes; fails where it stays open."""
    told = b""
    while piece := connection.recv(65_536):
        told += piece
    return told


def test_a_request_that_is_framed_twice_is_refused_and_smuggles_none(shared_box: RunningBox) -> None:
    """A proxy that goes by Content-Length would have taken the second request for the first one's body."""
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    head = (
        f"POST /v1/me/overage/toggle HTTP/1.1\r\nHost: x\r\nX-API-Key: {shared_box.keys['live']}\r\n"
        f"Content-Length: {5 + len(smuggled)}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with connected(shared_box.port) as connection:
        connection.sendall(head.encode() + b"0\r\n\r\n" + smuggled)
        told = answer(connection)
    assert told.startswith(b"HTTP/1.1 400 ")
    assert told.count(b"HTTP/1.1") == 1
    assert json.loads(told.partition(b"\r\n\r\n")[2])["code"] == "malformed_json"


def test_chunks_alone_are_a_body_like_any(shared_box: RunningBox) -> None:
    head = (
        f"POST /v1/quote HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: {shared_box.keys['live']}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    body = b'{"type": "image", "prompt": "a lake"}'
    with connected(shared_box.port) as connection:
        connection.sendall(head.encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        assert answer(connection).startswith(b"HTTP/1.1 200 ")


def test_a_head_that_never_ends_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "
    with inside(tmp_path / "data") as (box, client):
        port = box.services.settings.port
        with connected(port) as used:
            used.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            told = b""
            while b'"ok"' not in told:
                told += used.recv(65_536)
            monkeypatch.setattr(server, "HEAD_SECONDS", SHORT_SECONDS)
            used.sendall(begun)
            assert answer(used).count(b"HTTP/1.1") == 0
        for first in (b"", begun):
            with connected(port) as connection:
                connection.sendall(first)
                assert answer(connection) == b""
        monkeypatch.undo()
        assert client.get("/v1/me").status_code == 200


def listening(port: int, key: str, monkeypatch: pytest.MonkeyPatch) -> tuple[socket.socket, bytes]:
    """A stream that has begun, though a head had so little time: a crowded machine may want several tries."""
    head = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n".encode()
    while True:
        connection, told = connected(port), b""
        with monkeypatch.context() as patched:
            patched.setattr(server, "HEAD_SECONDS", SHORT_SECONDS)
            with suppress(ConnectionError):
                connection.sendall(head)
                while piece := connection.recv(65_536):
                    told += piece
                    if b"snapshot" in told:
                        return connection, told
        connection.close()


def test_an_answer_may_take_longer_than_a_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with inside(tmp_path / "data") as (box, client):
        connection, told = listening(box.services.settings.port, client.headers["X-API-Key"], monkeypatch)
        with connection:
            for made in (1, 2, 3):
                body = {"type": "image", "prompt": "a lake", "resolution": "480p"}
                assert client.post("/v1/generate", json=body).status_code == 202
                while told.count(b'"status":"completed"') < made:
                    piece = connection.recv(65_536)
                    assert piece, "the stream was cut"
                    told += piece
