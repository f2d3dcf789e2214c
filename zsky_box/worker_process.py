"""A worker child as the operating system sees it: spawned, tied to the service's life, ended with its whole group.

The child is a fresh interpreter in a session of its own. It cannot outlive the service, by two roads that do not need
each other: its reader sees the end of the message pipe, and the kernel kills its process group when the *lifeline*
closes: a pipe in which nothing is ever written and whose only writing end is held here. The second road works while the
child's interpreter is stuck, and takes ffmpeg along. PR_SET_PDEATHSIG would do neither: it spares grandchildren, and it
fires when the *thread* that started the child ends.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Final, NoReturn

import msgspec
from msgspec import Struct

from zsky_box.errors import ErrorCode

PIPE_PATIENCE_SECONDS: Final = 1
_TOKENS: Final = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})
"""Of the service's environment: no child asks a hub for anything."""


class ChildConfig(Struct, frozen=True, kw_only=True):
    """What a child is told on its command line, as JSON. `device` is the service's name for it, as `cuda:1`.

    Of its card's memory it leaves `reserve_bytes` to others, whatever its jobs ask for.
    """

    device: str
    heartbeat_seconds: float
    reserve_bytes: int = 0
    ffmpeg: str | None = None
    warm: tuple[str, ...] = ()


class WorkerProcess:
    """One running child. Raises OSError where it cannot be started; `connection` speaks with it."""

    def __init__(self, entry: str, config: ChildConfig, threads: int | None, uuid: str = "") -> None:
        here, there = socket.socketpair()
        lifeline_there, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", entry),  # -P: a torch.py in the current folder is not imported
                    *(str(there.fileno()), str(lifeline_there), msgspec.json.encode(config).decode()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=2,  # a library that prints must not print into the service's output
                env=environment(config.device, threads, uuid),
                pass_fds=(there.fileno(), lifeline_there),
                start_new_session=True,
            )
        except OSError:
            here.close()
            os.close(self._lifeline)
            raise
        finally:
            there.close()
            os.close(lifeline_there)
        # A child that stops in the middle of a message, or never reads, holds the service up for no longer than this.
        patience = struct.pack("ll", PIPE_PATIENCE_SECONDS, 0)
        here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        self.connection: Connection = Connection(here.detach())

    @property
    def pid(self) -> int:
        """The process id, which is the number of its process group as well."""
        return self._process.pid

    def end(self, *, grace_seconds: float, term_seconds: float, kill_seconds: float) -> int | None:
        """Wait for the exit, then SIGTERM, then SIGKILL to the group, each for so long; the connection stays readable.

        Returns the exit code (negative: a signal), or None where even SIGKILL does not end the process in time.
        """
        pidfd = os.pidfd_open(self.pid)
        try:
            exited = bool(wait([pidfd], grace_seconds))
            for number, patience_seconds in ((signal.SIGTERM, term_seconds), (signal.SIGKILL, kill_seconds)):
                if not exited:
                    os.killpg(self.pid, number)
                    exited = bool(wait([pidfd], patience_seconds))
        finally:
            os.close(pidfd)
        # Until the child is reaped its number cannot belong to another group: this hits only what it left behind.
        os.killpg(self.pid, signal.SIGKILL)
        os.close(self._lifeline)
        return self._process.wait() if exited else None


def environment(device: str, threads: int | None, uuid: str = "") -> dict[str, str]:
    """A child's environment: its own card and no other, so many threads, no hub, and the service's own code.

    `cuda:N` counts as nvidia-smi does; the card's UUID, where it is known, names it whatever becomes of the others.
    Inside the child that card is the only one, so that no library can open a context on a card of another child.
    """
    ours = str(Path(__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    changed = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": (uuid or device.removeprefix("cuda:")) if device.startswith("cuda:") else "",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": f"{ours}{os.pathsep}{inherited}" if inherited else ours,
    }
    if threads is not None:
        changed["OMP_NUM_THREADS"] = str(threads)
    kept = {name: value for name, value in os.environ.items() if name not in _TOKENS}
    return {**kept, **changed}


def obituary(exit_code: int | None) -> tuple[str, ErrorCode]:
    """Why a child is gone that nobody asked to leave, in plain words, and the code that its jobs end with."""
    if exit_code is None:
        return "cannot be ended: the system holds it, most likely in the card's driver", "gpu_timeout"
    if exit_code == -signal.SIGKILL:  # nobody here sent it, so the kernel's memory killer is the likely one
        return "was killed by the system, most likely because the machine ran out of memory", "out_of_memory"
    if exit_code < 0:
        return f"crashed ({signal.strsignal(-exit_code) or f'signal {-exit_code}'})", "internal_error"
    return f"left unasked with exit code {exit_code}", "internal_error"


def end_group() -> NoReturn:
    """In the child: kill this process and everything that it started, ffmpeg among it, at once."""
    os.killpg(0, signal.SIGKILL)
    os._exit(1)  # not reached: the signal is delivered before killpg returns


def hold_lifeline(lifeline: int) -> None:
    """In the child: have the kernel kill this process group when the service's end of the pipe closes, however it does.

    Nothing is ever written to it, so the only input event is its end (O_ASYNC with F_SETSIG, see fcntl(2) and pipe(7)).
    """
    fcntl.fcntl(lifeline, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    try:
        os.read(lifeline, 1)
    except BlockingIOError:
        return  # open: from here on its end is seen
    end_group()  # it had closed before anyone watched
