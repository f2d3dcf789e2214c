"""A state machine over jobs and money: clients, owners, workers, the clock and crashes in any order, and after every
step the rules of the ledger that must always be true. The machine itself is in tests/machine.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.machine.life import MoneyLife

_QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


@pytest.mark.timeout(1_800)  # to shrink what it has found
class TestMoneyMachine(MoneyLife.TestCase):
    """Some lives, in every run of the tests."""

    settings = settings(max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=_QUIET)


@pytest.mark.campaign
@pytest.mark.timeout(14_400)
class TestMoneyMachineForLong(MoneyLife.TestCase):
    """Many and longer lives."""

    settings = settings(max_examples=3_000, stateful_step_count=80, deadline=None, suppress_health_check=_QUIET)
