"""How a test runs a command: as a person would, in a process of its own, with pipes for its output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from tests.boxes import running
from tests.running import ROOT, RunningBox
from zsky_box.cli import main


@dataclass(frozen=True)
class Told:
    """What a command left: its exit status, what it printed, and what it said beside that."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The one line on stderr that a failed command says."""
        assert self.status != 0, self.out
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("zsky-box: ")
        return lines[0].removeprefix("zsky-box: ")


Run = Callable[..., Told]

# What the person who runs the tests may have set.
AMBIENT = {name for name in os.environ if name.startswith("ZSKY_") or name == "NO_COLOR"}


def clean_environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in AMBIENT}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder, with `data` as --data unless it is None.

    Commands run in this process, which is twenty times as fast; `serve`, which sets up logging and signals, in its own.
    """
    monkeypatch.chdir(tmp_path)
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)

    def run(*arguments: str, data: Path | None, env: dict[str, str] | None = None) -> Told:
        chosen = [*arguments, *([] if data is None else ["--data", str(data)])]
        with monkeypatch.context() as changed:
            for name, value in (env or {}).items():
                changed.setenv(name, value)
            told = apart(chosen) if "serve" in arguments else within(chosen)
        assert "Traceback" not in told.err, told.err
        assert "\x1b" not in told.out + told.err, "a pipe gets plain text"
        return told

    return run


def within(arguments: list[str]) -> Told:
    """What `python -m zsky_box` does."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as changed, redirect_stdout(out), redirect_stderr(err):
        changed.setattr("sys.argv", ["zsky-box", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    status = ended.value.code or 0
    assert isinstance(status, int)
    return Told(status, out.getvalue(), err.getvalue())


def apart(arguments: list[str]) -> Told:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "zsky_box", *arguments]
    ended = subprocess.run(command, check=False, env=clean_environment(), capture_output=True, text=True, timeout=120)
    return Told(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture(scope="session")
def cli_box(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """A running box for commands that only use it."""
    with running(tmp_path_factory.mktemp("cli") / "data", included_images=10**6) as box:
        yield box
