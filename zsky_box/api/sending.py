"""Answers that are sent piece by piece, and what they hold meanwhile: given back when they end, however they end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from litestar import Request
from litestar.response import Stream
from litestar.types import ASGIApp, Receive, Scope, Send

from zsky_box.db import Store


class Sending(Stream):
    """A streamed answer. `at_end` is called when it was sent, the client left, or it failed before its first byte.

    A generator's own `finally` is not enough: one that never ran has none, and one that was left in the middle waits
    for the garbage collector.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes],
        at_end: Callable[[], object],
        *,
        media_type: str,
        headers: dict[str, str],
        status_code: int = 200,
    ) -> None:
        super().__init__(pieces, status_code=status_code, media_type=media_type, headers=headers)
        self._pieces = pieces
        self._at_end = at_end

    def to_asgi_response(self, app: Any, request: Request[Any, Any, Any], **options: Any) -> ASGIApp:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Litestar's streamed response, with an end; for HEAD nothing is read that nobody is sent."""
        if request.method == "HEAD":  # where there is no body, Litestar tells no type of it
            charset = f"; charset={self.encoding}" if str(self.media_type).startswith("text/") else ""
            self.headers.setdefault("Content-Type", f"{self.media_type}{charset}")
        response = super().to_asgi_response(app, request, is_head_response=request.method == "HEAD", **options)

        async def sent(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await response(scope, receive, send)
            finally:
                self._at_end()
                await self._pieces.aclose()

        return sent


def from_store(store: Store, pieces: Iterator[bytes], *, media_type: str, headers: dict[str, str]) -> Sending:
    """What is read from the store as fast as the client takes it; between two pieces nothing of the store is held."""

    async def read() -> AsyncGenerator[bytes]:
        while (piece := await store.read(lambda: next(pieces, None))) is not None:
            yield piece

    return Sending(read(), lambda: None, media_type=media_type, headers=headers)
