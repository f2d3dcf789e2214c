from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import Run, clean_environment
from tests.running import free_port, make_owner
from zsky_box.db import Store


def test_it_tells_where_it_listens_and_ends_well(tmp_path: Path) -> None:
    make_owner(tmp_path)
    port = free_port()
    command = [sys.executable, "-m", "zsky_box", "serve", "--port", str(port), "--devices", "cpu", "--json"]
    with subprocess.Popen(
        command, env=clean_environment(ZSKY_DATA=str(tmp_path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as service:
        try:
            assert service.stdout is not None
            told = json.loads(service.stdout.readline())
            assert told == {"url": f"http://127.0.0.1:{port}", "pid": service.pid, "data": str(tmp_path)}
            assert httpx.get(f"{told['url']}/healthz", trust_env=False).is_success
            service.send_signal(signal.SIGINT)
            _, err = service.communicate(timeout=120)
        finally:
            service.kill()
        assert service.returncode == 0
        assert b"Traceback" not in err


def test_without_a_box_it_says_what_to_run(run: Run, tmp_path: Path) -> None:
    assert "zsky-box init" in run("serve", data=tmp_path / "none").sentence
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])  # noqa: S104 - refused
def test_a_box_without_an_owner_is_for_its_own_machine_only(run: Run, tmp_path: Path, host: str) -> None:
    """As an `init` leaves it that was killed half-way."""
    (tmp_path / "data").mkdir()
    Store(tmp_path / "data").close()
    told = run("serve", "--host", host, "--port", str(free_port()), data=tmp_path / "data")
    assert f"host = '{host}': the box has no owner yet" in told.sentence


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", ""])
def test_a_bad_port_is_a_usage_error(run: Run, tmp_path: Path, port: str) -> None:
    told = run("serve", "--port", port, data=tmp_path)
    assert told.status == 2
    assert "--port" in told.err


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("ZSKY_PORT", "http", "ZSKY_PORT = 'http'"),
        ("ZSKY_PORT", "70000", "65535"),
        ("ZSKY_PROT", "80", "did you mean port?"),
        ("ZSKY_DEVICES", "gpu", "allowed is auto, cpu"),
        ("ZSKY_DEVICES", "²", "allowed is"),
        ("ZSKY_TIMEZONE", "Mars/Olympus", "Europe/Berlin"),
        ("ZSKY_VIDEO_USD", "0.505", "two decimals"),
        ("ZSKY_LOG_LEVEL", "loud", "ZSKY_LOG_LEVEL"),
    ],
)
def test_a_bad_setting_stops_the_start_with_its_name_and_what_is_allowed(
    run: Run, tmp_path: Path, variable: str, value: str, told: str
) -> None:
    make_owner(tmp_path / "data")
    assert told in run("serve", data=tmp_path / "data", env={variable: value}).sentence


def test_an_option_is_named_as_it_was_given(run: Run, tmp_path: Path) -> None:
    make_owner(tmp_path / "data")
    assert "--devices = 'gpu'" in run("serve", "--devices", "gpu", data=tmp_path / "data").sentence
    assert "--host" in run("serve", "--host", "no-such-host.invalid", data=tmp_path / "data").sentence
