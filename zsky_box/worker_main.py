"""The worker child: takes Runs one by one, holds the models that fit, makes the files, and says how it goes.

Four threads: the main one loads, denoises and decodes; the reader takes messages, so that a Cancel is heard at once;
one beats the heart; and at most one finishes an encoder's tail while the next job has the card. Pictures stay in this
process: only `events` cross the pipe. Nothing here knows prices, accounts or the database.
"""

from __future__ import annotations

import faulthandler
import fcntl
import logging
import os
import platform
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import msgspec

from zsky_box import __version__
from zsky_box.errors import JobFailure
from zsky_box.events import (
    Cancel,
    Done,
    Failed,
    Heartbeat,
    Ready,
    Run,
    Stop,
    ToChild,
    ToParent,
    decode_to_child,
    encode,
)
from zsky_box.pipelines.base import Cancelled, Pipeline, Still
from zsky_box.worker_attempt import (
    Attempt,
    failure_of,
    is_device_lost,
    is_out_of_memory,
    is_unexpected,
    let_go,
    log_failure,
)
from zsky_box.worker_check import Checker, Samples
from zsky_box.worker_engine import WITHOUT_TORCH, Engine, Outcome, real_engine, told_of_wordmark, write_stills
from zsky_box.worker_meter import Meter, device_name
from zsky_box.worker_process import ChildConfig, end_group, hold_lifeline
from zsky_box.worker_residents import Residents

MESSAGE_BYTES_MAX: Final = 1 << 20
ORDERS_MAX: Final = 3  # two Runs, of which one is in its tail, and a Stop
WARM_WAIT_SECONDS: Final = 0.1

log = logging.getLogger("zsky_box.worker")


class Child:
    """The loop and its threads; `serve` returns after a Stop, when all work is done."""

    def __init__(self, connection: Connection, config: ChildConfig, engine: Engine) -> None:
        self._connection = connection
        self._config = config
        self._engine = engine
        # The service shows this process one card only, whatever its number is there.
        self._device = "cpu" if config.device == "cpu" else "cuda:0"
        self._sending = threading.Lock()
        self._orders: queue.Queue[Attempt | Stop] = queue.Queue(ORDERS_MAX)
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._meter = Meter(self._device, config.reserve_bytes)
        # A change is told at once: the service counts on it when it chooses the next job, which may be before a beat.
        self._residents = Residents(lambda run: engine.load(run, self._device), self._tell_memory)
        self._checker = Checker(lambda check: engine.load_check(check, self._device))
        self._flops = 0.0
        self._tail: threading.Thread | None = None
        self._leaving = threading.Event()
        self._warming = threading.Thread(target=self._warm, name="warm", daemon=True)

    def serve(self) -> None:
        """Say Ready and work until told to stop."""
        self._warming.start()
        self._send(
            Ready(
                pid=os.getpid(),
                device=self._config.device,
                device_name=device_name(self._config.device),
                versions=own_versions(),
            )
        )
        threading.Thread(target=self._listen, name="reader", daemon=True).start()
        threading.Thread(target=self._beat, name="heart", daemon=True).start()
        while isinstance(order := self._orders.get(), Attempt):
            self._perform(order)
        self._join_tail()
        self._residents.evict_all()
        self._checker.close()
        self._leaving.set()

    def _send(self, message: ToParent) -> None:
        try:
            with self._sending:
                self._connection.send_bytes(encode(message))
        except OSError:
            end_group()  # the service is gone

    def _listen(self) -> None:
        try:
            while not self._leaving.is_set():
                message: ToChild = decode_to_child(self._connection.recv_bytes(MESSAGE_BYTES_MAX))
                match message:
                    case Run():
                        attempt = Attempt(message, self._send)
                        self._attempts[attempt.key] = attempt
                        self._orders.put_nowait(attempt)
                    case Cancel():
                        attempt = self._attempts.get((message.job_id, message.token))
                        if attempt:
                            attempt.cancel()
                    case Stop():
                        self._orders.put_nowait(message)
        except (EOFError, ConnectionResetError):
            log.warning("the service is gone")
        except (OSError, msgspec.MsgspecError, queue.Full):
            log.exception("the service broke the protocol")
        finally:
            if not self._leaving.is_set():
                end_group()

    def _beat(self) -> None:
        while not self._leaving.wait(self._config.heartbeat_seconds):
            self._tell_memory()

    def _tell_memory(self) -> None:
        self._send(Heartbeat(resident=self._residents.names, bytes_held=self._meter.bytes_held(), flops=self._flops))

    def _warm(self) -> None:
        """Import what the installed models need, then see what the device can do, which is soon done: a Run waits."""
        is_measurable = False
        for family in self._config.warm:
            try:
                self._engine.warm(family)
            except Exception:
                log.exception("the libraries of %s cannot be imported; its jobs will say so", family)
            else:
                is_measurable = is_measurable or family not in WITHOUT_TORCH
        if is_measurable:
            try:
                self._meter.torch_is_there()
                self._flops = self._engine.measure(self._device)
            except Exception:
                log.exception("%s cannot be used, or its speed not be measured", self._config.device)

    def _perform(self, attempt: Attempt) -> None:
        """Load, denoise, decode; then hand what remains to a thread of its own, and the card to the next job."""
        try:
            attempt.phase("loading")
            pipeline = self._pipeline(attempt)
            finish = self._film(pipeline, attempt) if attempt.run.type == "video" else self._draw(pipeline, attempt)
            peak_bytes = self._meter.peak_bytes()
        except Exception as error:  # noqa: BLE001 - it is logged and told to the service, whatever it is
            self._fail(attempt, error)
            return
        self._join_tail()
        self._tail = threading.Thread(target=self._finish, args=(attempt, finish, peak_bytes), name="tail")
        self._tail.start()

    def _pipeline(self, attempt: Attempt) -> Pipeline:
        """The Run's model, read into memory where it is not there as the Run wants it; first go those it names."""
        run = attempt.run
        self._await_imports(run.model.family, attempt)
        self._residents.make_room(run)
        self._meter.begin()
        pipeline = self._residents.get(run) or self._load(attempt)
        attempt.check()
        return pipeline

    def _await_imports(self, family: str, attempt: Attempt) -> None:
        if family in self._config.warm:
            while self._warming.is_alive():
                self._warming.join(WARM_WAIT_SECONDS)
                attempt.check()

    def _load(self, attempt: Attempt) -> Pipeline:
        began = time.monotonic()
        pipeline = self._residents.load(attempt.run)
        attempt.seconds["weights"] = time.monotonic() - began
        if attempt.run.model.family not in WITHOUT_TORCH:
            self._meter.torch_is_there()
        return pipeline

    def _film(self, pipeline: Pipeline, attempt: Attempt) -> Callable[[], Outcome]:
        run, samples = attempt.run, Samples(attempt.run)
        clip = samples.of_clip(pipeline.video(run, attempt))
        attempt.phase("decoding")
        tail = self._engine.feed_clip(
            clip,
            Path(run.out_dir),
            run.stem,
            seed=run.seed,
            ffmpeg=self._config.ffmpeg,
            on_frame=attempt.frame,
            wordmarked=run.wordmarked > 0,
        )
        try:
            checked = self._look(attempt, samples)
        except BaseException:
            tail.abort()
            raise
        return lambda: Outcome(tail.finish(), [], clip.notes, checked)

    def _draw(self, pipeline: Pipeline, attempt: Attempt) -> Callable[[], Outcome]:
        """An image that fails takes no other along, but for those behind it where nobody knows what the model is worth.

        Where the card itself failed, what was made before goes too: all of it is tried again, in a child of its own.
        """
        run = attempt.run
        made: dict[int, Still] = {}
        trouble: Exception | None = None
        stills = pipeline.images(run, attempt)
        for ordinal in range(run.n):
            try:
                made[ordinal] = next(stills)
            except StopIteration:
                break
            except Exception as error:
                if isinstance(error, Cancelled) or is_device_lost(error) or (is_unexpected(error) and not made):
                    raise
                trouble = error
                self._note_failure(attempt, error)
                if is_unexpected(error):
                    break
        if not made:
            raise trouble or JobFailure("internal_error", "The model made no image.")
        samples = Samples(run)
        samples.of_stills(made)
        return partial(write_stills, self._engine, attempt, made, trouble, self._look(attempt, samples))

    def _look(self, attempt: Attempt, samples: Samples) -> tuple[str, ...]:
        """The output check, where the Run names one; raises what keeps its result from being given out."""
        check = attempt.run.check
        if check is None:
            return ()
        attempt.check()
        self._await_imports(check.model.family, attempt)
        checked = self._checker.look(attempt.run, samples)
        self._meter.torch_is_there()
        return checked

    def _finish(self, attempt: Attempt, finish: Callable[[], Outcome], peak_bytes: int) -> None:
        """The tail's thread. A Cancel is too late for a clip now: the work is done and its file is all but there."""
        run = attempt.run
        try:
            attempt.tail()
            outcome = finish()
            versions = own_versions() | self._engine.versions(run.model.family)
        except Exception as error:  # noqa: BLE001 - it is logged and told to the service, whatever it is
            log_failure(attempt, error)
            self._tell_failure(attempt, error, fatal=False)
            return
        attempt.close_phase()
        del self._attempts[attempt.key]
        self._send(
            Done(
                job_id=run.job_id,
                token=run.token,
                files=tuple(outcome.files),
                missing=tuple(outcome.missing),
                notes=(*outcome.notes, *told_of_wordmark(run, outcome.files)),
                versions=versions,
                seconds=attempt.seconds,
                checked=outcome.checked,
                peak_bytes=peak_bytes,
            )
        )

    def _join_tail(self) -> None:
        if self._tail:
            self._tail.join()  # the service's deadline for the job bounds it
            self._tail = None

    def _fail(self, attempt: Attempt, error: Exception) -> None:
        is_fatal = is_out_of_memory(error) or is_device_lost(error)
        self._note_failure(attempt, error)
        if is_fatal:
            self._join_tail()  # the service ends this child next, and the job before must not go with it
        self._tell_failure(attempt, error, fatal=is_fatal)

    def _note_failure(self, attempt: Attempt, error: Exception) -> None:
        """Log it, and drop the job's model where nobody knows what state it was left in; the others stay."""
        log_failure(attempt, error)
        let_go(error)
        if is_unexpected(error):
            self._residents.evict(attempt.run.model.name)

    def _tell_failure(self, attempt: Attempt, error: Exception, *, fatal: bool) -> None:
        error_code, message = failure_of(error)
        job_id, token = attempt.key
        del self._attempts[attempt.key]
        self._send(Failed(job_id=job_id, token=token, error_code=error_code, message=message, fatal=fatal))


def own_versions() -> dict[str, str]:
    """What every result depends on; the libraries of a family come beside it."""
    return {"zsky-box": __version__, "python": platform.python_version()}


def main(arguments: list[str], engine: Engine) -> None:
    """Be the child that `worker_process` starts: `arguments` are the connection, the lifeline and the ChildConfig."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)  # started by hand: the shell's group must not be killed with it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # ends the process even while Python code cannot run
    pipe, lifeline = int(arguments[0]), int(arguments[1])
    hold_lifeline(lifeline)
    fcntl.fcntl(pipe, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    config = msgspec.json.decode(arguments[2], type=ChildConfig)
    faulthandler.enable()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format=f"%(asctime)s worker {config.device} %(levelname)s %(message)s"
    )
    Child(Connection(pipe), config, engine).serve()


if __name__ == "__main__":
    main(sys.argv[1:], real_engine())
