"""The HTTP server around the application: its socket, its log, and how it ends.

It takes its port before anything else starts, drains on the first signal, and ends in bounded time on the second.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol
from urllib.parse import quote

import msgspec
import uvicorn
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from zsky_box import ids
from zsky_box.errors import SettingsError
from zsky_box.hosts import is_wellformed
from zsky_box.schemas import Problem

GRACEFUL_SECONDS: Final = 5
KEEP_ALIVE_SECONDS: Final = 75
HEAD_SECONDS = 60.0
BACKLOG: Final = 2_048
_PLAIN_IN_PATH: Final = "/:@!$&'()*+,;="

log = logging.getLogger(__name__)
access = logging.getLogger("zsky_box.access")


class Drainable(Protocol):
    """What is emptied before the server ends."""

    def drain(self) -> None:
        """Take no further work and return when what runs is done, or time is up."""
        ...

    def end_streams(self) -> None:
        """End the open event streams, which would hold the server up."""
        ...


def listen(host: str, port: int) -> socket.socket:
    """The listening socket; raises SettingsError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once (TCP_NODELAY) only on sockets that name their protocol.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A port that an earlier start has just left may be taken again at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {host}, port {port} ({error.strerror or error}); choose another with --host and --port"
        ) from error
    return listener


def configuration(app: ASGIApp, tls: tuple[Path, Path] | None = None, proxies: Sequence[str] = ()) -> uvicorn.Config:
    """How the application is served: one process, nothing told about the server.

    `tls` is a certificate's file and its key's: with them over HTTPS only. Of the peers in these networks alone,
    `X-Forwarded-For` and `X-Forwarded-Proto` are believed: the client is the last address there that is no proxy's.
    """
    cert, key = tls or (None, None)
    return uvicorn.Config(
        with_request_log(app),
        http=Connection,
        log_config=None,
        access_log=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),  # without it uvicorn would trust loopback, and what the environment says
        server_header=False,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        lifespan="on",
        ws="none",
        ssl_certfile=cert,
        ssl_keyfile=key,
    )


class Connection(H11Protocol):
    """uvicorn's connection, closed where no whole head of a request comes within `HEAD_SECONDS`.

    uvicorn waits for ever, so that whoever begins many requests and ends none would hold all sockets.
    """

    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head may take this long from here."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """A part of a head starts the clock, a whole one stops it; between requests uvicorn has its own."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """There is nothing to wait for any more."""
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        cycle: Any = self.cycle  # None before the first request
        if self.timeout_keep_alive_task is not None or (cycle is not None and not cycle.response_complete):
            self._forget()
        elif self._overdue is None:
            self._overdue = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _forget(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None


class Server(uvicorn.Server):
    """uvicorn that drains before it stops: while running jobs end, polls are answered and submits get 503."""

    def __init__(self, box: Drainable, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._box = box
        self._signals = 0
        self._draining = False
        self.failed = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Only count: a signal may come while this thread holds any lock, and `on_tick` sees it in a moment.

        uvicorn's own handler would raise the signal anew after the end, so that a clean stop looked like a death.
        """
        self._signals += 1

    async def on_tick(self, counter: int) -> bool:
        """First signal: drain, bounded. A second one: stop now; running attempts go back to the queue."""
        if self._signals and not self._draining:
            self._draining = True
            threading.Thread(target=self._drain, name="drain", daemon=True).start()
        elif self._signals > 1 and not self.should_exit:
            self._stop_now()
        return await super().on_tick(counter)

    def fail(self, error: BaseException) -> None:
        """The service cannot go on: stop at once; the next start sorts it out. From any thread."""
        log.critical("stopping: the service cannot go on", exc_info=error)
        self.failed = True
        self._stop_now()

    def _stop_now(self) -> None:
        self.config.timeout_graceful_shutdown = 0
        self._box.end_streams()
        self.should_exit = True

    def _drain(self) -> None:
        self._box.drain()
        self._box.end_streams()
        self.should_exit = True


def with_request_log(app: ASGIApp) -> ASGIApp:
    """Give each request an id, which the answer carries, and log it without its query: signatures stay unlogged.

    It stands around the whole application: what finds no route has an id too.
    """

    async def logged(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        request_id = ids.new("req")
        scope.setdefault("state", {})["request_id"] = request_id
        asked = _refusing(fault) if (fault := _fault(scope)) else app
        path = quote(scope["path"], safe=_PLAIN_IN_PATH)  # what is decoded may break the log's lines
        started = time.perf_counter()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await asked(scope, receive, answer)
        finally:
            milliseconds = (time.perf_counter() - started) * 1000
            access.info("%s %s %s %d %.1fms", request_id, scope["method"], path, status, milliseconds)

    return logged


def _fault(scope: Scope) -> str | None:
    """What is wrong with a request's head, so that nothing behind this has to read it."""
    names = [name for name, _ in scope["headers"]]
    named = [value for name, value in scope["headers"] if name == b"host"]
    if len(named) > 1 or any(value and not is_wellformed(value.decode("latin-1")) for value in named):
        return "The header Host names no host; send the name or address, and the port, that this box is called by."
    if b"content-length" in names and b"transfer-encoding" in names:
        # A proxy that goes by the other of the two would take a part of this body for the next request.
        return "The headers Content-Length and Transfer-Encoding contradict each other; send one of them."
    return None


def _refusing(detail: str) -> ASGIApp:
    """What answers 400, and ends the connection: where the next request begins is not sure."""

    async def refuse(scope: Scope, _: Receive, send: Send) -> None:
        problem = Problem(
            type="urn:zsky-box:problem:malformed_json",
            title="Bad request",
            status=400,
            detail=detail,
            code="malformed_json",
            request_id=scope["state"]["request_id"],
        )
        body = msgspec.json.encode(problem)
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return refuse
