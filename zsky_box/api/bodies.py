"""The bodies of requests: read within bounds of size and time, few large ones at once, and a client's key for them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.exceptions import InternalServerException
from msgspec import Raw, Struct

from zsky_box.api.access import caller_of
from zsky_box.api.deps import services
from zsky_box.errors import FieldError, InvalidFields, Refusal
from zsky_box.idempotency import KEY_MAX, Idempotency
from zsky_box.schemas import NOT_JSON, malformed, not_json, read_json
from zsky_box.settings import Settings

ARRIVE_SECONDS = 120.0
LARGE_AT_ONCE: Final = 4
LARGE_AT_ONCE_PER_ACCOUNT: Final = 2
WAIT_SECONDS = 60.0
_JSON_TYPES: Final = ("", "application/json", "application/x-www-form-urlencoded")


class LargeBodies:
    """Places for bodies that may be larger than `body_max_bytes`: they are held in memory while they are worked on.

    Who finds none free waits, and an account never has them all.
    """

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(LARGE_AT_ONCE)
        self._of: dict[str, asyncio.Semaphore] = {}

    @asynccontextmanager
    async def place(self, account_id: str) -> AsyncGenerator[None]:
        """Hold a place; raises 429 `rate_limited` where none becomes free in time."""
        own = self._of.setdefault(account_id, asyncio.Semaphore(LARGE_AT_ONCE_PER_ACCOUNT))
        try:
            async with asyncio.timeout(WAIT_SECONDS) as patience, own, self._all:
                patience.reschedule(None)
                yield
        except TimeoutError:
            detail = "Too many pictures are being sent at once; send this one again in a moment."
            raise Refusal(429, "rate_limited", detail, headers={"Retry-After": "10"}) from None


@asynccontextmanager
async def room_for_body(request: Request[Any, Any, Any]) -> AsyncGenerator[None]:
    """Within the block a body may be read that has a picture in it; one that says that it is small waits for nobody."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) <= services(request).settings.body_max_bytes:
        yield
        return
    places: LargeBodies = request.app.state["large_bodies"]
    async with places.place(caller_of(request).account.id):
        yield


def with_picture_max_bytes(settings: Settings) -> int:
    """The largest body of a call that takes a picture as a data URI beside its other fields."""
    return settings.body_max_bytes + -(-settings.upload_max_bytes // 3) * 4


async def read_body(request: Request[Any, Any, Any], *, exact: bool = False) -> Any:
    """The parsed JSON body; raises 400, 413 or 415.

    No `Content-Type`, and the one that curl's `-d` sends, are taken for JSON. `exact`: see `read_json`.
    """
    refuse_encoded(request)
    kind = content_type(request)
    if kind not in _JSON_TYPES and not kind.endswith("+json"):
        raise Refusal(415, "unsupported_media", "Send the body as application/json.")
    body = await read_bytes(request)
    if kind == "application/x-www-form-urlencoded" and body and not body.lstrip().startswith(b"{"):
        raise Refusal(415, "unsupported_media", "Send the body as application/json, not as a form.")
    _check_proportion(body, services(request).settings.body_max_bytes)
    return read_json(body, exact=exact)


def refuse_encoded(request: Request[Any, Any, Any]) -> None:
    """Raise 415 for a compressed body."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refusal(415, "unsupported_media", "Send the body as it is, without a Content-Encoding.")


def content_type(request: Request[Any, Any, Any]) -> str:
    """The declared type without its parameters, in lower case; empty where there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_bytes(request: Request[Any, Any, Any]) -> bytes:
    """The whole body, within the bound of its route."""
    async with arriving():
        return await request.body()


@asynccontextmanager
async def arriving() -> AsyncGenerator[None]:
    """While a body is read: raises 400 where it stops in the middle, or comes too slowly."""
    try:
        async with asyncio.timeout(ARRIVE_SECONDS):
            yield
    except TimeoutError:
        raise malformed(f"The body did not arrive within {ARRIVE_SECONDS:g} s.") from None
    except InternalServerException as error:
        # Litestar's word for a client that went away in the middle: that is no fault of the box.
        raise malformed("The connection ended before the body did.") from error


def idempotency(request: Request[Any, Any, Any], value: Any) -> Idempotency | None:
    """The client's Idempotency-Key with a digest over method, path and parsed JSON; raises 422 for a bad key."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not (1 <= len(key) <= KEY_MAX and all(32 <= ord(character) < 127 for character in key)):
        message = f"Idempotency-Key: send 1 to {KEY_MAX} printable ASCII characters."
        raise InvalidFields([FieldError("Idempotency-Key", "invalid_field", message)])
    canonical = msgspec.json.encode([request.method, request.url.path, value], order="sorted")
    return Idempotency(key, hashlib.sha256(canonical).digest())


class _Pictured(Struct):
    """Of a body only where its picture lies: all else is walked over, and nothing is made of it."""

    image: Raw = Raw(b"")


def _check_proportion(body: bytes, most: int) -> None:
    """Raise 413 where a large body is so by anything but the text of its `image`, before it is taken apart."""
    if len(body) <= most:
        return
    try:
        image = memoryview(msgspec.json.decode(body, type=_Pictured).image)
    except msgspec.ValidationError:
        image = memoryview(b"")
    except NOT_JSON as error:
        raise not_json(error) from error
    is_text = image[:1].tobytes() == b'"'
    if len(body) - (len(image) if is_text else 0) > most:
        detail = f"The body has more than {most:,} bytes beside its picture; the setting is body_max_bytes."
        raise Refusal(413, "too_large", detail)
