"""What the scheduler needs of the jobs, declared here and kept by the job book: it knows no database.

Every method returns after its COMMIT, but for `progress`, `preview` and `timed`, which wait for none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from zsky_box.dispatch import Waiting
from zsky_box.errors import ErrorCode
from zsky_box.estimates import Timing
from zsky_box.events import Done, Phase
from zsky_box.requests import Work


class ClaimedJob(Protocol):
    """A job that is this scheduler's to run; `out_dir` exists and belongs to the attempt."""

    @property
    def job_id(self) -> str: ...
    @property
    def token(self) -> int: ...
    @property
    def work(self) -> Work: ...
    @property
    def test(self) -> bool: ...
    @property
    def out_dir(self) -> str: ...
    @property
    def stem(self) -> str: ...
    @property
    def deadline_in_seconds(self) -> float | None: ...
    @property
    def reference_path(self) -> str: ...


class JobSource(Protocol):
    """All that the scheduler needs of the jobs."""

    def heads(self, *, test: bool, per_flow: int) -> Sequence[Sequence[Waiting]]:
        """The oldest jobs of each account, model and priority; and, first, those whose start deadline is near.

        With `per_flow` 0 it is the latter alone.
        """
        ...

    def claim(self, job_id: str, device: str, why: str = "") -> ClaimedJob | None: ...
    def progress(self, job_id: str, token: int, phase: Phase, step: int, steps: int) -> None: ...
    def preview(self, job_id: str, token: int, jpeg: bytes) -> None: ...
    def complete(self, done: Done, device_name: str, versions: dict[str, str], recipe: str = "") -> None: ...
    def fail(self, job_id: str, token: int, code: ErrorCode, message: str) -> bool: ...

    def retry(
        self, job_id: str, token: int, code: ErrorCode, message: str, *, attempts_max: int, recipe_floor: int = 0
    ) -> bool:
        """Back to the queue, from now on by the recipes from `recipe_floor` on; ended instead after `attempts_max`."""
        ...

    def release(self, job_id: str, token: int) -> None: ...
    def cancel_requested(self, job_ids: list[str]) -> set[str]: ...
    def expire(self) -> int: ...

    def miss(self, job_id: str) -> None:
        """End a queued job that cannot start by its start deadline, before the deadline has passed."""
        ...

    def paused(self) -> Mapping[str, bool]:
        """The devices that take no jobs at present, and whether their memory is to be free besides."""
        ...

    def is_quiet(self) -> bool:
        """Whether that is so since these are quiet hours."""
        ...

    def timed(self, timings: Sequence[Timing]) -> None: ...
    def measured(self, card: str, flops: float) -> None: ...
