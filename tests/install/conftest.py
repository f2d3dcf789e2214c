"""A fresh copy of the checkout for each test; whatever box a test leaves behind is stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.install.checkout import SYSTEMCTL_DOUBLE, Checkout, write_program


@pytest.fixture
def checkout(tmp_path: Path) -> Generator[Checkout]:
    made = Checkout(tmp_path)
    yield made
    made.run("--stop")
    service = tmp_path / "doubles/service.pid"
    if service.exists() and Path(f"/proc/{service.read_text().strip()}").exists():
        os.kill(int(service.read_text()), signal.SIGKILL)


@pytest.fixture
def systemd(checkout: Checkout, tmp_path: Path) -> Path:
    """systemd as a double; returns where its units lie."""
    write_program(checkout.doubles / "systemctl", SYSTEMCTL_DOUBLE)
    write_program(checkout.doubles / "sudo", '#!/bin/bash\nexec "$@"\n')
    (tmp_path / "units").mkdir()
    checkout.environment["BOX_SYSTEMD_RUNTIME"] = str(tmp_path)
    return tmp_path / "units/zsky-box.service"
