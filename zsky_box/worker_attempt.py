"""One Run on its way through a worker child: what it reports, whether it was cancelled, and how it failed."""

from __future__ import annotations

import errno
import logging
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final

from zsky_box.errors import ErrorCode, JobFailure
from zsky_box.events import Phase, Progress, Run, ToParent
from zsky_box.pipelines.base import Cancelled, OutOfMemory

FRAME_REPORTS_SECONDS: Final = 0.1
PREVIEW_BYTES_MAX: Final = 64 * 1024
CAUSES_MAX: Final = 16
_NO_MEMORY: Final = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)

log = logging.getLogger(__name__)


class Attempt:
    """The reporter that a pipeline is given; each of its calls raises Cancelled once `cancel` was called.

    `cancel` comes from the reader's thread; all else is called by whichever one thread holds the attempt.
    """

    def __init__(self, run: Run, send: Callable[[ToParent], None]) -> None:
        self.run = run
        self.key = (run.job_id, run.token)
        self.seconds: dict[str, float] = {}
        self._send = send
        self._cancelled = threading.Event()
        self._previews_failed = False
        self._phase: Phase = "waiting"
        self._phase_since = self._frame_sent_at = time.monotonic()

    def cancel(self) -> None:
        """Stop the attempt at its next report."""
        self._cancelled.set()

    def check(self) -> None:
        """Raises Cancelled once the attempt was cancelled."""
        if self._cancelled.is_set():
            raise Cancelled

    def phase(self, phase: Phase) -> None:
        """Enter a phase; the time since the last change belongs to the phase that ends."""
        self.check()
        self._enter(phase)

    def step(self, step: int, steps: int, preview: Callable[[], bytes] | None = None) -> None:
        """A denoising step is complete; it is told even when it is the last one before a cancel, for it was done.

        A preview goes with every so many of them, but not with the last: the result itself is next. Where the result
        is to be checked there are none: nobody sees it before.
        """
        every = self.run.preview_steps if self.run.check is None else 0
        is_wanted = every > 0 and step % every == 0 and step < steps and not self._cancelled.is_set()
        self._report(step, steps, self._previewed(preview) if preview is not None and is_wanted else b"")
        self.check()

    def frame(self, frame: int, frames: int) -> None:
        """`frame` of `frames` are decoded and fed to the encoder; told ten times a second, and at the last."""
        self.check()
        now = time.monotonic()
        if frame == frames or now - self._frame_sent_at >= FRAME_REPORTS_SECONDS:
            self._frame_sent_at = now
            self._report(frame, frames)

    def tail(self) -> None:
        """Enter the last phase, in which the device is free; never raises, for a tail once begun is finished."""
        self._enter("encoding")

    def close_phase(self) -> None:
        """Book the running phase's time into `seconds`."""
        now = time.monotonic()
        if self._phase != "waiting":
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._phase_since
        self._phase_since = now

    def _enter(self, phase: Phase) -> None:
        if phase != self._phase:
            self.close_phase()
            self._phase = phase
            self._report(0, 0)

    def _previewed(self, preview: Callable[[], bytes]) -> bytes:
        """The JPEG, or nothing where none can be made: a job never fails for its previews."""
        if self._previews_failed:
            return b""
        try:
            jpeg = preview()
        except Exception:
            self._previews_failed = True
            log.exception("job %s has no previews", self.run.job_id)
            return b""
        if len(jpeg) <= PREVIEW_BYTES_MAX:
            return jpeg
        self._previews_failed = True
        log.error("job %s has no previews: %d bytes is more than a preview may have", self.run.job_id, len(jpeg))
        return b""

    def _report(self, step: int, steps: int, preview: bytes = b"") -> None:
        run = self.run
        self._send(
            Progress(job_id=run.job_id, token=run.token, phase=self._phase, step=step, steps=steps, preview=preview)
        )


def failure_of(error: Exception) -> tuple[ErrorCode, str]:
    """The code that an attempt ends with, and a sentence for the person who waits for it: never a stack trace."""
    match error:
        case Cancelled():
            return "cancelled", "The job was cancelled."
        case JobFailure():
            return error.error_code, error.message
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "storage_full", "The disk for the results is full."
        case _ if is_out_of_memory(error):
            return "out_of_memory", "The device ran out of memory. A smaller size or a shorter duration may fit."
        case _ if is_device_lost(error):
            return "internal_error", f"The card reported an error ({type(error).__name__}). The log has the details."
        case _:
            return (
                "internal_error",
                f"The model stopped unexpectedly ({type(error).__name__}). The log has the details.",
            )


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on the card or in the machine; torch's own errors are known without importing it."""
    if isinstance(error, JobFailure):
        return error.error_code == "out_of_memory"
    by_name = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    # torch's CPU allocator raises a plain RuntimeError, and so do the card's libraries where they find no room.
    by_text = isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    return isinstance(error, OutOfMemory | MemoryError) or by_name or by_text


def is_device_lost(error: Exception) -> bool:
    """Whether the card itself failed: its context does not recover, and every later call in this process fails too.

    A card that is merely full is none that failed.
    """
    if is_out_of_memory(error):
        return False
    by_name = any(kind.__name__ == "AcceleratorError" for kind in type(error).__mro__)
    return by_name or (isinstance(error, RuntimeError) and "CUDA error" in str(error))  # cuBLAS's is a plain one


def is_unexpected(error: Exception) -> bool:
    """Whether nobody raised it on purpose, so that the model it came from may be in any state."""
    return is_out_of_memory(error) or (
        not isinstance(error, Cancelled | JobFailure) and failure_of(error)[0] == "internal_error"
    )


def log_failure(attempt: Attempt, error: Exception) -> None:
    """The traceback goes here and nowhere else, and only for what nobody raised on purpose."""
    error_code, message = failure_of(error)
    log.log(
        logging.INFO if error_code == "cancelled" else logging.ERROR,
        "job %s: %s: %s",
        attempt.run.job_id,
        error_code,
        message,
        exc_info=error if is_unexpected(error) else None,
    )


def let_go(error: Exception) -> None:
    """Clear the frames that an error and its causes came through: their locals would keep activations on the card."""
    cause: BaseException | None = error
    for _ in range(CAUSES_MAX):
        if cause is None:
            return
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__
