"""Server-Sent Events: an account's jobs, or one job, live and resumable."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath

from zsky_box.api.access import caller_of, verify
from zsky_box.api.deps import Services, base_url, services
from zsky_box.api.problems import documented
from zsky_box.api.sending import Sending
from zsky_box.errors import Refusal
from zsky_box.feed import Event, Listener
from zsky_box.jobs.views import PAGE_MAX
from zsky_box.keys import Caller
from zsky_box.schemas import JobList

MEDIA_TYPE: Final = "text/event-stream"
PING_SECONDS = 15.0
VERIFY_SECONDS = 15.0
RETRY_MS: Final = 2_000
_ENDS: Final = ("completed", "failed")


class StreamCount:
    """How many streams are open: of each key or session, of each account through all of its own, and in all."""

    def __init__(self, per_key_max: int, per_account_max: int, in_all_max: int) -> None:
        self._per_key_max = per_key_max
        self._per_account_max = per_account_max
        self._in_all_max = in_all_max
        self._of_keys: Counter[str] = Counter()
        self._of_accounts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, caller: Caller) -> None:
        """Raise 429 `rate_limited` when there are too many."""
        with self._lock:
            if self._of_keys[caller.limit_id] >= self._per_key_max:
                raise _too_many(f"a key may have {self._per_key_max}")
            if self._of_accounts[caller.account.id] >= self._per_account_max:
                raise _too_many(f"an account may have {self._per_account_max} through all its keys")
            if self._of_accounts.total() >= self._in_all_max:
                raise _too_many(f"the box has {self._in_all_max} for all accounts together")
            self._of_keys[caller.limit_id] += 1
            self._of_accounts[caller.account.id] += 1

    def give(self, caller: Caller) -> None:
        """One stream has ended."""
        with self._lock:
            self._of_keys[caller.limit_id] -= 1
            self._of_accounts[caller.account.id] -= 1
            self._of_keys += Counter()  # drops what has come down to zero
            self._of_accounts += Counter()


def _too_many(bound: str) -> Refusal:
    detail = f"Too many event streams are open ({bound}); close one first."
    return Refusal(429, "rate_limited", detail, headers={"Retry-After": "5"})


class _Stream:
    """What one stream tells, and to whom. `verify` raises a Refusal once the caller's key or session has ended.

    One that is ended by somebody ends its streams at that moment (`Feed.end`); one that ends by its time is found here.
    """

    def __init__(
        self,
        box: Services,
        caller: Caller,
        job_id: str | None,
        last_event_id: str,
        base: str,
        verify: Callable[[], object],
    ) -> None:
        self._box = box
        self._caller = caller
        self._job_id = job_id
        self._last_event_id = last_event_id
        self._base = base
        self._verify = verify
        self._verify_at = 0.0  # at once: it may have ended before the feed knew of this stream
        self._told_progress: dict[str, float] = {}

    async def tell(self) -> AsyncGenerator[bytes]:
        box, job_id = self._box, self._job_id
        position = box.feed.position()
        holder_id = self._caller.limit_id
        listener, missed = box.feed.listen(_channel(self._caller), job_id, self._last_event_id, holder_id)
        try:
            if await self._is_over():
                return
            yield b"retry: %d\n\n" % RETRY_MS
            if missed is None:
                snapshot = await box.store.read(self._snapshot)
                yield _message("snapshot", position, snapshot)
                if job_id is not None and snapshot["data"][0]["status"] in _ENDS:
                    return
            for event in missed or ():
                yield await self._told(event)
                if self._is_last(event):
                    return
            async for event in _events(listener):
                if await self._is_over():
                    return
                if event is None:
                    yield b": ping\n\n"
                elif not self._is_old(event):
                    yield await self._told(event)
                    if self._is_last(event):
                        return
        finally:
            box.feed.leave(listener)

    async def _is_over(self) -> bool:
        """Whether key or session ended since they were last looked at: a stream that is open is no use of a session."""
        now = time.monotonic()
        if now < self._verify_at:
            return False
        self._verify_at = now + VERIFY_SECONDS
        try:
            await self._box.store.read(self._verify)
        except Refusal:
            return True
        return False

    def _is_old(self, event: Event) -> bool:
        """Whether the snapshot told more already: it is read after the stream began to listen."""
        if event.kind != "progress" or event.job_id not in self._told_progress:
            return False
        if event.data["progress"] <= self._told_progress[event.job_id]:
            return True
        del self._told_progress[event.job_id]  # from here on the events are in order by themselves
        return False

    def _snapshot(self) -> dict[str, Any]:
        """One job, or the account's open jobs."""
        reader = self._box.reader
        if self._job_id is not None:
            one = reader.one(self._caller, self._job_id, self._base)
            told = JobList(data=[one], has_more=False, next_cursor=None)
        else:
            told = reader.open_jobs(self._caller, PAGE_MAX, self._base)
        self._told_progress = {view.job_id: view.progress for view in told.data}
        return msgspec.to_builtins(told)

    async def _told(self, event: Event) -> bytes:
        """An end is told with the whole job, so that a listener needs no further request."""
        data = event.data
        if event.kind == "status" and data["status"] in _ENDS:
            reader, caller, base = self._box.reader, self._caller, self._base
            data = await self._box.store.read(lambda: msgspec.to_builtins(reader.one(caller, event.job_id, base)))
        return _message(event.kind, event.id, data)

    def _is_last(self, event: Event) -> bool:
        return self._job_id is not None and event.kind == "status" and event.data["status"] in _ENDS


@get(
    "/events",
    opt={"scope": "read"},
    operation_id="streamEvents",
    tags=["events"],
    summary="All your jobs, live",
    media_type=MEDIA_TYPE,  # Litestar sends the handler's, whatever the response says
    responses=documented("rate_limited"),
)
async def account_events(request: Request[Any, Any, Any]) -> Sending:
    """`snapshot` (your open jobs) first, then `status`, `progress`, `preview` and `alert`.

    It resumes after `Last-Event-ID` where it can; a preview is told to those who listen at that moment only.
    """
    return _open(request, None)


@get(
    "/jobs/{job_id:str}/events",
    opt={"scope": "read"},
    operation_id="streamJob",
    tags=["events"],
    summary="One job, live",
    media_type=MEDIA_TYPE,  # Litestar sends the handler's, whatever the response says
    responses=documented("not_found", "rate_limited"),
)
async def job_events(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[Any]:
    """`snapshot` first, then `status`, `progress` and `preview`; ends with the job. 204 to whom its end was told."""
    box, caller = services(request), caller_of(request)
    row = await box.store.read(lambda: box.reader.row(caller, job_id))
    if row["status"] in _ENDS and await _has_heard_all(request, job_id):
        return Response(None, status_code=204)  # to a browser's EventSource this says: do not come again
    return _open(request, job_id)


async def _has_heard_all(request: Request[Any, Any, Any], job_id: str) -> bool:
    """Whether an ended job has nothing new for a client that resumes."""
    box, last_event_id = services(request), request.headers.get("last-event-id", "")
    if not last_event_id:
        return False
    # An end is told after its COMMIT, by the thread that writes: once that has come to us, it is in the feed.
    await box.store.write_async(lambda _: None)
    listener, missed = box.feed.listen(_channel(caller_of(request)), job_id, last_event_id)
    box.feed.leave(listener)
    return missed == []


def _open(request: Request[Any, Any, Any], job_id: str | None) -> Sending:
    box, caller = services(request), caller_of(request)
    count: StreamCount = request.app.state["streams"]
    count.take(caller)
    last_event_id = request.headers.get("last-event-id", "")
    stream = _Stream(box, caller, job_id, last_event_id, base_url(request), lambda: verify(request))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Sending(stream.tell(), lambda: count.give(caller), media_type=MEDIA_TYPE, headers=headers)


async def _events(listener: Listener) -> AsyncGenerator[Event | None]:
    """What the listener hears; None for a silence in which a ping is due. Ends with the stream."""
    while True:
        try:
            event = await asyncio.wait_for(listener.queue.get(), PING_SECONDS)
        except TimeoutError:
            yield None
            continue
        if event is None:
            return
        yield event


def _channel(caller: Caller) -> tuple[str, bool]:
    return caller.account.id, caller.key.test


def _message(kind: str, event_id: str, data: object) -> bytes:
    """One event in the standard's form; JSON is one line."""
    return b"event: %s\nid: %s\ndata: %s\n\n" % (kind.encode(), event_id.encode(), msgspec.json.encode(data))
