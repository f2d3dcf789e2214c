"""What happens to jobs, told live: a ring of the last events per account, and the listeners that follow it.

Nothing here is lasting: a listener whose last event has left the ring, or is of an earlier start, begins with a
snapshot. Publishing never waits; a listener that cannot keep up is ended and resumes by its Last-Event-ID.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from typing import Any, Final, Literal

from msgspec import Struct

from zsky_box.clock import Clock

RING_LENGTH: Final = 256
RINGS_MAX: Final = 4_096
BACKLOG_MAX: Final = 512
PREVIEW_BACKLOG_MAX: Final = 8
"""A listener that is behind by more is shown no preview: a picture is large, and the next one comes soon."""

Channel = tuple[str, bool]
"""An account's id, and whether its test jobs are meant."""
Kind = Literal["status", "progress", "preview", "alert"]
"""What became of a job, how far it is, how it looks by now, or what its account must hear of (with no job's id)."""


class Event(Struct, frozen=True):
    """One thing that happened to a job; `id` grows within one start of the service."""

    id: str
    kind: Kind
    job_id: str
    data: dict[str, Any]


class Listener:
    """One open stream; `queue` carries events, then None when the stream must end. `holder_id` opened it."""

    def __init__(self, channel: Channel, job_id: str | None, holder_id: str, loop: asyncio.AbstractEventLoop) -> None:
        self.channel = channel
        self.job_id = job_id
        self.holder_id = holder_id
        self.queue: asyncio.Queue[Event | None] = asyncio.Queue(BACKLOG_MAX + 1)
        self._loop = loop

    def offer(self, event: Event | None) -> None:
        """From any thread: hand over an event, or None to end."""
        self._loop.call_soon_threadsafe(self._put, event)

    def _put(self, event: Event | None) -> None:
        if event is not None and event.kind == "preview" and self.queue.qsize() >= PREVIEW_BACKLOG_MAX:
            return
        if event is None or self.queue.qsize() >= BACKLOG_MAX:
            if not self.queue.full():
                self.queue.put_nowait(None)
        else:
            self.queue.put_nowait(event)


class Feed:
    """All rings and all listeners of the service."""

    def __init__(self, clock: Clock) -> None:
        self._epoch = format(clock(), "x")
        self._last = 0
        self._lock = threading.Lock()
        self._rings: OrderedDict[Channel, deque[Event]] = OrderedDict()
        self._listeners: dict[Channel, set[Listener]] = {}
        self._forgotten = 0  # the last number of any ring that was given up
        self._closed = False

    def publish(self, channel: Channel, kind: Kind, job_id: str, data: dict[str, Any]) -> None:
        """Tell every listener of the channel; called after COMMIT, from any thread. Previews are not kept."""
        with self._lock:
            event = Event(self._next_id(), kind, job_id, data)
            if kind != "preview":
                self._keep(channel, event)
            for listener in self._listeners.get(channel, ()):
                if listener.job_id in (None, job_id):
                    listener.offer(event)

    def _keep(self, channel: Channel, event: Event) -> None:
        ring = self._rings.setdefault(channel, deque(maxlen=RING_LENGTH))
        self._rings.move_to_end(channel)
        ring.append(event)
        if len(self._rings) > RINGS_MAX:
            _, given_up = self._rings.popitem(last=False)
            self._forgotten = max(self._forgotten, _number(given_up[-1]))

    def listen(
        self, channel: Channel, job_id: str | None, last_event_id: str, holder_id: str = ""
    ) -> tuple[Listener, list[Event] | None]:
        """Begin to listen, as the key or session `holder_id`; the second value is what was missed, or None when only a
        snapshot can say.
        """
        listener = Listener(channel, job_id, holder_id, asyncio.get_running_loop())
        with self._lock:
            if self._closed:
                listener.offer(None)
            self._listeners.setdefault(channel, set()).add(listener)
            missed = self._since(channel, last_event_id)
        if missed is not None:
            missed = [event for event in missed if job_id in (None, event.job_id)]
        return listener, missed

    def leave(self, listener: Listener) -> None:
        """Stop telling a listener."""
        with self._lock:
            listeners = self._listeners.get(listener.channel, set())
            listeners.discard(listener)
            if not listeners:
                self._listeners.pop(listener.channel, None)

    def end(self, holder_id: str) -> None:
        """End the streams of a key or a session that has ended; from any thread."""
        with self._lock:
            for listeners in self._listeners.values():
                for listener in listeners:
                    if listener.holder_id == holder_id:
                        listener.offer(None)

    def close(self) -> None:
        """End all streams, now and to come: the service stops."""
        with self._lock:
            self._closed = True
            for listeners in self._listeners.values():
                for listener in listeners:
                    listener.offer(None)

    def position(self) -> str:
        """An id that means 'after everything so far'; for the snapshot that opens a stream."""
        with self._lock:
            return self._next_id()

    def _next_id(self) -> str:
        self._last += 1
        return f"{self._epoch}-{self._last}"

    def _since(self, channel: Channel, last_event_id: str) -> list[Event] | None:
        epoch, _, number = last_event_id.partition("-")
        if epoch != self._epoch or not (number.isascii() and number.isdigit() and len(number) < 19):
            return None
        ring = self._rings.get(channel, deque())
        after = int(number)
        if after > self._last:
            return None  # nobody was given this id
        numbers = [_number(event) for event in ring]
        if after < self._forgotten or (len(ring) == RING_LENGTH and numbers[0] > after + 1):
            return None  # something between may have been pushed out of the ring, or have gone with it
        return [event for event, own in zip(ring, numbers, strict=True) if own > after]


def _number(event: Event) -> int:
    return int(event.id.partition("-")[2])
