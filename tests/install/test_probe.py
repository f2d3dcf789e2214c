"""scripts/probe.py: the questions about JSON and readiness that install.sh's own tests do not reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.install.checkout import KEY, ROOT, RUN_TIMEOUT_SECONDS


def test_probe_waits_no_longer_than_it_may(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "scripts/probe.py", "ready", str(tmp_path), str(os.getpid()), "0.3"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_TIMEOUT_SECONDS)
    assert result.returncode == 1
    assert "not ready within" in result.stderr
    assert "does not listen yet" in result.stderr


def test_probe_reads_a_field() -> None:
    command = [sys.executable, ROOT / "scripts/probe.py", "field", "api_key"]
    for answer, printed in [({"api_key": KEY}, f"{KEY}\n"), ({}, "\n")]:
        result = subprocess.run(command, input=json.dumps(answer), capture_output=True, text=True, check=True)
        assert result.stdout == printed
