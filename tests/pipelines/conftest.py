"""One thread a process: the tiny models gain nothing from more, and on a busy machine threads wait for one another."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
