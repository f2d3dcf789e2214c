"""Kept-alive clients in this process that send their next request when the last is answered."""

from __future__ import annotations

import asyncio
import time

from scripts.bench.box import Box


class Request:
    """What a client sends again and again, and the status that it expects."""

    def __init__(self, box: Box, method: str, path: str, body: bytes = b"", status: int = 200) -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{box.port}\r\nX-API-Key: {box.key}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.port = box.port
        self.content = f"{head}\r\n".encode() + body
        self.expected = f"HTTP/1.1 {status} ".encode()


class _Sender(asyncio.Protocol):
    """One client: a request, its answer, the next request, until `until` (of `time.perf_counter`)."""

    def __init__(self, request: Request, until: float, waits: list[float]) -> None:
        self._request = request
        self._until = until
        self._waits = waits
        self._answer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0]):
            return
        now = time.perf_counter()
        self._waits.append(now - self._began)
        if not head.startswith(self._request.expected):
            self.done.set_exception(RuntimeError(f"an unexpected answer: {self._answer!r}"))
            self._transport.close()
        elif now < self._until:
            self._send()
        else:
            self.done.set_result(None)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(f"the service closed the connection ({exc})"))

    def _send(self) -> None:
        self._answer = b""
        self._began = time.perf_counter()
        self._transport.write(self._request.content)


async def waits(request: Request, clients: int, seconds: float) -> list[float]:
    """How long each request of a round waited, in seconds."""
    waited: list[float] = []
    until = time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    connected = [
        await loop.create_connection(lambda: _Sender(request, until, waited), "127.0.0.1", request.port)
        for _ in range(clients)
    ]
    await asyncio.gather(*(sender.done for _, sender in connected))
    return waited
