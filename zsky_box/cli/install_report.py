"""How an installation is shown: a bar in a terminal (bytes, speed, time left), JSON lines, or sentences."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from zsky_box.install.disk import in_gib

LINE_SECONDS: Final = 1.0
PARTS_MAX: Final = 1_000
"""What is counted below this are parts, and not bytes worth a line."""


class _Count(DownloadColumn):
    """Bytes, or how many of a few parts."""

    def render(self, task: Task) -> Text:
        parts = task.total is not None and task.total <= PARTS_MAX
        return Text(f"{task.completed:.0f}/{task.total:.0f} parts") if parts else super().render(task)


class _Speed(TransferSpeedColumn):
    """Bytes a second; a few parts have no speed."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is not None and task.total <= PARTS_MAX else super().render(task)


class Shown(Protocol):
    """What `installing.Report` and the other commands over a model's files tell."""

    def phase(self, name: str, of: int, done: int = 0) -> None: ...

    def advance(self, count: int) -> None: ...

    def note(self, sentence: str) -> None: ...


class Bar:
    """A bar on stderr."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def phase(self, name: str, of: int, done: int = 0) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(name, total=of, completed=done)

    def advance(self, count: int) -> None:
        if self._task is not None:
            self._progress.advance(self._task, count)

    def note(self, sentence: str) -> None:
        self._progress.console.print(sentence, highlight=False, markup=False)


class Lines:
    """A line of JSON on stdout at each phase, each second of it, and each note."""

    def __init__(self) -> None:
        self._phase, self._done, self._of, self._told = "", 0, 0, 0.0

    def phase(self, name: str, of: int, done: int = 0) -> None:
        self._phase, self._done, self._of = name, done, of
        self._tell()

    def advance(self, count: int) -> None:
        self._done += count
        if self._done >= self._of or time.monotonic() - self._told >= LINE_SECONDS:
            self._tell()

    def note(self, sentence: str) -> None:
        _line({"event": "note", "note": sentence})

    def _tell(self) -> None:
        self._told = time.monotonic()
        _line({"event": "progress", "phase": self._phase, "done": self._done, "of": self._of})


class Sentences:
    """What a log can hold: a line on stderr at each phase, and each note."""

    def phase(self, name: str, of: int, done: int = 0) -> None:
        here = f", of which {in_gib(done)} are here" if done else ""
        click.echo(f"{name}: {in_gib(of)}{here}" if of > PARTS_MAX else name, err=True)

    def advance(self, count: int) -> None:
        """Nothing: a log needs no bar."""

    def note(self, sentence: str) -> None:
        click.echo(sentence, err=True)


@contextmanager
def shown(*, as_json: bool) -> Generator[Shown]:
    """The report that fits where the output goes."""
    console = Console(stderr=True)
    if as_json:
        yield Lines()
    elif not console.is_terminal:
        yield Sentences()
    else:
        columns = (
            TextColumn("{task.description:<24}"),
            BarColumn(),
            _Count(binary_units=True),
            _Speed(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            yield Bar(progress)


def _line(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))
