from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doubles.driving import a_run
from zsky_box.errors import ErrorCode, JobFailure
from zsky_box.events import Progress, Run, ToParent
from zsky_box.pipelines.base import Cancelled, OutOfMemory
from zsky_box.worker_attempt import (
    PREVIEW_BYTES_MAX,
    Attempt,
    failure_of,
    is_device_lost,
    is_out_of_memory,
    is_unexpected,
)


class AcceleratorError(RuntimeError):
    """Named as torch's own."""


class OutOfMemoryError(RuntimeError):
    """Called as torch's own."""


@pytest.mark.parametrize(
    ("error", "error_code", "is_fatal"),
    [
        (Cancelled(), "cancelled", False),
        (JobFailure("encode_failed", "No."), "encode_failed", False),
        (JobFailure("out_of_memory", "No."), "out_of_memory", True),
        (OutOfMemory(), "out_of_memory", True),
        (MemoryError(), "out_of_memory", True),
        (OutOfMemoryError("CUDA"), "out_of_memory", True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory", True),
        (AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might"), "out_of_memory", True),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "out_of_memory",
            True,
        ),
        (OSError(errno.ENOSPC, "full"), "storage_full", False),
        (OSError(errno.EDQUOT, "full"), "storage_full", False),
        (OSError(errno.EIO, "broken"), "internal_error", False),
        (RuntimeError("secret words"), "internal_error", False),
    ],
)
def test_every_error_has_a_code_and_a_sentence(error: Exception, error_code: ErrorCode, *, is_fatal: bool) -> None:
    code, message = failure_of(error)
    assert code == error_code
    assert message.endswith(".")
    assert "secret words" not in message
    assert is_out_of_memory(error) == is_fatal


def test_a_failed_card_is_told_from_a_failed_model() -> None:
    assert is_device_lost(AcceleratorError("device-side assert"))
    assert is_device_lost(RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx"))
    assert not is_device_lost(AcceleratorError("CUDA error: out of memory")), "it is full, and nothing is broken"
    assert not is_device_lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_device_lost(JobFailure("internal_error", "CUDA error in the prompt."))


def test_only_what_nobody_meant_makes_a_model_suspect() -> None:
    meant = [Cancelled(), JobFailure("internal_error", "No."), OSError(errno.ENOSPC, "full")]
    assert not any(is_unexpected(error) for error in meant)
    assert is_unexpected(RuntimeError())
    assert is_unexpected(OutOfMemory())


def test_a_cancelled_attempt_tells_the_step_it_did_and_then_stops(tmp_path: Path) -> None:
    said: list[ToParent] = []
    attempt = Attempt(a_run(tmp_path), said.append)
    attempt.phase("denoising")
    attempt.cancel()
    with pytest.raises(Cancelled):
        attempt.step(1, 4)
    assert [(m.phase, m.step) for m in said if isinstance(m, Progress)] == [("denoising", 0), ("denoising", 1)]
    for report in (lambda: attempt.phase("decoding"), lambda: attempt.frame(1, 9), attempt.check):
        with pytest.raises(Cancelled):
            report()


def test_entering_the_same_phase_again_is_not_told_twice(tmp_path: Path) -> None:
    said: list[ToParent] = []
    attempt = Attempt(a_run(tmp_path), said.append)
    attempt.phase("denoising")
    attempt.phase("denoising")
    assert len(said) == 1


def test_a_tail_that_has_begun_is_not_stopped_by_a_cancel(tmp_path: Path) -> None:
    said: list[ToParent] = []
    attempt = Attempt(a_run(tmp_path), said.append)
    attempt.phase("decoding")
    attempt.cancel()
    attempt.tail()
    attempt.close_phase()
    assert set(attempt.seconds) == {"decoding", "encoding"}


def previewed(run: Run, make: Callable[[], bytes], steps: int = 6) -> list[tuple[int, bytes]]:
    """The steps that were told with a preview, and it."""
    said: list[ToParent] = []
    attempt = Attempt(run, said.append)
    for step in range(1, steps + 1):
        attempt.step(step, steps, make)
    assert [m.step for m in said if isinstance(m, Progress)] == list(range(1, steps + 1)), "every step is told"
    return [(m.step, m.preview) for m in said if isinstance(m, Progress) and m.preview]


@pytest.mark.parametrize(("every", "steps"), [(0, []), (1, [1, 2, 3, 4, 5]), (2, [2, 4]), (3, [3]), (6, []), (9, [])])
def test_a_preview_is_made_only_where_one_is_wanted(tmp_path: Path, every: int, steps: list[int]) -> None:
    made: list[bytes] = []

    def make() -> bytes:
        made.append(b"jpeg")
        return made[-1]

    assert previewed(a_run(tmp_path, preview_steps=every), make) == [(step, b"jpeg") for step in steps]
    assert len(made) == len(steps)


@pytest.mark.parametrize("fault", ["it raises", "it is too large"])
def test_a_preview_that_fails_is_logged_once_and_fails_no_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    made: list[str] = []

    def make() -> bytes:
        made.append(fault)
        if fault == "it raises":
            raise OutOfMemory
        return bytes(PREVIEW_BYTES_MAX + 1)

    assert previewed(a_run(tmp_path, preview_steps=1), make) == []
    assert len(made) == 1
    assert len(caplog.records) == 1
    assert previewed(a_run(tmp_path, preview_steps=1), lambda: bytes(PREVIEW_BYTES_MAX), steps=2)


def test_a_cancelled_attempt_makes_no_preview(tmp_path: Path) -> None:
    said: list[ToParent] = []
    attempt = Attempt(a_run(tmp_path, preview_steps=1), said.append)
    attempt.cancel()
    with pytest.raises(Cancelled):
        attempt.step(1, 4, lambda: pytest.fail("nobody waits for it"))
    assert [m.step for m in said if isinstance(m, Progress)] == [1]
