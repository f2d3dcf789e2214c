"""install.sh --service: the unit's text, and its life with and without systemd."""

from __future__ import annotations

import re
from pathlib import Path

from tests.install.checkout import KEY, Checkout, lives


def test_the_unit_is_hardened_and_leaves_the_gpu_in_reach(checkout: Checkout) -> None:
    lines = checkout.install("--print-unit", "--data", '/srv/my "box"').splitlines()
    hardening = ["NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes", "Type=exec", "CapabilityBoundingSet="]
    assert set(hardening) <= set(lines)
    assert r'ReadWritePaths="/srv/my \"box\""' in lines
    root = str(checkout.root).replace("%", "%%")
    assert f"WorkingDirectory={root}" in lines
    assert f'ExecStart="{root}/.venv/bin/zsky-box" serve --port {checkout.port}' in lines
    settings = {line.partition("=")[0] for line in lines}
    assert not settings & {"MemoryDenyWriteExecute", "PrivateDevices", "ProtectClock", "DevicePolicy"}
    assert not re.search(r"@[A-Z]+@", "\n".join(lines))


def test_without_systemd_the_service_is_explained(checkout: Checkout) -> None:
    output = checkout.install("--service", status=1)
    assert "[Service]" in output
    assert "systemctl enable --now zsky-box" in output
    assert "not as a service" in output
    assert output.count(KEY) == 1


def test_a_service_is_started_kept_and_removed(checkout: Checkout, systemd: Path) -> None:
    # The double's shell is no systemd: it would read the $ and the % of this name otherwise.
    checkout.move_to("a check out")
    checkout.install("--service")
    assert systemd.exists()
    assert checkout.is_ready()
    pid = checkout.pid
    checkout.run()
    assert checkout.pid == pid
    assert "Stopped." in checkout.run("--stop")
    assert not checkout.is_ready()
    checkout.run("--uninstall")
    assert not systemd.exists()
    assert not (checkout.root / ".venv").exists()
    assert "daemon-reload" in checkout.lines(checkout.doubles / "systemctl.log")[-1]


def test_a_box_in_the_background_becomes_a_service(checkout: Checkout, systemd: Path) -> None:
    checkout.move_to("a check out")
    checkout.install()
    before = checkout.pid
    checkout.install("--service")
    assert systemd.exists()
    assert checkout.is_ready()
    assert not lives(before)
