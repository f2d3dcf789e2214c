"""The account that every test of the ledger's rooms spends from."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.ledger.money import Money, open_money


@pytest.fixture
def money(tmp_path: Path) -> Generator[Money]:
    """Ann on the plan max, with 10 images and 3 videos a month."""
    with open_money(tmp_path) as money:
        yield money
