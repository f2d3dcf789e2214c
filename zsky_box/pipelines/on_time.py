"""What a job reports, once its card has really come so far. Knows no model family."""

from __future__ import annotations

from collections.abc import Callable

import torch

from zsky_box.events import Phase
from zsky_box.pipelines.base import Reporter


class OnTime:
    """A reporter before another one: on a card, each call waits until all that was asked of the card is computed.

    torch only queues the work, a step or more ahead of the card. Unawaited, a step would be told, and charged, before
    it is done, a cancel would come too late, and each phase's time would be booked to the next one. On the processor
    nothing waits.
    """

    def __init__(self, report: Reporter, device: str) -> None:
        self._report = report
        self._device = device

    def phase(self, phase: Phase) -> None:
        """See `Reporter`."""
        self._wait()
        self._report.phase(phase)

    def step(self, step: int, steps: int, preview: Callable[[], bytes] | None = None) -> None:
        """See `Reporter`."""
        self._wait()
        self._report.step(step, steps, preview)

    def _wait(self) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
