"""Who watches the box at work: told what happens, asked for nothing, and never in the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Observer(Protocol):
    """Called from the threads that do the work: each call returns at once and raises nothing.

    `device` is a slot's label, `model` a name of the catalogue, `test` whether it was a test key's job.
    """

    def started(self, model: str, waited_seconds: float, *, test: bool) -> None:
        """A job begins for the first time, after so long in the queue."""
        ...

    def made(self, device: str, model: str, seconds: Mapping[str, float], *, test: bool) -> None:
        """A worker has made what was asked; `seconds` as in `events.Done`."""
        ...

    def attempt_failed(self, device: str, model: str, error_code: str) -> None:
        """An attempt has ended without a result; the job may be tried again."""
        ...

    def ended(self, model: str, status: str, error_code: str, *, test: bool) -> None:
        """A job has ended for good, and that is stored; `error_code` is empty where it is completed."""
        ...

    def refused(self, code: str) -> None:
        """A request was refused."""
        ...


class Nobody:
    """An Observer that does not look."""

    def started(self, model: str, waited_seconds: float, *, test: bool) -> None:
        """Nothing."""

    def made(self, device: str, model: str, seconds: Mapping[str, float], *, test: bool) -> None:
        """Nothing."""

    def attempt_failed(self, device: str, model: str, error_code: str) -> None:
        """Nothing."""

    def ended(self, model: str, status: str, error_code: str, *, test: bool) -> None:
        """Nothing."""

    def refused(self, code: str) -> None:
        """Nothing."""
