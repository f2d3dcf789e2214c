"""Models with random weights, and a few clips of the world."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.mini import world
from zsky_box.pipelines.mini_model import MiniModel


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """On busy cores such small operations spend their time waiting for a second thread."""
    torch.set_num_threads(1)


@pytest.fixture
def model() -> MiniModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = MiniModel.random(width=32, heads=2, depth=2)
        torch.nn.init.normal_(model.transformer.bends.weight, std=0.1)
        for layer in model.transformer.leave.parameters():
            torch.nn.init.normal_(layer, std=0.1)
    return model


@pytest.fixture
def clips() -> world.Scenes:
    return world.scenes(np.random.default_rng(5), 400)
