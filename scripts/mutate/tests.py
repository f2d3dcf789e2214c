"""One mutant against the tests, in a process of its own that has everything but the project imported already."""

from __future__ import annotations

import contextlib
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import signal
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final, Literal

import pytest

from scripts.mutate.mutants import Mutant

Outcome = Literal["killed", "survived", "timeout"]

OURS: Final = ("zsky_box", "tests")
# Quick to start, and nothing that must be imported by pytest itself: most of a mutant's time would be pytest's.
_OPTIONS: Final = ("-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "pytest_timeout", "--timeout=15")


class _Mutated(importlib.machinery.SourceFileLoader):
    """Loads a module whose source is not what its file says."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType | None:
        return self.source_to_code(self._source.encode(), self.get_filename(fullname))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the one module that is mutated."""

    def __init__(self, mutant: Mutant, root: Path) -> None:
        self._path = str(root / mutant.path)
        self._name = mutant.path.removesuffix(".py").replace("/", ".")
        self._source = mutant.source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname != self._name:
            return None
        loader = _Mutated(fullname, self._path, self._source)
        return importlib.util.spec_from_loader(fullname, loader, origin=self._path)


def start(mutant: Mutant | None, tests: list[str], root: Path) -> int:
    """The process that runs the tests against a mutant (None: against the code as it is)."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.setpgid(0, 0)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what a mutant says as it breaks is of no interest
            if mutant is not None:
                sys.meta_path.insert(0, _Finder(mutant, root))
            code = _run(tests)
        finally:
            os._exit(code)
    return pid


def outcome_of(status: int) -> Outcome:
    """What the process's end says: only a run in which every test passed lets the mutant live."""
    return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"


def kill(pid: int) -> None:
    """End a process that runs for too long, with whatever it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def import_what_is_not_ours(tests: list[str], root: Path) -> list[str]:
    """Import what the tests need of other people's modules, so that no mutant has to; their names."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _run([*tests, "--collect-only"])
        names = [name for name in sys.modules if name.split(".")[0] not in OURS and name != "__main__"]
        with os.fdopen(write, "w") as pipe:
            pipe.write("\n".join(names))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        names = pipe.read().split("\n")
    os.waitpid(pid, 0)
    sys.path.insert(0, str(root))
    for name in names:
        with contextlib.suppress(ImportError, AttributeError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    return names


def _run(tests: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        options = [*_OPTIONS, f"--basetemp={folder}/pytest"]
        quiet = io.StringIO()
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            return int(pytest.main([*options, *tests]))


@contextlib.contextmanager
def scratch() -> Generator[None]:
    """A folder for all that the tests write, in memory where there is such a place: each commit is flushed."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder in it has a name of its own
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder
        yield
    tempfile.tempdir = None
