"""The service's handle on one worker child: start, send, cancel, watch, kill.

Nothing here knows jobs, models or media: it speaks the messages of `events`, and turns silence, garbage and death into
one typed end. One Worker is one child's life, started once; its methods belong to one thread and never wait for long.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final, Literal

import msgspec

from zsky_box.errors import ErrorCode
from zsky_box.events import (
    Cancel,
    Done,
    Failed,
    Heartbeat,
    Phase,
    Progress,
    Ready,
    Run,
    Stop,
    ToChild,
    ToParent,
    decode_to_parent,
    encode,
)
from zsky_box.worker_process import ChildConfig, WorkerProcess, obituary

MESSAGE_BYTES_MAX: Final = 1 << 20
MESSAGES_PER_TURN: Final = 256
LAST_MESSAGES: Final = 4_096
ATTEMPTS_MAX: Final = 2

State = Literal["starting", "ready", "loading", "running", "draining", "dead"]
AttemptKey = tuple[str, int]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long the service waits for a child: to start, between signs of life, and to leave once it was told to."""

    start_seconds: float = 60.0
    heartbeat_seconds: float = 2.0
    silence_seconds: float = 30.0
    stop_seconds: float = 30.0
    term_seconds: float = 1.0
    kill_seconds: float = 5.0


@dataclass(frozen=True, kw_only=True)
class Dead:
    """The last thing that `receive` returns: why the child is gone, and the attempts that went with it.

    `expected` is true where the child left because it was asked to stop; `error_code` fits the lost attempts.
    `exit_code` is the process's (negative: a signal), or None for a process that the system could not end.
    """

    reason: str
    error_code: ErrorCode
    exit_code: int | None
    expected: bool
    lost: tuple[AttemptKey, ...]


class Worker:
    """One child on one device.

    `device` is `cpu` or `cuda:N`, N as nvidia-smi counts. `warm` names the families whose libraries the child imports
    while it waits. `uuid` names the card for good, where it is known; of its memory the child leaves `reserve_bytes`
    to others. `entry` is the child's module; only
    tests give another one.
    """

    def __init__(
        self,
        device: str,
        *,
        ffmpeg: str | None = None,
        warm: tuple[str, ...] = (),
        threads: int | None = None,
        uuid: str = "",
        reserve_bytes: int = 0,
        patience: Patience | None = None,
        entry: str = "zsky_box.worker_main",
    ) -> None:
        self.device = device
        self.patience = patience or Patience()
        self.ready: Ready | None = None
        self.dead: Dead | None = None
        self.resident: tuple[str, ...] = ()
        self.bytes_held = 0
        self.flops = 0.0
        self.attempts: dict[AttemptKey, Phase] = {}
        self.last_heard = 0.0
        self._config = ChildConfig(
            device=device,
            heartbeat_seconds=self.patience.heartbeat_seconds,
            reserve_bytes=reserve_bytes,
            ffmpeg=ffmpeg,
            warm=warm,
        )
        self._threads = threads
        self._uuid = uuid
        self._entry = entry
        self._inbox: list[ToParent | Dead] = []
        self._stopping_since: float | None = None
        self._condemned: Failed | None = None

    def start(self) -> None:
        """Start the process and return at once; Ready comes over the pipe. Raises OSError where none can be started."""
        self._process = WorkerProcess(self._entry, self._config, self._threads, self._uuid)
        self.last_heard = time.monotonic()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def connection(self) -> Connection:
        """For `multiprocessing.connection.wait`, as long as the state is not `dead`."""
        return self._process.connection

    def fileno(self) -> int:
        """The connection's file descriptor, for as long as it is open."""
        return self.connection.fileno()

    @property
    def state(self) -> State:
        """Where the child is in its life, from what it last said."""
        if self.dead:
            return "dead"
        if self._stopping_since is not None or self._condemned is not None:
            return "draining"
        if self.ready is None:
            return "starting"
        if not self.attempts:
            return "ready"
        return "loading" if "loading" in self.attempts.values() else "running"

    @property
    def has_room(self) -> bool:
        """Whether a Run may be sent: nothing is in flight, or one attempt whose encoder alone is still at work."""
        free = all(phase == "encoding" for phase in self.attempts.values())
        return self.state in ("ready", "running") and free and len(self.attempts) < ATTEMPTS_MAX

    def send(self, run: Run) -> None:
        """Give the child an attempt; only where `has_room`. If the child is gone, `receive` reports it as lost."""
        if not self.has_room or (run.job_id, run.token) in self.attempts:
            raise ValueError(f"the worker on {self.device} is {self.state} and has no room for job {run.job_id}")
        self.attempts[run.job_id, run.token] = "loading"
        self._write(run)

    def cancel(self, job_id: str, token: int) -> None:
        """Ask the child to stop an attempt, if it is in flight. The answer is a Failed, or the Done that was faster."""
        if (job_id, token) in self.attempts and not self.dead:
            self._write(Cancel(job_id=job_id, token=token))

    def stop(self) -> None:
        """Ask the child to leave once it is idle; `receive` returns an expected Dead when it has."""
        if self._stopping_since is None and not self.dead:
            self._stopping_since = time.monotonic()
            self._write(Stop())

    def is_hung(self, now: float) -> bool:
        """Whether at `now` (monotonic seconds) the child has been silent, or slow to start or leave, for too long.

        What it has said and nobody has read yet breaks its silence: another child may have held the reader up.
        """
        if self.dead:
            return False
        if self._stopping_since is not None and not self.attempts:
            return now - self._stopping_since > self.patience.stop_seconds
        bound_seconds = self.patience.start_seconds if self.ready is None else self.patience.silence_seconds
        return now - self.last_heard > bound_seconds and not self.connection.poll()

    def kill(self, reason: str, error_code: ErrorCode = "gpu_timeout") -> None:
        """End the child and its group now: SIGTERM, then SIGKILL, each with a bounded wait (6 s in all by default).

        What it had already said is still returned by `receive`, then Dead with this reason.
        """
        if not self.dead:
            self._end(reason, error_code)

    def receive(self) -> list[ToParent | Dead]:
        """Everything the child has said since the last call, without waiting; Dead is the last and comes once.

        Call it on every turn, not only when the pipe is readable: Dead may also follow from `send` or `kill`. A child
        that asks to be replaced (a fatal Failed) is ended here.
        """
        if not self.dead:
            self._read()
        if self._condemned is not None and not self.dead:
            self._end("was replaced at its own request", self._condemned.error_code)
        messages, self._inbox = self._inbox, []
        return messages

    def _write(self, message: ToChild) -> None:
        try:
            self.connection.send_bytes(encode(message))
        except BlockingIOError:
            self._end("does not read its messages", "gpu_timeout")
        except OSError:
            self._end(None)  # it is dying: its exit code tells why

    def _read(self) -> None:
        try:
            self._take_messages(MESSAGES_PER_TURN)
        except (EOFError, ConnectionResetError):
            self._end(None)
        except (OSError, msgspec.MsgspecError):
            log.exception("worker on %s: unreadable message", self.device)
            self._end("sent something unreadable", "internal_error")

    def _take_messages(self, at_most: int) -> None:
        for _ in range(at_most):
            if not self.connection.poll():
                return
            message = decode_to_parent(self.connection.recv_bytes(MESSAGE_BYTES_MAX))
            self._note(message)
            self._inbox.append(message)

    def _note(self, message: ToParent) -> None:
        self.last_heard = time.monotonic()
        match message:
            case Ready():
                self.ready = message
            case Heartbeat():
                self.resident, self.bytes_held = message.resident, message.bytes_held
                self.flops = message.flops or self.flops
            case Progress():
                if (message.job_id, message.token) in self.attempts:
                    self.attempts[message.job_id, message.token] = message.phase
            case Done() | Failed():
                self.attempts.pop((message.job_id, message.token), None)
                if isinstance(message, Failed) and message.fatal:
                    self._condemned = message
                if self._stopping_since is not None:
                    self._stopping_since = self.last_heard  # the time to leave counts from the last work's end

    def _end(self, reason: str | None, error_code: ErrorCode = "internal_error") -> None:
        """See that the process is gone, keep what it still said, and close; no reason: the exit code tells it."""
        patience = self.patience
        exit_code = self._process.end(
            grace_seconds=patience.term_seconds if reason is None else 0.0,
            term_seconds=patience.term_seconds,
            kill_seconds=patience.kill_seconds,
        )
        try:
            self._take_messages(LAST_MESSAGES)
        except (EOFError, OSError, msgspec.MsgspecError) as end:
            log.debug("worker on %s: its pipe ended with %r", self.device, end)
        self.connection.close()
        lost = tuple(self.attempts)
        expected = self._stopping_since is not None and exit_code == 0 and not lost
        if expected:
            reason = "stopped as asked"
        elif reason is None:
            reason, error_code = obituary(exit_code)
        self.dead = Dead(reason=reason, error_code=error_code, exit_code=exit_code, expected=expected, lost=lost)
        self._inbox.append(self.dead)
        log.log(logging.INFO if expected else logging.WARNING, "worker on %s (%d) %s", self.device, self.pid, reason)
