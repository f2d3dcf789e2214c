"""What is told of a job on a card is true: no step and no phase before the card has done what comes before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.pipelines.tiny import Listener, a_run, opened, tiny_spec
from zsky_box.events import Phase


class Log(Listener):
    """A reporter that writes down what it hears among the waits."""

    def __init__(self, entries: list[str]) -> None:
        super().__init__()
        self.entries = entries

    def phase(self, phase: Phase) -> None:
        self.entries.append(phase)

    def step(self, step: int, steps: int, preview: Callable[[], bytes] | None = None) -> None:  # noqa: ARG002
        self.entries.append(f"step {step}")


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A card's waits, written down instead of done."""
    written: list[str] = []

    def synchronize(device: str) -> None:
        written.append(f"wait for {device}")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    return written


@pytest.mark.parametrize("name", ["tiny-ltx2", "tiny-klein", "tiny-z-image"])
def test_a_step_is_told_once_the_card_has_done_it(name: str, entries: list[str]) -> None:
    pipeline: Any = opened(name)
    vars(pipeline)["_device"] = "cuda:0"
    run = a_run(tiny_spec(name))
    _ = pipeline.video(run, Log(entries)) if run.type == "video" else list(pipeline.images(run, Log(entries)))
    told = [entry for entry in entries if not entry.startswith("wait")]
    assert told[:2] == ["loading", "denoising"]
    assert told[-1] == "decoding"
    assert "step 4" in told
    assert entries == [part for entry in told for part in ("wait for cuda:0", entry)]


def test_the_processor_is_not_waited_for(entries: list[str]) -> None:
    run = a_run(tiny_spec("tiny-klein"))
    list(opened("tiny-klein").images(run, Log(entries)))
    assert not any(entry.startswith("wait") for entry in entries)
